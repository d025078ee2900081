"""Labels of words and of texts by a saved or trained classifier: what the tasks and `predict` share.

A sentence is read as its words joined by blanks, so that `pipeline("token-classification")` on such a text sees what
the training saw. Where a tokenizer cuts a word into pieces, the label is that of the first piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import DataError


class Labeller:
    """A classifier, or an ensemble of several, with its tokenizer, labelling `batch_size` texts at a time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    @property
    def id2label(self) -> dict[int, str]:
        """Number -> label of the model."""
        return cast("dict[int, str]", self.model.config.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """Label -> number of the model."""
        return cast("dict[str, int]", self.model.config.label2id)

    def pad(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of the model's inputs, padded, as tensors; `labels` of one number a row may be among them.

        The tokenizer could pad the characters too, but making a tensor of its nested lists takes half as long as
        training on it.
        """
        words = [row.pop("character_ids") for row in rows if "character_ids" in row]
        batch: dict[str, torch.Tensor] = dict(DataCollatorWithPadding(self.tokenizer)(rows))
        if words:
            real = batch["attention_mask"].bool()
            lengths = torch.zeros_like(batch["input_ids"])
            lengths[real] = torch.tensor([len(word) for row in words for word in row])
            places = torch.arange(int(lengths.max()))
            characters = torch.full((*real.shape, len(places)), cast("int", self.tokenizer.pad_token_id))
            characters[places < lengths[..., None]] = torch.tensor([c for row in words for word in row for c in word])
            batch["character_ids"] = characters
        return batch

    def batches(self, encoded: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Yield the rows of batches, and the model's inputs, in evaluation mode; rows of like length go together."""
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]["input_ids"]))
        training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = self.pad([dict(encoded[row]) for row in rows])
                with torch.no_grad():
                    yield rows, {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        finally:
            self.model.train(training)

    def tokenize(self, texts: list[str], name: str) -> list[dict[str, Any]]:
        """Return the model's inputs of each text, neither padded nor tensors; a text without a token is refused."""
        inputs = self.tokenizer(texts)
        rows = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), start=1):
            if not row["input_ids"]:
                raise DataError(f"{name}: item {number} has no token: {text!r}")
        return rows

    def word_starts(self, sentences: Sequence[Sequence[str]], name: str) -> list[list[int]]:
        """Return for each sentence the number of the token that each word begins with.

        Nothing may be left of a word, for instance after Unicode normalisation: that is a DataError.
        """
        inputs = self.tokenizer([" ".join(words) for words in sentences])
        found: list[list[int]] = []
        for row, words in enumerate(sentences):
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

    def tags(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return a label for each word of each sentence."""
        starts = self.word_starts(sentences, "prediction")
        tags: list[list[str]] = [[]] * len(sentences)
        inputs = self.tokenize([" ".join(words) for words in sentences], "prediction")
        for rows, batch in self.batches(inputs):
            for row, labels in zip(rows, cast("Any", self.model).decode(**batch).tolist(), strict=True):
                tags[row] = [self.id2label[labels[start]] for start in starts[row]]
        return tags

    def classes(self, texts: Sequence[str], number: int = 1) -> list[list[tuple[str, float]]]:
        """Return the `number` likeliest labels of each text, best first, and their natural log-probabilities."""
        classes: list[list[tuple[str, float]]] = [[]] * len(texts)
        for rows, batch in self.batches(self.tokenize(list(texts), "prediction")):
            logits = self.model(**batch).logits.float()
            # Stable, so that of equal ones (in half precision) the first comes first, as argmax has it.
            labels = logits.sort(dim=-1, descending=True, stable=True).indices[:, :number]  # (B, number)
            scores = logits.log_softmax(-1).gather(-1, labels)
            for row, values, ids in zip(rows, scores.tolist(), labels.tolist(), strict=True):
                classes[row] = [(self.id2label[label], value) for label, value in zip(ids, values, strict=True)]
        return classes
