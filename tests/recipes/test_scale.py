"""Values written `auto`: monotone, bounded, kept by a resume, overruled by numbers; and what is said of short runs."""

from __future__ import annotations

import json
import logging
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import content, write_data

from hf_rnn_seq2seq.recipes import command_line
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.library import copy_recipe
from hf_rnn_seq2seq.recipes.options import read_yaml, write_yaml
from hf_rnn_seq2seq.recipes.recipe import build_recipe, read_recipe
from hf_rnn_seq2seq.recipes.scale import SCALES, auto_keys, derive, derive_from_texts, filled, remarks, stand_ins
from hf_rnn_seq2seq.recipes.task import TASKS, TrainingReport, load_task, task_class
from hf_rnn_seq2seq.sharing.results import read_results


FOLDER = Path(__file__).parents[2] / "scripts" / "recipes"
START_HERE = sorted(FOLDER.glob("start_here_*.yaml"))
# What may not fall with the number of items; all else may not rise.
RISING = ("batch_size", "hidden_size", "embedding_size", "vocab_size", "max_tokens", "updates", "layers")
AUTO = {
    "training__max_tokens": "auto",
    "training__num_train_epochs": "auto",
    "training__learning_rate": "auto",
    "model__encoder_hidden_size": "auto",
    "model__hidden_dropout": "auto",
}


@pytest.mark.parametrize("task", SCALES)
def test_the_rule_is_monotone_and_bounded(task: str) -> None:
    sizes = [1, 2, 5, 30, 100, 181, 654, 900, 3271, 3600, 13_084, 29_000, 108_952, 10**6, 10**8]
    values = [derive(task, items, [(7, 9), (3, 4)]) for items in sizes]
    assert all(found.keys() <= stand_ins(task).keys() for found in values)
    for key in values[0]:
        column = [found[key] for found in values]
        rises = key.endswith(RISING)
        assert column == sorted(column, reverse=not rises), key
        least, most = min(column), max(column)
        if key.endswith("dropout"):
            assert least >= 0 and most <= 0.5
        elif not key.endswith("updates"):
            assert least > 0 and most <= 32_000, key
    assert values[-1]["training.num_train_epochs"] == 3
    # The rule is legal for the model and the Trainer at every size.
    for recipe in (read_recipe(path) for path in START_HERE):
        for found in (values[0], values[-1]) if recipe["task"] == task else ():
            build_recipe(filled(recipe, found), "sized", task_class(task).kind)


def test_every_kind_of_task_has_a_rule_and_all_but_synthesis_a_recipe_to_start_with(tmp_path: Path) -> None:
    assert SCALES.keys() == TASKS.keys()
    assert {read_recipe(path)["task"] for path in START_HERE} == TASKS.keys() - {"speak"}
    for path in START_HERE:
        recipe = load_task(copy_recipe(path.stem, tmp_path)).recipe
        assert len(auto_keys(recipe.content)) >= 5 and not recipe.derived


def run(folder: Path, kind: str, *options: str, **changes: Any) -> dict[str, float]:
    """Run the tiny recipe of a kind with values that follow from the data."""
    write_data(folder)
    task = {"seq2seq": "seq2seq", "tagging": "token_classification", "classification": "sequence_classification"}
    recipe = folder / "tiny.yaml"
    recipe.write_text(write_yaml({"task": task.get(kind, kind), **content(kind, **{**AUTO, **changes})}))
    where = ["--data_dir", str(folder), "--output_dir", str(folder / "out")]
    return run_command(None, None, [str(recipe), *where, *options])


@pytest.mark.parametrize("kind", ["seq2seq", "speech"])
def test_a_run_says_and_keeps_what_auto_came_to(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of 32 items; the recipe of the run has numbers, and a resume keeps them, also if the data has grown."""
    results = ["--results", str(tmp_path / "results.json")]
    with caplog.at_level(logging.INFO):
        run(tmp_path, kind, *results, "--set", "model.hidden_dropout=0.125", "training.max_steps=2")
    out = tmp_path / "out"
    report = TrainingReport.load(out)
    assert report is not None and report.items == 32
    task = read_yaml((out / "recipe.yaml").read_text(), "recipe.yaml")["task"]
    rule = derive(task, 32)
    for key in ("training.num_train_epochs", "training.learning_rate", "model.encoder_hidden_size"):
        assert report.derived[key] == rule[key] and f"{key} {rule[key]}" in caplog.text
    assert report.derived.keys() == {key.replace("__", ".") for key in AUTO} - {"model.hidden_dropout"}
    written = read_recipe(out / "recipe.yaml")
    assert not auto_keys(written)
    assert written["model"]["hidden_dropout"] == 0.125  # a number wins
    assert written["training"]["max_tokens"] == report.derived["training.max_tokens"]
    assert json.loads((out / "config.json").read_text())["encoder_hidden_size"] == rule["model.encoder_hidden_size"]
    assert f"model.encoder_hidden_size {rule['model.encoder_hidden_size']}" in read_results(results[1]).details["auto"]
    assert f"training.max_tokens {report.derived['training.max_tokens']}" in (out / "README.md").read_text()
    assert "few updates: 2 for 32 training items" in caplog.text and "few updates" in (out / "README.md").read_text()
    # More data, and the run goes on with what it has.
    for name in ("train.tsv", "train.jsonl", "train_labels.tsv"):
        (tmp_path / name).write_text((tmp_path / name).read_text() * 40)
    recipe = [str(tmp_path / "tiny.yaml"), "--data_dir", str(tmp_path), "--output_dir", str(out), "--resume"]
    kept = ["--set", "model.hidden_dropout=0.125", "training.max_steps=4"]
    run_command(None, None, [*recipe, *kept])
    resumed = TrainingReport.load(out)
    assert resumed is not None and resumed.updates == 4 and resumed.derived == report.derived
    assert read_recipe(out / "recipe.yaml") == written
    with pytest.raises(SystemExit, match=r"another recipe: model.encoder_hidden_size \(\d+ -> 100\)"):
        run_command(None, None, [*recipe, *kept, "model.encoder_hidden_size=100"])


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("seq2seq", "training.seed"),
        ("seq2seq", "model.decoder_layers"),
        ("seq2seq", "tokenizer.source.min_frequency"),
        ("tagging", "model.decoder_hidden_size"),
        ("classification", "training.warmup_steps"),
        ("speech", "tokenizer.source.vocab_size"),
        ("speech", "training.lr_scheduler_type"),
    ],
)
def test_auto_where_nothing_follows_is_refused_by_name(kind: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"error: {key}: got auto, which .* has for training.num_train_epochs, "):
        run(tmp_path, kind, "--set", f"{key}=auto")
    assert not (tmp_path / "out").exists()


def test_vocabularies_that_are_no_subwords_have_no_limit(tmp_path: Path) -> None:
    sizes = {"source": {"type": "character", "vocab_size": "auto"}, "target": {"type": "bpe", "vocab_size": "auto"}}
    run(tmp_path, "seq2seq", tokenizer__source=sizes["source"], tokenizer__target=sizes["target"])
    report = TrainingReport.load(tmp_path / "out")
    assert report is not None
    assert report.derived["tokenizer.source.vocab_size"] is None
    assert report.derived["tokenizer.target.vocab_size"] == derive("seq2seq", 32)["tokenizer.target.vocab_size"]


WORDS = ["".join(letters) for letters in permutations("abcde", 4)]
TEXTS = {
    "pronounced": (WORDS, [" ".join(word.upper()) for word in WORDS], "character", "word", "hard_monotonic"),
    "inflected": (WORDS, [f"{word}ed" for word in WORDS], "character", "character", "hard_monotonic"),
    "reversed": (WORDS, [word[::-1] for word in WORDS], "character", "character", "general"),
    "sorted": (WORDS, ["".join(sorted(word)) for word in WORDS], "character", "character", "general"),
    "many words": (WORDS * 90, WORDS * 90, "character", "character", "general"),
    "sentences": (["We go home, they to the mill."], ["Heim gehen wir, zur Mühle sie."], "bpe", "bpe", "general"),
    "symbols": (["A B C", "B C A"] * 20, ["x y z", "y z x"] * 20, "word", "word", "general"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("shared", [False, True])
def test_texts_decide_what_is_a_symbol_and_how_it_is_attended_to(name: str, shared: bool) -> None:
    sources, targets, *wanted = TEXTS[name]
    sides = {"source": {"type": "auto"}} if shared else {"source": {"type": "auto"}, "target": {"type": "auto"}}
    recipe = {"tokenizer": {"shared": shared, **sides}, "model": {"attention_type": "auto"}}
    found = derive_from_texts(recipe, sources, targets)
    if not shared or name != "pronounced":  # whose letters and phones have no vocabulary in common
        assert [*found.values()] == wanted
    assert derive_from_texts({"tokenizer": {"source": {"type": "bpe"}}}, sources, targets) == {}


def test_a_type_that_is_said_is_the_one_that_is_read() -> None:
    sources, targets, *_ = TEXTS["pronounced"]
    recipe = {"tokenizer": {"source": {"type": "bpe"}}, "model": {"attention_type": "auto"}}
    assert derive_from_texts(recipe, sources, targets)["model.attention_type"] == "general"
    assert derive_from_texts(recipe, [], [])["model.attention_type"] == "general"


def test_a_run_keeps_what_its_texts_decided(tmp_path: Path) -> None:
    """Also if other texts stand in its files when it goes on."""
    auto = {"type": "auto", "vocab_size": "auto"}
    kept: dict[str, Any] = {"tokenizer__source": auto, "tokenizer__target": auto, "model__attention_type": "auto"}
    run(tmp_path, "seq2seq", "--set", "training.max_steps=2", **kept)
    report = TrainingReport.load(tmp_path / "out")
    assert report is not None and report.derived["tokenizer.source.type"] == "character"
    assert report.derived["model.attention_type"] in ("general", "hard_monotonic")
    assert report.derived["tokenizer.source.vocab_size"] is None and not auto_keys(
        read_recipe(tmp_path / "out/recipe.yaml")
    )
    assert (
        json.loads((tmp_path / "out/config.json").read_text())["attention_type"]
        == report.derived["model.attention_type"]
    )
    (tmp_path / "train.tsv").write_text(("abcd" * 10 + "\tdcba\n") * 100)  # too long for words
    recipe = [
        str(tmp_path / "tiny.yaml"),
        "--data_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "out"),
        "--resume",
    ]
    run_command(None, None, [*recipe, "--set", "training.max_steps=4"])
    resumed = TrainingReport.load(tmp_path / "out")
    assert resumed is not None and resumed.updates == 4 and resumed.derived == report.derived


SOUND: dict[str, Any] = {"task": "seq2seq", "items": 900, "planned": 3000, "done": 3000, "warmup": 180}
FLAT = [(600 * number, loss) for number, loss in enumerate((2.0, 1.5, 1.3, 1.22, 1.2), start=1)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"planned": 200, "done": 200, "warmup": 10}, "few updates: 200 for 900 training items"),
        ({"losses": [(step, 2.0 - step / 2000) for step, _ in FLAT]}, "the validation loss was still falling"),
        ({"warmup": 601}, "the warm-up took 601 of 3000 updates, more than 20%"),
    ],
)
def test_each_sign_of_a_short_run_has_its_sentence(changes: dict[str, Any], words: str) -> None:
    assert remarks(**{**SOUND, "losses": FLAT}) == []
    found = remarks(**{**SOUND, "losses": [], **changes})
    assert len(found) == 1 and words in found[0]
    # Overfitted, stopped early with its updates planned, or not evaluated: nothing to say.
    rising = [*FLAT[:3], (2400, 1.31), (3000, 1.4)]
    assert remarks(**{**SOUND, "done": 1500, "losses": rising[:2]}) == []
    assert remarks(**{**SOUND, "losses": rising}) == [] == remarks(**{**SOUND, "losses": []})


def test_a_short_run_says_all_three_and_a_sound_one_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = ["training.max_steps=10", "training.warmup_steps=8", "training.max_tokens=64"]
    run(tmp_path, "tagging", "--set", *short)
    signs = ("few updates: 10", "still falling at the end", "the warm-up took 8 of 10")
    report = TrainingReport.load(tmp_path / "out")
    assert report is not None and len(report.remarks) == 3
    assert all(sign in remark and remark in caplog.text for sign, remark in zip(signs, report.remarks, strict=True))
    caplog.clear()
    sound = ["training.updates=250", "training.max_steps=-1", "training.eval_steps=50", "training.save_steps=50"]
    run(tmp_path, "tagging", "--overwrite", "--set", *sound, "training.warmup_steps=0.05")
    report = TrainingReport.load(tmp_path / "out")
    assert report is not None and report.updates == 250 and report.remarks == []
    assert not any(sign[:9] in caplog.text for sign in signs)
    with pytest.raises(SystemExit, match=r"training\.updates: got 250 beside max_steps"):
        run(tmp_path, "tagging", "--set", "training.updates=250")


def test_a_recipe_to_start_with_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line.main(["recipes", "copy", "start_here_tags", str(tmp_path)])
    assert "num_train_epochs: auto" in (tmp_path / "start_here_tags.yaml").read_text()
    assert "start_here_tags" in capsys.readouterr().out
