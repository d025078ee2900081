"""Saved models, ensembles, decoding, scores, pictures of attention."""

from importlib import import_module
from typing import Any


_PUBLIC = {  # public name -> the file that defines it
    "load_model": "saved_model",
    "load_ensemble": "saved_model",
    "average_models": "saved_model",
    "RnnSeq2SeqEnsemble": "ensemble",
    "RnnSeq2SeqSpeechEnsemble": "speech_ensemble",
    "RnnSeq2SeqTokenClassificationEnsemble": "classifier_ensemble",
    "RnnSeq2SeqSequenceClassificationEnsemble": "classifier_ensemble",
    "Hypothesis": "decoding",
    "decode": "decoding",
    "target_log_probabilities": "decoding",
    "load_metric": "metrics",
    "plot_attention": "attention_plot",
    "plot_spectrogram": "spectrogram_plot",
    "GriffinLim": "sound",
    "write_wav": "sound",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
