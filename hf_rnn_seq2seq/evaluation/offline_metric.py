"""The base of all metrics: `evaluate.Metric` objects that need no network, with arguments that are checked.

Needs the extra `metrics`.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterable
from typing import Any, ClassVar


try:
    import evaluate
    from datasets import Features, Value
    from datasets import Sequence as SequenceFeature
except ImportError as error:
    raise ImportError(f"metrics: {error}; they need pip install 'hf_rnn_seq2seq[metrics]'") from error


TEXT, TEXTS = Value("string"), SequenceFeature(Value("string"))


class OfflineMetric(evaluate.Metric):
    """The base of all metrics: arguments checked before anything is stored, and no clash between processes.

    The stock class writes the items to a file under `HF_METRICS_CACHE` whose name is the same in all processes, and
    keeps half-written items after an error. Here the items stay in memory, unless the items themselves come from
    several processes. An item of text has a string as its prediction and one or several strings as its references.

    Args:
        num_process (`int`, *optional*, defaults to 1): number of processes that each hold a share of the items; only
            that of `process_id` 0 gets a result.
        experiment_id (`str`, *optional*): a name that these processes share and nobody else on the file system uses.
            Needed with several processes; otherwise a random one is taken.
        process_id, cache_dir: as of `evaluate.Metric`; the folder is by default `HF_METRICS_CACHE`.
    """

    _features: ClassVar[Features] = Features({"predictions": TEXT, "references": TEXTS})

    def __init__(
        self,
        *,
        num_process: int = 1,
        process_id: int = 0,
        experiment_id: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if num_process > 1 and experiment_id is None:
            raise ValueError(
                f"num_process={num_process} needs an experiment_id, the same in these processes and used by no others"
            )
        experiment_id = experiment_id or uuid.uuid4().hex
        super().__init__(
            keep_in_memory=num_process == 1,
            num_process=num_process,
            process_id=process_id,
            experiment_id=experiment_id,
            cache_dir=cache_dir,
        )

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description=inspect.getdoc(self), citation="", features=self._features)

    def _build_data_dir(self) -> str:
        # The stock class makes a folder even if it writes nothing into it.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        """Check a batch, and return it as it is stored: for each item its prediction and its list of references."""
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, str):
                raise TypeError(f"predictions[{index}] must be a string, got {show(prediction)}")
        accepted = []
        for index, item in enumerate(references):
            accepted.append(strings(item, f"references[{index}]", "a string or a list of strings"))
            if not accepted[-1]:
                raise ValueError(f"references[{index}] must hold at least one reference, got an empty list")
        return predictions, accepted

    def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Any]) -> None:
        """Add predictions with their references; `compute()` without arguments then counts all of them."""
        for name, items in (("predictions", predictions), ("references", references)):
            if not isinstance(items, Iterable) or isinstance(items, str):
                raise TypeError(f"{self.name}: {name} must be a list, got {show(items)}")
        predictions, references = list(predictions), list(references)
        check_same_length(self.name, len(predictions), len(references), "predictions", "references")
        if not predictions:
            raise ValueError(f"{self.name}: predictions must hold at least one item, got an empty list")
        predictions, references = self._normalize(predictions, references)
        super().add_batch(predictions=predictions, references=references)

    def add(self, *, prediction: Any, reference: Any) -> None:
        """Add one prediction with its references."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, **items: Any) -> dict[str, Any] | None:
        """Compute the metric, under its recipe name, over what was added before and `predictions` and `references`.

        Raises:
            ValueError: no items at all, lists of unequal lengths, an item without references.
            TypeError: an item of another type than the metric's.
        """
        if len(self) == 0 and all(given is None for given in items.values()):
            raise ValueError(f"{self.name}: nothing to compute, predictions and references are missing")
        return super().compute(**items)


def show(value: object) -> str:
    """Return type and value for a message, cut to 80 characters."""
    text = repr(value)
    return f"{type(value).__name__}: {text if len(text) <= 80 else text[:77] + '...'}"


def strings(item: Any, name: str, wanted: str) -> list[str]:
    """Return a string, or several, as a list."""
    strings = list(item) if isinstance(item, Iterable) and not isinstance(item, str) else [item]
    if not all(isinstance(string, str) for string in strings):
        raise TypeError(f"{name} must be {wanted}, got {show(item)}")
    return strings


def check_same_length(name: str, predicted: int, expected: int, predictions: str, references: str) -> None:
    """Refuse lists of unequal lengths, of which these are the names in words."""
    if predicted != expected:
        raise ValueError(f"{name}: got {predicted} {predictions} and {expected} {references}, wanted as many")
