"""Metrics of labels as `evaluate.Metric` objects: accuracy, macro F1, and entity F1 as conlleval computes it.

Entities are found and counted by seqeval, which gives the numbers of the CoNLL-2000 script (Tjong Kim Sang &
Buchholz 2000); macro F1 is scikit-learn's. Values are in percent. Nothing of the model files is imported here: a
metric sees labels only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


try:
    from datasets import Features, Value
    from datasets import Sequence as SequenceFeature
    from seqeval.metrics import f1_score as entity_f1_score
    from seqeval.metrics import precision_score, recall_score
    from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2
    from sklearn.metrics import f1_score
except ImportError as error:
    raise ImportError(
        f"hf_rnn_seq2seq.evaluation.classification_metrics: {error}; install what it needs with "
        "pip install 'hf_rnn_seq2seq[metrics]'"
    ) from error
from .offline_metric import OfflineMetric, show


# The marks of each scheme. BILOU is picked by itself: L and U are in no other one.
_MARKS = {"IOB1": "BIO", "IOB2": "BIO", "IOE1": "EIO", "IOE2": "EIO", "IOBES": "BEIOS", "BILOU": "BILOU"}
_CONLLEVAL_MARKS = "BEIOS"
_SCHEMES = {scheme.__name__: scheme for scheme in (IOB1, IOB2, IOE1, IOE2, IOBES, BILOU)}


class _LabelMetric(OfflineMetric):
    """An item is one label, or the labels of a sequence; a reference has as many as its prediction."""

    _inputs = """
Args:
    predictions (`list[str]` or `list[list[str]]`): one label an item, or one for each position of each item.
    references: the same, and as many.
"""

    def _features(self) -> Features:
        labels = SequenceFeature(Value("string"))
        return Features({"predictions": labels, "references": labels})

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        predicted = [_labels(item, f"predictions[{index}]") for index, item in enumerate(predictions)]
        expected = [_labels(item, f"references[{index}]") for index, item in enumerate(references)]
        for index, (got, wanted) in enumerate(zip(predicted, expected, strict=True)):
            if len(got) != len(wanted):
                raise ValueError(
                    f"predictions[{index}] and references[{index}] must have the same length, got {len(got)} and "
                    f"{len(wanted)} labels"
                )
        return predicted, expected

    def _flat(self, predictions: list[list[str]], references: list[list[str]]) -> tuple[list[str], list[str]]:
        """All labels in one list each."""
        expected = [label for labels in references for label in labels]
        if not expected:
            raise ValueError(f"{self.name}: references hold no label at all")
        return [label for labels in predictions for label in labels], expected


def _labels(item: Any, name: str) -> list[str]:
    """One label or several, as a list."""
    if isinstance(item, str):
        return [item]
    labels = list(item) if isinstance(item, Iterable) else []
    if not isinstance(item, Iterable) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"{name} must be a label, which is a string, or a list of labels, got {show(item)}")
    return labels


class Accuracy(_LabelMetric):
    """Percentage of labels that equal the reference's; of sequences, every position counts the same.

    Result: `{"accuracy": percent}`.
    """

    _description = "Percentage of labels equal to the reference's."

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        predicted, expected = self._flat(predictions, references)
        right = sum(got == wanted for got, wanted in zip(predicted, expected, strict=True))
        return {"accuracy": 100.0 * right / len(expected)}


class MacroF1(_LabelMetric):
    """F1 of each label that occurs among references or predictions, and their plain mean: rare labels count in full.

    Result: `{"macro_f1": percent}`.
    """

    _description = "Mean of the labels' F1 scores in percent."

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        predicted, expected = self._flat(predictions, references)
        return {"macro_f1": 100.0 * float(f1_score(expected, predicted, average="macro", zero_division=0.0))}


class EntityF1(_LabelMetric):
    """F1 of whole entities: type, first and last position must all be right (CoNLL).

    Result: `{"entity_f1": percent, "entity_f1_precision": percent, "entity_f1_recall": percent}`. Without entities to
    divide by a number is 0.

    Args:
        scheme (`str`, *optional*): how entities are marked: IOB1, IOB2, IOE1, IOE2, IOBES or BILOU; marks that break
            the scheme begin no entity. Default: BILOU where a label is marked with L or U, otherwise as conlleval
            reads them, with B, I, E and S prefixes, where an I without a B before it begins an entity.
        **process_options: see the base class; the same for all metrics.
    """

    _description = "F1 of entities in percent, micro average, computed by seqeval."
    _citation = "Tjong Kim Sang & Buchholz (2000). Introduction to the CoNLL-2000 Shared Task: Chunking. CoNLL."
    _inputs = """
Args:
    predictions (`list[list[str]]`): labels such as B-LOC, I-LOC and O for each position of each item.
    references: the same, and as many.
"""

    def __init__(self, *, scheme: str | None = None, **process_options: Any) -> None:
        if scheme is not None and scheme not in _SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(_SCHEMES)} or None, got {scheme!r}")
        self._scheme = scheme
        super().__init__(**process_options)

    def scheme_of(self, labels: Iterable[str]) -> str | None:
        """The scheme in which labels are counted; `None`: conlleval's reading.

        Raises:
            ValueError: a label does not begin with a mark of the scheme, as `X-PER` does not, or marks of several
                schemes occur.
        """
        names = sorted(set(labels))
        marks = {label: label.partition("-")[0] for label in names}
        scheme = self._scheme or ("BILOU" if {"L", "U"} & set(marks.values()) else None)
        known = _CONLLEVAL_MARKS if scheme is None else _MARKS[scheme]
        for label, mark in marks.items():
            if len(mark) != 1 or mark not in known or (mark == "O") != (label == "O"):
                prefixes = ", ".join(f"{letter}-" for letter in known if letter != "O")
                raise ValueError(
                    f"entity_f1 got the label {label!r}, wanted O or labels that begin with {prefixes} "
                    f"({'conlleval' if scheme is None else scheme}); option scheme: one of {', '.join(_SCHEMES)}, or "
                    "use the metric accuracy or macro_f1"
                )
        return scheme

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        for name, items in (("predictions", predictions), ("references", references)):
            for index, item in enumerate(items):
                if isinstance(item, str):
                    raise TypeError(f"{name}[{index}] must be the list of an item's labels, got {show(item)}")
        return super()._normalize(predictions, references)

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        scheme = self.scheme_of(label for items in (predictions, references) for labels in items for label in labels)
        how = {} if scheme is None else {"mode": "strict", "scheme": _SCHEMES[scheme]}
        scores = {"": entity_f1_score, "_precision": precision_score, "_recall": recall_score}
        return {
            f"entity_f1{name}": 100.0 * float(score(references, predictions, average="micro", zero_division=0, **how))
            for name, score in scores.items()
        }
