"""The moving average of the weights: torch's formula over the run's own weights, saved, scored, and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import run, write_data

from hf_rnn_seq2seq.training.moving_average import CURRENT_FILE


EVERY = {"training__eval_steps": 1, "training__save_steps": 1, "training__save_total_limit": 9}
EMA: dict[str, Any] = {**EVERY, "training__ema_decay": 0.4, "training__average_checkpoints": 0}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    write_data(folder)
    run("seq2seq", folder, "--output_dir", folder / "plain", **EVERY)
    run("seq2seq", folder, "--output_dir", folder / "averaged", **EMA)
    return folder


def weights(folder: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / file)


def test_the_average_is_that_of_the_weights_which_train_as_without_it(data_dir: Path) -> None:
    average: dict[str, torch.Tensor] = {}
    for step in range(1, 5):
        plain = weights(data_dir / "plain" / f"checkpoint-{step}")
        current = weights(data_dir / "averaged" / f"checkpoint-{step}", CURRENT_FILE)
        assert all(torch.equal(current[name], plain[name]) for name in current)
        decay = min(0.4, (1 + step) / (10 + step))
        if average:
            average = {name: decay * old + (1 - decay) * plain[name] for name, old in average.items()}
            saved = weights(data_dir / "averaged" / f"checkpoint-{step}")
            assert all(torch.allclose(saved[name], average[name], atol=1e-6) for name in average)
            assert not all(torch.equal(saved[name], plain[name]) for name in average)
        else:
            average = weights(data_dir / "averaged" / "checkpoint-1")


def test_the_model_in_the_end_is_the_average(data_dir: Path, tmp_path: Path) -> None:
    best = {tuple(map(float, tensor.flatten()[:3])) for tensor in weights(data_dir / "averaged").values()}
    found = [
        step
        for step in range(1, 5)
        if best == {
            tuple(map(float, tensor.flatten()[:3]))
            for tensor in weights(data_dir / "averaged" / f"checkpoint-{step}").values()
        }
    ]  # fmt: skip
    assert len(found) == 1
    run("seq2seq", data_dir, "--output_dir", tmp_path / "last", **EMA, data__validation=None)
    last, saved = weights(tmp_path / "last"), weights(tmp_path / "last" / "checkpoint-4")
    assert all(torch.equal(last[name], saved[name]) for name in last)


def test_a_resumed_run_ends_as_an_unbroken_one(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    shutil.copytree(data_dir / "averaged", folder)
    for step in (3, 4):
        shutil.rmtree(folder / f"checkpoint-{step}")
    run("seq2seq", data_dir, "--output_dir", folder, "--resume", **EMA)
    for file in ("model.safetensors", f"checkpoint-4/{CURRENT_FILE}", "checkpoint-4/model.safetensors"):
        assert (folder / file).read_bytes() == (data_dir / "averaged" / file).read_bytes()


@pytest.mark.parametrize("decay", [0, 1, -0.5, 1.5, float("nan")])
def test_a_decay_that_is_no_share_is_refused(data_dir: Path, decay: float) -> None:
    with pytest.raises(SystemExit, match=r"training\.ema_decay: got .*, wanted between 0 and 1"):
        run("seq2seq", data_dir, "--output_dir", data_dir / "refused", training__ema_decay=decay)
