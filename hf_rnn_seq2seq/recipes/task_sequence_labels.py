"""One label for the whole sequence as a task: sentiment, intent, kind of question.

Needs the extras `train` and `metrics`; must not be imported by the model files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..data.files import TEXTS_HEADER, table_line
from ..data.labels import SequenceLabelDataOptions
from ..evaluation.classifier_ensemble import RnnSeq2SeqSequenceClassificationEnsemble
from ..evaluation.decoding import IGNORE_INDEX
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification
from .recipe import RecipeKind
from .task_labels import (
    ClassificationTask,
    ClassifierTokenizerOptions,
    PretrainedOptions,
)


if TYPE_CHECKING:
    from datasets import Dataset


class SequenceClassificationTask(ClassificationTask):
    """One label for each text."""

    kind = RecipeKind(SequenceLabelDataOptions, ClassifierTokenizerOptions, more={"pretrained": PretrainedOptions})
    model_class = RnnSeq2SeqForSequenceClassification
    ensemble_class = RnnSeq2SeqSequenceClassificationEnsemble
    model: RnnSeq2SeqForSequenceClassification | RnnSeq2SeqSequenceClassificationEnsemble

    def texts(self, split: Dataset) -> list[str]:
        return list(split["text"])

    def references(self, split: Dataset) -> list[str]:
        return list(split["label"])

    def encode(self, split: Dataset, name: str) -> Dataset:
        rows = self.tokenize(self.texts(split), name)
        ids = self.label2id
        for row, label in zip(rows, split["label"], strict=True):
            row["labels"] = ids.get(label, IGNORE_INDEX)
        return type(split).from_list(rows)

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        return self.pad(rows)

    def predict(self, split: Dataset) -> list[str]:
        names = self.id2label
        predicted = [""] * len(split)
        for rows, inputs in self.batches(self.tokenize(self.texts(split), "prediction")):
            for row, label in zip(rows, self.model(**inputs).logits.argmax(-1).tolist(), strict=True):
                predicted[row] = names[label]
        return predicted

    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """One line a text."""
        yield table_line(TEXTS_HEADER)
        for fields in zip(split["text"], split["label"], predicted, strict=True):
            yield table_line(fields)
