"""Tiny forecasters of every structure, and series for them: what several tests share."""

from __future__ import annotations

from typing import Any

import torch
from tiny import STRUCTURES, randomize
from torch import Tensor

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForTimeSeriesPrediction


# Of symbols, which a forecaster has not.
_OF_SYMBOLS = ("share_embeddings", "tie_word_embeddings", "feed_previous_token")
FORECASTING_STRUCTURES = {
    name: {option: value for option, value in options.items() if option not in _OF_SYMBOLS}
    for name, options in STRUCTURES.items()
}
PAST, AHEAD, CHANNELS = 8, 7, 2
# Segment by segment, all at once; each with all channels together or one by one.
WAYS: dict[str, dict[str, Any]] = {
    "stepwise": {"segment_length": 1},
    "segments": {"segment_length": 3, "window_normalization": "last"},
    "segments_by_channel": {"segment_length": 2, "channel_independence": True, "window_normalization": "instance"},
    "at_once": {"segment_length": 3, "decode_at_once": True},
    "at_once_by_channel": {"segment_length": 2, "decode_at_once": True, "channel_independence": True,
                           "window_normalization": "mean"},
}  # fmt: skip
FEATURES: dict[str, Any] = {
    "num_time_features": 2, "num_static_real_features": 1, "num_static_categorical_features": 1, "cardinality": [3],
}  # fmt: skip


def forecaster_config(structure: str | None = None, **options: Any) -> RnnSeq2SeqConfig:
    sizes = {
        "embedding_size": 6, "encoder_hidden_size": 8, "decoder_hidden_size": 8, "encoder_layers": 2,
        "decoder_layers": 2, "input_feature_size": CHANNELS, "prediction_length": AHEAD, "context_length": PAST,
    }  # fmt: skip
    return RnnSeq2SeqConfig(**{**sizes, **(FORECASTING_STRUCTURES[structure] if structure else {}), **options})


def forecaster(
    structure: str | None = None, dtype: torch.dtype = torch.float64, **options: Any
) -> RnnSeq2SeqForTimeSeriesPrediction:
    """A random forecaster in evaluation mode, of values with means and spreads of their own."""
    model = RnnSeq2SeqForTimeSeriesPrediction(forecaster_config(structure, **options))
    randomize(model)
    if model.config.distribution_output != "negative_binomial":
        channels = model.channels
        model.value_scale.mean.copy_(torch.arange(1, channels + 1) * 3.0)
        model.value_scale.std.copy_(torch.arange(1, channels + 1) * 0.5)
    return model.to(dtype).eval()


def series(
    rows: int = 3, past: int = PAST, features: bool = False, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs of a forecaster, without a future but its features."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator, dtype=dtype)

    inputs = {"past_values": normal(past, CHANNELS) * 2 + 4}
    if features:
        inputs["past_time_features"], inputs["future_time_features"] = normal(past, 2), normal(AHEAD, 2)
        inputs["static_real_features"] = normal(1)
        inputs["static_categorical_features"] = torch.arange(rows)[:, None] % 3
    return inputs


def futures(rows: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """What came after `series`."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, AHEAD, CHANNELS, generator=generator, dtype=dtype) * 2 + 4
