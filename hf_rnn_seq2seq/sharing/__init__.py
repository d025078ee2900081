"""Model cards, exports, and the runtime that needs no torch."""

from importlib import import_module
from typing import Any


_PUBLIC = {  # public name -> the file that defines it
    "create_model_card": "card",
    "save_model_card": "card",
    "export_model": "export",
    "RnnSeq2SeqRuntime": "runtime",
    "RnnValuesRuntime": "runtime_values",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
