"""What holds for every test: one thread, no network, fixed seeds.

The environment is set before torch and transformers are imported, because they read it then. `pyproject.toml` holds
the markers and the time limit.
"""

import faulthandler
import os
import random


os.environ["OMP_NUM_THREADS"] = "1"  # small matrices: a second thread only waits (see scripts/test.sh)
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # silences the warning about forks in data-loading tests
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would fetch something fails at once, and with a reason
os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import pytest
import torch


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same random state, whatever ran before it and on whichever worker."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test that may take long end by its own limit: `faulthandler_timeout` would end its process before."""
    limit = item.get_closest_marker("timeout")
    if limit is not None and limit.args[0] > float(item.config.getini("timeout")):
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers that the test modules of transformers use (see tests/upstream)."""
    flash = ("flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
    export = ("torch_export_test", "onnx_export_test", "executorch_export_test")
    for name in ("accelerate_tests", *flash, *export, "generate", "is_training_test", "torch_compile_test"):
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")
