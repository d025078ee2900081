"""Options of a recipe that are about other models than the one it trains: teachers, and a reranker."""

import re
from dataclasses import dataclass

from ..data.option_checks import check_range


@dataclass
class TeacherOptions:
    """Distillation (Kim & Rush 2016, sequence-level), of text to text: see `teaching.py`.

    Args:
        models: folders of saved models that answer the training sources; several are an ensemble.
        num_beams: width of their search.
        num_return_sequences: so many answers to each source, the best ones, become training pairs.
        keep_references: train on the references, too.
    """

    models: list[str]
    num_beams: int = 5
    num_return_sequences: int = 1
    keep_references: bool = True

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: got none, wanted at least one folder of a saved model")
        check_range(self, "num_beams", least=1, most=1000)
        check_range(self, "num_return_sequences", least=1, most=self.num_beams)


@dataclass
class RerankerOptions:
    """A classifier of the slots of texts, trained beside the model on the same data: see `evaluation/reranker.py`.

    The n best of a beam search are put in order by it; `generation.num_beams` has to be 2 or more.

    Args:
        slots: regular expression that finds the slots in a source: each match is one, or its groups with blanks
            between. Sources are as `data.source_replacements` and `data.delexicalised_slots` make them.
        penalty: what a hypothesis loses for each slot that is missing or too much.
        num_train_epochs: passes of the classifier over the training data.
        hidden_size: of its encoder, a bidirectional GRU, both directions together; embeddings have half as many.
    """

    slots: str
    penalty: float = 100.0
    num_train_epochs: int = 2
    hidden_size: int = 128

    def __post_init__(self) -> None:
        try:
            re.compile(self.slots)
        except re.error as error:
            raise ValueError(f"slots: got {self.slots!r}: {error}") from error
        check_range(self, "penalty", least=0)
        check_range(self, "num_train_epochs", least=1)
        check_range(self, "hidden_size", least=2)
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size: got {self.hidden_size}, wanted an even number")
