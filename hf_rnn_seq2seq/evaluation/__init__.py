"""Saved models, ensembles, decoding, scores, pictures of attention."""

from ..data.doors import door


__all__, __getattr__ = door(
    __name__,
    {
        "saved_model": "load_model load_ensemble average_models",
        "ensemble": (
            "RnnSeq2SeqEnsemble RnnSeq2SeqSpeechEnsemble RnnSeq2SeqTokenClassificationEnsemble "
            "RnnSeq2SeqSequenceClassificationEnsemble RnnSeq2SeqTimeSeriesEnsemble"
        ),
        "reranker": "SlotReranker",
        "decoding": "Hypothesis decode target_log_probabilities",
        "metrics": "load_metric",
        "attention_plot": "plot_attention",
        "spectrogram_plot": "plot_spectrogram",
        "sound": "GriffinLim write_wav",
    },
)
