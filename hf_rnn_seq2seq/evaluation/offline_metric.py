"""What the metrics share: `evaluate.Metric` without a network, and with arguments that are checked.

The metrics of text are in `metrics.py`, those of labels in `classification_metrics.py`. Needs the extra `metrics`;
imports nothing of this package.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any


try:
    import evaluate
    from datasets import Features, Value
    from datasets import Sequence as SequenceFeature
except ImportError as error:
    raise ImportError(f"metrics: {error}; they need pip install 'hf_rnn_seq2seq[metrics]'") from error


_INPUTS = """
Args:
    predictions (`list[str]`): what the model gave, one string an item.
    references (`list[list[str]]` or `list[str]`): the accepted answers of each item; items may differ in their number.
"""


class OfflineMetric(evaluate.Metric):
    """What all metrics share: arguments checked before anything is stored, and no clash between processes.

    The stock class writes the items to a file under `HF_METRICS_CACHE` whose name is the same in all processes, and
    keeps half-written items after an error. Here the items stay in memory, unless the items themselves come from
    several processes.

    Args:
        num_process (`int`, *optional*, defaults to 1): number of processes that each hold a share of the items.
        process_id (`int`, *optional*, defaults to 0): which of them this one is; only process 0 gets a result.
        experiment_id (`str`, *optional*): a name that these processes share and nobody else on the file system uses.
            Needed with several processes; otherwise a random one is taken.
        cache_dir (`str`, *optional*): folder for the items of several processes, `HF_METRICS_CACHE` by default.
    """

    _description: str
    _citation: str = ""
    _inputs: str = _INPUTS

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
        super().__init__(
            keep_in_memory=num_process == 1,
            cache_dir=cache_dir,
            num_process=num_process,
            process_id=process_id,
            experiment_id=experiment_id or uuid.uuid4().hex,
        )

    def _features(self) -> Features:
        return Features({"predictions": Value("string"), "references": SequenceFeature(Value("string"))})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._description,
            citation=self._citation,
            inputs_description=self._inputs,
            features=self._features(),
        )

    def _build_data_dir(self) -> str:
        # The stock class makes a folder even if it writes nothing into it.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        """Checks a batch and brings it into the stored form: (prediction, list of references) for each item."""
        for index, prediction in enumerate(predictions):
            if not isinstance(prediction, str):
                raise TypeError(f"predictions[{index}] must be a string, got {show(prediction)}")
        return predictions, [_as_references(item, index) for index, item in enumerate(references)]

    def add_batch(self, *, predictions: Iterable[Any] | None = None, references: Iterable[Any] | None = None) -> None:
        """Adds a batch of predictions with their references; `compute()` without arguments then counts all of them."""
        if predictions is None or references is None:
            raise ValueError(f"{self.name}: predictions and references must be given, got None for one of them")
        if isinstance(predictions, str) or isinstance(references, str):
            raise TypeError(f"{self.name}: predictions and references must be lists, got a single string")
        prediction_list, reference_list = list(predictions), list(references)
        if len(prediction_list) != len(reference_list):
            raise ValueError(
                f"{self.name}: predictions and references must have the same length, "
                f"got {len(prediction_list)} predictions and {len(reference_list)} references"
            )
        if not prediction_list:
            raise ValueError(f"{self.name}: predictions must hold at least one item, got an empty list")
        prediction_list, reference_list = self._normalize(prediction_list, reference_list)
        super().add_batch(predictions=prediction_list, references=reference_list)

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Adds one prediction with its references."""
        if prediction is None or reference is None:
            raise ValueError(f"{self.name}: prediction and reference must be given, got None for one of them")
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(
        self, *, predictions: Iterable[Any] | None = None, references: Iterable[Any] | None = None
    ) -> dict[str, Any] | None:
        """Computes the metric over what was added before and the items given here.

        Returns:
            `dict` with the metric under its recipe name; None in a process other than process 0.

        Raises:
            ValueError: no items at all, lists of unequal lengths, an item without references.
            TypeError: an item of another type than the metric's.
        """
        if predictions is None and references is None and len(self) == 0:
            raise ValueError(f"{self.name}: nothing to compute, predictions and references are missing")
        result: dict[str, Any] | None = super().compute(predictions=predictions, references=references)
        return result


def show(value: object) -> str:
    """Type and value for a message, cut to 80 characters."""
    text = repr(value)
    return f"{type(value).__name__}: {text if len(text) <= 80 else text[:77] + '...'}"


def _as_references(item: Any, index: int) -> list[str]:
    if isinstance(item, str):
        return [item]
    if not isinstance(item, Iterable):
        raise TypeError(f"references[{index}] must be a string or a list of strings, got {show(item)}")
    references = list(item)
    if not references:
        raise ValueError(f"references[{index}] must hold at least one reference, got an empty list")
    for reference in references:
        if not isinstance(reference, str):
            raise TypeError(f"references[{index}] must be a string or a list of strings, got {show(item)}")
    return references
