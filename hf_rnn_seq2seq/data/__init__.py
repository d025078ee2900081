"""Files to records, and records to ids, vectors and values."""

from importlib import import_module
from typing import Any


_PUBLIC = {  # public name -> the file that defines it
    "DataError": "files",
    "DataOptions": "pairs",
    "load_data": "pairs",
    "encode_sources": "pairs",
    "encode_dataset": "pairs",
    "evaluation_items": "pairs",
    "TokenLabelDataOptions": "labels",
    "SequenceLabelDataOptions": "labels",
    "load_labelled_data": "labels",
    "label_map": "labels",
    "SpeechDataOptions": "speech",
    "load_speech_data": "speech",
    "SpeakDataOptions": "speak",
    "load_spoken_data": "speak",
    "ValueDataOptions": "values",
    "load_value_data": "values",
    "TableOptions": "tables",
    "Series": "tables",
    "read_table": "tables",
    "HoldoutOptions": "splits",
    "JoinOptions": "speech",
    "ToyOptions": "toy",
    "TokenizerOptions": "tokenizers",
    "train_tokenizer": "tokenizers",
    "save_tokenizers": "tokenizers",
    "load_tokenizers": "tokenizers",
    "unknown_words": "slots",
    "encode_with_slots": "slots",
    "decode_with_slots": "slots",
    "tokens_with_slots": "slots",
    "set_word_vectors": "word_vectors",
    "load_word_vectors": "word_vectors",
    "Preprocessing": "preprocessing",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
