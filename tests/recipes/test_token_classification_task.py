"""Tagging by recipe: a tiny run of the script end to end, its model in a pipeline, and how words meet tokens."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from several_models import check_that_several_models_are_evaluated
from transformers import pipeline

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_labels import TokenClassificationTask
from hf_rnn_seq2seq.sharing.results import read_results


SCRIPT = Path(__file__).parents[2] / "scripts" / "run_token_classification.py"
PEOPLE, PLACES = ["anna", "bob", "mary ann"], ["rome", "new york"]

CONTENT: dict[str, Any] = {
    "data": {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
    "tokenizer": {"characters": True},
    "model": {
        "rnn_type": "gru",
        "embedding_size": 8,
        "encoder_hidden_size": 16,
        "encoder_layers": 1,
        "character_embedding_size": 4,
        "character_hidden_size": 8,
        "use_crf": True,
    },
    "training": {
        "num_train_epochs": 6,
        "max_tokens": 60,
        "learning_rate": 0.02,
        "report_to": "none",
        "disable_tqdm": True,
    },
    "evaluation": {"metrics": {"f1": "entity_f1", "accuracy": "accuracy"}, "best_metric": "f1", "batch_size": 7},
}


def sentence(generator: random.Random) -> dict[str, list[str]]:
    """Somebody flies somewhere, or somebody meets somebody."""
    tokens, tags = [], []
    who, where = generator.choice(PEOPLE), generator.choice(PLACES)
    for phrase, kind in ((who, "PER"), (generator.choice(["flies to", "lives in"]), None), (where, "LOC")):
        for number, word in enumerate(phrase.split()):
            tokens.append(word)
            tags.append("O" if kind is None else f"{'I' if number else 'B'}-{kind}")
    return {"tokens": tokens, "tags": tags}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("data"), random.Random(0)
    for name, number in (("train", 80), ("dev", 10), ("test", 15)):
        write(folder / f"{name}.jsonl", [sentence(generator) for _ in range(number)])
    return folder


def changed(**changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed."""
    content: dict[str, Any] = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            content.setdefault(section, {})[key] = value
        else:
            content[section] = value
    return content


def built(data_dir: Path, **changes: Any) -> tuple[TokenClassificationTask, Any]:
    task = TokenClassificationTask(build_recipe(changed(**changes), "tiny", TokenClassificationTask.kind))
    data = task.load_data(data_dir)
    task.build(data)
    return task, data


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the script, in a process of its own."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(write_yaml(CONTENT))
    command = [sys.executable, str(SCRIPT), "tiny.yaml", "--data_dir", str(data_dir), "--output_dir", "out"]
    done = subprocess.run(
        [*command, "--results", "tiny.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\nf1 = 100.0000\n" in done.stdout
    return folder


def test_the_script_trains_evaluates_and_predicts(run: Path, data_dir: Path) -> None:
    metrics = read_results(run / "tiny.json").metrics
    assert metrics["f1"] == metrics["f1_precision"] == metrics["f1_recall"] == metrics["accuracy"] == 100
    assert "validation_f1" in metrics
    header, *lines = (run / "out" / "predictions_test.tsv").read_text().split("\n")
    assert header == "token\tlabel\tprediction"
    rows = [json.loads(line) for line in (data_dir / "test.jsonl").read_text().splitlines()]
    expected = [
        line
        for row in rows
        for line in [*(f"{w}\t{t}\t{t}" for w, t in zip(row["tokens"], row["tags"], strict=True)), ""]
    ]
    assert lines == [*expected, ""]


def test_the_saved_model_works_in_a_pipeline(run: Path) -> None:
    tag = pipeline("token-classification", model=str(run / "out"), aggregation_strategy="simple")
    text = "mary ann lives in new york"
    found = [(entity["entity_group"], text[entity["start"] : entity["end"]]) for entity in tag(text)]
    assert found == [("PER", "mary ann"), ("LOC", "new york")]
    assert tag.model.config.label2id == {"O": 0, "B-LOC": 1, "B-PER": 2, "I-LOC": 3, "I-PER": 4}


def test_evaluating_the_saved_model_gives_the_same_numbers(run: Path, data_dir: Path, tmp_path: Path) -> None:
    options = ["--data_dir", data_dir, "--output_dir", tmp_path, "--eval_only", run / "out"]
    got = run_command(TokenClassificationTask, None, [str(option) for option in (run / "tiny.yaml", *options)])
    assert got == read_results(run / "tiny.json").metrics


def test_an_ensemble_and_a_mean_of_checkpoints_are_evaluated(run: Path, data_dir: Path, tmp_path: Path) -> None:
    check_that_several_models_are_evaluated(TokenClassificationTask, run, data_dir, tmp_path)


@pytest.mark.parametrize("tokenizer", [{"type": "word"}, {"type": "bpe", "vocab_size": 280, "add_eos": True}])
def test_a_word_has_the_label_of_its_first_token(data_dir: Path, tokenizer: dict[str, Any]) -> None:
    task, data = built(data_dir, tokenizer=tokenizer)
    encoded = task.encode(data["test"], "test")
    names = task.model.config.id2label
    for row, source in zip(encoded, data["test"], strict=True):
        labelled = [(place, names[label]) for place, label in enumerate(row["labels"]) if label != -100]
        assert [label for _, label in labelled] == source["labels"]
        pieces = [*(place for place, _ in labelled), len(row["input_ids"])]
        words = [task.tokenizer.decode(row["input_ids"][a:b], skip_special_tokens=True) for a, b in pairwise(pieces)]
        assert [word.strip() for word in words] == source["tokens"]
    assert len(encoded[0]["input_ids"]) >= len(data["test"][0]["tokens"]) + (tokenizer["type"] == "bpe")


def test_batches_are_padded_and_predictions_keep_the_order(data_dir: Path) -> None:
    task, data = built(data_dir)
    batch = task.collate([dict(row) for row in task.encode(data["test"], "test")])
    lengths = [len(tokens) for tokens in data["test"]["tokens"]]
    assert batch["labels"].shape == batch["input_ids"].shape == (15, max(lengths))
    assert batch["character_ids"].shape[:2] == batch["labels"].shape
    assert torch.equal(batch["labels"] != -100, batch["attention_mask"].bool())
    assert task.lengths(task.encode(data["test"], "test")) == [(length, length) for length in lengths]
    names = task.model.config.id2label
    wanted = [
        [names[label] for label in row if label != -100]
        for row in task.model.eval()
        .decode(**{name: value for name, value in batch.items() if name != "labels"})
        .tolist()
    ]
    assert task.predict(data["test"]) == wanted


@pytest.mark.parametrize("side", ["right", "left"])
def test_characters_are_padded_as_by_the_tokenizer(data_dir: Path, side: str) -> None:
    task, data = built(data_dir)
    task.tokenizer.padding_side = side
    rows = list(task.encode(data["test"], "test"))
    inputs = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    wanted = task.tokenizer.pad(inputs, return_tensors="pt")
    batch = task.collate(rows)
    width = batch["character_ids"].shape[2]
    assert torch.equal(batch["character_ids"], wanted["character_ids"][..., :width])
    assert (wanted["character_ids"][..., width:] == task.tokenizer.pad_token_id).all()
    assert torch.equal(batch["input_ids"], wanted["input_ids"])
    assert torch.equal(batch["labels"] != -100, wanted["attention_mask"].bool())


def test_a_label_that_train_lacks_counts_as_wrong(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes((data_dir / "train.jsonl").read_bytes())
    write(tmp_path / "test.jsonl", [{"tokens": ["anna", "sings"], "tags": ["B-PER", "B-ACT"]}])
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    task, data = built(tmp_path, data={**files, "unseen_labels": "count_wrong"})
    assert task.encode(data["test"], "test")[0]["labels"] == [task.model.config.label2id["B-PER"], -100]
    scores = task.evaluate(data["test"], tmp_path / "predictions.tsv").numbers
    assert scores["accuracy"] <= 50
    assert "\nsings\tB-ACT\t" in (tmp_path / "predictions.tsv").read_text()


def test_embeddings_start_from_word_vectors(data_dir: Path, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_bytes((data_dir / f"{split}.jsonl").read_bytes())
    (tmp_path / "vectors.txt").write_text("anna " + " ".join(["0.5"] * 8) + "\n")
    task, _ = built(tmp_path, tokenizer={"word_vectors": "vectors.txt"})
    table, plain = task.model.get_input_embeddings().weight, built(tmp_path, tokenizer={"type": "word"})[0].model
    changed_rows = (table != plain.get_input_embeddings().weight).any(1).nonzero().flatten().tolist()
    assert changed_rows == [task.tokenizer.convert_tokens_to_ids("anna")]
    assert table[changed_rows[0]].tolist() == [0.5] * 8


def test_a_word_without_a_token_is_named(data_dir: Path) -> None:
    task, data = built(data_dir)
    # Reading refuses blank words; here is one that did not come from a file.
    broken = data["train"].select([0]).map(lambda row: {"tokens": ["anna", "\u3000"], "labels": ["B-PER", "O"]})
    with pytest.raises(DataError, match=r"test: sentence 1: the tokenizer has no token for the word '\\u3000'"):
        task.encode(broken, "test")
