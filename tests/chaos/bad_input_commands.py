"""Bad input to the programs: `predict`, `export`, `serve`, `demo`, `recipes`, and the studies.

python tests/chaos/bad_input_commands.py
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "recipes")]

import pytest
import tiny_runs
from bad_input import Case, of_a_command, tried
from bad_input_recipes import RECIPES, written

from hf_rnn_seq2seq.recipes.command import main as run_recipe
from hf_rnn_seq2seq.recipes.command_line import main as command_line


def nothing_is_served() -> None:
    """Let what would serve until it is ended return at once."""
    import gradio
    import uvicorn

    uvicorn.Server.run = lambda *_, **__: None  # type: ignore[method-assign]
    gradio.Blocks.launch = lambda *_, **__: (None, "there", None)  # type: ignore[method-assign]
    gradio.Blocks.block_thread = lambda *_: None  # type: ignore[method-assign]


@cache
def models() -> Path:
    """Return a folder with a trained model of every kind, and data."""
    folder = Path(tempfile.mkdtemp(prefix="bad_input_"))
    os.chdir(folder)
    nothing_is_served()
    tiny_runs.write_data(folder)
    for kind in ("seq2seq", "tagging", "classification", "speech"):
        tiny_runs.run(kind, folder, "--output_dir", folder / kind)
    (folder / "v.csv").write_text(
        "machine,hour,load,total\n" + "".join(f"m{m},{h},{m + h},{m * h}\n" for m in range(8) for h in range(5))
    )
    (folder / "waves.csv").write_text("up\n" + "".join(f"{(h * 7) % 11}\n" for h in range(60)))
    speak = {
        **RECIPES["speak"],
        "data": {"toy": {"heights": 2, "lengths": 2, "train": 12, "validation": 2, "test": 2}},
    }
    del speak["features"]
    for kind, content in (("values", RECIPES["values"]), ("forecast", RECIPES["forecast"]), ("speak", speak)):
        run_recipe(
            None,
            None,
            [str(written(folder, kind, content)), "--data_dir", str(folder), "--output_dir", str(folder / kind)],
            "run",
        )
    command_line(["export", "seq2seq", "exported", "--quantize", "none"])
    for name in ("empty_dir",):
        (folder / name).mkdir()
    (folder / "a_file").write_text("x")
    return folder


SCRIPTS = Path(__file__).parents[2] / "scripts"
KINDS = ("seq2seq", "tagging", "classification", "speech", "speak", "values", "forecast")


def _damaged(folder: Path) -> Iterator[tuple[str, Path]]:
    """Folders of models that are damaged in one file."""
    for kind in KINDS:
        weights = {"config.json": (b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"model_type": "bert"}', b"{}"),
                   "model.safetensors": (b"", b"garbage" * 9, None), "tokenizer.json": (b"", b"{}", b"[]", b"\xff",
                       None),
                   "tokenizer_config.json": (b"", b"[]", b"\xff"), "generation_config.json": (b"", b"[]", b"{",
                       b'{"num_beams": 0}'),
                   "preprocessing.json": (b"", b"[]", b"{"), "preprocessor_config.json": (b"", b"[]", b"{}", None),
                   "columns.json": (b"", b"[]", b"{}"), "series.json": (b"", b"[]", b"{}")}  # fmt: skip
        for name, contents in weights.items():
            if not (folder / kind / name).is_file():
                continue
            for number, content in enumerate(contents):
                copy = folder / "damaged" / f"{kind}_{name}_{number}"
                if not copy.exists():
                    shutil.copytree(folder / kind, copy, ignore=shutil.ignore_patterns("checkpoint-*", "runs"))
                    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
                yield f"{kind} with {name} {content if content is None else content[:12]!r}", copy


INPUTS = {"seq2seq": ["abc"], "tagging": ["the cab"], "classification": ["is cab"], "speech": ["frames.npz"],
    "speak": ["a b"],
          "values": [], "forecast": []}  # fmt: skip


def predictions() -> Iterator[Case]:
    folder = models()
    os.chdir(folder)
    files: dict[str, bytes] = {
        "blank.txt": b"", "binary.txt": bytes(range(256)), "latin.txt": "é\n".encode("latin-1"), "x.jsonl": b"{\n",
            "y.jsonl": b"[1]\n",
        "z.jsonl": b'{"other": "x"}\n', "number.jsonl": b'{"source": 3, "text": 3, "tokens": 3, "audio": 3}\n',
            "a.csv": b"a,b\n1\n",
        "utf16.csv": "up\n1\n".encode("utf-16"), "x.gz": b"not gzip", "x.txt.gz": b"not gzip",
            "x.parquet": b"nothing", "x.npz": b"nothing",
        "x.wav": b"nothing", "header.csv": b"nope\n1\n", "blank.csv": b"",
            "texts.csv": b"up,load,machine,hour\nx,y,m,0\n",
        "good.txt": b"abc\n",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for what, model_dir in (
        ("a missing folder", "missing"),
        ("an empty folder", "empty_dir"),
        ("a file", "a_file"),
        ("nothing", ""),
    ):
        yield Case(
            f"predict {what}", (model_dir or "model_dir",), lambda m=model_dir: command_line(["predict", m, "abc"])
        )
        yield Case(
            f"predict {what}, a file",
            (model_dir or "model_dir",),
            lambda m=model_dir: command_line(["predict", m, "--input_file", "good.txt", "--output_file", "o.txt"]),
        )
        for command in ("export", "serve", "demo"):
            more = ["out_" + what.replace(" ", "_")] if command == "export" else []
            yield Case(
                f"{command} {what}",
                (model_dir or "config.json", "exported", "folder"),
                lambda m=model_dir, c=command, o=more: command_line(
                    [c, m, *o, *(["--port", "0"] if c == "serve" else [])]
                ),
            )
    ends = {"values": "jsonl", "forecast": "jsonl"}
    for kind in KINDS:
        text = INPUTS[kind]
        out = f"o.{ends.get(kind, 'jsonl')}"
        extra = ["--sound", "sounds"] if kind == "speak" else []
        for option, value in (
            ("num_beams", "0"),
            ("num_beams", "-1"),
            ("num_beams", "x"),
            ("num_beams", "1.5"),
            ("batch_size", "0"),
            ("batch_size", "-1"),
            ("batch_size", "x"),
            ("num_return_sequences", "0"),
            ("num_return_sequences", "-1"),
            ("num_return_sequences", "99"),
            ("attention", "x.doc"),
            ("attention", "empty_dir"),
            ("attention", "a_file/x.png"),
            ("sound", "a_file"),
            ("column", "x"),
            ("part_size", "0"),
            ("part_size", "7"),
            ("overwrite", None),
            ("scores", None),
            ("nonsense", None),
        ):
            if option == "sound" and kind == "speak":
                extra = []
            given = [f"--{option}", *([] if value is None else [value])]
            yield Case(
                f"predict {kind} {' '.join(given)}",
                (f"--{option}", "input_file", option),
                lambda k=kind, g=given, e=extra, t=text: command_line(["predict", k, *t, *e, *g]),
            )
        for name in ("missing.txt", "empty_dir", *files):
            if name == "good.txt" and kind not in ("speech", "values", "forecast"):
                continue
            if name in ("x.wav",) and kind != "speech":
                continue
            if name in ("blank.txt", "blank.csv", "a.csv", "header.csv", "texts.csv") and kind not in (
                "values",
                "forecast",
                "speech",
            ):
                continue
            yield Case(
                f"predict {kind} --input_file {name}",
                (name, "--input_file", "line", "reads frames"),
                lambda k=kind, n=name, o=out, e=extra: command_line(
                    ["predict", k, "--input_file", n, "--output_file", o, "--overwrite", *e]
                ),
            )
        for target in ("empty_dir", "a_file/o.jsonl", "o.doc", "", "empty_dir/", "good.txt"):
            yield Case(
                f"predict {kind} --output_file {target!r}",
                ("output_file", target or "output_file"),
                lambda k=kind, t=target, e=extra: command_line(
                    ["predict", k, "--input_file", "good.txt", "--output_file", t, *e]
                ),
            )
        if kind not in ("values", "forecast"):
            yield Case(
                f"predict {kind} half a surrogate",
                ("text",),
                lambda k=kind, e=extra: command_line(["predict", k, "\ud800", *e]),
            )
            yield Case(f"predict {kind} nothing", ("text",), lambda k=kind, e=extra: command_line(["predict", k, *e]))
        else:
            yield Case(f"predict {kind} a text", ("input_file",), lambda k=kind: command_line(["predict", k, "abc"]))
    for missing in (
        ["--input_file", "good.txt"],
        ["--output_file", "o.txt"],
        ["abc", "--input_file", "good.txt", "--output_file", "o.txt"],
        ["--input_file", "good.txt", "--output_file", "good.txt"],
    ):
        yield Case(
            f"predict seq2seq {' '.join(missing)}",
            ("--input_file", "--output_file"),
            lambda m=missing: command_line(["predict", "seq2seq", *m]),
        )
    for sound in (
        "missing.wav",
        "x.wav",
        "empty_dir",
        "x.npz",
        "frames.npz[999]",
        "frames.npz[x]",
        "missing.npz[0]",
        "good.txt",
    ):
        yield Case(
            f"predict speech {sound}",
            (sound, sound.partition("[")[0]),
            lambda s=sound: command_line(["predict", "speech", s]),
        )


def damaged() -> Iterator[Case]:
    folder = models()
    os.chdir(folder)
    for what, copy in _damaged(folder):
        kind = what.partition(" ")[0]
        file = {"values": "v.csv", "forecast": "waves.csv"}.get(kind)
        extra = ["--sound", "sounds"] if kind == "speak" else []
        arguments = INPUTS[kind] if file is None else ["--input_file", file, "--output_file", "o.jsonl", "--overwrite"]
        word = (copy.name.split("_", 1)[1].rsplit("_", 1)[0], copy.name, "num_beams")
        if kind == "speak" and "num_beams" in what:
            continue  # vectors are not searched for
        yield Case(
            f"predict {what}", word, lambda c=copy, a=arguments, e=extra: command_line(["predict", str(c), *a, *e])
        )
        if kind in ("seq2seq", "values", "forecast") and "series.json" not in what:  # which no export reads
            yield Case(f"export {what}", word, lambda c=copy: command_line(["export", str(c), str(c) + "_out"]))
        if kind == "seq2seq" and "num_beams" not in what:  # the page has beams of its own
            yield Case(
                f"demo {what}", word, lambda c=copy: command_line(["demo", str(c), "--space", str(c) + "_space"])
            )


def others() -> Iterator[Case]:
    folder = models()
    os.chdir(folder)
    for kind in ("speech", "speak"):
        yield Case(f"export {kind}", (kind,), lambda k=kind: command_line(["export", k, "nowhere"]))
    for kind in KINDS:
        yield Case(f"serve {kind}", (kind, "exported"), lambda k=kind: command_line(["serve", k, "--port", "0"]))
    (folder / "not_export").mkdir(exist_ok=True)
    (folder / "not_export/tokenizer.json").write_text("{}")
    for given, words in (
        (["seq2seq", "a_file"], ("output_dir",)),
        (["seq2seq", "a_file/x"], ("output_dir",)),
        (["seq2seq", ""], ("output_dir",)),
        (["seq2seq", "exported"], ("output_dir",)),
        (["seq2seq", "seq2seq"], ("output_dir",)),
        (["seq2seq", "not_export"], ("output_dir",)),
        (["seq2seq", "n", "--quantize", "int4"], ("quantize",)),
        (["seq2seq", "n", "--nonsense"], ("nonsense",)),
        (["seq2seq"], ("output_dir",)),
        ([], ("model_dir",)),
        (["values", "n", "--reverse_source"], ("reverse_source",)),
        (["forecast", "n", "--reverse_source"], ("reverse_source",)),
        (["seq2seq", "n", "--reverse_source"], ("reverse_source",)),
        (["a_file", "n"], ("a_file",)),
        (["seq2seq", "n", "x"], ("x",)),
    ):
        yield Case(f"export {' '.join(given)}", words, lambda g=given: command_line(["export", *g]))
    broken = folder / "broken_export"
    for name in (
        "runtime_config.json",
        "generation_config.json",
        "encoder.onnx",
        "decoder_step.onnx",
        "tokenizer.json",
    ):
        for number, content in enumerate((b"", b"{", b"[]", b"\xff\xfe", None)):
            copy = broken / f"{name}_{number}"
            if (folder / "exported" / name).exists() and not copy.exists():
                shutil.copytree(folder / "exported", copy)
                (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
            if copy.exists():
                yield Case(
                    f"serve an export with {name} {content!r}",
                    (name, copy.name),
                    lambda c=copy: command_line(["serve", str(c), "--port", "0"]),
                )
    for option, values in {
        "port": ("-1", "99999", "x", "1.5"),
        "num_threads": ("0", "-1", "x"),
        "max_batch_size": ("0", "-1", "x"),
        "timeout": ("0", "-1", "nan", "x", "inf"),
        "max_streams": ("0", "-1"),
        "host": ("no.such.host.invalid", ""),
        "lexicon": ("missing.tsv", "empty_dir", "binary.txt", "good.txt"),
        "nonsense": ("1",),
    }.items():
        for value in values:
            yield Case(
                f"serve --{option} {value!r}",
                (option, value or option),
                lambda o=option, v=value: command_line(
                    ["serve", "exported", *(["--port", "0"] if o != "port" else []), f"--{o}", v]
                ),
            )
    for given, words in (
        (["--port", "-1"], ("port",)),
        (["--port", "99999"], ("port",)),
        (["--port", "x"], ("port",)),
        (["--space", "a_file"], ("a_file",)),
        (["--space", "seq2seq"], ("seq2seq",)),
        (["--space", ""], ("space", "output_dir")),
        (["--space", "a_file/x"], ("a_file",)),
        (["--nonsense"], ("nonsense",)),
        (["--space", "s", "--port", "80"], ("port",)),
    ):
        yield Case(
            f"demo {' '.join(given)}", words, lambda g=given: command_line(["demo", "seq2seq", "--no_browser", *g])
        )
    for given, words in (
        (["copy"], ("name",)),
        (["copy", "nonsense", "."], ("nonsense",)),
        (["copy", "toy_reverse"], ("folder",)),
        (["nonsense"], ("nonsense",)),
        (["copy", "toy_reverse", "a_file"], ("a_file",)),
        (["copy", "toy_reverse", ""], ("folder",)),
        (["copy", "", "."], ("''",)),
        (["copy", "../toy_reverse", "."], ("../toy_reverse",)),
        (["--nonsense"], ("nonsense",)),
        (["copy", "toy_reverse", "a_file/x"], ("a_file",)),
    ):
        yield Case(f"recipes {' '.join(given)}", words, lambda g=given: command_line(["recipes", *g]))
    for given in (["nonsense"], ["rn"], [""], ["--nonsense"], ["3"]):
        yield Case(f"hf-rnn-seq2seq {given}", ("command", given[0] or "command"), lambda g=given: command_line(g))


def programs() -> Iterator[Case]:
    """The programs of scripts/ that are none of the commands."""
    folder = models()
    os.chdir(folder)
    (folder / "not.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    (folder / "doc.md").write_text("nothing\n")
    (folder / "bad.tsv").write_text("a\tb\n")
    table: dict[str, tuple[tuple[list[str], tuple[str, ...]], ...]] = {
        "error_by_length": (
            ([], ("PNG",)), (["x.png"], ("NAME",)), (["x.doc", "a=b"], ("PNG",)), (["empty_dir", "a=b"], ("PNG",)),
            (["x.png", "a"], ("NAME",)), (["x.png", "a=missing"], ("missing",)), (["x.png", "a=empty_dir"],
                ("empty_dir",)),
            (["x.png", "a=bad.tsv"], ("bad.tsv",)), (["x.png", "a=binary.txt"], ("binary.txt",)),
            (["x.png", "a=b", "--smallest", "0"], ("smallest",)), (["x.png", "a=b", "--smallest", "x"], ("smallest",)),
            (["a_file/x.png", "a=b"], ("PNG",)), (["x.png", "=bad.tsv"], ("NAME", "bad.tsv")), (["x.png",
                "a=blank.txt"], ("blank.txt",)),
        ),
        "error_by_horizon": (
            ([], ("recipe",)), (["missing.yaml"], ("missing.yaml",)), (["empty_dir"], ("empty_dir",)),
                (["seq2seq.yaml"], ("task", "forecast", "seq2seq")),
            (["forecast.yaml", "--set", "x"], ("--set",)), (["forecast.yaml", "--results", "empty_dir"], ("results",)),
            (["forecast.yaml", "--picture", "x.doc"], ("picture",)), (["forecast.yaml", "--output_dir", "a_file"],
                ("output_dir",)),
            (["forecast.yaml", "--data_dir", "missing"], ("missing", "data_dir")), (["forecast.yaml", "--set",
                "training.seed=-1"], ("seed",)),
        ),
        "weaknesses": (
            ([], ("recipe",)), (["missing.yaml"], ("missing.yaml",)), (["forecast.yaml"], ("task", "seq2seq", "toy")),
                (["seq2seq.yaml", "--set", "x"], ("--set",)),
            (["seq2seq.yaml", "--results", "empty_dir"], ("results",)), (["seq2seq.yaml", "--picture", "x.doc"],
                ("picture",)),
            (["seq2seq.yaml", "--output_dir", "a_file"], ("output_dir",)), (["speech.yaml"], ("task", "toy")),
        ),
        "accelerations": (
            (["--cells", "x"], ("cells", "x")), (["--off", "x"], ("off", "x")), (["--rounds", "0"], ("rounds",)),
                (["--rounds", "-1"], ("rounds",)),
            (["--seconds", "0"], ("seconds",)), (["--seconds", "nan"], ("seconds",)), (["--seconds", "-1"],
                ("seconds",)), (["--results", "empty_dir"], ("results",)),
            (["--results", "not.json", "--table-only"], ("not.json",)), (["--results", "list.json", "--table-only"],
                ("list.json",)),
            (["--table-only"], ("results",)), (["--cells", ""], ("cells",)),
        ),
        "results_table": (
            ([], ("document",)), (["doc.md"], ("folder",)), (["missing.md", "empty_dir"], ("missing.md",)),
                (["doc.md", "empty_dir"], ("doc.md",)),
            (["doc.md", "missing"], ("missing", "doc.md")), (["doc.md", "a_file"], ("a_file", "doc.md")),
                (["empty_dir", "empty_dir"], ("empty_dir",)),
            (["binary.txt", "empty_dir"], ("binary.txt",)),
        ),
        "speed": (
            ([], ("document",)), (["doc.md", "missing.json"], ("missing.json",)), (["doc.md", "not.json"],
                ("not.json",)), (["doc.md", "list.json"], ("list.json",)),
            (["doc.md", "empty_dir"], ("empty_dir",)), (["doc.md", "binary.txt"], ("binary.txt",)), (["doc.md",
                "x.json", "--check", "--peers", "y"], ("peers",)),
        ),
        "serving": (
            (["--models", "C"], ("models",)), (["--models", ""], ("models",)), (["--seconds", "0"], ("seconds",)),
                (["--seconds", "-1"], ("seconds",)),
            (["--seconds", "nan"], ("seconds",)), (["--seconds", "x"], ("seconds",)), (["--results", "empty_dir"],
                ("results",)), (["--results", "a_file"], ("results",)),
        ),
        "benchmark_run": (
            (["--only", "x"], ("only",)), (["--models", "C"], ("models",)), (["--models", ""], ("models",)),
                (["--device", "x"], ("device",)),
            (["--dtype", "x"], ("dtype",)), (["--results", "empty_dir"], ("results",)), (["--picture", "x.doc"],
                ("picture",)), (["--results", "a_file"], ("results",)),
            (["--nonsense"], ("nonsense",)), (["--only", ""], ("only",)),
        ),
        "cmudict_splits": (
            ([], ("folder",)), (["x", "--held_out", "0"], ("held_out",)), (["x", "--held_out", "-1"], ("held_out",)),
                (["x", "--held_out", "99999999"], ("held_out",)),
            (["x", "--seed", "x"], ("seed",)), (["a_file"], ("folder",)), (["a_file/x"], ("folder", "a_file")),
        ),
    }  # fmt: skip
    for name, cases in table.items():
        main = _main_of(name)
        for given, words in cases:
            yield Case(f"{name} {' '.join(given)}", words, lambda m=main, g=given: m(g))


def _main_of(name: str) -> Callable[[list[str]], Any]:
    sys.path[:0] = [str(SCRIPTS / folder) for folder in ("benchmark", "studies", ".")]
    if name == "benchmark_run":
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / "benchmark/run.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(name)

    def main(given: list[str]) -> Any:
        before, sys.argv = sys.argv, [name, *given]
        try:
            return module.main() if name == "cmudict_splits" else module.main(given)
        finally:
            sys.argv = before

    return main


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "predictions": predictions, "damaged": damaged, "others": others,
    "programs": programs,
}  # fmt: skip


@pytest.mark.chaos
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", CASES)
def test_all(part: str) -> None:
    assert not tried(CASES[part](), of_a_command)


if __name__ == "__main__":
    for part in sys.argv[1:] or CASES:
        tried(CASES[part](), of_a_command)
