"""A folder serves every program of transformers where the package cannot be imported: tokenizer, processor, pipelines.

One process reads all folders: whoever loads one model must not spoil the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import STRUCTURES, randomize, tiny_config
from transformers import AutoModel, AutoModelForTextEncoding, AutoProcessor, AutoTokenizer, pipeline

from hf_rnn_seq2seq import (
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
)
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, save_tokenizers, train_tokenizer


SOURCE = train_tokenizer(["abcdef"], TokenizerOptions("character"))
TARGET = train_tokenizer(["uvw xyz x y"], TokenizerOptions("word"), "target")
WORDS = train_tokenizer(["ab cd ef"], TokenizerOptions("word", characters=True))
EXTRACTOR = RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10)
BACKWARDS = Preprocessing([["x", "a"]], reverse_source=True)
SEARCH = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5, "suppress_tokens": [0, 1, 2]}

# What is asked of every folder, here and where the package is not; `trust` are the options that this takes.
ANSWERS = """
def answers(folder, kind, trust):
    found = {}
    if kind == "speech":
        sound = np.load(folder + "/sound.npy")
        audio = {"array": sound, "sampling_rate": 8000}
        found["words"] = pipeline("automatic-speech-recognition", model=folder, **trust)(sound)["text"]
        found["inputs"] = AutoProcessor.from_pretrained(folder, **trust)(
            audio=[sound], text_target=["x y"], return_tensors="np"
        )["labels"].tolist()
        write = pipeline("seq2seq-generation", model=folder, **trust)
        found["n_best"] = write(audio, **SEARCH, return_alignments=True)
        return found
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    found["ids"] = tokenizer(["xab", "cd"], text_target=["x y", "uvw"])["labels"]
    found["features"] = pipeline("feature-extraction", model=folder, **trust)("ab cd")
    for auto in (AutoModel, AutoModelForTextEncoding):
        states = auto.from_pretrained(folder, **trust).eval()(**tokenizer(["ab cd"], return_tensors="pt"))
        found[auto.__name__] = states.last_hidden_state.tolist()
    if kind in ("tokens", "sequence"):
        task = {"tokens": "token-classification", "sequence": "text-classification"}[kind]
        items = pipeline(task, model=folder, **trust)("ab cd")
        found["labels"] = [{name: str(value) for name, value in item.items()} for item in items]
        return found
    if not folder.endswith("old"):  # such a folder names no processor; the pipeline makes one
        processor = AutoProcessor.from_pretrained(folder, **trust)
        found["inputs"] = dict(processor(["xab", "cd"], text_target=["x y", "uvw"]))
    write = pipeline("seq2seq-generation", model=folder, **trust)
    found["n_best"] = write(["xab", "cd"], **SEARCH)
    write.save_pretrained(folder + "/again")
    found["again"] = pipeline("seq2seq-generation", model=folder + "/again", **trust)("cd") == write("cd")
    return found
"""
PROGRAM = f"""
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import numpy as np
from transformers import AutoModel, AutoModelForTextEncoding, AutoProcessor, AutoTokenizer, pipeline

SEARCH = {SEARCH!r}
{ANSWERS}
folders = json.loads(sys.argv[1])
trust = {{"trust_remote_code": True}}
results = {{name: answers(folder, name.split("-")[0], trust) for name, folder in folders.items()}}
print(json.dumps([results, "hf_rnn_seq2seq" in sys.modules]))
"""


def generating_folder(folder: Path, structure: str, old: bool) -> None:
    shared = bool(STRUCTURES[structure].get("share_embeddings"))
    sizes = {"vocab_size": len(SOURCE), "decoder_vocab_size": None if shared else len(TARGET)}
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(structure, **sizes))
    randomize(model, scale=0.3)
    model.save_pretrained(folder)
    target = SOURCE if shared else TARGET
    if old:  # as earlier versions saved it
        save_tokenizers(folder, SOURCE, target)
        BACKWARDS.save(folder)
    else:
        save_processor(folder, SOURCE, target, BACKWARDS)


def classifying_folder(folder: Path, model_class: Any) -> None:
    characters = len(WORDS.character_vocab)  # type: ignore[attr-defined]
    model = model_class(tiny_config(vocab_size=len(WORDS), character_vocab_size=characters, num_labels=3))
    randomize(model)
    model.save_pretrained(folder)
    WORDS.save_pretrained(folder)


def speech_folder(folder: Path, ctc_weight: float) -> None:
    config = tiny_config("luong", vocab_size=len(TARGET), input_feature_size=10, ctc_weight=ctc_weight)
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    randomize(model, scale=0.3)
    model.generation_config.max_new_tokens = 5
    model.save_pretrained(folder)
    save_processor(folder, TARGET, feature_extractor=EXTRACTOR)
    np.save(folder / "sound.npy", np.random.default_rng(0).uniform(-0.5, 0.5, 1500).astype(np.float32))


WRITING = ["cho", "luong", "everything"]  # without attention, with it, and with one vocabulary
FOLDERS: dict[str, Any] = {
    **{f"text-{name}": lambda at, name=name: generating_folder(at, name, old=False) for name in WRITING},
    "text-old": lambda at: generating_folder(at, "bahdanau", old=True),
    "tokens": lambda at: classifying_folder(at, RnnSeq2SeqForTokenClassification),
    "sequence": lambda at: classifying_folder(at, RnnSeq2SeqForSequenceClassification),
    "speech": lambda at: speech_folder(at, 0.3),
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Of each folder: what this process says, and what one without the package says."""
    root = tmp_path_factory.mktemp("folders")
    for name, make in FOLDERS.items():
        make(root / name)
    folders = {name: str(root / name) for name in FOLDERS}
    environment = {**os.environ, "HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(folders)],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    without, imported = json.loads(done.stdout.splitlines()[-1])
    assert not imported
    names = {"np": np, "torch": torch, "SEARCH": SEARCH, "AutoModel": AutoModel, "AutoProcessor": AutoProcessor,
             "AutoModelForTextEncoding": AutoModelForTextEncoding, "AutoTokenizer": AutoTokenizer,
             "pipeline": pipeline}  # fmt: skip
    exec(ANSWERS, names)  # the very same lines
    known: Any = names["answers"]
    return {name: [known(at, name.split("-")[0], {}), without[name]] for name, at in folders.items()}


@pytest.mark.timeout(900)  # the first has the other process run
@pytest.mark.parametrize("name", FOLDERS)
def test_the_same_answers_with_and_without_the_package(name: str, answered: dict[str, list[Any]]) -> None:
    known, got = answered[name]
    assert json.loads(json.dumps(known)) == got
    assert all(answer not in ("", [], None) for answer in got.values())


def test_a_folder_names_its_pipeline_and_what_else_loads_of_it(answered: dict[str, list[Any]], tmp_path: Path) -> None:
    generating_folder(tmp_path, "luong", old=False)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["custom_pipelines"]["seq2seq-generation"]["impl"].split(".")[0] + ".py" in os.listdir(tmp_path)
    for place in config["auto_map"].values():
        assert f"{place.split('.')[0]}.py" in os.listdir(tmp_path)
    # With the package its own pipeline is meant, and nobody needs to trust code.
    assert type(pipeline("seq2seq-generation", model=str(tmp_path))).__module__.startswith("hf_rnn_seq2seq.")
