"""What the test modules of transformers import from files that the source archive leaves out.

The archive has `tests/test_*.py` but not the sub-packages of `tests`. Two of these hold suites, of `generate()` and of
the exporters. They are taken from a checkout of transformers if the environment variable TRANSFORMERS_CHECKOUT names
one, best of the installed version; else the mix-ins are empty, and those tests are NOT run. The dictionary is ours.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .fetch import PACKAGE


CHECKOUT = "TRANSFORMERS_CHECKOUT"


class GenerationTesterMixin:
    """Upstream: tests of `generate()`, in `tests/generation/test_utils.py`. This project has its own too."""


class ExportTesterMixin:
    """Upstream: tests of the exporters, in `tests/exporters/test_export.py`."""


# For every option that all configurations share a value other than the default; `ConfigTester` checks that it arrives.
config_common_kwargs: dict[str, Any] = {
    "architectures": ["RnnSeq2SeqModel"],
    "chunk_size_feed_forward": 3,
    "dtype": "float16",
    "id2label": {0: "yes"},
    "label2id": {"yes": 0},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}

STAND_INS: dict[str, dict[str, Any]] = {
    "utils.test_configuration_utils": {"config_common_kwargs": config_common_kwargs},
    "exporters.test_export": {"ExportTesterMixin": ExportTesterMixin},
    "generation.test_utils": {"GenerationTesterMixin": GenerationTesterMixin},
}
SUITES = ("exporters.test_export", "generation.test_utils")  # the second imports the first


def checkout() -> Path | None:
    """
    The checkout of transformers whose suites are to be run, or None.

    Raises:
        RuntimeError: If the environment variable names a folder that has no such suites.
    """
    folder = os.environ.get(CHECKOUT)
    if not folder:
        return None
    for suite in SUITES:
        path = Path(folder, "tests", *suite.split(".")).with_suffix(".py")
        if not path.is_file():
            raise RuntimeError(f"{CHECKOUT}={folder}: wanted a checkout of transformers, but there is no {path}")
    return Path(folder)


def install() -> None:
    """Makes the names above importable from where the test modules look for them."""
    folder = checkout()
    if folder is not None:
        importlib.import_module(PACKAGE).__path__.append(str(folder / "tests"))
        for suite in SUITES:
            # They import each other as `tests`, which is this project's own name for its tests.
            sys.modules[f"tests.{suite}"] = importlib.import_module(f"{PACKAGE}.{suite}")
    for path, names in STAND_INS.items():
        if folder is not None and path in SUITES:
            continue
        parent, _, child = path.partition(".")
        package = sys.modules.setdefault(f"{PACKAGE}.{parent}", ModuleType(f"{PACKAGE}.{parent}"))
        module = ModuleType(f"{PACKAGE}.{path}")
        vars(module).update(names)
        setattr(package, child, module)
        sys.modules[module.__name__] = module
