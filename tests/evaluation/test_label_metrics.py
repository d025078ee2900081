"""Metrics of labels against counts by hand: whole entities, every label, the mean over labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_rnn_seq2seq.evaluation.metrics import load_metric


def spans(labels: list[str]) -> set[tuple[str, int, int]]:
    """Entities as the CoNLL-2000 script finds them: (type, first, last)."""
    found, start = set(), None
    for place, label in enumerate([*labels, "O"]):
        mark, _, kind = label.partition("-")
        if start is not None and (mark != "I" or kind != start[0]):
            found.add((*start, place - 1))
            start = None
        if start is None and mark != "O":
            start = (kind, place)
    return found


LABELS = st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"])
PAIRS = st.lists(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_entities_are_those_of_conlleval(pairs: list[list[tuple[str, str]]]) -> None:
    predictions = [[predicted for predicted, _ in sentence] for sentence in pairs]
    references = [[wanted for _, wanted in sentence] for sentence in pairs]
    got = load_metric("entity_f1").compute(predictions=predictions, references=references)
    found, wanted = ([spans(labels) for labels in items] for items in (predictions, references))
    right = sum(len(a & b) for a, b in zip(found, wanted, strict=True))
    precision = right / max(1, sum(map(len, found)))
    recall = right / max(1, sum(map(len, wanted)))
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    assert got == {
        "entity_f1": pytest.approx(100 * f1),
        "entity_f1_precision": pytest.approx(100 * precision),
        "entity_f1_recall": pytest.approx(100 * recall),
    }


def test_a_scheme_may_be_required() -> None:
    items: dict[str, Any] = {"predictions": [["I-x", "O", "B-x"]], "references": [["I-x", "O", "B-x"]]}
    assert load_metric("entity_f1").compute(**items)["entity_f1"] == 100
    strict = load_metric("entity_f1", scheme="IOB2").compute(predictions=[["I-x", "B-x"]], references=[["B-x", "B-x"]])
    assert strict["entity_f1"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(ValueError, match=r"scheme must be one of IOB1, .* or None, got 'BIO'"):
        load_metric("entity_f1", scheme="BIO")


@pytest.mark.parametrize(
    ("predictions", "references"),
    [(["a", "b", "c", "a"], ["a", "c", "c", "b"]), ([["a", "b"], ["c", "a"]], [["a", "c"], ["c", "b"]])],
)
def test_one_label_an_item_or_several_are_counted_alike(predictions: list[Any], references: list[Any]) -> None:
    assert load_metric("accuracy").compute(predictions=predictions, references=references) == {"accuracy": 50.0}
    # a: 1 right of 2 predicted and 1 wanted; b: none; c: 1 right of 1 and 2.
    got = load_metric("macro_f1").compute(predictions=predictions, references=references)
    assert got == {"macro_f1": pytest.approx(100 * (2 / 3 + 0 + 2 / 3) / 3)}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "error", "message"),
    [
        ("accuracy", [["a", "b"]], [["a"]], ValueError, "item 0: got 2 predicted labels and 1 labels"),
        ("accuracy", ["a", 1], ["a", "b"], TypeError, r"predictions\[1\] must be a label, .* got int: 1"),
        ("macro_f1", [["a"]], [[3]], TypeError, r"references\[0\] must be a label"),
        ("macro_f1", [[]], [[]], ValueError, "references hold no label at all"),
        ("entity_f1", ["O"], ["O"], TypeError, r"item 0 must be a list of labels, got str: 'O'"),
    ],
)
def test_bad_items_are_named(
    name: str, predictions: list[Any], references: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_metric(name).compute(predictions=predictions, references=references)
