"""An exported model of values or labels, run with onnxruntime and numpy alone: neither torch nor transformers.

An export puts a copy of this file into the folder it writes, as `rnn_values_runtime.py`. A deployed program imports
the copy: `hf_rnn_seq2seq.sharing` has the same class, but loads torch through the package. Imports only what stands in
the copy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .exported_folder import array_of, check_settings, opened, place_of, read_export


try:
    import onnxruntime
except ImportError as error:
    advice = "pip install onnxruntime numpy, or pip install 'hf_rnn_seq2seq[export]'"
    raise ImportError(f"the runtime needs '{error.name}': {advice}") from error


FORMATS = (1, 2)  # of the exported folder; a reader refuses others. 1: without a manifest
GRAPH, CONFIG, COPIED_AS = "values.onnx", "values_config.json", "rnn_values_runtime.py"


class RnnValuesRuntime:
    """An exported model that gives values or labels, of each vector or of the whole sequence.

    ```python
    runtime = RnnValuesRuntime.from_pretrained("exported")
    runtime.predict([vectors])[0]  # (S, C), or (C,) of a whole sequence, for vectors (S, F), in the user's units
    runtime.labels([vectors])[0]  # of a model of labels: S names, or one
    ```

    Args:
        graph: the graph.
        settings: content of `values_config.json`.
    """

    def __init__(self, graph: onnxruntime.InferenceSession, settings: Mapping[str, Any]):
        self.graph, self.settings = graph, settings

    @classmethod
    def from_pretrained(cls, folder: str | Path, num_threads: int = 1) -> RnnValuesRuntime:
        """Load what an export wrote.

        Args:
            folder: the exported folder.
            num_threads: threads inside an operator. Small matrices are fastest with one.

        Raises:
            FileNotFoundError: the folder is not an exported model of values.
            ValueError: it is of another format, or no whole export.
        """
        folder = place_of(folder, num_threads)
        settings, files = read_export(folder, CONFIG, FORMATS, [GRAPH])
        kinds = {
            "each_vector": (bool,),
            "vector_size": (int, type(None)),
            "vocab_size": (int, type(None)),
            "values": (list,),
        }
        check_settings(settings, folder / CONFIG, **kinds)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        providers = ["CPUExecutionProvider"]
        load = functools.partial(onnxruntime.InferenceSession, files[GRAPH], options, providers=providers)
        graph = opened(folder / GRAPH, load)
        shapes = {given.name: given.shape for given in graph.get_inputs()}
        size = settings["vector_size"]
        if shapes.get("input_ids" if size is None else "input_features", [None])[2:] != (
            [] if size is None else [size]
        ):
            raise ValueError(f"{folder / GRAPH}: it reads {shapes}, which is not what {CONFIG} says")
        return cls(graph, settings)

    @property
    def names(self) -> list[str]:
        """The names of the C values or labels."""
        return list(self.settings["values"])

    def predict(self, sources: Sequence[Any]) -> list[np.ndarray]:
        """Return the values, or the probabilities of the labels, of several sequences, each as if it were alone.

        Args:
            sources: vectors (S, F) each, in the user's units, NaN where one is missing (of a model with
                `standardise_features`); of a model that reads symbols, ids (S,).

        Returns:
            (S, C) each, or (C,) of a model of whole sequences; float32.

        Raises:
            ValueError: no sources, an empty one, one of another shape, or an infinite value in it.
        """
        if isinstance(sources, str | bytes | Mapping) or not hasattr(sources, "__len__") or not len(sources):
            raise ValueError(f"sources: got {sources!r:.80}, wanted at least one sequence")
        size = self.settings["vector_size"]
        missing = self.settings.get("missing", True)
        arrays = [array_of(f"sources[{n}]", source, size is None, missing) for n, source in enumerate(sources)]
        for number, array in enumerate(arrays):
            if array.ndim != (1 if size is None else 2) or not len(array) or (size and array.shape[1] != size):
                wanted = "ids (S,)" if size is None else f"vectors (S, {size})"
                raise ValueError(f"sources[{number}] has shape {array.shape}, wanted {wanted}, S at least 1")
            most = self.settings.get("vocab_size")
            if size is None and most is not None and array.max() >= most:
                raise ValueError(f"sources[{number}] holds the id {array.max()}, wanted ids from 0 to {most - 1}")
        lengths = np.array([len(array) for array in arrays])
        mask = np.arange(lengths.max())[None] < lengths[:, None]  # (B, S)
        padded = np.zeros((*mask.shape, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        padded[mask] = np.concatenate(arrays)
        name = "input_ids" if size is None else "input_features"
        (values,) = self.graph.run(["values"], {name: padded, "attention_mask": mask.astype(np.int64)})
        if not self.settings["each_vector"]:
            return list(values)
        return [row[:length] for row, length in zip(values, lengths)]

    def labels(self, sources: Sequence[Any]) -> list[Any]:
        """Return the names of the labels of several sequences; sources as for `predict`.

        Returns:
            Of each sequence a name for each vector, or one; where several may hold, a list of those of a probability
            of at least 1/2 in place of a name.

        Raises:
            ValueError: the model gives values, or a source cannot be read.
        """
        gives, names = self.settings.get("gives", "values"), self.names
        if gives == "values":
            raise ValueError("labels: the model gives values, wanted predict()")

        def named(row: np.ndarray) -> Any:
            if row.ndim > 1:
                return [named(one) for one in row]
            return names[row.argmax()] if gives == "label" else [names[i] for i in np.flatnonzero(row >= 0.5)]

        return [named(row) for row in self.predict(sources)]
