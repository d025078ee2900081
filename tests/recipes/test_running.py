"""What stands around a run: one process in a folder, failing disks named, a run's folder after a kill."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tiny_runs import run, snapshot, write_data

from hf_rnn_seq2seq.recipes import running
from hf_rnn_seq2seq.recipes.run_folder import EARLIER_FOLDER, recover, run_id
from hf_rnn_seq2seq.recipes.running import disk_error, naming_disk_errors, only_process_in
from hf_rnn_seq2seq.training.trainer import RecipeTrainer


def hold(folder: Path, ready: Any) -> None:
    with only_process_in(folder):
        ready.set()
        signal.pause()


def test_a_folder_is_for_one_process_until_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_LOCK_SECONDS", 0.1)
    out = tmp_path / "new" / "out"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(out, ready))
    other.start()
    assert ready.wait(60)
    (tmp_path / "link").symlink_to(out)
    for path in (out, tmp_path / "link"):
        with (
            pytest.raises(BlockingIOError, match="--output_dir: another process is at work in"),
            only_process_in(path),
        ):
            pass
    other.kill()
    other.join()
    with only_process_in(out):
        pass
    assert list(out.iterdir()) == []
    with only_process_in(tmp_path / "fresh" / "out"):
        pass
    assert not (tmp_path / "fresh").exists()


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (OSError("[Errno 5] Error writing bytes to file. Detail: [errno 5] Input/output error"), errno.EIO),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 46 vs 0"), errno.EIO),
        (caused(RuntimeError("unexpected pos 46 vs 0"), OSError(errno.EROFS, "Read-only")), errno.EROFS),
        (OSError(errno.ENOENT, "No such file"), None),
        (RuntimeError("shapes differ"), None),
    ],
)
def test_what_the_disk_said_is_found_in_what_libraries_say(error: Exception, number: int | None) -> None:
    found = disk_error(error)
    assert (found and found[0]) == number
    kind = type(error) if number is None else OSError
    with pytest.raises(kind) as said, naming_disk_errors("out", lambda: "go on"):
        raise error
    if number is not None:
        assert said.value.errno == number and said.value.strerror == f"{os.strerror(number)}; go on"


def test_a_run_that_was_being_moved_aside_comes_back_together(tmp_path: Path) -> None:
    (tmp_path / ".earlier_run").mkdir()
    (tmp_path / ".earlier_run" / "model.safetensors").write_text("a")
    (tmp_path / "config.json").write_text("b")
    recover(tmp_path)
    assert snapshot(tmp_path).keys() == {"model.safetensors", "config.json"}


def test_finished_work_is_set_aside_and_not_what_was_aside_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was killed when it had finished but had not deleted what was there before."""
    write_data(tmp_path)
    out = tmp_path / "out"
    run("seq2seq", tmp_path, "--output_dir", out)
    before, first = snapshot(out), run_id(out)
    (out / EARLIER_FOLDER).mkdir()
    (out / EARLIER_FOLDER / "model.safetensors").write_text("half deleted")
    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "training_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run("seq2seq", tmp_path, "--output_dir", out, "--overwrite")
    assert snapshot(out) == before
    run("seq2seq", tmp_path, "--output_dir", out, "--overwrite")
    assert run_id(out) != first and not (out / EARLIER_FOLDER).exists()


def test_another_recipe_is_refused_without_the_first_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    out = tmp_path / "out"
    run("seq2seq", tmp_path, "--output_dir", out)
    (out / "recipe.yaml").unlink()
    with pytest.raises(SystemExit, match=r"none of the checkpoints .*it is of another recipe"):
        run("seq2seq", tmp_path, "--output_dir", out, "--resume", training__seed=8)
    run("seq2seq", tmp_path, "--output_dir", out, "--resume", training__max_steps=6)
    assert run_id(out) is not None and (out / "checkpoint-6").is_dir()


def test_a_run_with_nothing_to_go_on_from_starts_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(SystemExit, match=r"^error: .*out: No space left on device; there is no checkpoint yet"):
            run("seq2seq", tmp_path, "--output_dir", tmp_path / "out")
    with caplog.at_level("INFO"):
        run("seq2seq", tmp_path, "--output_dir", tmp_path / "out", "--resume")
    assert "no finished checkpoint to go on from: the run starts anew" in caplog.text
    assert not list((tmp_path / "out").glob(".unfinished*"))
