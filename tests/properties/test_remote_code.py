"""A saved model carries its code: it loads and generates in a process where this package cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import LIVELY, padded_batch, random_ids, tiny_model

from hf_rnn_seq2seq import RnnSeq2SeqModel


PROGRAM = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

results = {}
for folder in sys.argv[1:]:
    inputs = load_file(f"{folder}/inputs.safetensors")
    options = json.load(open(f"{folder}/options.json"))
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True).eval()
    bare = AutoModel.from_pretrained(f"{folder}/bare", trust_remote_code=True).eval()
    with torch.no_grad():
        logits = model(**source, decoder_input_ids=inputs["target"]).logits
        output = bare(**source, decoder_input_ids=inputs["target"]).last_hidden_state
    results[folder] = {
        "classes": [type(thing).__name__ for thing in (config, model, bare)],
        "modules": [type(thing).__module__.split(".")[0] for thing in (config, model, bare)],
        "imported": "hf_rnn_seq2seq" in sys.modules,
        "differences": [(a - inputs[b]).abs().max().item() for a, b in ((logits, "logits"), (output, "output"))],
        "greedy": model.generate(**source, **options).tolist(),
        "beam": model.generate(**source, **options, num_beams=3).tolist(),
    }
    model.save_pretrained(f"{folder}/again")
print(json.dumps(results))
"""
STRUCTURES = ["everything", "cho", "luong", "monotonic"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each structure: what was saved, and what a process without the package says of it. One process for all."""
    root = tmp_path_factory.mktemp("remote")
    known = {}
    for structure in STRUCTURES:
        folder = root / structure
        model, batch, target = tiny_model(structure, torch.float32), padded_batch("left", [4, 6], 6), random_ids(2, 4)
        model.save_pretrained(folder)
        model.model.save_pretrained(folder / "bare")
        source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        options = {**LIVELY, "max_new_tokens": 6}
        with torch.no_grad():
            logits = model(**source, decoder_input_ids=target).logits
            output = model.model(**source, decoder_input_ids=target).last_hidden_state.contiguous()
        save_file({**source, "target": target, "logits": logits, "output": output}, folder / "inputs.safetensors")
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
        known[str(folder)] = {
            "greedy": model.generate(**source, **options).tolist(),
            "beam": model.generate(**source, **options, num_beams=3).tolist(),
        }
    environment = {**os.environ, "HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *known], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    return {Path(folder).name: {"known": known[folder], "got": results[folder], "folder": folder} for folder in known}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_same_logits_and_symbols_without_the_package(structure: str, loaded: dict[str, dict[str, Any]]) -> None:
    got, known = loaded[structure]["got"], loaded[structure]["known"]
    assert got["classes"] == ["RnnSeq2SeqConfig", "RnnSeq2SeqForConditionalGeneration", "RnnSeq2SeqModel"]
    assert got["modules"] == ["transformers_modules"] * 3 and not got["imported"]
    assert got["differences"] == [0, 0]
    assert got["greedy"] == known["greedy"] and got["beam"] == known["beam"]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_was_loaded_so_can_be_saved_again(structure: str, loaded: dict[str, dict[str, Any]]) -> None:
    folder = Path(loaded[structure]["folder"])
    files = {path.name for path in folder.glob("*.py")}
    assert {path.name for path in (folder / "again").glob("*.py")} == files
    first, again = (
        json.loads((path / "config.json").read_text(encoding="utf-8")) for path in (folder, folder / "again")
    )
    assert again == first


def test_every_file_that_a_saved_file_imports_is_saved_too(tmp_path: Path) -> None:
    for model in (tiny_model("luong"), RnnSeq2SeqModel(tiny_model("luong").config)):
        model.save_pretrained(tmp_path)
        saved = {path.stem for path in tmp_path.glob("*.py")}
        assert {"configuration_rnn_seq2seq", "modeling_rnn_seq2seq", "recurrence", "state", "attention"} <= saved
        for path in tmp_path.glob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            imported = {line.split()[1][1:] for line in lines if line.startswith("from .")}
            assert imported <= saved, path.name
