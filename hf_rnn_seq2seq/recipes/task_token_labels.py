"""One label per input vector as a task: tagging of words, by a softmax or a CRF (Huang et al. 2015).

A sentence is read as its tokens joined by blanks, so that `pipeline("token-classification")` on such a text sees what
the training saw. Where a tokenizer cuts a word into pieces, the label is that of the first piece. Needs the extras
`train` and `metrics`; must not be imported by the model files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..data.files import TOKENS_HEADER, DataError, table_line
from ..data.labels import TokenLabelDataOptions
from ..evaluation.classifier_ensemble import RnnSeq2SeqTokenClassificationEnsemble
from ..evaluation.decoding import IGNORE_INDEX
from ..model.modeling_classification import RnnSeq2SeqForTokenClassification
from .recipe import RecipeKind
from .task_labels import (
    ClassificationTask,
    ClassifierTokenizerOptions,
    PretrainedOptions,
)


if TYPE_CHECKING:
    from datasets import Dataset


class TokenClassificationTask(ClassificationTask):
    """A label for each word of a sentence."""

    kind = RecipeKind(TokenLabelDataOptions, ClassifierTokenizerOptions, more={"pretrained": PretrainedOptions})
    model_class = RnnSeq2SeqForTokenClassification
    ensemble_class = RnnSeq2SeqTokenClassificationEnsemble
    model: RnnSeq2SeqForTokenClassification | RnnSeq2SeqTokenClassificationEnsemble

    def texts(self, split: Dataset) -> list[str]:
        return [" ".join(tokens) for tokens in split["tokens"]]

    def references(self, split: Dataset) -> list[list[str]]:
        return list(split["labels"])

    def word_starts(self, split: Dataset, name: str) -> list[list[int]]:
        """For each sentence the number of the token that each word begins with.

        Raises:
            DataError: nothing is left of a word, for instance after Unicode normalisation.
        """
        inputs = self.tokenizer(self.texts(split))
        found: list[list[int]] = []
        for row, words in enumerate(split["tokens"]):
            starts: list[int] = []
            place = 0
            for word in words:
                # The first character that is no white space: a tokenizer drops the others.
                start = inputs.char_to_token(row, place + len(word) - len(word.lstrip()))
                if start is None or (starts and start <= starts[-1]):
                    raise DataError(f"{name}: sentence {row + 1}: the tokenizer has no token for the word {word!r}")
                starts.append(start)
                place += len(word) + 1
            found.append(starts)
        return found

    def encode(self, split: Dataset, name: str) -> Dataset:
        rows = self.tokenize(self.texts(split), name)
        ids = self.label2id
        for row, starts, labels in zip(rows, self.word_starts(split, name), split["labels"], strict=True):
            row["labels"] = [IGNORE_INDEX] * len(row["input_ids"])
            for start, label in zip(starts, labels, strict=True):
                row["labels"][start] = ids.get(label, IGNORE_INDEX)
        return type(split).from_list(rows)

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        labels = [label for row in rows for label in row["labels"]]
        batch = self.pad([{name: value for name, value in row.items() if name != "labels"} for row in rows])
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORE_INDEX)
        batch["labels"][batch["attention_mask"].bool()] = torch.tensor(labels)
        return batch

    def predict(self, split: Dataset) -> list[list[str]]:
        names = self.id2label
        starts = self.word_starts(split, "prediction")
        predicted: list[list[str]] = [[]] * len(split)
        for rows, inputs in self.batches(self.tokenize(self.texts(split), "prediction")):
            for row, labels in zip(rows, self.model.decode(**inputs).tolist(), strict=True):
                predicted[row] = [names[labels[start]] for start in starts[row]]
        return predicted

    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """One line a word, and a blank line after each sentence."""
        yield table_line(TOKENS_HEADER)
        for words, labels, guesses in zip(split["tokens"], split["labels"], predicted, strict=True):
            for fields in zip(words, labels, guesses, strict=True):
                yield table_line(fields)
            yield "\n"
