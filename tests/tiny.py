"""Tiny models, and batches whose padding is anywhere: what the tests of the model files share.

The weights are random and large, biases included, so that no term of an equation is near zero and no test passes
because a model hardly reacts to its input. Padding holds random symbols, not the padding symbol: only a mask tells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration


SIZES: dict[str, Any] = {
    "vocab_size": 12,
    "embedding_size": 6,
    "encoder_hidden_size": 8,
    "decoder_hidden_size": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
}

# One of each kind: every cell, every context vector, feeding, bridge, attention, query and readout occurs.
STRUCTURES: dict[str, dict[str, Any]] = {
    "sutskever": {"rnn_type": "lstm", "attention_type": "none", "bidirectional_encoder": False},
    "cho": {"rnn_type": "gru", "attention_type": "none", "bidirectional_encoder": False, "encoder_layers": 1,
            "decoder_layers": 1, "context_feeding": "both", "bridge_type": "mlp", "readout_type": "maxout",
            "readout_size": 5},
    "every_step_mean": {"rnn_type": "rnn_tanh", "attention_type": "none", "context_feeding": "every_step",
                        "context_vector": "mean"},
    "both_max": {"rnn_type": "lstm", "attention_type": "none", "context_feeding": "both", "context_vector": "max",
                 "bridge_type": "linear", "readout_type": "tanh", "encoder_layers": 1, "decoder_hidden_size": 7},
    "bahdanau": {"rnn_type": "gru", "attention_type": "additive", "attention_query": "previous_state",
                 "bridge_type": "mlp", "readout_type": "maxout", "encoder_layers": 1, "decoder_layers": 1},
    "luong": {"rnn_type": "lstm", "attention_type": "general", "input_feeding": True},
    "dot": {"rnn_type": "rnn_tanh", "attention_type": "dot", "layer_norm": True, "residual": True,
            "decoder_layers": 3, "context_vector": "mean", "bridge_type": "copy"},
    "textbook": {"rnn_type": "rnn_tanh", "attention_type": "none", "context_feeding": "both", "bridge_type": "linear",
                 "feed_previous_token": False, "encoder_layers": 1, "decoder_layers": 1},
    "everything": {"rnn_type": "lstm", "attention_type": "additive", "attention_size": 5, "residual": True,
                   "attention_query": "previous_state", "input_feeding": True, "context_feeding": "both",
                   "context_vector": "mean", "bridge_type": "linear", "layer_norm": True, "share_embeddings": True,
                   "tie_word_embeddings": True, "encoder_layers": 3, "encoder_hidden_size": 10},
}  # fmt: skip
# Of text alone: nothing stands for the memory in it, no step attends, and transformers' own search runs it.
ALIGNING: dict[str, dict[str, Any]] = {
    "monotonic": {"rnn_type": "lstm", "attention_type": "hard_monotonic", "alignment_order": 1, "readout_size": 5,
                  "context_feeding": "both", "context_vector": "mean", "bridge_type": "mlp"},
}  # fmt: skip
ALL = {**STRUCTURES, **ALIGNING}
ATTENDING = [name for name, options in ALL.items() if options["attention_type"] != "none"]

PADDINGS = ("right", "left", "interior")

# Options of generate() under which a random model does not repeat one symbol for ever, nor write padding.
LIVELY: dict[str, Any] = {"do_sample": False, "no_repeat_ngram_size": 2, "suppress_tokens": [0, 1, 2]}


def tiny_config(structure: str | None = None, **options: Any) -> RnnSeq2SeqConfig:
    """A small configuration: one of `ALL` structures, or the default one, with `options` on top."""
    return RnnSeq2SeqConfig(**{**SIZES, **(ALL[structure] if structure else {}), **options})


def randomize(module: torch.nn.Module, scale: float = 0.5, seed: int = 0) -> None:
    """Every parameter normal with standard deviation `scale`, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
            parameter.copy_(values)


def tiny_model(
    structure: str | None = None, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> RnnSeq2SeqForConditionalGeneration:
    """A small model in evaluation mode, in double precision unless told otherwise."""
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(structure, **options))
    randomize(model, seed=seed)
    return model.to(dtype).eval()


class Batch(NamedTuple):
    """Sources of different length in one padded tensor, and each of them alone."""

    input_ids: Tensor  # (B, S)
    attention_mask: Tensor  # (B, S)
    rows: list[Tensor]  # of (1, length)


def padding_mask(kind: str, lengths: list[int], width: int, seed: int = 0) -> Tensor:
    """A mask (B, width) with `lengths` ones a row: to the left, to the right, or anywhere."""
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    for row, length in zip(mask, lengths, strict=True):
        if kind == "right":
            row[:length] = 1
        elif kind == "left":
            row[width - length :] = 1
        else:
            row[torch.randperm(width, generator=generator)[:length]] = 1
    return mask


def padded_batch(kind: str, lengths: list[int], width: int, vocab_size: int = 12, seed: int = 0) -> Batch:
    """Random sources of the given lengths, padded to `width` with random symbols."""
    generator = torch.Generator().manual_seed(seed)
    mask = padding_mask(kind, lengths, width, seed)
    ids = torch.randint(4, vocab_size, (len(lengths), width), generator=generator)
    return Batch(ids, mask, [row[real.bool()][None] for row, real in zip(ids, mask, strict=True)])


def random_ids(rows: int, width: int, vocab_size: int = 12, seed: int = 1) -> Tensor:
    """Random symbols (rows, width) without special ones."""
    return torch.randint(4, vocab_size, (rows, width), generator=torch.Generator().manual_seed(seed))


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter, zero where there is none; the model's own ones are cleared."""
    result = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return result


def trim(sequence: Tensor, pad_token_id: int = 1) -> list[int]:
    """A generated sequence without the padding behind it."""
    ids = sequence.tolist()
    while ids and ids[-1] == pad_token_id:
        ids.pop()
    return ids


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_step(rnn_type: str, x: np.ndarray, state: list[np.ndarray], weights: list[np.ndarray]) -> list[np.ndarray]:
    """One step of one sequence, from the papers' equations with one matrix a gate (torch's order of gates)."""
    w, u, b, d = (np.split(m, {"lstm": 4, "gru": 3, "rnn_tanh": 1}[rnn_type]) for m in weights)
    h = state[0]
    if rnn_type == "lstm":
        i = sigmoid(w[0] @ x + b[0] + u[0] @ h + d[0])
        f = sigmoid(w[1] @ x + b[1] + u[1] @ h + d[1])
        g = np.tanh(w[2] @ x + b[2] + u[2] @ h + d[2])
        o = sigmoid(w[3] @ x + b[3] + u[3] @ h + d[3])
        c = f * state[1] + i * g
        return [o * np.tanh(c), c]
    if rnn_type == "gru":
        r = sigmoid(w[0] @ x + b[0] + u[0] @ h + d[0])
        z = sigmoid(w[1] @ x + b[1] + u[1] @ h + d[1])
        n = np.tanh(w[2] @ x + b[2] + r * (u[2] @ h + d[2]))
        return [(1 - z) * n + z * h]
    return [np.tanh(w[0] @ x + b[0] + u[0] @ h + d[0])]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the twelve symbols of `SIZES`: special ones, then the letters a to h, one a symbol."""
    symbols = ["<unk>", "<pad>", "<s>", "</s>", *"abcdefgh"]
    backend = Tokenizer(models.WordLevel({symbol: n for n, symbol in enumerate(symbols)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
