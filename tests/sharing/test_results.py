"""Results files: whole, and naming no machine."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from hf_rnn_seq2seq.sharing.results import (
    describe_hardware,
    portable_command,
    read_results,
    readable_number,
    write_results,
)


GIVEN = {
    "recipe": "g2p_toy",
    "command": ["python", "scripts/run_seq2seq.py", "scripts/recipes/g2p_toy.yaml"],
    "seeds": [1, 2],
    "metrics": {"per": 5.0412, "g2p_wer": 21.6},
    "parameters": 4_321_000,
    "training_seconds": 4983.21,
    "details": {"bleu_signature": "nrefs:1|case:mixed"},
}


def test_a_file_holds_what_is_needed_to_get_the_numbers_again(tmp_path):
    path = tmp_path / "new" / "g2p_toy.json"
    written = write_results(path, **GIVEN, device="cpu")
    assert read_results(path) == written
    content = json.loads(path.read_text())
    for name in ("recipe", "seeds", "metrics", "parameters", "details"):
        assert content[name] == GIVEN[name]
    assert content["command"] == "python scripts/run_seq2seq.py scripts/recipes/g2p_toy.yaml"
    assert content["training_seconds"] == 4983.2
    assert content["versions"]["python"] == platform.python_version()
    assert torch.__version__.startswith(content["versions"]["torch"])  # some builds add +cu124 and the like
    assert {"transformers", "tokenizers"} <= content["versions"].keys()
    assert content["hardware"]["gpu"] is None
    assert content["hardware"]["cores"] >= 1
    age = datetime.now(UTC) - datetime.fromisoformat(content["date"])
    assert 0 <= age.total_seconds() < 60 + 1
    assert os.listdir(path.parent) == ["g2p_toy.json"]


def test_no_file_names_the_machine(tmp_path):
    path = tmp_path / "g2p_toy.json"
    here = str(Path.cwd())
    command = [
        sys.executable,
        f"{here}/scripts/run.py",
        "--data_dir",
        "/somewhere/secret/cmudict",
        f"--out={here}/out",
    ]
    written = write_results(path, **{**GIVEN, "command": command})
    assert written.command == f"{portable_command([sys.executable])} scripts/run.py --data_dir cmudict --out=out"
    text = path.read_text()
    assert "secret" not in text
    assert here not in text
    assert f'"{socket.gethostname()}"' not in text


def test_portable_command_keeps_what_is_no_absolute_path():
    assert portable_command(["python", "run.py", "--lr=1e-3", "a b", "data/x", "-v"]) == (
        "python run.py --lr=1e-3 'a b' data/x -v"
    )
    assert portable_command(["run", str(Path.home() / "data"), "~/other/data"]) == "run data data"


def test_hardware_names_a_cpu_model():
    hardware = describe_hardware("cpu")
    assert hardware["cpu"]
    assert hardware["cpu"] != platform.node()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"per": float("nan")}}, r"metrics\['per'\] must be a finite number, got nan"),
        ({"metrics": {"per": "5"}}, r"metrics\['per'\] must be a finite number, got '5'"),
        ({"metrics": {}}, "metrics must hold at least one number"),
        ({"parameters": 0}, "parameters must be at least 1, got 0"),
        ({"recipe": ""}, "recipe must be the recipe's name"),
        ({"training_seconds": -1.0}, r"training_seconds must not be negative, got -1\.0"),
    ],
)
def test_bad_results_are_refused_and_the_old_file_stays(tmp_path, change, message):
    path = tmp_path / "g2p_toy.json"
    write_results(path, **GIVEN)
    before = path.read_text()
    with pytest.raises(ValueError, match=message):
        write_results(path, **{**GIVEN, **change})
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"recipe": "x",\n', r"x\.json, line 2: not JSON"),
        ("[1]", r"x\.json: must hold an object, got list"),
        ('{"recipe": "x", "metricks": {}}', r"x\.json: keys missing: \['command', .*, keys unknown: \['metricks'\]"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / "x.json")


@pytest.mark.parametrize(
    "name, value, shown",
    [
        ("mse", 0.36951, "0.370"), ("naive_mae_std", 0.00045, "0.000"), ("crps", 0.3, "0.300"),
        ("rmse", 14.926, "14.93"), ("coverage", 83.714, "83.71"), ("wer", 5.0, "5.00"), ("smape", 0.5, "0.50"),
    ],
)  # fmt: skip
def test_small_errors_of_values_have_three_decimals(name: str, value: float, shown: str) -> None:
    assert readable_number(name, value) == shown
