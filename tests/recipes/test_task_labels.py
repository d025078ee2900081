"""The two classifiers by recipe: tiny runs of the scripts end to end, models in a pipeline, how words meet tokens."""

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
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask, TokenClassificationTask
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.sharing.results import read_results


SCRIPTS = Path(__file__).parents[2] / "scripts"
TASKS: dict[str, Any] = {
    "token_classification": TokenClassificationTask,
    "sequence_classification": SequenceClassificationTask,
}
SIZES = {"rnn_type": "gru", "embedding_size": 8, "encoder_hidden_size": 16, "encoder_layers": 1}
TRAINING = {"max_tokens": 60, "learning_rate": 0.02, "report_to": "none", "disable_tqdm": True}
CONTENTS: dict[str, dict[str, Any]] = {
    "token_classification": {
        "data": {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
        "tokenizer": {"characters": True},
        "model": {**SIZES, "character_embedding_size": 4, "character_hidden_size": 8, "use_crf": True},
        "training": {"num_train_epochs": 6, **TRAINING},
        "evaluation": {"metrics": {"f1": "entity_f1", "accuracy": "accuracy"}, "best_metric": "f1", "batch_size": 7},
    },
    "sequence_classification": {
        "data": {
            "train": "train.tsv",
            "test": "test.tsv",
            "text_column": 2,
            "label_column": 1,
            "validation_fraction": 0.1,
            "label_names": {"0": "bad", "1": "good"},
        },
        "model": {**SIZES, "classifier_pooling": "attention"},
        "training": {"num_train_epochs": 5, **TRAINING},
        "evaluation": {"metrics": ["accuracy", "macro_f1"], "best_metric": "accuracy", "batch_size": 7},
    },
}
PEOPLE, PLACES = ["anna", "bob", "mary ann"], ["rome", "new york"]


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


def text(generator: random.Random) -> str:
    """A line of a table: the label, and the film as awful or great."""
    label = generator.randrange(2)
    words = [*generator.choices(["a", "the", "film"], k=generator.randint(0, 4)), ("awful", "great")[label]]
    generator.shuffle(words)
    return f"{label}\t{' '.join(words)}\n"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("data"), random.Random(0)
    for name, number in (("train", 80), ("dev", 10), ("test", 15)):
        write(folder / f"{name}.jsonl", [sentence(generator) for _ in range(number)])
    generator = random.Random(0)
    for name, number in (("train", 100), ("test", 20)):
        (folder / f"{name}.tsv").write_text("".join(text(generator) for _ in range(number)))
    return folder


def changed(kind: str, **changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed."""
    content: dict[str, Any] = json.loads(json.dumps(CONTENTS[kind]))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            content.setdefault(section, {})[key] = value
        else:
            content[section] = value
    return content


def built(kind: str, data_dir: Path, **changes: Any) -> tuple[Any, Any]:
    task = TASKS[kind](build_recipe(changed(kind, **changes), "tiny", TASKS[kind].kind))
    data = task.load_data(data_dir)
    task.build(data)
    return task, data


@pytest.fixture(scope="module")
def runs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of finished runs of the scripts, in processes of their own."""
    folders = {}
    for kind, best in (("token_classification", "f1"), ("sequence_classification", "accuracy")):
        folder = folders[kind] = tmp_path_factory.mktemp(kind)
        (folder / "tiny.yaml").write_text(write_yaml(CONTENTS[kind]))
        command = [sys.executable, str(SCRIPTS / f"run_{kind}.py"), "tiny.yaml", "--data_dir", str(data_dir)]
        command += ["--output_dir", "out", "--results", "tiny.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"\n{best} = 100.0000\n" in done.stdout
    return folders


@pytest.mark.parametrize("kind", TASKS)
def test_evaluating_the_saved_model_gives_the_same_numbers(
    kind: str, runs: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    run = runs[kind]
    options = ["--data_dir", data_dir, "--output_dir", tmp_path, "--eval_only", run / "out"]
    got = run_command(TASKS[kind], None, [str(option) for option in (run / "tiny.yaml", *options)])
    assert got == read_results(run / "tiny.json").metrics


@pytest.mark.parametrize("kind", TASKS)
def test_an_ensemble_and_a_mean_of_checkpoints_are_evaluated(
    kind: str, runs: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    check_that_several_models_are_evaluated(TASKS[kind], runs[kind], data_dir, tmp_path)


def test_the_script_trains_evaluates_and_predicts_labels_of_words(runs: dict[str, Path], data_dir: Path) -> None:
    metrics = read_results(runs["token_classification"] / "tiny.json").metrics
    assert metrics["f1"] == metrics["f1_precision"] == metrics["f1_recall"] == metrics["accuracy"] == 100
    assert "validation_f1" in metrics
    header, *lines = (runs["token_classification"] / "out" / "predictions_test.tsv").read_text().split("\n")
    assert header == "token\tlabel\tprediction"
    rows = [json.loads(line) for line in (data_dir / "test.jsonl").read_text().splitlines()]
    expected = [
        line
        for row in rows
        for line in [*(f"{w}\t{t}\t{t}" for w, t in zip(row["tokens"], row["tags"], strict=True)), ""]
    ]
    assert lines == [*expected, ""]


def test_a_model_of_labels_of_words_works_in_a_pipeline(runs: dict[str, Path]) -> None:
    tag = pipeline(
        "token-classification", model=str(runs["token_classification"] / "out"), aggregation_strategy="simple"
    )
    text = "mary ann lives in new york"
    found = [(entity["entity_group"], text[entity["start"] : entity["end"]]) for entity in tag(text)]
    assert found == [("PER", "mary ann"), ("LOC", "new york")]
    assert tag.model.config.label2id == {"O": 0, "B-LOC": 1, "B-PER": 2, "I-LOC": 3, "I-PER": 4}


@pytest.mark.parametrize("tokenizer", [{"type": "word"}, {"type": "bpe", "vocab_size": 280, "add_eos": True}])
def test_a_word_has_the_label_of_its_first_token(data_dir: Path, tokenizer: dict[str, Any]) -> None:
    task, data = built("token_classification", data_dir, tokenizer=tokenizer)
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
    task, data = built("token_classification", data_dir)
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
    task, data = built("token_classification", data_dir)
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
    task, data = built("token_classification", tmp_path, data={**files, "unseen_labels": "count_wrong"})
    assert task.encode(data["test"], "test")[0]["labels"] == [task.model.config.label2id["B-PER"], -100]
    scores = task.evaluate(data["test"], tmp_path / "predictions.tsv").numbers
    assert scores["accuracy"] <= 50
    assert "\nsings\tB-ACT\t" in (tmp_path / "predictions.tsv").read_text()


def test_embeddings_start_from_word_vectors(data_dir: Path, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_bytes((data_dir / f"{split}.jsonl").read_bytes())
    (tmp_path / "vectors.txt").write_text("anna " + " ".join(["0.5"] * 8) + "\n")
    task, _ = built("token_classification", tmp_path, tokenizer={"word_vectors": "vectors.txt"})
    table, plain = (
        task.model.get_input_embeddings().weight,
        built("token_classification", tmp_path, tokenizer={"type": "word"})[0].model,
    )
    changed_rows = (table != plain.get_input_embeddings().weight).any(1).nonzero().flatten().tolist()
    assert changed_rows == [task.tokenizer.convert_tokens_to_ids("anna")]
    assert table[changed_rows[0]].tolist() == [0.5] * 8


def test_a_word_without_a_token_is_named(data_dir: Path) -> None:
    task, data = built("token_classification", data_dir)
    # Reading refuses blank words; here is one that did not come from a file.
    broken = data["train"].select([0]).map(lambda row: {"tokens": ["anna", "\u3000"], "labels": ["B-PER", "O"]})
    with pytest.raises(DataError, match=r"test: sentence 1: the tokenizer has no token for the word '\\u3000'"):
        task.encode(broken, "test")


def test_the_script_trains_evaluates_and_predicts_labels_of_texts(runs: dict[str, Path], data_dir: Path) -> None:
    metrics = read_results(runs["sequence_classification"] / "tiny.json").metrics
    assert metrics["accuracy"] == metrics["macro_f1"] == 100
    names = {"0": "bad", "1": "good"}
    rows = [line.split("\t") for line in (data_dir / "test.tsv").read_text().splitlines()]
    expected = [f"{text}\t{names[label]}\t{names[label]}" for label, text in rows]
    lines = (runs["sequence_classification"] / "out" / "predictions_test.tsv").read_text().splitlines()
    assert lines == ["text\tlabel\tprediction", *expected]


def test_a_model_of_labels_of_texts_works_in_a_pipeline(runs: dict[str, Path]) -> None:
    classify = pipeline("text-classification", model=str(runs["sequence_classification"] / "out"))
    got = classify(["the film great", "awful a"])
    assert [entry["label"] for entry in got] == ["good", "bad"]
    assert all(0.5 < entry["score"] <= 1 for entry in got)


def test_predictions_keep_the_order_whatever_the_batches(data_dir: Path) -> None:
    task, data = built("sequence_classification", data_dir, evaluation__batch_size=3)
    alone = []
    for text in data["test"]["text"]:
        logits = task.model.eval()(**task.tokenizer([text], return_tensors="pt")).logits
        alone.append(task.model.config.id2label[int(logits.argmax())])
    assert task.predict(data["test"]) == alone
    assert task.model.train().training and task.predict(data["test"]) == alone
    assert task.model.training


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-text model, saved as a run saves it."""
    folder = tmp_path_factory.mktemp("translator")
    (folder / "pairs.tsv").write_text("a great film\tein toller film\nthe awful film\tder schlimme film\n")
    content = {
        "data": {"train": "pairs.tsv"},
        "tokenizer": {"source": {"type": "word"}, "target": {"type": "word"}},
        "model": {**SIZES, "decoder_hidden_size": 16, "decoder_layers": 1},
    }
    task = Seq2SeqTask(build_recipe(content, "translator"))
    task.build(task.load_data(folder))
    task.model.save_pretrained(folder / "model")
    task.save_processors(folder / "model")
    return folder / "model"


def test_an_encoder_of_a_translation_model_loads_with_only_the_head_new(
    translator: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hf_rnn_seq2seq")
    content = {
        name: section
        for name, section in changed("sequence_classification", pretrained__encoder=str(translator)).items()
    }
    content["model"] = {"classifier_pooling": "attention"}
    task = SequenceClassificationTask(build_recipe(content, "tiny", SequenceClassificationTask.kind))
    data = task.load_data(data_dir)
    task.build(data)
    assert f"encoder of {translator}; new are only: classifier.bias, classifier.weight, pooling.query" in caplog.text
    source = Seq2SeqTask(build_recipe({"data": {"train": "x"}}, "x"))
    source.load(translator)
    encoder = source.model.get_encoder().state_dict()
    for name, value in task.model.get_encoder().state_dict().items():
        assert torch.equal(value, encoder[name]), name
    assert task.tokenizer.get_vocab() == source.source_tokenizer.get_vocab()
    # The vocabulary is the other model's: words that it lacks are unknown, and all can be trained and predicted.
    assert len(task.predict(data["test"])) == len(data["test"])


def test_what_does_not_fit_a_pretrained_encoder_is_refused(translator: Path, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionsError, match=r"tokenizer: leave the section out, pretrained.encoder brings its tokenizer"
    ):
        built("sequence_classification", data_dir, pretrained__encoder=str(translator), tokenizer__lowercase=True)
    with pytest.raises(OptionsError, match=r"pretrained.encoder: .* holds no config.json"):
        built("sequence_classification", data_dir, pretrained__encoder=str(tmp_path))
    with pytest.raises(OptionsError, match="model: its options do not fit the encoder in"):
        built("sequence_classification", data_dir, pretrained__encoder=str(translator), model__encoder_hidden_size=32)


def test_one_label_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("1\ta\n1\tb\n")
    (tmp_path / "test.tsv").write_text("1\ta\n")
    with pytest.raises(DataError, match=r"data.train: the only label is 'good', wanted at least two"):
        built("sequence_classification", tmp_path, data__validation_fraction=None)


def test_bad_data_ends_the_script_with_one_line(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("1\tgood\n0\n")
    (tmp_path / "tiny.yaml").write_text(write_yaml(CONTENTS["sequence_classification"]))
    options = [tmp_path / "tiny.yaml", "--data_dir", tmp_path, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"error: .*train.tsv, line 2: 1 columns, wanted 2"):
        run_command(SequenceClassificationTask, None, [str(option) for option in options])
