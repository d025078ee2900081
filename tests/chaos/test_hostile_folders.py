"""Folders and files from strangers: each is refused with a sentence, soon, in little memory, and runs nothing.

    python tests/chaos/test_hostile_folders.py    # every case; prints `N of M hold`

The cases are tried in a child with limits on memory and time. A case names what it changes in a good folder and what
reads it; what comes is an error of a few types, or nothing where the content is harmless (`fine`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[up] / name) for up, name in ((1, ""), (2, "scripts/benchmark"))]

import pytest
import torch
from test_broken_writes import _series_model, _text_model, _value_model, in_a_child
from tiny import tiny_config

from hf_rnn_seq2seq import (
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
)
from hf_rnn_seq2seq.data.files import DataError, read_json
from hf_rnn_seq2seq.data.preprocessing import Preprocessing
from hf_rnn_seq2seq.data.tokenizers import load_tokenizers
from hf_rnn_seq2seq.evaluation.saved_model import load_model
from hf_rnn_seq2seq.recipes.arguments import one_sentence
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.recipe import build_recipe, read_recipe
from hf_rnn_seq2seq.sharing.card import create_model_card
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.exported_folder import MANIFEST, entry_of
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime
from hf_rnn_seq2seq.sharing.runtime_series import RnnSeriesRuntime
from hf_rnn_seq2seq.sharing.runtime_values import RnnValuesRuntime
from hf_rnn_seq2seq.sharing.service import Lexicon


MEMORY, SECONDS = 3 * 2**30, 60  # of the processor; what waits is stopped, too, and a busy machine takes its time
HUGE = 10**9


class Case(NamedTuple):
    name: str
    good: str  # the folder that is changed
    change: Callable[[Path], Any]
    read: Callable[[Path], Any]
    fine: bool = False


# ---- What reads -------------------------------------------------------------------------------------------------


def load(folder: Path) -> None:
    load_tokenizers(folder)
    Preprocessing.load(folder)
    load_model(RnnSeq2SeqForConditionalGeneration, folder).generate(torch.tensor([[4, 5, 3]]), max_new_tokens=3)


def run(folder: Path) -> None:
    RnnSeq2SeqRuntime.from_pretrained(folder).generate("abc")


def run_values(folder: Path) -> None:
    RnnValuesRuntime.from_pretrained(folder)


def run_series(folder: Path) -> None:
    RnnSeriesRuntime.from_pretrained(folder)


def extract(folder: Path) -> None:
    RnnSeq2SeqFeatureExtractor.from_pretrained(folder)([torch.zeros(16000)], sampling_rate=None)


def recipe(folder: Path) -> None:
    build_recipe(read_recipe(folder / "r.yaml"), "r")


# ---- What is changed --------------------------------------------------------------------------------------------


def setting(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file, and its entry in the manifest if there is one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        write(name, json.dumps({**content, **changes}))(folder)

    return change


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        seal(folder)

    return change


def seal(folder: Path) -> None:
    """Make the manifest say what is there now, as a stranger would: it is no signature."""
    if (folder / MANIFEST).is_file():
        names = [name for name in json.loads((folder / MANIFEST).read_text()) if (folder / name).is_file()]
        entries = {name: entry_of((folder / name).read_bytes()) for name in names}
        (folder / MANIFEST).write_text(json.dumps(entries))


def instead(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Put something else in the place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def big(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it has no bytes on the disk


DAMAGES: dict[str, str | bytes] = {
    "nothing": "", "a list": "[]", "a number": "1", "null": "null", "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 100_000, "NaN": '{"format": NaN}', "Infinity": '{"vocab_size": Infinity}',
    "a key twice": '{"format": 1, "format": 2}', "a long number": '{"vocab_size": ' + "9" * 5000 + "}",
    "UTF-16": '{"a": 1}'.encode("utf-16"), "no UTF-8": b'{"a": "\xff"}', "half": '{"format": 4, "vocab',
    "random bytes": random.Random(0).randbytes(3000),
}  # fmt: skip
PLACES: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo, "a folder": Path.mkdir, "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name), "nothing": lambda path: None, "a hole": big,
}  # fmt: skip


def of_saved_models() -> list[Case]:
    sizes = (
        "encoder_layers decoder_layers vocab_size embedding_size encoder_hidden_size decoder_hidden_size copy_slots "
        "time_reduction location_filters location_width attention_size readout_size num_labels reduction_factor "
        "input_feature_size num_mel_bins prediction_length context_length segment_length character_vocab_size "
        "character_embedding_size character_hidden_size num_parallel_samples decoder_vocab_size"
    ).split()
    cases = [
        Case(f"config {name} {value:g}", "text", setting("config.json", **{name: value}), load)
        for name in sizes
        for value in (10**7, HUGE, 10**12)
    ]
    changes: list[dict[str, Any]] = [
        {"encoder_hidden_size": 60_000, "decoder_hidden_size": 60_000}, {"vocab_size": "12"}, {"vocab_size": 1e300},
        {"vocab_size": -1}, {"id2label": ["a"]}, {"id2label": {"x": "b"}}, {"architectures": "x"},
        {"architectures": [1]},
        {"dtype": "float7"}, {"dtype": '__import__("os").system("touch ran")'}, {"eos_token_id": 10**30},
        {"cardinality": [10**12]}, {"rnn_type": "../../x"}, {"layer_types": ["x"]},
        {"model_type": None, "rnn_type": 3},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    ]  # fmt: skip
    cases += [Case(f"config {keys}", "text", setting("config.json", **keys), load) for keys in changes]
    searches: list[dict[str, Any]] = [
        {"num_beams": HUGE}, {"max_length": 10**12}, {"max_new_tokens": 10**12}, {"num_beams": "5"},
        {"eos_token_id": "x"}, {"num_return_sequences": HUGE}, {"min_new_tokens": 10**12}, {"pad_token_id": 1.5},
    ]  # fmt: skip
    cases += [
        Case(f"search {change}", "text", setting("generation_config.json", **change), load) for change in searches
    ]
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        cases += [Case(f"{name} is {damage}", "text", write(name, DAMAGES[damage]), load) for damage in DAMAGES]
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "preprocessing.json"):
        cases += [
            Case(f"{name} is {place}", "text", instead(name, make), load)
            for place, make in PLACES.items()
            if place != "nothing" or name in ("config.json", "tokenizer.json", "model.safetensors")
        ]
    for damage in ("nothing", "random bytes", "half"):
        cases.append(Case(f"weights are {damage}", "text", write("model.safetensors", DAMAGES[damage]), load))
    header = (2**62).to_bytes(8, "little") + b"{}"
    cases.append(Case("weights with a huge header", "text", write("model.safetensors", header), load))
    cases += [Case("a pickle for weights", "text", pickled, load), Case("code beside the model", "text", code, load)]
    return cases


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))


def code(folder: Path) -> None:
    auto_map = {name: f"evil.Evil{name}" for name in ("AutoConfig", "AutoModelForSeq2SeqLM")}
    setting("config.json", model_type="evil", auto_map=auto_map, architectures=["Evil"])(folder)
    (folder / "evil.py").write_text("import os\nos.system('touch ran')\n")


def of_exports() -> list[Case]:
    cases = []
    names = {
        "exported": (run, "runtime_config.json", ("encoder.onnx", "decoder_step.onnx", "tokenizer.json")),
        "values": (run_values, "values_config.json", ("values.onnx",)),
        "series": (run_series, "series_config.json", ("series.onnx",)),
    }
    for good, (read, config, others) in names.items():
        cases += [Case(f"{good}: {config} is {d}", good, write(config, DAMAGES[d]), read) for d in DAMAGES]
        cases += [Case(f"{good}: manifest is {d}", good, unsealed("manifest.json", DAMAGES[d]), read) for d in DAMAGES]
        for name in (config, "manifest.json", *others):
            cases += [Case(f"{good}: {name} is {p}", good, instead(name, make), read) for p, make in PLACES.items()]
        for name in others:
            cases.append(Case(f"{good}: {name} is random", good, write(name, DAMAGES["random bytes"]), read))
            cases.append(Case(f"{good}: {name} changed", good, flipped(name), read))
    for change in (
        {"source_tokenizer": "/etc/passwd"}, {"source_tokenizer": "../good/tokenizer.json"},
        {"source_tokenizer": 3}, {"source_tokenizer": "a\0b"}, {"vocab_size": HUGE}, {"vocab_size": "12"},
        {"vocab_size": None}, {"format": "4"}, {"format": HUGE}, {"split_special_tokens": "x"}, {"reverse_source": 3},
        {"source_replacements": 3}, {"source_replacements": [["(", "x"]]}, {"source_replacements": [[1, 2]]},
    ):  # fmt: skip
        cases.append(Case(f"exported: {change}", "exported", setting("runtime_config.json", **change), run))
    for change in (
        {"num_beams": HUGE}, {"num_beams": "5"}, {"num_return_sequences": HUGE}, {"max_new_tokens": 10**12},
        {"max_length": 10**12}, {"eos_token_id": HUGE}, {"eos_token_id": "x"}, {"eos_token_id": -1},
        {"decoder_start_token_id": HUGE}, {"suppress_tokens": [HUGE]}, {"suppress_tokens": "ab"}, {"num_beams": True},
        {"length_penalty": "x"}, {"temperature": [1]}, {"top_k": 10**30, "do_sample": True}, {"early_stopping": 7},
    ):  # fmt: skip
        cases.append(Case(f"exported: {change}", "exported", setting("generation_config.json", **change), run))
    for change in ({"channels": HUGE}, {"context_length": HUGE}, {"context_length": None}, {"prediction_length": "x"}):
        cases.append(Case(f"series: {change}", "series", setting("series_config.json", **change), run_series))
    for change in ({"vector_size": HUGE}, {"vector_size": "x"}, {"each_vector": 3}, {"values": None}):
        cases.append(Case(f"values: {change}", "values", setting("values_config.json", **change), run_values))
    for name in ("encoder.onnx", "tokenizer.json"):
        cases.append(Case(f"exported: {name} is a link out", "exported", instead(name, linked_out), run))
    return cases


def linked_out(path: Path) -> None:
    path.symlink_to(Path("..") / ".." / "exported" / path.name)  # the very same content


def unsealed(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def flipped(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def of_recipes() -> list[Case]:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
    )
    texts: dict[str, str | bytes] = {
        "a bomb of aliases": bomb, "an alias of itself": "data: &a\n  x: *a\n", "deep": "[" * 5000,
        "foreign code": "data: !!python/object/apply:os.system ['touch ran']\n", "a key twice": "data: {}\ndata: {}\n",
        "no UTF-8": b"data: \xff\n", "UTF-16": "data: {}".encode("utf-16"), "NUL": "data: \0", "nothing": "",
        "a long number": "data: {train: x}\nmodel: {vocab_size: " + "9" * 5000 + "}",
        **{
            f"{name} {HUGE}": f"data: {{train: x}}\nmodel: {{{name}: {HUGE}}}\n"
            for name in ("encoder_layers", "decoder_layers", "embedding_size", "copy_slots", "location_width")
        },
    }  # fmt: skip
    cases = [Case(f"a recipe: {name}", "recipe", write("r.yaml", text), recipe) for name, text in texts.items()]
    cases += [Case(f"a recipe is {p}", "recipe", instead("r.yaml", make), recipe) for p, make in PLACES.items()]
    return cases


def of_other_files() -> list[Case]:
    sizes = "sampling_rate num_mel_bins num_cepstra delta_window stack frame_length frame_shift".split()
    cases = [
        Case(f"extractor: {name}", "extractor", setting("preprocessor_config.json", **{name: HUGE}), extract)
        for name in sizes
    ]

    def lexicon(folder: Path) -> None:
        Lexicon.read(folder / "l.tsv", str)

    cases += [Case(f"a lexicon is {p}", "recipe", instead("l.tsv", make), lexicon) for p, make in PLACES.items()]
    cases.append(Case("a lexicon of bytes", "recipe", write("l.tsv", b"a\t\xff\n"), lexicon))
    cases.append(Case("results are a pipe", "recipe", instead("r.json", os.mkfifo), lambda f: read_json(f / "r.json")))
    return [*cases, *of_terminals(), *of_cards()]


_ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m"


def of_terminals() -> list[Case]:
    """What steers a terminal is not printed, whatever it is the name of."""

    def told(message: str) -> Callable[[Path], None]:
        def read(folder: Path) -> None:
            with one_sentence():
                raise DataError(message)

        return read

    def said(folder: Path) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            predict([str(folder), f"ab{_ESCAPE}"])
        if any(not c.isprintable() and c != "\n" for c in out.getvalue()):
            raise RuntimeError(f"printed {out.getvalue()!r}")

    return [
        Case("an error message", "text", lambda folder: None, told(f"{_ESCAPE}: no such file")),
        Case("a text to predict", "text", lambda folder: None, said, fine=True),
    ]


def of_cards() -> list[Case]:
    """Labels and names are shown in a card as they are."""
    evil = ["<script>alert(1)</script>", "`</code><img src=x>", "a|b", "[x](javascript:alert(1))", "\n# no\n", "---"]

    def read(folder: Path) -> None:
        labels = dict(enumerate(evil))
        model = RnnSeq2SeqForSequenceClassification(
            tiny_config(id2label=labels, label2id={v: k for k, v in labels.items()})
        )
        fields: dict[str, Any] = {"language": "en", "license": "x", "training_summary": dict(zip(evil, evil))}
        metrics = {f"m{text}": 1.0 for text in evil}
        for text in evil:
            card = create_model_card(
                model, title=f"t {text}", task=text, datasets=[text], metrics=metrics, recipe=text, **fields
            )
            _, _, shown = card.partition("\n---\n")
            lines = [line for line in shown.split("\n") if line.startswith("# ")]
            outside = "".join(part for number, part in enumerate(shown.split("```")) if number % 2 == 0)
            if len(lines) != 1 or "<script" in _without_code(outside) or "<img" in _without_code(outside):
                raise RuntimeError(f"the card of {text!r} is {shown}")

    return [Case("a card", "recipe", lambda folder: None, read, fine=True)]


def _without_code(markdown: str) -> str:
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", markdown)


# ---- Trying them ------------------------------------------------------------------------------------------------


def all_cases() -> list[Case]:
    return [*of_saved_models(), *of_exports(), *of_recipes(), *of_other_files()]


def make_good(place: Path, tables: bool = True) -> None:
    """The folders that the cases change; those of models of `tables` take a while."""
    torch.set_num_threads(1)
    _text_model(place / "text", 1)
    export_model(place / "text", place / "exported", None)
    if tables:
        export_model(_value_model(place / "value_model", 1), place / "values", None)
        export_model(_series_model(place / "series_model", 1), place / "series", None)
    (place / "recipe").mkdir()
    (place / "recipe" / "r.yaml").write_text("data: {train: x}\n")
    RnnSeq2SeqFeatureExtractor().save_pretrained(place / "extractor")
    for good, read in (("text", load), ("exported", run), ("values", run_values), ("series", run_series)):
        if (place / good).exists():
            read(place / good)


def complaint(case: Case, place: Path) -> str | None:
    """Return what is wrong with what a case does; None: it holds."""
    folder = place / "tried" / "folder"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(place / case.good, folder)
    case.change(folder)

    def work() -> None:
        os.chdir(folder)
        signal.alarm(5 * SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (int(sum(os.times()[:2])) + SECONDS,) * 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        try:
            case.read(folder)
        except (DataError, FileNotFoundError, ValueError) as error:
            raise DataError(str(error)) from error

    status, said = in_a_child(work)
    if (folder / "ran").exists():
        return "it ran foreign code"
    if status != (0 if case.fine else 1):
        return f"status {status}: {said[:300]!r}"
    return None if case.fine or (said and all(c.isprintable() or c in "\n\t" for c in said)) else f"it says {said!r}"


def test_strangers_are_refused(tmp_path: Path) -> None:
    make_good(tmp_path, tables=False)
    cases = [case for case in all_cases() if case.good not in ("values", "series")]
    for case in random.Random(0).sample(cases, 10):
        assert complaint(case, tmp_path) is None, case.name


@pytest.mark.chaos
def test_every_stranger_is_refused(tmp_path: Path) -> None:
    held, wrong = tried(tmp_path)
    assert held and not wrong, wrong


def tried(place: Path) -> tuple[int, list[str]]:
    make_good(place)
    wrong = [(case.name, said) for case in all_cases() if (said := complaint(case, place)) is not None]
    return len(all_cases()) - len(wrong), [f"{name}: {said}" for name, said in wrong]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        held, wrong = tried(Path(temporary))
    print(*wrong, f"{held} of {held + len(wrong)} hold", sep="\n")
    sys.exit(bool(wrong))
