"""Commands that are broken off while they write: by a kill, or by a disk that is full, read-only or broken.

    python tests/chaos/test_broken_writes.py    # every operation of every command; prints `N of M hold`

Each command replaces what an earlier one wrote. It is run once to count its operations on files; then again, in a
process of its own, for each of them, which fails or is the last one before a kill. Afterwards what was there is whole,
or the new is, or the runtime refuses what is there; a failure is named. Native writers are stopped by a limit on the
size of files.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts" / "benchmark")]

import numpy as np
import pytest
import torch
from broken_runs import CountedFile
from forecasters import CHANNELS, PAST, forecaster
from results_table import update_document
from tiny import randomize, tiny_config, tiny_model, tiny_tokenizer

from hf_rnn_seq2seq import RnnSeq2SeqForTokenClassification
from hf_rnn_seq2seq.data.files import DataError, read_json
from hf_rnn_seq2seq.data.tokenizers import save_tokenizers
from hf_rnn_seq2seq.evaluation.attention_plot import plot_attention
from hf_rnn_seq2seq.recipes.library import copy_recipe
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.sharing import export as export_module
from hf_rnn_seq2seq.sharing import onnx_series, onnx_values
from hf_rnn_seq2seq.sharing.card import save_model_card
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.results import write_results
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime
from hf_rnn_seq2seq.sharing.runtime_series import RnnSeriesRuntime
from hf_rnn_seq2seq.sharing.runtime_values import RnnValuesRuntime


KILLED = 9
FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS)


class Command(NamedTuple):
    """A command that replaces what is in a folder."""

    prepare: Callable[[Path], Any]  # what an earlier run left
    run: Callable[[Path], Any]
    read: Callable[[Path], Any] | None = None  # what a reader gets of it; None: the files are compared
    native: bool = False  # it writes without Python, too


# ---- The commands -----------------------------------------------------------------------------------------------


def _results(folder: Path, value: float) -> None:
    numbers = {"metrics": {"bleu": value}, "parameters": 3, "training_seconds": 1.0, "seeds": [1]}
    write_results(folder / "r.json", recipe="r", command=["python"], **numbers)  # type: ignore[arg-type]


def _metrics(folder: Path) -> Any:
    return {**read_json(folder / "r.json"), "date": ""}


def _card(folder: Path, title: str) -> None:
    fields: dict[str, Any] = {"language": "en", "task": "x", "datasets": [], "metrics": {}, "recipe": None}
    save_model_card(folder, tiny_model(), title=title, training_summary="a", license="x", **fields)


def _document(folder: Path, table: str) -> None:
    update_document(folder / "d.md", table, "b", check=False)


def _text_model(folder: Path, seed: int) -> Path:
    model = tiny_model("luong", dtype=torch.float32, seed=seed)
    model.generation_config.update(max_new_tokens=6)
    model.save_pretrained(folder)
    save_tokenizers(folder, tiny_tokenizer(), None)
    return folder


def _value_model(folder: Path, seed: int) -> Path:
    options: dict[str, Any] = {"input_feature_size": 3, "num_labels": 2, "problem_type": "regression"}
    model = RnnSeq2SeqForTokenClassification(tiny_config(**options))
    randomize(model, seed=seed)
    model.eval().save_pretrained(folder)
    return folder


def _series_model(folder: Path, seed: int) -> Path:
    model = forecaster("cho", torch.float32, segment_length=1)
    randomize(model, seed=seed)
    model.save_pretrained(folder)
    return folder


def _say(folder: Path) -> Any:
    found = RnnSeq2SeqRuntime.from_pretrained(folder / "out").generate([[4, 5, 6], [8, 3]])
    return [(ranked[0].tokens, round(ranked[0].score, 5)) for ranked in found]


def _value(folder: Path) -> Any:
    return RnnValuesRuntime.from_pretrained(folder / "out").predict([np.ones((2, 3))])[0].round(4).tolist()


def _forecast(folder: Path) -> Any:
    past = np.ones((1, PAST, CHANNELS))
    return RnnSeriesRuntime.from_pretrained(folder / "out").forecast(past)["forecast"].round(4).tolist()


def _export(
    make: Callable[[Path, int], Path], read: Callable[[Path], Any], models: Path, quantize: str | None = None
) -> tuple[Command, Command]:
    """An export over that of another model: with graphs that are only copied, which is quick; and a real one."""
    name = f"{make.__name__}{quantize}"
    old, new = (make(models / f"{name}{seed}", seed) for seed in (1, 2))
    exported = [
        export_model(old, models / f"{name}_old", quantize),
        export_model(new, models / f"{name}_new", quantize),
    ]

    def prepare(folder: Path) -> None:
        shutil.copytree(exported[0], folder / "out")
        (folder / "out" / "notes.txt").write_text("mine")

    def run(folder: Path) -> None:
        def copied(_: Any, target: str | Path, *__: Any) -> None:
            graphs = [Path(target).name] if Path(target).suffix else ["encoder.onnx", "decoder_step.onnx"]
            place = Path(target).parent if Path(target).suffix else Path(target)
            for graph in graphs:
                shutil.copyfile(exported[1] / graph, place / graph)

        with (
            mock.patch.object(export_module, "write_graphs", copied),
            mock.patch.object(onnx_values, "_write_graph", copied),
            mock.patch.object(onnx_series, "_write_graph", copied),
        ):
            export_model(new, folder / "out", quantize)

    def run_whole(folder: Path) -> None:
        export_model(new, folder / "out", quantize)

    return Command(prepare, run, read), Command(prepare, run_whole, read, native=True)


def commands(models: Path, whole: bool = True) -> dict[str, Command]:
    """The commands by name; the `whole` of them takes a minute to prepare."""
    torch.set_num_threads(1)
    sentence = _text_model(models / "text", 3)

    def predicted(folder: Path) -> None:
        (folder / "in.txt").write_text("abc\nde\n")
        arguments = ["--input_file", str(folder / "in.txt"), "--output_file", str(folder / "o.jsonl"), "--overwrite"]
        predict([str(sentence), *arguments, "--part_size", "1"])

    def drawn(folder: Path) -> None:
        plot_attention(torch.rand(2, 3), list("abc"), list("de"), path=folder / "a.png")

    def old_picture(folder: Path) -> None:
        (folder / "a.png").write_bytes(b"old")

    block = "<!-- b:begin -->\n{}\n<!-- b:end -->\n"
    found = {
        "results": Command(lambda f: _results(f, 1.0), lambda f: _results(f, 2.0), _metrics),
        "card": Command(lambda f: _card(f, "old"), lambda f: _card(f, "new")),
        "recipe": Command(lambda f: None, lambda f: copy_recipe("toy_copy", f)),
        "document": Command(lambda f: (f / "d.md").write_text(block.format("old")), lambda f: _document(f, "new")),
        "picture": Command(old_picture, drawn),
    }
    if whole:
        found["predictions"] = Command(lambda f: (f / "o.jsonl").write_text("old"), predicted)
    exports = [(_text_model, _say, None)]
    if whole:
        exports += [(_text_model, _say, "int8"), (_value_model, _value, None), (_series_model, _forecast, None)]
    for make, read, quantize in exports:
        quick, slow = _export(make, read, models, quantize)
        found[f"export {make.__name__} {quantize}"] = quick
        if whole:
            found[f"whole export {make.__name__} {quantize}"] = slow
    return found


# ---- Breaking them off ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def counted(at: int = -1, act: Callable[[Any], None] = lambda place: None) -> Iterator[list[int]]:
    """Count operations that change files; before that of the number `at`, do something else."""
    count, opened = [0], builtins.open

    def operation(place: Any = None) -> None:
        count[0] += 1
        if count[0] == at:
            act(place)

    def opening(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or str(file) == os.devnull:
            return opened(file, mode, *given, **options)
        operation(file)
        return CountedFile(opened(file, mode, *given, **options), operation)

    def patched(name: str) -> Any:
        original = getattr(os, name)

        def call(first: Any, *given: Any, **options: Any) -> Any:
            if name != "open" or (given and given[0] & os.O_CREAT):
                operation(first)
            return original(first, *given, **options)

        return mock.patch.object(os, name, call)

    with contextlib.ExitStack() as stack:
        for name in ("replace", "rename", "mkdir", "fsync", "open"):
            stack.enter_context(patched(name))
        stack.enter_context(mock.patch.object(builtins, "open", opening))
        stack.enter_context(mock.patch.object(io, "open", opening))
        yield count


def in_a_child(work: Callable[[], None]) -> tuple[int, str]:
    """Run in a fork; return its status, and the message of the error that ended it."""
    message = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        status, said = 0, ""
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                work()
        except SystemExit as error:
            status, said = (1, str(error.code)) if error.code else (0, "")
        except (OSError, DataError) as error:
            status, said = 1, str(error)
        except BaseException as error:
            status, said = 2, f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        os.write(message.fileno(), said.encode("utf-8", "replace")[:2000])
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    message.seek(0)
    return status, message.read().decode()


def state_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder but those that have a name of their own until they are whole, and a job's parts."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not any(part.startswith(".partial-") or part.endswith(".parts") for part in name.split("/"))
        and name != "in.txt"
    }


def what_is_read(command: Command, folder: Path) -> Any:
    """What a reader gets; "refused" where it gets a sentence."""
    if command.read is None:
        return state_of(folder)
    try:
        return command.read(folder)
    except (OSError, ValueError):
        return "refused"


class Breaker:
    """A command, with what is read before and after it, and the number of its operations."""

    def __init__(self, command: Command, place: Path):
        self.command, self.place = command, place
        folder = self.fresh()
        self.before = what_is_read(command, folder)

        def whole() -> None:
            with counted() as count:
                command.run(folder)
            (place / "count").write_bytes(pickle.dumps(count[0]))

        status, said = in_a_child(whole)
        assert status == 0, said
        self.operations: int = pickle.loads((place / "count").read_bytes())
        self.after = what_is_read(command, folder)
        assert self.before != self.after != "refused"

    def fresh(self) -> Path:
        """What an earlier run left, once more."""
        folder = self.place / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.command.prepare(folder)
        return folder

    def complaint(self, how: str, number: int) -> str | None:
        """Break the command off; return what is wrong then."""
        folder = self.fresh()

        def act(place: Any) -> None:
            if how == "kill":
                os._exit(KILLED)
            raise OSError(int(how), os.strerror(int(how)), *([] if place is None else [str(place)]))

        def work() -> None:
            if how == "size":
                resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
                self.command.run(folder)
                return
            with counted(number, act):
                self.command.run(folder)

        status, said = in_a_child(work)
        found = what_is_read(self.command, folder)
        if how == "kill":
            wrong = found not in (self.before, self.after, "refused")
            return f"status {status}: {said}" if status != KILLED else "a mixture is read" if wrong else None
        if status == 0:
            return None if found == self.after else "no error, and not the whole result"
        wanted = os.strerror(errno.EFBIG if how == "size" else int(how))
        if status != 1 or wanted not in said or ".partial-" in said:
            return f"status {status}: {said[:200]!r}, wanted {wanted!r}"
        left = [path.name for path in folder.rglob(".partial-*")]
        return f"it left {left}" if left else None if found == self.before else "what was there is not whole"


def cases_of(breaker: Breaker) -> list[tuple[str, int]]:
    if breaker.command.native:
        return [("size", limit) for limit in (0, 100, 1000, 4096, 10_000, 20_000)]
    numbers = range(1, breaker.operations + 1)
    return [(how, number) for how in ("kill", *map(str, FAULTS)) for number in numbers]


def test_a_command_that_is_broken_off_leaves_what_was_there_or_is_refused(tmp_path: Path) -> None:
    for name, command in commands(tmp_path / "models", whole=False).items():
        breaker = Breaker(command, tmp_path / name)
        cases = cases_of(breaker)
        for how, number in random.Random(name).sample(cases, min(4, len(cases))):
            assert breaker.complaint(how, number) is None, (name, how, number)


@pytest.mark.chaos
def test_every_operation_of_every_command(tmp_path: Path) -> None:
    held, wrong = tried(tmp_path)
    assert held and not wrong, wrong


def tried(place: Path) -> tuple[int, list[str]]:
    """Break every command off everywhere; return how often all was well, and what was wrong."""
    held, wrong = 0, []
    for name, command in commands(place / "models").items():
        breaker = Breaker(command, place / name)
        for how, number in cases_of(breaker):
            complaint = breaker.complaint(how, number)
            held += complaint is None
            if complaint is not None:
                wrong.append(f"{name}, {how} at {number}: {complaint}")
        print(f"{name}: {len(cases_of(breaker))} cases", flush=True)
    return held, wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        held, wrong = tried(Path(temporary))
    print(*wrong, f"{held} of {held + len(wrong)} hold", sep="\n")
    sys.exit(bool(wrong))
