"""Exported forecasters: the graph and its runtime give what the model gives, without torch and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasters import CHANNELS, FEATURES, FORECASTING_STRUCTURES, PAST, WAYS, forecaster, series

from hf_rnn_seq2seq.sharing import RnnSeriesRuntime, export_model


CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def exported(tmp_path: Path, model: Any, **options: Any) -> RnnSeriesRuntime:
    model.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported", **{"quantize": None, **options})
    return RnnSeriesRuntime.from_pretrained(tmp_path / "exported")


@pytest.mark.parametrize("structure", FORECASTING_STRUCTURES)
@pytest.mark.parametrize("way", ["segments_by_channel", "at_once"])
def test_the_runtime_forecasts_what_the_model_does(structure: str, way: str, tmp_path: Path) -> None:
    """For any batch; with missing values, and with pasts of every length."""
    model = forecaster(structure, torch.float32, **WAYS[way])
    runtime = exported(tmp_path, model)
    for rows, past in ((3, PAST), (1, 3), (5, 1)):
        values = series(rows, past, dtype=torch.float32)["past_values"]
        mask = torch.ones_like(values)
        mask[0, past // 2, 1] = 0
        wanted = model.forecast(values, past_observed_mask=mask)
        found = runtime.forecast(values.masked_fill(mask == 0, torch.nan).numpy())
        assert set(found) == {"forecast"}
        np.testing.assert_allclose(found["forecast"], wanted.numpy(), **CLOSE)


@pytest.mark.parametrize("kind", ["normal", "student_t", "negative_binomial"])
@pytest.mark.parametrize("way", ["stepwise", "at_once"])
def test_a_distribution_comes_with_its_parameters(kind: str, way: str, tmp_path: Path) -> None:
    model = forecaster("luong", torch.float32, **WAYS[way], **FEATURES, distribution_output=kind)
    model.value_head.weight.data.mul_(0.1)
    runtime, inputs = exported(tmp_path, model), series(features=True, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(**inputs)
    found = runtime.forecast(**{name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(found["forecast"], wanted.prediction_outputs.numpy(), **CLOSE)
    for name, part in zip(model.distribution_output.args_dim, wanted.params):
        np.testing.assert_allclose(found[f"params.{name}"], part.numpy(), **CLOSE)
    np.testing.assert_allclose(found["loc"], wanted.loc.numpy(), **CLOSE)
    np.testing.assert_allclose(found["scale"], wanted.scale.numpy(), **CLOSE)


def test_eight_bits_are_near(tmp_path: Path) -> None:
    model = forecaster("sutskever", torch.float32, **WAYS["at_once"])
    runtime = exported(tmp_path, model, quantize="int8")
    values = series(dtype=torch.float32)["past_values"]
    wanted = model.forecast(values).numpy()
    found = runtime.forecast(values.numpy())["forecast"]
    assert 0 < np.abs(found - wanted).max() < 0.2 * wanted.std()


def test_the_copy_runs_without_torch(tmp_path: Path) -> None:
    model = forecaster("cho", torch.float32, **WAYS["segments"])
    exported(tmp_path, model)
    values = series(1, dtype=torch.float32)["past_values"]
    program = (
        "import sys, json, numpy\n"
        "sys.modules['torch'] = sys.modules['transformers'] = sys.modules['hf_rnn_seq2seq'] = None\n"
        "from rnn_series_runtime import RnnSeriesRuntime\n"
        "runtime = RnnSeriesRuntime.from_pretrained('.')\n"
        "print(json.dumps(runtime.forecast(json.loads(sys.stdin.read()))['forecast'].tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(values.tolist()), cwd=tmp_path / "exported",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    np.testing.assert_allclose(json.loads(done.stdout), model.forecast(values).numpy(), **CLOSE)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    runtime = exported(tmp_path, forecaster("cho", torch.float32, **WAYS["stepwise"]))
    with pytest.raises(ValueError, match=r"past_values has shape \(1, 4, 3\), wanted \(batch, steps, 2\)"):
        runtime.forecast(np.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match="features: got past_time_features, wanted none"):
        runtime.forecast(np.zeros((1, 4, CHANNELS)), past_time_features=np.zeros((1, 4, 2)))
    (tmp_path / "exported" / "series_config.json").write_text('{"format": 9}')
    with pytest.raises(ValueError, match="got format 9, wanted 1 or 2"):
        RnnSeriesRuntime.from_pretrained(tmp_path / "exported")
    with pytest.raises(FileNotFoundError, match=r"holds no series_config\.json"):
        RnnSeriesRuntime.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="quantize must be 'int8' or None; got 'int4'"):
        export_model(tmp_path / "model", tmp_path / "other", quantize="int4")
    with pytest.raises(FileExistsError, match="give --overwrite"):
        export_model(tmp_path / "model", tmp_path / "exported", quantize=None, overwrite=False)
