"""The key `task`, and the command `hf-rnn-seq2seq`: recipes run by task, listed and copied; also from a wheel."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TASKS, content, write_data

from hf_rnn_seq2seq.recipes import command_line
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.library import library_folder, recipe_sentences
from hf_rnn_seq2seq.recipes.options import read_yaml, write_yaml
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.run_folder import differences
from hf_rnn_seq2seq.recipes.task import TASKS as NAMES
from hf_rnn_seq2seq.recipes.task import task_class


ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "scripts" / "recipes"


def test_every_task_has_a_name() -> None:
    assert {task_class(name) for name in NAMES} >= set(TASKS.values())
    assert all(task_class(name).kind.task == name for name in NAMES)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_says_its_task_first(path: Path) -> None:
    recipe = read_yaml(path.read_text(encoding="utf-8"), path.name)
    assert next(iter(recipe)) == "task" and recipe["task"] in NAMES
    assert f"task: {recipe['task']}  # {' | '.join(NAMES)}\n" in path.read_text(encoding="utf-8")


def test_a_script_of_one_task_refuses_the_recipes_of_others(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: task: got 'speech', wanted seq2seq.*scripts/run.py"):
        run_command(TASKS["seq2seq"], None, [str(RECIPES / "an4.yaml"), "--output_dir", str(tmp_path / "out")])
    unnamed = tmp_path / "unnamed.yaml"
    for task, message in ((None, "missing"), ("translation", "got 'translation'")):
        unnamed.write_text(write_yaml({**({} if task is None else {"task": task}), "data": {"train": "x.tsv"}}))
        with pytest.raises(SystemExit, match=f"error: task: {message}, wanted one of seq2seq, speech, speak, token"):
            run_command(None, None, [str(unnamed), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", TASKS)
def test_any_recipe_runs_by_the_task_it_says(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe in the folder says the task; the folder of an older run, which does not, is gone on with."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    out, recipe = tmp_path / "out", tmp_path / "tiny.yaml"
    recipe.write_text(write_yaml({"task": TASKS[kind].kind.task, **content(kind)}))
    command_line.main(["run", str(recipe), "--data_dir", str(tmp_path), "--output_dir", str(out)])
    written = read_yaml((out / "recipe.yaml").read_text(), "recipe.yaml")
    assert next(iter(written)) == "task" and written["task"] == TASKS[kind].kind.task
    del written["task"]
    (out / "recipe.yaml").write_text(write_yaml(written))
    assert differences(build_recipe(content(kind), "tiny", TASKS[kind].kind), out) == []
    options = ["--data_dir", str(tmp_path), "--output_dir", str(out)]
    command_line.main(["run", str(recipe), *options, "--resume"])
    command_line.main(["run", str(recipe), *options, "--overwrite", "--eval_only", str(out)])


def test_recipes_are_listed_with_their_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    command_line.main(["recipes"])
    printed = capsys.readouterr().out
    assert library_folder().samefile(RECIPES)
    sentences = recipe_sentences()
    assert sentences.keys() == {path.stem for path in RECIPES.glob("*.yaml")}
    for name, sentence in sentences.items():
        assert f"{name}\n    {sentence}\n" in printed and len(sentence) > 20 and sentence[-1] in ".)"


def test_a_recipe_is_copied_and_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line.main(["recipes", "copy", "toy_copy", str(tmp_path / "new")])
    copy = tmp_path / "new" / "toy_copy.yaml"
    assert capsys.readouterr().out == f"{copy}\n"
    assert copy.read_text() == (RECIPES / "toy_copy.yaml").read_text()
    copy.write_text("mine")
    with pytest.raises(SystemExit, match=r"toy_copy\.yaml"):
        command_line.main(["recipes", "copy", "toy_copy", str(tmp_path / "new")])
    assert copy.read_text() == "mine"
    with pytest.raises(SystemExit, match="got the recipe 'nothing', wanted one of an4, "):
        command_line.main(["recipes", "copy", "nothing", str(tmp_path)])


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], *([command] for command in command_line.COMMANDS)):
        with pytest.raises(SystemExit) as stopped:
            command_line.main([*arguments, "--help"])
        assert not stopped.value.code
        assert capsys.readouterr().out.startswith(" ".join(["usage: hf-rnn-seq2seq", *arguments]))
    for script in ("run", "predict", "export", "run_speech"):
        assert callable(runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))["main"])


def test_every_room_is_packaged() -> None:
    configuration: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "hf_rnn_seq2seq").rglob("__init__.py")}
    packages = {name.replace(".", "/") for name in configuration["tool"]["setuptools"]["packages"]}
    assert packages == rooms | {"hf_rnn_seq2seq/recipes/library_files"}


@pytest.mark.slow
def test_a_wheel_brings_the_command_and_the_recipes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in ("hf_rnn_seq2seq", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", target, source], check=True, timeout=200
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where = "import hf_rnn_seq2seq.recipes.library as l; print(l.__file__, l.library_folder())"

    def printed(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    installed = target / "hf_rnn_seq2seq" / "recipes"
    assert printed(sys.executable, "-c", where) == f"{installed / 'library.py'} {installed / 'library_files'}\n"
    assert "g2p_cmudict\n" in printed(sys.executable, target / "bin" / "hf-rnn-seq2seq", "recipes")
    printed(sys.executable, target / "bin" / "hf-rnn-seq2seq", "recipes", "copy", "g2p_cmudict", ".")
    assert (tmp_path / "g2p_cmudict.yaml").read_bytes() == (RECIPES / "g2p_cmudict.yaml").read_bytes()
