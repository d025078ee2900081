"""Model cards, exports, the runtime that needs no torch, its server, and the demo."""

from importlib import import_module
from typing import Any


_PUBLIC = {  # public name -> the file that defines it
    "create_model_card": "card",
    "save_model_card": "card",
    "export_model": "export",
    "RnnSeq2SeqRuntime": "runtime",
    "serve": "server",
    "build_demo": "demo",
    "launch_demo": "demo",
    "write_space": "demo",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
