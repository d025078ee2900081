"""Files to records, and records to ids, vectors and values."""

from .doors import door


__all__, __getattr__ = door(
    __name__,
    {
        "files": "DataError",
        "pairs": "DataOptions load_data encode_sources encode_dataset evaluation_items",
        "labels": "TokenLabelDataOptions SequenceLabelDataOptions load_labelled_data label_map",
        "speech": "SpeechDataOptions load_speech_data JoinOptions",
        "values": "ValueDataOptions load_value_data",
        "windows": "ForecastDataOptions ForecastWindows load_windows",
        "tables": "TableOptions Series read_table",
        "splits": "HoldoutOptions",
        "toy": "ToyOptions",
        "tokenizers": "TokenizerOptions train_tokenizer save_tokenizers load_tokenizers",
        "slots": "unknown_words encode_with_slots decode_with_slots tokens_with_slots",
        "word_vectors": "set_word_vectors load_word_vectors",
        "preprocessing": "Preprocessing",
        "processors": "save_processor",
    },
)
