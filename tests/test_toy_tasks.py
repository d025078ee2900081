"""The models learn: every structure fits one batch, and copying and reversing are solved on sequences never seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import STRUCTURES, padded_batch, random_ids, tiny_config, trim
from torch import Tensor

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration


Model = RnnSeq2SeqForConditionalGeneration
WIDE = {"embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32, "readout_size": None}


def wanted_symbols(labels: Tensor) -> list[list[int]]:
    return [[symbol for symbol in row if symbol != -100] for row in labels.tolist()]


def written_symbols(model: Model, source: dict[str, Tensor], longest: int) -> list[list[int]]:
    sequences = model.eval().generate(**source, do_sample=False, max_new_tokens=longest)
    return [trim(row)[1:] for row in sequences]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_fits_one_batch(structure: str) -> None:
    torch.manual_seed(0)
    model = Model(tiny_config(structure, **WIDE)).train()
    batch = padded_batch("right", [5, 3, 6, 2], 6)
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    labels = random_ids(4, 5)
    labels[:, 4] = 3
    labels[1, 2:] = torch.tensor([3, -100, -100])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        loss = model(**source, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.1
    assert written_symbols(model, source, 5) == wanted_symbols(labels)


def toy_batch(task: str, rows: int, longest: int, held_out: bool, generator: torch.Generator) -> dict[str, Tensor]:
    """Sources of 1 to `longest` symbols and their copies or mirror images; every fifth sequence is held out."""
    ids = torch.randint(4, 12, (rows * 8, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (rows * 8, 1), generator=generator)
    real = torch.arange(longest) < lengths
    chosen = (((ids * real).sum(1) % 5 == 0) == held_out).nonzero()[:rows, 0]
    assert len(chosen) == rows
    input_ids = torch.full((rows, longest), 1)
    labels = torch.full((rows, longest + 1), -100)
    for row, n in enumerate(chosen.tolist()):
        symbols = ids[n, real[n]]
        input_ids[row, : len(symbols)] = symbols
        labels[row, : len(symbols)] = symbols if task == "copy" else symbols.flip(0)
        labels[row, len(symbols)] = 3
    return {"input_ids": input_ids, "attention_mask": (input_ids != 1).long(), "labels": labels}


ATTENTION = {"attention_type": "general", "rnn_type": "gru"}
BAHDANAU = {"attention_type": "additive", "attention_query": "previous_state", "rnn_type": "lstm"}
FIXED = {"attention_type": "none", "context_feeding": "both", "rnn_type": "gru", "bidirectional_encoder": False}


@pytest.mark.parametrize(
    ("task", "structure", "longest", "steps"),
    [
        ("copy", ATTENTION, 5, 250),
        ("reverse", BAHDANAU, 5, 250),
        ("copy", FIXED, 3, 300),
        ("reverse", FIXED, 3, 300),
        pytest.param("reverse", {**ATTENTION, "rnn_type": "rnn_tanh"}, 10, 1500, marks=pytest.mark.slow),
        pytest.param("reverse", FIXED, 5, 1500, marks=pytest.mark.slow),
    ],
    ids=["copy_attention", "reverse_attention", "copy_fixed", "reverse_fixed", "long_reverse", "long_reverse_fixed"],
)
def test_toy_tasks_are_solved_on_sequences_never_seen(
    task: str, structure: dict[str, Any], longest: int, steps: int
) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    sizes = {"embedding_size": 16, "encoder_hidden_size": 64, "decoder_hidden_size": 64}
    model = Model(tiny_config(**{**sizes, "encoder_layers": 1, "decoder_layers": 1, **structure})).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for _ in range(steps):
        loss = model(**toy_batch(task, 32, longest, held_out=False, generator=generator)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    test = toy_batch(task, 200, longest, held_out=True, generator=generator)
    labels = test.pop("labels")
    assert written_symbols(model, test, longest + 1) == wanted_symbols(labels)
