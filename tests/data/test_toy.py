"""Toy tasks are what they say, and the models learn: one batch, and copying and reversing on sequences never seen."""

from __future__ import annotations

import dataclasses
import re
from datetime import date
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import STRUCTURES, padded_batch, random_ids, tiny_config, trim
from torch import Tensor

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.toy import ToyOptions, toy_pairs


Model = RnnSeq2SeqForConditionalGeneration
WIDE = {"embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32, "readout_size": None}


@settings(max_examples=20, deadline=None)
@given(
    symbols=st.integers(3, 26),
    shortest=st.integers(1, 4),
    more=st.integers(3, 6),
    task=st.sampled_from(["copy", "reverse", "sort", "capital"]),
)
def test_string_tasks_are_what_they_say(symbols: int, shortest: int, more: int, task: str) -> None:
    options = ToyOptions(symbols, shortest, shortest + more, train=30, validation=5, test=5, test_longer=10)
    pairs = toy_pairs(task, options)
    sizes = {"train": 30, "validation": 5, "test": 5, "test_longer": 10}
    assert {split: len(rows) for split, rows in pairs.items()} == sizes
    every = [pair for rows in pairs.values() for pair in rows]
    assert len({source for source, _ in every}) == len(every)
    for source, target in every:
        capitals = re.sub("[a-z]", "", source)
        assert len(capitals) == (task == "capital")
        wanted = {"copy": source, "reverse": source[::-1], "sort": "".join(sorted(source)), "capital": capitals}
        assert target == wanted[task]
    trained = [len(source) for split in ("train", "validation", "test") for source, _ in pairs[split]]
    assert shortest <= min(trained) and max(trained) <= shortest + more
    longer = [len(source) for source, _ in pairs["test_longer"]]
    assert shortest + more < min(longer) and max(longer) <= 2 * (shortest + more)
    assert toy_pairs(task, options) == pairs
    # The longer strings do not change the others.
    assert {
        **toy_pairs(task, dataclasses.replace(options, test_longer=0)),
        "test_longer": pairs["test_longer"],
    } == pairs


def test_the_longer_strings_have_lengths_of_their_own() -> None:
    options = ToyOptions(train=5, validation=5, test=5, test_longer=50, longer_min_length=20, longer_max_length=21)
    assert {len(source) for source, _ in toy_pairs("copy", options)["test_longer"]} == {20, 21}
    assert "test_longer" not in toy_pairs("copy", ToyOptions(train=5, validation=5, test=5))


def read_date(text: str) -> date:
    """An independent reading of the formats: by the words and numbers found, not by the format."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    names = [word[:3] for word in re.findall(r"[a-z]+", text.lower())]
    months = [MONTHS.index(name) + 1 for name in names if name in MONTHS]
    if re.fullmatch(r"\d{8}", text):
        year, month, day = int(text[:4]), int(text[4:6]), int(text[6:])
    elif months:
        (month,), (day, year) = months, numbers
    elif re.match(r"\d{4}/", text):
        year, month, day = numbers
    elif "/" in text:
        month, day, year = numbers
    else:
        day, month, year = numbers
    found = date(year if year > 99 else 2000 + year if year < 50 else 1900 + year, month, day)
    weekdays = [WEEKDAYS.index(name) for name in names if name in WEEKDAYS]
    assert weekdays in ([], [found.weekday()])
    return found


MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def test_dates_are_what_they_say() -> None:
    options = ToyOptions(train=3000, validation=100, test=100)
    pairs = toy_pairs("date", options)
    assert {split: len(rows) for split, rows in pairs.items()} == {"train": 3000, "validation": 100, "test": 100}
    every = [pair for rows in pairs.values() for pair in rows]
    for source, target in every:
        assert read_date(source).isoformat() == target, source
    # The splits share no day, and so no source.
    assert len({target for _, target in every}) == len({source for source, _ in every}) == len(every)
    # Every shape of a date that can be written: a digit for digits, a word for words.
    shapes = {re.sub(r"[a-z]+", "w", re.sub(r"\d+", "0", source.lower())) for source, _ in every}
    assert {"0 w 0", "w 0, 0", "0w w w 0", "w, 0w w w 0", "0.0.0", "0/0/0", "0-w-0", "0"} <= shapes
    assert {"1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th"} <= {
        word for source, _ in every for word in re.findall(r"\d+(?:st|nd|rd|th)", source.lower())
    }
    assert {int(target[:4]) for _, target in every} == set(range(1950, 2050))
    assert any(source.isupper() for source, _ in every) and any(source.islower() for source, _ in every)
    assert toy_pairs("date", options) == pairs


def test_impossible_toy_tasks_are_refused() -> None:
    with pytest.raises(DataError, match="no toy task 'add', wanted one of copy, reverse, sort, capital, date"):
        toy_pairs("add", ToyOptions())
    with pytest.raises(DataError, match=r"data\.toy: 4400 strings wanted, but only 62 exist"):
        toy_pairs("copy", ToyOptions(symbols=2, max_length=5))
    with pytest.raises(DataError, match=r"data\.toy: 50 strings wanted, but only 64 exist"):
        toy_pairs(
            "copy",
            ToyOptions(symbols=2, max_length=5, longer_max_length=6, test_longer=50, train=20, validation=1, test=1),
        )
    with pytest.raises(DataError, match=r"data\.toy: 40400 days wanted, but toy:date has only 36525"):
        toy_pairs("date", ToyOptions(train=40000))
    with pytest.raises(DataError, match=r"data\.toy\.test_longer: got 9 for toy:date"):
        toy_pairs("date", ToyOptions(test_longer=9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": 27}, "symbols: got 27"),
        ({"min_length": 9}, "max_length: got 8"),
        ({"test": 0}, "test: got 0, wanted at least 1"),
        ({"test_longer": -1}, "test_longer: got -1"),
        ({"longer_min_length": 8}, "longer_min_length: got 8, wanted more than max_length=8"),
        ({"longer_max_length": 8}, "longer_max_length: got 8, wanted at least longer_min_length=9"),
    ],
)
def test_toy_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ToyOptions(**options)


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
