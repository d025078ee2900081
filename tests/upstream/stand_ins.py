"""What the test modules of transformers import from files that the source archive leaves out.

The archive has `tests/test_*.py` but not the sub-packages of `tests`. Their two mix-ins are empty here: the tests of
`generate()` and of the exporters that they hold upstream are NOT run. The dictionary is our own.
"""

import sys
from types import ModuleType
from typing import Any

from .fetch import PACKAGE


class GenerationTesterMixin:
    """Upstream: tests of `generate()`, in `tests/generation/test_utils.py`. This project has its own."""


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
    "generation.test_utils": {"GenerationTesterMixin": GenerationTesterMixin},
    "exporters.test_export": {"ExportTesterMixin": ExportTesterMixin},
    "utils.test_configuration_utils": {"config_common_kwargs": config_common_kwargs},
}


def install() -> None:
    """Makes the names above importable from where the test modules look for them."""
    for path, names in STAND_INS.items():
        parent, _, child = path.partition(".")
        package = sys.modules.setdefault(f"{PACKAGE}.{parent}", ModuleType(f"{PACKAGE}.{parent}"))
        module = ModuleType(f"{PACKAGE}.{path}")
        vars(module).update(names)
        setattr(package, child, module)
        sys.modules[module.__name__] = module
