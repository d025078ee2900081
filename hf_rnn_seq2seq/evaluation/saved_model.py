"""One way to load a saved model: what the folder holds is the model that is wanted, or an error says what it is.

`from_pretrained` makes up at random what a folder lacks, and only logs it: a tagger that is loaded as a translator, or
a tagger as a classifier of sentences, answers, and is never right. Every program of this package loads through here.
Needs torch and transformers; must not be imported by the model files.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..data.files import DataError


def load_model(model_class: Any, directory: str | Path) -> Any:
    """Load a saved model of a given kind, with all its weights.

    Args:
        model_class: the model's class, or an Auto class of transformers.
        directory: its folder; a checkpoint will do.

    Returns:
        The model.

    Raises:
        FileNotFoundError: the folder holds no model.
        DataError: it holds a model of another kind, or weights that are not those of its configuration.
    """
    folder = Path(directory)
    saved = _saved_classes(folder)
    own_class = isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)
    if own_class:
        _check_kind(folder, saved, model_class.__name__)
    try:
        model, loading = model_class.from_pretrained(str(folder), output_loading_info=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{folder}: its weights cannot be loaded: {error}; wanted what save_pretrained wrote"
        ) from error
    _check_kind(folder, saved, type(model).__name__)
    for problem, names in (
        ("lacks the weights", loading["missing_keys"]),
        ("has weights that belong to another model,", loading["unexpected_keys"]),
        ("has weights of another shape,", [entry[0] for entry in loading["mismatched_keys"]]),
    ):
        if names:
            raise DataError(f"{folder} {problem} {_some(names)}: wanted a saved {type(model).__name__}")
    return model


def _saved_classes(folder: Path) -> list[str]:
    """Names of the classes that a folder says its model is of; none if it does not say."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is not the folder of a saved model")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return list(config.get("architectures") or [])
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: not the configuration of a model ({error})") from error


def _check_kind(folder: Path, saved: list[str], wanted: str) -> None:
    if saved and wanted not in saved:
        raise DataError(f"{folder} holds a {', '.join(saved)}, wanted a {wanted}")


def _some(names: Collection[str]) -> str:
    """The first few names of many."""
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
