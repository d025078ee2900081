"""The demo without a browser: what each kind of model answers, what C holds, and the folder of a Space.

A browser is in test_demo_page.py.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasters import AHEAD, CHANNELS, FEATURES, PAST, forecaster
from several_kinds import OTHERS, model_of
from tiny import STRUCTURES, randomize, tiny_config, tiny_model, tiny_tokenizer

from hf_rnn_seq2seq import RnnSeq2SeqFeatureExtractor, RnnSeq2SeqModel
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.preprocessing import Preprocessing
from hf_rnn_seq2seq.data.tokenizers import save_tokenizers
from hf_rnn_seq2seq.evaluation.decoding import decode
from hf_rnn_seq2seq.recipes.command_line import main as command_line
from hf_rnn_seq2seq.recipes.labelling import Labeller
from hf_rnn_seq2seq.sharing.demo import KINDS, build_demo, write_space
from hf_rnn_seq2seq.sharing.demo_models import (
    ClassModel,
    ForecastModel,
    SpeechModel,
    TagModel,
    TextModel,
    as_samples,
    spans,
    stream_tokens,
)
from hf_rnn_seq2seq.sharing.demo_pictures import context_by_prefix, plot_attention_to_sound, plot_context


RATE = 8000


def save(model: Any, folder: Path) -> Path:
    """A model with what lies beside it."""
    model.save_pretrained(folder)
    save_tokenizers(folder, tiny_tokenizer(), tiny_tokenizer())
    if model.config.input_feature_size:
        RnnSeq2SeqFeatureExtractor(num_mel_bins=5, sampling_rate=RATE).save_pretrained(folder)
    return folder


def text_model(structure: str, folder: Path) -> Path:
    model = tiny_model(structure, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.bias[:3] -= 20
        model.lm_head.bias[3] += 1
    model.generation_config.max_new_tokens = 8
    return save(model, folder)


def kind_of(kind: str, folder: Path) -> Path:
    if kind == "forecast":
        forecaster("luong", torch.float32, distribution_output="normal").save_pretrained(folder)
        return folder
    return text_model("luong", folder) if kind == "text" else save(model_of(kind), folder)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_text_comes_symbol_by_symbol_and_then_the_best(structure: str, tmp_path: Path) -> None:
    shown = TextModel(text_model(structure, tmp_path))
    whole = list(shown.stream("abcd"))
    source, _ = shown.read("abcd")
    search = shown.model.generation_config
    greedy = decode(shown.model, [source], shown.target_tokenizer, search)[0][0]
    assert whole and whole[-1] == greedy.text and len(whole) == len(greedy.tokens)
    assert all(longer.startswith(text) for text, longer in itertools.pairwise(whole))
    search.num_beams = search.num_return_sequences = 3
    assert shown.ranked("abcd", 3) == decode(shown.model, [source], shown.target_tokenizer, search, 1, True)[0]
    figure = shown.picture("abcd", shown.ranked("abcd", 3)[0])
    labels = [label.get_text() for label in figure.axes[0 if shown.attends else 2].get_xticklabels()]
    assert labels == ["a", "b", "c", "d", "</s>"]
    assert shown.attends == (STRUCTURES[structure]["attention_type"] != "none")


def test_the_preprocessing_of_the_weights_is_done(tmp_path: Path) -> None:
    folder = text_model("sutskever", tmp_path)
    plain = TextModel(folder).read("abc")[0]
    Preprocessing(source_replacements=[["b", "h"]], reverse_source=True).save(folder)
    assert TextModel(folder).read("abc")[0] == [plain[2], 11, plain[0], plain[3]]
    for text in ("", "  "):
        with pytest.raises(DataError, match="wanted one that is not blank"):
            TextModel(folder).read(text)


def test_an_error_of_the_search_is_raised_where_its_tokens_are_read() -> None:
    def generate(streamer: Any) -> None:
        streamer.put(torch.tensor([[2]]))
        streamer.put(torch.tensor([7]))
        raise ArithmeticError("broken")

    tokens = stream_tokens(generate)
    assert next(tokens) == 7
    with pytest.raises(ArithmeticError, match="broken"):
        next(tokens)


@pytest.mark.parametrize("structure", [name for name, options in STRUCTURES.items() if name != "bahdanau"])
def test_c_by_prefix_is_what_the_decoder_gets_of_each_prefix(structure: str) -> None:
    model, source, contexts = tiny_model(structure), [4, 5, 6, 7, 3], []
    found = context_by_prefix(model, source)
    hook = model.model.bridge.register_forward_pre_hook(lambda _, inputs: contexts.append(inputs[0]))
    with torch.no_grad():
        for length in range(1, len(source) + 1):
            model(torch.tensor([source[:length]]), decoder_input_ids=torch.tensor([[2]]))
    hook.remove()
    expected = torch.cat(contexts).numpy()
    np.testing.assert_allclose(found.context, expected, atol=1e-6)
    steps = np.diff(expected, axis=0, prepend=np.zeros_like(expected[:1]))
    np.testing.assert_allclose(found.change, np.sqrt((steps**2).sum(1)), atol=1e-6)
    with torch.no_grad():
        states = model.get_encoder()(torch.tensor([source])).final_hidden[0]
    np.testing.assert_allclose(found.norms[-1], states.norm(dim=-1).numpy(), atol=1e-6)
    assert found.norms.shape == (len(source), model.config.encoder_layers)


def test_the_picture_of_c_shows_every_dimension_and_symbol() -> None:
    found = context_by_prefix(tiny_model("sutskever"), [4, 5, 6])
    top, middle, bottom = plot_context(found, ["a", " ", "$x"]).axes[:3]
    assert np.array_equal(top.images[0].get_array(), found.context.T)
    assert [bar.get_height() for bar in middle.patches] == pytest.approx(list(found.change))
    assert [list(line.get_ydata()) for line in bottom.lines] == [list(norms) for norms in found.norms.T]
    assert [label.get_text() for label in bottom.get_xticklabels()] == ["a", "␣", r"\$x"]


@pytest.mark.parametrize("attention", ["none", "additive", "dot", "general"])
def test_speech_is_read_streamed_and_drawn(attention: str, tmp_path: Path) -> None:
    model_class, options = OTHERS["speech"]
    options = {**options, "attention_type": attention}
    model: Any = model_class(tiny_config(**options))
    randomize(model)
    model.generation_config.max_new_tokens = 6
    shown = SpeechModel(save(model.eval(), tmp_path))
    noise = np.random.default_rng(0).integers(-9000, 9000, (2 * RATE, 2), dtype=np.int16)
    sound = (2 * RATE, noise)
    source, _ = shown.read(sound)
    assert source.shape[1] == 5 and 80 < len(source) < 110  # a second of frames every 10 ms
    texts, best = list(shown.stream(sound)), shown.ranked(sound, 2)
    assert len(best) == 2
    search = shown.model.generation_config
    greedy = decode(shown.model, [source], shown.target_tokenizer, search)[0][0]
    assert (texts or [""])[-1] == greedy.text
    figure = shown.picture(sound, best[0])
    if attention != "none":
        assert figure.axes[0].images[0].get_extent()[:2] == [0, pytest.approx(1.0)]


def test_the_attention_to_sound_goes_from_left_to_right() -> None:
    weights = np.eye(3, 4)
    axes = plot_attention_to_sound(weights, ["a", "b", "</s>"], 2.0).axes[0]
    assert np.array_equal(axes.images[0].get_array(), weights)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "</s>"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first symbol is on top


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32])
def test_a_recording_of_any_rate_keeps_its_tone(rate: int, kind: type) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    scale = 1.0 if kind is np.float32 else np.iinfo(kind).max
    samples = as_samples((rate, np.stack([tone * scale, tone * scale], 1).astype(kind)), RATE)
    assert samples.dtype == np.float32 and len(samples) == RATE
    assert np.abs(np.fft.rfft(samples)).argmax() == 440
    assert np.abs(samples[500:-500]).max() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(DataError, match="got no samples"):
        as_samples((rate, np.empty(0, kind)), RATE)


class _Reference(Labeller):
    def __init__(self, shown: Any) -> None:
        self.model, self.tokenizer, self.batch_size = shown.model, shown.tokenizer, 1


def test_classes_and_tags_are_those_of_predict(tmp_path: Path) -> None:
    shown = ClassModel(kind_of("classifier", tmp_path / "class"))
    probabilities = shown.probabilities("abc")
    assert sum(probabilities.values()) == pytest.approx(1)
    (expected,) = _Reference(shown).classes(["abc"], 3)
    assert probabilities == {label: pytest.approx(np.exp(score), abs=1e-5) for label, score in expected}
    shown.model.config.problem_type = "multi_label_classification"
    odds = {label: value / (1 - value) for label, value in shown.probabilities("abc").items()}
    assert probabilities == {label: pytest.approx(one / sum(odds.values()), abs=1e-5) for label, one in odds.items()}
    for kind in ("tagger", "crf"):
        tagger = TagModel(kind_of(kind, tmp_path / kind))
        words = ["a", "h", "c", "b"]
        assert [word for word, _ in tagger.tags(" a  h c b ")] == words
        assert [label for _, label in tagger.tags("a h c b")] == _Reference(tagger).tags([words])[0]
        with pytest.raises(DataError, match="wanted one with words"):
            tagger.tags(" ")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O O", [("a b", None)]),
        ("B-X I-X O", [("a b", "X"), (" ", None), ("c", None)]),
        ("B-X B-X", [("a", "X"), (" ", None), ("b", "X")]),
        ("I-X I-Y", [("a", "X"), (" ", None), ("b", "Y")]),
        ("NOUN NOUN", [("a", "NOUN"), (" ", None), ("b", "NOUN")]),
        ("", []),
    ],
)
def test_spans_join_what_belongs_together(labels: str, expected: list[Any]) -> None:
    tagged = list(zip("abc", labels.split()))
    assert spans(tagged) == expected
    assert "".join(text for text, _ in spans(tagged)) == " ".join(word for word, _ in tagged)


def test_a_table_goes_on_as_the_model_says(tmp_path: Path) -> None:
    shown = ForecastModel(kind_of("forecast", tmp_path))
    past = shown.read(shown.example()).values[0][:PAST]
    assert past.shape == (PAST, CHANNELS) and shown.names == ["channel 1", "channel 2"]
    figure, rows = shown.forecast(shown.example())
    wanted = shown.model.forecast(torch.tensor(past[None]))[0].numpy()
    np.testing.assert_allclose(rows, [[step + 1, *row] for step, row in enumerate(wanted)], rtol=1e-5)
    assert len(figure.axes) == CHANNELS and figure.axes[0].collections  # the band
    # What is older than the model looks back does not matter; columns go by their names, or stand alone.
    longer = "day\tchannel 2\tchannel 1\nx\t0\t0\n" + "".join(f"x\t{b}\t{a}\n" for a, b in past.tolist())
    assert shown.forecast(longer)[1] == rows
    assert shown.forecast("\n".join(f"{a};{b}" for a, b in past.tolist()))[1] == rows
    for text, message in (
        ("", "the table: got no rows, wanted the columns channel 1"),
        ("1,2,3\n" * PAST, "got 3 columns without names, wanted the columns channel 1, channel 2"),
        ("channel 2,x\n" + "1,2\n" * PAST, "the table: the column 'channel 1' is missing; the file has channel 2, x"),
        ("1,2\n" * 3, "the table, row 3, series 'table': ends after 3 rows, wanted at least 8"),
        ("1,2\n" * 8 + "3,x\n", "the table, row 9, column 'channel 2': got 'x', wanted a number"),
    ):
        with pytest.raises(DataError, match=message):
            shown.read(text)


def test_a_forecaster_is_shown_with_all_that_its_table_holds(tmp_path: Path) -> None:
    """Features of each time and of each series, named by a recipe or not; several series."""
    forecaster("luong", torch.float32, **FEATURES).save_pretrained(tmp_path)
    plain = ForecastModel(tmp_path)
    assert plain.columns == ["channel 1", "channel 2", "feature 1", "feature 2", "static 1", "class 1"]
    assert plain.headers == ["step", "channel 1", "channel 2"] and len(plain.forecast(plain.example())[1]) == AHEAD
    table = {"id_column": "id", "time_column": "t", "calendar_features": ["hour"]}
    said = {
        "columns": ["load", "oil"], "features": ["open"], "static_real_features": ["height"],
        "static_categorical_features": ["kind"], "classes": {"kind": ["a", "b", "c"]}, "table": table,
    }  # fmt: skip
    (tmp_path / "series.json").write_text(json.dumps(said))
    shown = ForecastModel(tmp_path)
    example = shown.example()
    assert example.splitlines()[0] == "id,t,load,oil,open,height,kind" and shown.headers[0] == "id"
    one = shown.forecast(example)[1]
    assert [row[:2] for row in one] == [["example", step + 1] for step in range(AHEAD)]
    lines = example.splitlines()
    other = [line.replace("example", "other").replace(",a", ",c") for line in lines[1:]]
    both = "\n".join([*lines, *other])
    rows = shown.forecast(both)[1]
    np.testing.assert_allclose([row[1:] for row in rows[:AHEAD]], [row[1:] for row in one], rtol=1e-5)
    assert [row[0] for row in rows[AHEAD:]] == ["other"] * AHEAD and rows[AHEAD][2] != one[0][2]
    import pandas as pd

    frame = pd.read_csv(io.StringIO(both))
    frame.to_parquet(tmp_path / "table.parquet")
    (tmp_path / "table.csv").write_text(both)
    for name in ("table.csv", "table.parquet"):
        found = shown.forecast(shown.upload(tmp_path / name))[1]
        np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in rows], rtol=1e-5)
    (tmp_path / "table.csv").write_bytes(b"id,t\n\xe9,1\n")
    with pytest.raises(DataError, match=r"^table.csv, line 2: not UTF-8"):
        shown.upload(tmp_path / "table.csv")
    for wrong, message in (
        (both.replace(",c", ",d"), r"row 17, column 'kind', series 'other': got 'd', wanted a class"),
        ("\n".join(lines[:-1]), r"column 'open': step 7 of the forecast is missing"),
    ):
        with pytest.raises(DataError, match=message):
            shown.read(wrong)


@pytest.mark.parametrize("kind", ["text", "speech", "classifier", "tagger", "forecast"])
def test_every_kind_has_a_page(kind: str, tmp_path: Path) -> None:
    page = build_demo(kind_of(kind, tmp_path))
    assert {"input", "run", "output"} <= {getattr(block, "elem_id", None) for block in page.blocks.values()}
    assert len(KINDS) == 5


def test_what_has_no_page_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .* holds no config\.json"):
        command_line(["demo", str(tmp_path)])
    RnnSeq2SeqModel(tiny_model().config).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*architectures: got RnnSeq2SeqModel, wanted one of RnnSeq2SeqFor"):
        command_line(["demo", str(tmp_path)])


def test_a_space_holds_what_the_hub_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = text_model("luong", tmp_path / "model of letters")
    (folder / "checkpoint-3").mkdir()
    (folder / "training_args.bin").write_bytes(b"")
    command_line(["demo", str(folder), "--space", str(tmp_path / "space")])
    space = tmp_path / "space"
    assert capsys.readouterr().out == f"{space}\n"
    assert {path.name for path in space.iterdir()} == {"app.py", "requirements.txt", "README.md", "model"}
    assert not {"checkpoint-3", "training_args.bin"} & {path.name for path in (space / "model").iterdir()}
    assert re.fullmatch(r"hf_rnn_seq2seq\[demo\]==[\d.]+\n", (space / "requirements.txt").read_text())
    front = (space / "README.md").read_text().split("---\n")[1]
    assert "sdk: gradio\n" in front and "app_file: app.py\n" in front and 'title: "model of letters"\n' in front
    called: list[Any] = []
    app = (space / "app.py").read_text().replace("from hf_rnn_seq2seq.sharing import launch_demo\n", "")
    exec(app, {"launch_demo": lambda *given, **options: called.append((given, options))})
    assert called == [(("model",), {"host": "0.0.0.0", "port": 7860})]
    assert build_demo(space / called[0][0][0])
    with pytest.raises(SystemExit, match=r"error: output_dir: .* is not empty, wanted a new folder"):
        command_line(["demo", str(folder), "--space", str(space)])
    write_space(kind_of("speech", tmp_path / "speech"), tmp_path / "spoken")
    assert "[demo,audio]" in (tmp_path / "spoken" / "requirements.txt").read_text()
    assert json.loads((tmp_path / "spoken" / "model" / "config.json").read_text())["input_feature_size"] == 5
