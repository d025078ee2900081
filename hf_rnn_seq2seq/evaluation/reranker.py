"""Reranking by slots: hypotheses that leave out or make up what a source says go behind (Dusek & Jurcicek 2016).

A classifier of several labels reads a hypothesis and says which slots are in it; those of the source are found in it
by a regular expression. A hypothesis loses `penalty` from its score for each slot in which the two differ, their
Hamming distance. Needs torch and transformers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ..data.files import DataError, read_object
from ..data.outputs import write_json
from ..data.preprocessing import Preprocessing
from ..data.tokenizers import load_tokenizers
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification
from .decoding import Hypothesis
from .saved_model import load_model


RERANKER_FOLDER = "reranker"  # beside a model
_FILE = "reranker.json"


def slots_of(sources: Sequence[str], pattern: str, preprocessing: Preprocessing) -> list[frozenset[str]]:
    """Return the slots of each source that `Preprocessing.text` gave, with placeholders: what the pattern finds.

    A slot is the pattern's groups that took part, with blanks between, or the whole match if it has none.
    """
    found = (re.finditer(pattern, source) for source in preprocessing.delexicalised(sources))
    return [
        frozenset(" ".join(filter(None, match.groups())) if match.re.groups else match[0] for match in matches)
        for matches in found
    ]


@dataclass
class SlotReranker:
    """A classifier of the slots of texts, and how slots are found in a source.

    Args:
        model: gives several labels a text (`problem_type` multi_label_classification), which are slots.
        tokenizer: of the texts.
        slots: regular expression that finds the slots in a source, see `slots_of`.
        penalty: what a hypothesis loses for each slot that is missing or too much; as large as 100, it goes before
            every difference of log-probabilities.
        preprocessing: the placeholders that the classifier reads in the place of values.
        batch_size: texts classified at a time.

    Raises:
        ValueError: the model gives one label a text, or values.
    """

    model: RnnSeq2SeqForSequenceClassification
    tokenizer: PreTrainedTokenizerFast
    slots: str
    penalty: float = 100.0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    batch_size: int = 64

    def __post_init__(self) -> None:
        problem = self.model.config.problem_type
        if problem != "multi_label_classification":
            raise ValueError(f"model: its problem_type is {problem!r}, wanted 'multi_label_classification'")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SlotReranker:
        """Load what `save_pretrained` wrote; DataError if it is something else."""
        path = Path(folder) / _FILE
        if not path.is_file():
            raise DataError(f"{folder} holds no {_FILE}: wanted the folder of a reranker")
        options = read_object(path)
        slots, penalty = options.get("slots"), options.get("penalty")
        if not isinstance(slots, str) or isinstance(penalty, bool) or not isinstance(penalty, int | float):
            raise DataError(f"{path}: got {options!r:.80}, wanted slots, a regular expression, and penalty, a number")
        try:
            re.compile(slots)
        except re.error as error:
            raise DataError(f"{path}: slots: got {slots!r}: {error}") from error
        model = load_model(RnnSeq2SeqForSequenceClassification, folder)
        tokenizer, _ = load_tokenizers(folder)
        return cls(model, tokenizer, slots, penalty, Preprocessing.load(folder) or Preprocessing())

    def save_pretrained(self, folder: str | Path) -> None:
        """Save classifier, tokenizer and options in a folder."""
        self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        self.preprocessing.save(folder)
        write_json(Path(folder) / _FILE, {"slots": self.slots, "penalty": self.penalty})

    @torch.no_grad()
    def found(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """Return the slots that the classifier finds in texts, which have placeholders; none in a blank one."""
        known: dict[str, frozenset[str]] = {text: frozenset() for text in texts}
        order = sorted((text for text in known if text.strip()), key=len)
        self.model.eval()
        labels: Any = self.model.config.id2label
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            inputs: Any = self.tokenizer(part, padding=True, return_tensors="pt").to(self.model.device)
            for text, scores in zip(part, self.model(**inputs).logits.tolist(), strict=True):  # (B, C)
                known[text] = frozenset(labels[n] for n, score in enumerate(scores) if score > 0)
        return [known[text] for text in texts]

    def distances(self, sources: Sequence[str], ranked: Sequence[Sequence[Hypothesis]]) -> list[list[int]]:
        """Return for each hypothesis how many slots of its source are missing, or stand in it alone.

        Slots that the classifier has no label for are not looked at.
        """
        labels = frozenset((self.model.config.id2label or {}).values())
        wanted = slots_of(sources, self.slots, self.preprocessing)
        pairs = [(source, found.text) for source, own in zip(sources, ranked, strict=True) for found in own]
        texts = self.preprocessing.delexicalised([source for source, _ in pairs], [text for _, text in pairs])
        found = iter(self.found(texts))
        return [[len((slots & labels) ^ next(found)) for _ in own] for slots, own in zip(wanted, ranked, strict=True)]

    def __call__(
        self, sources: Sequence[str], ranked: Sequence[Sequence[Hypothesis]], length_penalty: float | None = None
    ) -> list[list[Hypothesis]]:
        """Return n-best lists in the order of their scores less the penalties; of equal ones as they were.

        Args:
            sources: as `Preprocessing.text` gave them.
            ranked: the hypotheses of each, with log-probabilities.
            length_penalty: that of the search: its score is the log-probability / length ** length_penalty; None: 1.

        Raises:
            ValueError: a hypothesis has no log-probability.
        """
        reordered = []
        for own, distances in zip(ranked, self.distances(sources, ranked), strict=True):
            keyed = []
            for hypothesis, distance in zip(own, distances, strict=True):
                if hypothesis.score is None:
                    raise ValueError("ranked: a hypothesis has no score, wanted those of decode(with_scores=True)")
                score = hypothesis.score / (len(hypothesis.tokens) + 1) ** (
                    1.0 if length_penalty is None else length_penalty
                )
                keyed.append((self.penalty * distance - score, hypothesis))
            reordered.append([hypothesis for _, hypothesis in sorted(keyed, key=lambda pair: pair[0])])
        return reordered
