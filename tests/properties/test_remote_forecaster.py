"""A saved forecaster carries its code: it loads and forecasts in a process where this package cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forecasters import FEATURES, WAYS, forecaster, series
from safetensors.torch import save_file


PROGRAM = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
from safetensors.torch import load_file
from transformers import AutoModelForTimeSeriesPrediction

folder = sys.argv[1]
model = AutoModelForTimeSeriesPrediction.from_pretrained(folder, trust_remote_code=True).eval()
inputs = load_file(f"{folder}/inputs.safetensors")
model.save_pretrained(f"{folder}/again")
again = AutoModelForTimeSeriesPrediction.from_pretrained(f"{folder}/again", trust_remote_code=True).eval()
samples = model.generate(**inputs, num_parallel_samples=3).sequences
print(json.dumps([model.forecast(**inputs).tolist(), again.forecast(**inputs).tolist(), list(samples.shape)]))
"""


@pytest.mark.parametrize("way", ["segments", "at_once_by_channel"])
def test_its_code_lies_beside_its_weights(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = forecaster("luong", torch.float32, **WAYS[way], **FEATURES, distribution_output="normal")
    inputs = series(features=True, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    save_file(inputs, tmp_path / "inputs.safetensors")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True, timeout=250
    )
    forecast, again, shape = json.loads(done.stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(forecast), model.forecast(**inputs))
    assert again == forecast and shape == [3, 3, *model.forecast(**inputs).shape[1:]]
