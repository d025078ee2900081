"""A page to try a saved model on: `hf-rnn-seq2seq demo MODEL_DIR`, or a Space of the Hub.

The page follows from what the folder holds (`KINDS`): a text or what is said, symbol by symbol, with n-best lists and
the attention or C; the classes of a text; the labels of its words; how a table of values goes on. It asks nothing of
the network. Needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise ImportError(f"the demo needs the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'") from error
from ..data.files import DataError, printable
from ..data.outputs import check_output_folder, replacing_folder, write_whole
from ..evaluation.saved_model import saved_classes
from .card_text import plain
from .demo_models import ClassModel, ForecastModel, SpeechModel, TagModel, TextModel, spans
from .hub import NOT_SHARED


# Hypotheses of the list.
_LISTED = 5
# Seconds between two symbols at least, so that an eye can follow.
PACE = 0.06
# Fonts of the reader's system: the theme's own would be fetched. The tables scroll within a phone's width.
_FONT, _FONT_MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
_CSS = """
.gradio-container { width: 100% !important; max-width: 800px !important; margin: auto; }
footer { display: none !important; }
"""


def _told(work: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    """Return an event of the page that shows a refused input as its sentence."""

    def event(item: Any) -> Iterator[Any]:
        try:
            yield from work(item)
        except DataError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error

    return event


def _add_search(model: TextModel | SpeechModel, item: Any, button: Any, submits: Sequence[Any]) -> None:
    """Add the outputs of a model with `generate()`: the text as it appears, the list of the best, a picture."""
    output = gr.Textbox(label="Output", interactive=False, elem_id="output")
    listed = gr.Dataframe(
        headers=["hypothesis", "log P", "P"], label="Best of a beam search", interactive=False, elem_id="ranked",
        wrap=True, datatype=["str", "number", "number"], column_widths=["56%", "22%", "22%"],
    )  # fmt: skip
    what = "Attention: what each output symbol looked at" if model.attends else "C: what the model keeps of the source"
    gr.Markdown(f"### {what}")
    picture = gr.Plot(show_label=False, format="png", elem_id="picture")

    def work(given: Any) -> Iterator[Any]:
        if given is None:
            raise DataError("the sound: got none, wanted a recording or a file")
        yield "", None, None
        for text in model.stream(given):
            yield text, gr.skip(), gr.skip()
            time.sleep(PACE)
        ranked = model.ranked(given, _LISTED)
        scores = [one.score or 0.0 for one in ranked]
        rows = [[one.text, round(score, 3), float(f"{math.exp(score):.3g}")] for one, score in zip(ranked, scores)]
        yield ranked[0].text, rows, gr.skip()
        yield gr.skip(), gr.skip(), model.picture(given, ranked[0])

    gr.on([button.click, *submits], _told(work), [item], [output, listed, picture], show_progress="minimal")


def _text_box(label: str) -> tuple[Any, Any]:
    box = gr.Textbox(label=label, elem_id="input", autofocus=True, lines=1, max_lines=8)
    return box, gr.Button("Run", variant="primary", elem_id="run")


def _text_page(model_dir: Path) -> None:
    box, button = _text_box("Type a text")
    _add_search(TextModel(model_dir), box, button, [box.submit])


def _speech_page(model_dir: Path) -> None:
    sound = gr.Audio(label="Choose a file, or speak", sources=["upload", "microphone"], type="numpy", elem_id="input")
    button = gr.Button("Run", variant="primary", elem_id="run")
    _add_search(SpeechModel(model_dir), sound, button, [])


def _class_page(model_dir: Path) -> None:
    model = ClassModel(model_dir)
    box, button = _text_box("Type a text")
    label = gr.Label(label="Class", num_top_classes=min(10, len(model.labels)), elem_id="output")

    def work(text: str) -> Iterator[Any]:
        yield model.probabilities(text)

    gr.on([button.click, box.submit], _told(work), [box], [label], show_progress="minimal")


def _tag_page(model_dir: Path) -> None:
    model = TagModel(model_dir)
    box, button = _text_box("Type a sentence, words parted by blanks")
    tags = gr.HighlightedText(label="Labels", show_legend=True, elem_id="output")

    def work(text: str) -> Iterator[Any]:
        yield spans(model.tags(text))

    gr.on([button.click, box.submit], _told(work), [box], [tags], show_progress="minimal")


def _forecast_page(model_dir: Path) -> None:
    model = ForecastModel(model_dir)
    rows = model.saved["shortest_past"] or model.model.config.context_length
    box = gr.Textbox(
        model.example(), label=f"A table as CSV: {', '.join(model.columns)}; {rows} rows of the past at least",
        elem_id="input", lines=6, max_lines=12,
    )  # fmt: skip
    upload = gr.UploadButton("Choose a file", elem_id="upload")
    button = gr.Button("Run", variant="primary", elem_id="run")
    picture = gr.Plot(show_label=False, format="png", elem_id="output")
    table = gr.Dataframe(headers=model.headers, label="Forecast", interactive=False, elem_id="ahead")

    def read(path: str) -> Iterator[Any]:
        yield model.upload(path)

    def work(text: str) -> Iterator[Any]:
        yield model.forecast(text)

    upload.upload(_told(read), [upload], [box])
    gr.on([button.click], _told(work), [box], [picture, table], show_progress="minimal")


# The class of a saved model -> what lays out its page, within `gr.Blocks`. Other classes are refused.
KINDS: dict[str, Callable[[Path], None]] = {
    "RnnSeq2SeqForConditionalGeneration": _text_page,
    "RnnSeq2SeqForSpeechSeq2Seq": _speech_page,
    "RnnSeq2SeqForSequenceClassification": _class_page,
    "RnnSeq2SeqForTokenClassification": _tag_page,
    "RnnSeq2SeqForTimeSeriesPrediction": _forecast_page,
}


def _page_of(model_dir: Path) -> Callable[[Path], None]:
    """Return the page of the class that a folder says it holds.

    Raises:
        FileNotFoundError: the folder holds no model.
        DataError: it holds one of a class that has no page.
    """
    saved = next(iter(saved_classes(model_dir)), None)
    if saved not in KINDS:
        raise DataError(f"{model_dir / 'config.json'}: architectures: got {saved}, wanted one of {', '.join(KINDS)}")
    return KINDS[saved]


def build_demo(model_dir: str | Path) -> gr.Blocks:
    """Return the page of a saved model.

    Raises:
        FileNotFoundError: the folder holds no model.
        DataError: it holds one that has no page, or that cannot be loaded.
    """
    model_dir = Path(model_dir)
    page = _page_of(model_dir)
    name = model_dir.resolve().name
    with gr.Blocks(title=name, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {plain(name)}")
        page(model_dir)
    return blocks


def launch_demo(
    model_dir: str | Path, host: str = "127.0.0.1", port: int | None = None, browser: bool = False
) -> None:
    """Show the page of a saved model until the process is ended; print its address.

    Args:
        model_dir: the model's folder.
        host, port: where to listen; port None: the first free one from 7860 on.
        browser: open the page in a browser.
    """
    theme = gr.themes.Default(font=_FONT, font_mono=_FONT_MONO)
    page = build_demo(model_dir)
    _, address, _ = page.launch(
        server_name=host, server_port=port, inbrowser=browser, share=False, theme=theme, css=_CSS, quiet=True,
        footer_links=[], ssr_mode=False, prevent_thread_lock=True,
    )  # fmt: skip
    sys.stdout.write(f"{model_dir} at {address}\n")
    sys.stdout.flush()
    page.block_thread()


_APP = '''"""The demo of a model of hf_rnn_seq2seq, for a Space of the Hub."""

from hf_rnn_seq2seq.sharing import launch_demo


launch_demo("model", host="0.0.0.0", port=7860)
'''
_README = """---
title: {title}
emoji: 🔁
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
---

The demo of `model/`, written by `hf-rnn-seq2seq demo --space`. `requirements.txt` names the package by its version:
where that is on no registry, put its wheel beside `app.py` and name the file there.
"""
# What training leaves in a folder, and code that the installed package has.
_LEFT_OUT = shutil.ignore_patterns(*NOT_SHARED, "checkpoint-*", "runs", "earlier_run", "*.py", "__pycache__")


def write_space(model_dir: str | Path, output_dir: str | Path) -> Path:
    """Write a folder that is a Space of the Hub once it is pushed: app.py, requirements.txt, README.md, the model.

    Args:
        model_dir: the model's folder.
        output_dir: a folder that is not there yet, or is empty.

    Raises:
        FileExistsError: something is in `output_dir`.
        FileNotFoundError: `model_dir` holds no model.
        DataError: it holds one that has no page.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    build_demo(model_dir)  # which refuses what cannot be shown
    check_output_folder(output_dir, "output_dir")
    if output_dir.is_dir() and any(output_dir.iterdir()):
        raise FileExistsError(f"output_dir: {output_dir} is not empty, wanted a new folder")
    with replacing_folder(output_dir) as folder:
        _fill_space(folder, model_dir)
    return output_dir


def _fill_space(folder: Path, model_dir: Path) -> None:
    shutil.copytree(model_dir, folder / "model", ignore=_LEFT_OUT)
    write_whole(folder / "app.py", _APP)
    extras = "demo,audio" if _page_of(model_dir) is _speech_page else "demo"
    requirement = f"hf_rnn_seq2seq[{extras}]=={metadata.version('hf_rnn_seq2seq')}\n"
    write_whole(folder / "requirements.txt", requirement)
    title = json.dumps(model_dir.resolve().name)  # a string of YAML too
    write_whole(folder / "README.md", _README.format(title=title, gradio=gr.__version__))


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model_dir", help="a folder that save_pretrained wrote")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: reachable from elsewhere (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")
    parser.add_argument("--space", metavar="FOLDER", help="write a Space of the Hub to a new folder, and show nothing")
    args = parser.parse_args(arguments)
    if args.port is not None and not 0 <= args.port <= 65535:
        parser.error(f"--port: got {args.port}, wanted 0 to 65535")
    if args.space is not None and args.port is not None:
        parser.error("--space: nothing is shown; leave out --port")
    try:
        if args.space is not None:
            sys.stdout.write(f"{write_space(args.model_dir, args.space)}\n")
            return
        launch_demo(args.model_dir, args.host, args.port, not args.no_browser)
    except (OSError, ValueError) as error:
        sys.exit(printable(f"error: {error}"))
