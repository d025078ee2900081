"""Work in parts: whatever kills it, the output is that of an undisturbed run, and no finished part is done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_rnn_seq2seq.evaluation.work_in_parts import work_in_parts


def upper(chunk: Sequence[str]) -> list[str]:
    return [item.upper() for item in chunk]


def run_in_a_process(items: list[str], output: Path, part_size: int, log: Path, kill_at: int | None) -> int | None:
    """The exit code of a process of its own, which kills itself in the middle of a part."""

    def work(chunk: Sequence[str]) -> list[str]:
        with log.open("a") as handle:
            handle.writelines(f"{item}\n" for item in chunk)
        if log.read_text().count("\n") > (len(items) * 99 if kill_at is None else kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return upper(chunk)

    def target() -> None:
        work_in_parts(items, work, output, job={"model": 1}, part_size=part_size)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    return process.exitcode


@settings(max_examples=8, deadline=None)
@given(number=st.integers(1, 12), part_size=st.integers(1, 5), kills=st.lists(st.integers(0, 12), max_size=2))
def test_a_killed_run_goes_on_where_it_was(number: int, part_size: int, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "out.txt", Path(folder) / "log"
        items = [f"item {n}" for n in range(number)]
        killed = 0
        for kill_at in sorted(kills):
            if not output.exists():
                killed += run_in_a_process(items, output, part_size, log, kill_at) == -signal.SIGKILL
        if not output.exists():
            assert run_in_a_process(items, output, part_size, log, None) == 0
        assert output.read_text() == "".join(f"ITEM {n}\n" for n in range(number))
        assert not output.with_name("out.txt.parts").exists()
        # Done twice was only the part in which a kill came.
        done = Counter(log.read_text().splitlines())
        assert set(done) == set(items) and done.total() <= number + killed * part_size


def stops(after: int, work: Callable[[Sequence[str]], list[str]]) -> Callable[[Sequence[str]], list[str]]:
    """The work, with an error once so many parts are done."""
    calls = iter(range(after))

    def broken(chunk: Sequence[str]) -> list[str]:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return work(chunk)

    return broken


def test_parts_of_another_job_are_not_mixed_in(tmp_path: Path) -> None:
    output, items = tmp_path / "out", ["a", "b", "c"]
    with pytest.raises(KeyboardInterrupt):
        work_in_parts(items, stops(1, upper), output, job={"beams": 1}, part_size=1)
    for changed, options, message in (
        (items, {"job": {"beams": 4}, "part_size": 1}, "beams was 1 and is 4"),
        (items, {"job": {"beams": 1}, "part_size": 2}, "part_size was 1 and is 2"),
        (["a", "b", "d"], {"job": {"beams": 1}, "part_size": 1}, "content was '"),
    ):
        with pytest.raises(FileExistsError, match=rf"out\.parts holds parts of another job: {message}"):
            work_in_parts(changed, upper, output, **options)
    work_in_parts(["a", "b", "d"], upper, output, job={"beams": 4}, overwrite=True)
    assert output.read_text() == "A\nB\nD\n"


def test_an_output_is_not_replaced_unless_told(tmp_path: Path) -> None:
    output = tmp_path / "out"
    work_in_parts(["a"], upper, output, job={})
    with pytest.raises(FileExistsError, match="out is there already"):
        work_in_parts(["b"], upper, output, job={})
    work_in_parts(["b"], upper, output, job={}, overwrite=True)
    assert output.read_text() == "B\n"


def test_a_kill_while_the_parts_are_joined_and_deleted_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, items = tmp_path / "out", ["a", "b", "c"]
    for name in ("replace", "unlink"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            original = getattr(Path, name)

            def dies(
                path: Path, *given: Path, name: str = name, original: Callable = original, **options: bool
            ) -> object:
                if output in given if name == "replace" else path.name == "00000001":
                    raise KeyboardInterrupt
                return original(path, *given, **options)

            patch.setattr(Path, name, dies)
            work_in_parts(items, upper, output, job={}, part_size=1, overwrite=name == "unlink")
        work_in_parts(items, upper, output, job={}, part_size=1)
        assert output.read_text() == "A\nB\nC\n" and list(tmp_path.iterdir()) == [output]


def test_work_that_does_not_give_one_line_an_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 1 lines for 2 items"):
        work_in_parts(["a", "b"], lambda chunk: ["x"], tmp_path / "out", job={})
    with pytest.raises(ValueError, match="a line of part 0 has a line end in it"):
        work_in_parts(["a"], lambda chunk: ["x\ny"], tmp_path / "other", job={})
    with pytest.raises(ValueError, match="part_size: got 0"):
        work_in_parts(["a"], upper, tmp_path / "out", job={}, part_size=0)
    work_in_parts([], upper, tmp_path / "nothing", job={})
    assert (tmp_path / "nothing").read_text() == ""
