"""Classification by recipe: a tiny run of the script end to end, its model in a pipeline, another model's encoder."""

from __future__ import annotations

import json
import random
import subprocess
import sys
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
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.sharing.results import read_results


SCRIPTS = Path(__file__).parents[2] / "scripts"
SIZES = {"rnn_type": "gru", "embedding_size": 8, "encoder_hidden_size": 16, "encoder_layers": 1}
CONTENT: dict[str, Any] = {
    "data": {
        "train": "train.tsv",
        "test": "test.tsv",
        "text_column": 2,
        "label_column": 1,
        "validation_fraction": 0.1,
        "label_names": {"0": "bad", "1": "good"},
    },
    "model": {**SIZES, "classifier_pooling": "attention"},
    "training": {
        "num_train_epochs": 5,
        "max_tokens": 60,
        "learning_rate": 0.02,
        "report_to": "none",
        "disable_tqdm": True,
    },
    "evaluation": {"metrics": ["accuracy", "macro_f1"], "best_metric": "accuracy", "batch_size": 7},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("data"), random.Random(0)
    for name, number in (("train", 100), ("test", 20)):
        lines = []
        for _ in range(number):
            label = generator.randrange(2)
            words = [*generator.choices(["a", "the", "film"], k=generator.randint(0, 4)), ("awful", "great")[label]]
            generator.shuffle(words)
            lines.append(f"{label}\t{' '.join(words)}\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder


def changed(**changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed."""
    content: dict[str, Any] = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        content.setdefault(section, {})[key] = value
    return content


def built(data_dir: Path, **changes: Any) -> tuple[SequenceClassificationTask, Any]:
    task = SequenceClassificationTask(build_recipe(changed(**changes), "tiny", SequenceClassificationTask.kind))
    data = task.load_data(data_dir)
    task.build(data)
    return task, data


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the script, in a process of its own."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(write_yaml(CONTENT))
    script = str(SCRIPTS / "run_sequence_classification.py")
    command = [sys.executable, script, "tiny.yaml", "--data_dir", str(data_dir), "--output_dir", "out"]
    done = subprocess.run(
        [*command, "--results", "tiny.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\naccuracy = 100.0000\n" in done.stdout
    return folder


def test_the_script_trains_evaluates_and_predicts(run: Path, data_dir: Path) -> None:
    metrics = read_results(run / "tiny.json").metrics
    assert metrics["accuracy"] == metrics["macro_f1"] == 100
    names = {"0": "bad", "1": "good"}
    rows = [line.split("\t") for line in (data_dir / "test.tsv").read_text().splitlines()]
    expected = [f"{text}\t{names[label]}\t{names[label]}" for label, text in rows]
    lines = (run / "out" / "predictions_test.tsv").read_text().splitlines()
    assert lines == ["text\tlabel\tprediction", *expected]


def test_the_saved_model_works_in_a_pipeline(run: Path) -> None:
    classify = pipeline("text-classification", model=str(run / "out"))
    got = classify(["the film great", "awful a"])
    assert [entry["label"] for entry in got] == ["good", "bad"]
    assert all(0.5 < entry["score"] <= 1 for entry in got)


def test_evaluating_the_saved_model_gives_the_same_numbers(run: Path, data_dir: Path, tmp_path: Path) -> None:
    options = ["--data_dir", data_dir, "--output_dir", tmp_path, "--eval_only", run / "out"]
    got = run_command(SequenceClassificationTask, None, [str(option) for option in (run / "tiny.yaml", *options)])
    assert got == read_results(run / "tiny.json").metrics


def test_an_ensemble_and_a_mean_of_checkpoints_are_evaluated(run: Path, data_dir: Path, tmp_path: Path) -> None:
    check_that_several_models_are_evaluated(SequenceClassificationTask, run, data_dir, tmp_path)


def test_predictions_keep_the_order_whatever_the_batches(data_dir: Path) -> None:
    task, data = built(data_dir, evaluation__batch_size=3)
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
    content = {name: section for name, section in changed(pretrained__encoder=str(translator)).items()}
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
        built(data_dir, pretrained__encoder=str(translator), tokenizer__lowercase=True)
    with pytest.raises(OptionsError, match=r"pretrained.encoder: .* holds no tokenizer.json"):
        built(data_dir, pretrained__encoder=str(tmp_path))
    with pytest.raises(OptionsError, match="model: its options do not fit the encoder in"):
        built(data_dir, pretrained__encoder=str(translator), model__encoder_hidden_size=32)


def test_one_label_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("1\ta\n1\tb\n")
    (tmp_path / "test.tsv").write_text("1\ta\n")
    with pytest.raises(DataError, match=r"data.train: the only label is 'good', wanted at least two"):
        built(tmp_path, data__validation_fraction=None)


def test_bad_data_ends_the_script_with_one_line(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("1\tgood\n0\n")
    (tmp_path / "tiny.yaml").write_text(write_yaml(CONTENT))
    options = [tmp_path / "tiny.yaml", "--data_dir", tmp_path, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"error: .*train.tsv, line 2: 1 columns, wanted 2"):
        run_command(SequenceClassificationTask, None, [str(option) for option in options])
