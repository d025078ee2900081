"""An exported forecaster, run with onnxruntime and numpy alone: neither torch nor transformers.

An export puts a copy of this file into the folder it writes, as `rnn_series_runtime.py`. A deployed program imports
the copy: `hf_rnn_seq2seq.sharing` has the same class, but loads torch through the package. Imports only what stands in
the copy.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .exported_folder import array_of, check_settings, opened, place_of, read_export


try:
    import onnxruntime
except ImportError as error:
    advice = "pip install onnxruntime numpy, or pip install 'hf_rnn_seq2seq[export]'"
    raise ImportError(f"the runtime needs onnxruntime: {advice}") from error


FORMATS = (1, 2)  # of the exported folder; a reader refuses others. 1: without a manifest
GRAPH, CONFIG, COPIED_AS = "series.onnx", "series_config.json", "rnn_series_runtime.py"


class RnnSeriesRuntime:
    """An exported forecaster.

    ```python
    runtime = RnnSeriesRuntime.from_pretrained("exported")
    runtime.forecast(past_values)["forecast"]  # (B, T, C) for values (B, P, C), in the user's units
    ```

    Args:
        graph: the graph.
        settings: content of `series_config.json`.
    """

    def __init__(self, graph: onnxruntime.InferenceSession, settings: Mapping[str, Any]):
        self.graph, self.settings = graph, settings

    @classmethod
    def from_pretrained(cls, folder: str | Path, num_threads: int = 1) -> RnnSeriesRuntime:
        """Load what an export wrote.

        Args:
            folder: the exported folder.
            num_threads: threads inside an operator. Small matrices are fastest with one.

        Raises:
            FileNotFoundError: the folder is not an exported forecaster.
            ValueError: it is of another format, or no whole export.
        """
        folder = place_of(folder, num_threads)
        settings, files = read_export(folder, CONFIG, FORMATS, [GRAPH])
        kinds: dict[str, Any] = dict.fromkeys(("channels", "context_length", "prediction_length"), (int,))
        check_settings(settings, folder / CONFIG, cardinality=(list,), **kinds)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        providers = ["CPUExecutionProvider"]
        load = functools.partial(onnxruntime.InferenceSession, files[GRAPH], options, providers=providers)
        graph = opened(folder / GRAPH, load)
        past = next((given.shape for given in graph.get_inputs() if given.name == "past_values"), None)
        if past is None or list(past[1:]) != [settings["context_length"], settings["channels"]]:
            raise ValueError(f"{folder / GRAPH}: it reads past_values {past}, which is not what {CONFIG} says")
        return cls(graph, settings)

    def forecast(self, past_values: Any, **features: Any) -> dict[str, np.ndarray]:
        """Forecast what comes next.

        Args:
            past_values: (B, P, C) in the user's units, NaN where a value is missing. A shorter past than P is padded
                in front; a longer one is cut to its last P steps.
            features: what the graph also reads: `past_time_features` (B, P, F), `future_time_features` (B, T, F),
                `static_real_features` (B, *) in the user's units, `static_categorical_features` (B, *): numbers of
                classes, or their names where the export knows them.

        Returns:
            `forecast` (B, T, C), and of a distribution its arguments, `params.<name>` (B, T, C), shifted by `loc` and
            stretched by `scale`, (B, 1, C) each. Where steps are decoded one after the other, they are those given
            that the values before are their means.

        Raises:
            ValueError: a shape does not fit, a value is infinite or NaN where it must be known, or features are
                missing, unknown or of an unknown class.
        """
        length = self.settings["context_length"]
        past = array_of("past_values", past_values, whole=False, missing=True)
        if past.ndim != 3 or not past.shape[0] or not past.shape[1] or past.shape[2] != self.settings["channels"]:
            raise ValueError(f"past_values has shape {past.shape}, wanted (batch, steps, {self.settings['channels']})")
        steps, past = past.shape[1], _last(past, length, np.nan)
        inputs = {"past_values": np.nan_to_num(past), "past_observed_mask": (~np.isnan(past)).astype(np.int64)}
        wanted = {given.name: given for given in self.graph.get_inputs() if given.name not in inputs}
        if features.keys() != wanted.keys():
            raise ValueError(f"features: got {', '.join(features) or 'none'}, wanted {', '.join(wanted) or 'none'}")
        for name, given in wanted.items():
            if name == "static_categorical_features":
                array = self._classes(features[name])
            else:
                array = array_of(name, features[name], whole="int64" in given.type)
            if name == "past_time_features" and array.ndim == 3 and array.shape[1] in (steps, length):
                array = _last(array, length, 0)
            shape = (len(past), *given.shape[1:])
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, wanted {shape}")
            inputs[name] = array
        names = [output.name for output in self.graph.get_outputs()]
        return dict(zip(names, self.graph.run(names, inputs)))

    def _classes(self, given: Any) -> np.ndarray:
        """Return the numbers of classes (B, N); refuse those that the model has not."""
        classes = np.asarray(given, dtype=object)
        sizes, named = self.settings["cardinality"], list(self.settings.get("classes", {}).values())
        if classes.ndim != 2 or classes.shape[1] != len(sizes):
            raise ValueError(f"static_categorical_features has shape {classes.shape}, wanted (batch, {len(sizes)})")
        found = np.zeros(classes.shape, np.int64)
        for row, column in np.ndindex(classes.shape):
            value: Any = classes[row, column]
            known: Any = named[column] if named and isinstance(value, str) else range(sizes[column])
            if type(value) is bool or not isinstance(value, str | numbers.Integral) or value not in known:
                wanted = ", ".join(map(repr, known)) if isinstance(known, list) else f"0 to {len(known) - 1}"
                raise ValueError(f"static_categorical_features[{row}, {column}] is {value!r}, wanted {wanted}")
            found[row, column] = known.index(value)
        return found


def _last(values: np.ndarray, length: int, padding: float) -> np.ndarray:
    """Return the last steps of (B, P, D), padded in front to this length."""
    values = values[:, -length:]
    return np.pad(values, ((0, 0), (length - values.shape[1], 0), (0, 0)), constant_values=padding)
