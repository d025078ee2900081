"""Recipes: one YAML file, one run. Also the command line.

`run_recipe(load_task("toy_reverse.yaml"), data_dir, output_dir)` is what `hf-rnn-seq2seq run toy_reverse.yaml` does.
"""

from importlib import import_module
from typing import Any


_PUBLIC = {
    "copy_recipe": "library",
    "load_task": "task",
    "recipe_sentences": "library",
    "run_recipe": "run",
}  # public name -> the file that defines it
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
