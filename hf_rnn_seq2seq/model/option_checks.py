"""Parts of what `RnnSeq2SeqConfig` refuses: options that the input has no use for, and options that change nothing.

This file travels to the Hub with a saved model: it imports only the standard library.
"""

from collections.abc import Iterator
from typing import Any


def vector_input_contradictions(config: Any) -> Iterator[tuple[str, str]]:
    """Pairs (what is wrong, what to change) of the options that ask what the input is, and do not fit it."""
    if config.input_feature_size is None:
        if config.time_reduction > 1:
            yield (
                f"time_reduction={config.time_reduction} makes a sequence of vectors shorter, got token ids as "
                "input (input_feature_size=None)",
                "give input_feature_size, or set time_reduction=1",
            )
        if config.ctc_weight > 0:
            yield (
                f"ctc_weight={config.ctc_weight} is for a model that reads vectors, got input_feature_size=None",
                "give input_feature_size, or set ctc_weight=0",
            )
        return
    for name in ("share_embeddings", "use_copy", "character_vocab_size", "token_dropout"):
        if getattr(config, name):
            yield (
                f"{name}={getattr(config, name)} needs source symbols, got vectors as input "
                f"(input_feature_size={config.input_feature_size})",
                f"leave {name} out, or leave input_feature_size out",
            )
    if config.ctc_weight > 0 and config.pad_token_id is None:
        yield (
            f"ctc_weight={config.ctc_weight} needs a blank, which is pad_token_id, got pad_token_id=None",
            "give pad_token_id, or set ctc_weight=0",
        )


def options_without_effect(config: Any) -> Iterator[tuple[str, str]]:
    """Pairs (what is wrong, what to change) of the options that change nothing, since nothing reads what they make."""
    attends = config.attention_type != "none"
    if attends and config.attention_query == "new_state" and config.readout_type == "none" and not config.use_copy:
        yield (
            f"readout_type='none' leaves nothing that reads the attention, got attention_type="
            f"{config.attention_type!r} with attention_query='new_state' and use_copy=False",
            "set readout_type='tanh' or 'maxout', attention_query='previous_state', or attention_type='none'",
        )
    if attends and config.bridge_type == "zeros" and not config.feeds_context and config.context_vector != "last":
        yield (
            f"context_vector={config.context_vector!r} is read by nothing, got bridge_type='zeros' and "
            "context_feeding='initial_state'",
            "leave context_vector out, choose another bridge_type, or set context_feeding='every_step'",
        )
    # A layer that reduces time has no residual: as many from the second on as time_reduction has halvings.
    if config.residual and config.decoder_layers == 1 and config.encoder_layers <= config.time_reduction.bit_length():
        yield (
            "residual=True adds to a layer's output what the layer below gave, got no layer that can: "
            f"encoder_layers={config.encoder_layers}, time_reduction={config.time_reduction} and decoder_layers=1",
            "leave residual out, or give one side more layers",
        )
