"""One call publishes a model of every kind, over HTTP to a stand-in of the Hub; it loads where the package is not.

One process without the package loads all that is pushed, by repository and revision.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from forecasters import forecaster
from huggingface_hub import HfApi, ModelCard, constants, parse_eval_result_entries
from stand_in_hub import TOKEN, USER, StandInHub
from test_card import FIELDS, python_blocks, tiny_model
from test_whole_folder import TARGET, WORDS, classifying_folder, generating_folder, speech_folder
from tiny import randomize

from hf_rnn_seq2seq import (
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForTextToSpectrogram,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqProcessor,
)
from hf_rnn_seq2seq.recipes import command_line
from hf_rnn_seq2seq.sharing import export_model, push_to_hub, save_model_card


# What is asked of a folder here, and of its repository where the package is not; `options` are those that this takes.
ANSWERS = """
def answers(at, kind, options):
    if kind == "exported":
        folder = at if not options else huggingface_hub.snapshot_download(at, revision=options["revision"])
        done = subprocess.run(
            [sys.executable, folder + "/rnn_seq2seq_runtime.py", "abcdef"], capture_output=True, text=True, check=True
        )
        return done.stdout
    auto = {
        "text": "Seq2SeqLM", "tokens": "TokenClassification", "sequence": "SequenceClassification",
        "speech": "SpeechSeq2Seq", "values": "TokenClassification", "forecast": "TimeSeriesPrediction",
        "spectrogram": "TextToSpectrogram",
    }[kind]
    model = getattr(transformers, "AutoModelFor" + auto).from_pretrained(at, **options).eval()
    torch.manual_seed(0)  # a spectrogram is drawn with dropout (Shen et al. 2018)
    numbers = torch.arange(60.0).sin()
    if kind == "forecast":
        return model.forecast(past_values=numbers[:16].reshape(1, 8, 2)).tolist()
    if kind == "values":
        return model(input_features=numbers.reshape(1, 12, 5)).logits.tolist()
    if kind in ("tokens", "sequence", "spectrogram"):
        inputs = transformers.AutoTokenizer.from_pretrained(at, **options)(["ab cd"], return_tensors="pt")
        return (model.generate_speech(**inputs) if kind == "spectrogram" else model(**inputs).logits).tolist()
    processor = transformers.AutoProcessor.from_pretrained(at, **options)
    sound = {"audio": [np.sin(np.arange(1500.0)).astype("float32")], "return_tensors": "pt"}
    inputs = processor(**({"text": ["xab"], "return_tensors": "pt"} if kind == "text" else sound))
    sequences = model.generate(**inputs, num_beams=3, max_new_tokens=5, suppress_tokens=[0, 1, 2])
    logits = model(**inputs, decoder_input_ids=sequences).logits
    return [logits.tolist(), sequences.tolist(), processor.batch_decode(sequences)]
"""
PROGRAM = f"""
import json, subprocess, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import huggingface_hub, numpy as np, torch, transformers
{ANSWERS}
found = {{}}
with torch.no_grad():
    for name, (repo, kind, revision) in json.loads(sys.argv[1]).items():
        found[name] = answers(repo, kind, {{"revision": revision, "trust_remote_code": True}})
print(json.dumps(found))
"""
# What a training leaves, and what else may lie about.
NOISE = (
    *("checkpoint-3/model.safetensors", "checkpoint-3/config.json", "runs/now/events.out.tfevents.1"),
    *("earlier_run/a.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", ".env"),
    *("trainer_state.json", "training_report.json", "predictions_test.tsv", "model.lock"),
    *("__pycache__/a.pyc", "products.py"),
)  # fmt: skip


def values_folder(folder: Path) -> None:
    model = tiny_model(RnnSeq2SeqForTokenClassification, input_feature_size=5, num_labels=2, problem_type="regression")
    randomize(model)
    model.save_pretrained(folder)


def spectrogram_folder(folder: Path) -> None:
    model = tiny_model(RnnSeq2SeqForTextToSpectrogram, vocab_size=len(TARGET), num_mel_bins=4)
    randomize(model, scale=0.3)
    model.save_pretrained(folder)
    TARGET.save_pretrained(folder)


def exported_folder(folder: Path) -> None:
    generating_folder(folder.parent / "whole", "luong", old=False)
    export_model(folder.parent / "whole", folder, quantize=None)


FOLDERS: dict[str, Any] = {
    "text": lambda at: generating_folder(at, "everything", old=False),
    "text-two": lambda at: generating_folder(at, "luong", old=False),
    "text-old": lambda at: generating_folder(at, "bahdanau", old=True),
    "tokens": lambda at: classifying_folder(at, RnnSeq2SeqForTokenClassification),
    "sequence": lambda at: classifying_folder(at, RnnSeq2SeqForSequenceClassification),
    "speech": lambda at: speech_folder(at, 0.3),
    "values": values_folder,
    "forecast": lambda at: forecaster("luong", torch.float32).save_pretrained(at),
    "spectrogram": spectrogram_folder,
    "exported": exported_folder,
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    """The stand-in, in place of the Hub for this process too."""
    server = StandInHub()
    with pytest.MonkeyPatch.context() as patch:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
        for name, value in {
            "ENDPOINT": server.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path_factory.mktemp("cache")),
        }.items():  # fmt: skip
            patch.setattr(constants, name, value)
        # transformers keeps what speaks to the Hub, and an earlier test may have had it made for the real one.
        patch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        patch.setenv("HF_TOKEN", TOKEN)
        yield server
    server.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind, with what a training leaves in it."""
    root = tmp_path_factory.mktemp("folders")
    for name, make in FOLDERS.items():
        torch.manual_seed(0)
        make(root / name)
        for noise in NOISE if name != "exported" else ():
            (root / name / noise).parent.mkdir(parents=True, exist_ok=True)
            (root / name / noise).write_bytes(b"noise")
    return {name: root / name for name in FOLDERS}


def without_the_package(hub: StandInHub, home: Path, asked: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment.pop("PYTHONPATH", None)
    program = [sys.executable, "-c", PROGRAM, json.dumps(asked)]
    done = subprocess.run(program, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def known_answers(at: Path, kind: str) -> Any:
    names: dict[str, Any] = {
        "np": np,
        "torch": torch,
        "transformers": transformers,
        "subprocess": subprocess,
        "sys": sys,
    }
    exec(ANSWERS, names)  # the very same lines
    with torch.no_grad():
        return json.loads(json.dumps(names["answers"](str(at), kind, {})))


@pytest.fixture(scope="module")
def pushed(
    request: pytest.FixtureRequest,
    hub: StandInHub,
    folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What a process without the package says of the repositories that tests ask for, each pushed another way."""
    asked = {}
    for name, folder in folders.items():
        repo, kind = f"{USER}/{name}", name.partition("-")[0]
        branch = "trial" if kind in ("text", "speech") else "main"
        commit = push_to_hub(folder, repo, private=kind == "tokens", revision=branch, commit_message=f"the {kind}")
        assert commit.commit_url.startswith(hub.address)
        HfApi().create_tag(repo, tag="v1", revision=commit.oid)
        asked[name] = (repo, kind, "v1")
    # A model that is in no folder of ours, in one call and in transformers' own two.
    text, tags = folders["text-two"], folders["tokens"]
    model, processor = (
        kind.from_pretrained(text) for kind in (RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqProcessor)
    )
    push_to_hub(model, "text-model", processor)  # the user's name is the Hub's to know
    tagger = RnnSeq2SeqForTokenClassification.from_pretrained(tags)
    push_to_hub(tagger, f"{USER}/tokens-model", WORDS, card={**FIELDS, "metrics": {"accuracy": 97.5}})
    for part in (model, processor):
        part.push_to_hub(f"{USER}/text-parts")
    asked |= {
        name: (f"{USER}/{name}", name.partition("-")[0], "main")
        for name in ("text-model", "tokens-model", "text-parts")
    }
    tests = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = {params.get("name") for params in tests} & asked.keys()
    return without_the_package(hub, tmp_path_factory.mktemp("home"), {name: asked[name] for name in sorted(wanted)})


SAME = {"text-model": "text-two", "text-parts": "text-two", "tokens-model": "tokens"}
# Of the others some time goes into their many files.
QUICK = ("text-two", "exported", "tokens-model")


@pytest.mark.timeout(900)  # the first has the other process run
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*FOLDERS, *SAME)]
)
def test_what_was_pushed_loads_without_the_package_to_the_bit(
    name: str, pushed: dict[str, Any], folders: dict[str, Path]
) -> None:
    assert pushed[name] == known_answers(folders[SAME.get(name, name)], name.partition("-")[0])
    assert pushed[name]


def test_a_repository_has_what_its_users_need_and_no_more(
    pushed: dict[str, Any], hub: StandInHub, folders: dict[str, Path]
) -> None:
    for name, folder in folders.items():
        files = hub.files(f"{USER}/{name}", "v1")
        ours = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - set(NOISE)
        assert set(files) == ours | {".gitattributes", "README.md"}, name
        assert ModelCard(files["README.md"].decode()).data.library_name in ("transformers", "onnx")
    assert hub.repositories[f"{USER}/tokens"].private and not hub.repositories[f"{USER}/text"].private
    assert hub.repositories[f"{USER}/text"].names["trial"] != hub.repositories[f"{USER}/text"].names["main"]
    assert "the speech" in hub.repositories[f"{USER}/speech"].messages.values()


CARD = {**FIELDS, "datasets": ["CMU Pronouncing Dictionary", "someone/cmudict"]}


@pytest.fixture
def whole(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with a card, which has results and pictures."""
    generating_folder(tmp_path / "whole", "everything", old=False)
    model = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path / "whole")
    metrics = {"validation_per": 4.9, "per": 5.04, "test_oov_per": 11.5}
    card = save_model_card(
        tmp_path / "whole", model, **{**CARD, "metrics": metrics, "picture": ("a.png", "Attention")}
    )
    (tmp_path / "whole" / "a.png").write_bytes(b"a picture")
    (tmp_path / "whole" / "pictures").mkdir()
    (tmp_path / "whole" / "pictures" / "b.png").write_bytes(b"another")
    card.write_text(card.read_text() + "\n![more](pictures/b.png)\n")
    return tmp_path / "whole"


def test_results_are_in_the_card_and_in_the_hubs_own_file(hub: StandInHub, whole: Path) -> None:
    push_to_hub(whole, f"{USER}/results")
    files = hub.files(f"{USER}/results")
    assert len(ModelCard(files["README.md"].decode()).data.eval_results) == 3
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/someone_cmudict.yaml"]))
    assert [(one.dataset_id, one.task_id, one.value) for one in entries] == [
        ("someone/cmudict", "per", 5.04), ("someone/cmudict", "test_oov_per", 11.5),
    ]  # fmt: skip
    assert files["a.png"] == b"a picture" and files["pictures/b.png"] == b"another"
    assert not any(name.startswith(".eval_results") for name in hub.files(f"{USER}/text-model", "main"))


def test_the_snippet_of_the_card_runs_with_the_repositorys_name(hub: StandInHub, whole: Path, tmp_path: Path) -> None:
    push_to_hub(whole, f"{USER}/snippet")
    (snippet,) = python_blocks(hub.files(f"{USER}/snippet")["README.md"].decode())
    assert f'model_id = "{USER}/snippet"  #' in snippet and "your-name" not in snippet
    exec(snippet, names := {})
    assert names["outputs"].shape[0] == 1
    assert 'model_id = "your-name/' in (whole / "README.md").read_text()  # what is here is not changed


def test_the_next_push_replaces_the_model_and_keeps_what_is_others(
    hub: StandInHub, whole: Path, tmp_path: Path
) -> None:
    repo = f"{USER}/again"
    old = RnnSeq2SeqForConditionalGeneration.from_pretrained(whole)
    old.save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "sharded" / name).write_bytes((whole / name).read_bytes())
    push_to_hub(tmp_path / "sharded", repo)
    assert "model.safetensors.index.json" in hub.files(repo)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=repo)
    HfApi().upload_file(path_or_fileobj=b"# Mine", path_in_repo="README.md", repo_id=repo)
    push_to_hub(tmp_path / "sharded", repo)
    assert hub.files(repo)["README.md"] == b"# Mine"  # a card that the folder has not is not written over
    push_to_hub(whole, repo)
    files = hub.files(repo)
    assert [name for name in files if name.endswith(".safetensors")] == ["model.safetensors"]
    assert "model.safetensors.index.json" not in files and files["notes.txt"] == b"mine"
    commit = push_to_hub(whole, repo, create_pr=True, commit_message="try this")
    assert commit.pr_url and commit.oid not in hub.repositories[repo].names["main"]


def test_the_command_pushes_and_says_where(
    hub: StandInHub, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line.main(["push", str(whole), f"{USER}/command", "--private", "--revision", "trial"])
    assert re.fullmatch(rf"{hub.address}/{USER}/command/commit/\w+\n", capsys.readouterr().out)
    assert hub.repositories[f"{USER}/command"].private and "README.md" in hub.files(f"{USER}/command", "trial")
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(SystemExit, match=r"error: .*401"):
        command_line.main(["push", str(whole), f"{USER}/command"])


def test_what_cannot_be_pushed_is_refused_before_anything_is_sent(
    hub: StandInHub, folders: dict[str, Path], tmp_path: Path
) -> None:
    text, asked = folders["text"], len(hub.asked)
    model = RnnSeq2SeqForConditionalGeneration.from_pretrained(text)
    for error, message, arguments, options in (
        (ValueError, "a b/c/d", (text, "a b/c/d"), {}),
        (TypeError, "folder_or_model: got dict", ({}, "a/b"), {}),
        (FileNotFoundError, "holds no config.json", (tmp_path, "a/b"), {}),
        (FileNotFoundError, "processor: .* holds no tokenizer", (model, "a/b"), {}),
        (ValueError, "processor: got one, but .* is a folder", (text, "a/b", TARGET), {}),
        (TypeError, "titel", (text, "a/b"), {"card": {"titel": "x"}}),
        (ValueError, "language must not be empty", (text, "a/b"), {"card": {"language": ""}}),
    ):
        with pytest.raises(error, match=message):
            push_to_hub(*arguments, **options)
    for lost, message in (("attention.py", "lacks attention.py"), ("model.safetensors", "holds no weights")):
        generating_folder(tmp_path / lost, "luong", old=False)
        (tmp_path / lost / lost).unlink()
        with pytest.raises(FileNotFoundError, match=message):
            push_to_hub(tmp_path / lost, "a/b")
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "config.json").write_text('{"architectures": ["BartModel"]}')
    with pytest.raises(ValueError, match=r"architectures: got \['BartModel'\]"):
        push_to_hub(tmp_path / "bart", "a/b")
    assert len(hub.asked) == asked and not [name for name in hub.repositories if name.startswith("a/")]
