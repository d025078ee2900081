"""Speaking end to end: the toy of bursts is solved; tones are spoken, heard, written as files and shown in a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_task_speech import CONTENT as SPEECH
from test_task_speech import RATE, folder  # noqa: F401 - a fixture
from transformers import AutoModelForTextToSpectrogram

from hf_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from hf_rnn_seq2seq.evaluation import GriffinLim
from hf_rnn_seq2seq.recipes import load_task
from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.sharing import export_model


MODEL = {
    "rnn_type": "gru",
    "embedding_size": 16,
    "encoder_hidden_size": 32,
    "encoder_layers": 1,
    "decoder_hidden_size": 48,
    "decoder_layers": 1,
    "attention_type": "additive",
    "attention_query": "previous_state",
    "coverage": True,
    "location_filters": 4,
    "location_width": 3,
    "speech_decoder_prenet_dropout": 0.0,
}
TRAINING = {
    "num_train_epochs": 10,
    "max_tokens": 300,
    "learning_rate": 0.01,
    "max_grad_norm": 1.0,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 1,
}
TOY: dict[str, Any] = {
    "task": "speak",
    "data": {"toy": {"heights": 2, "lengths": 2, "max_symbols": 4, "train": 120, "validation": 10, "test": 20}},
    "tokenizer": {"type": "character"},
    "model": MODEL,
    "training": {**TRAINING, "num_train_epochs": 40},
}
TONES: dict[str, Any] = {
    "task": "speak",
    "data": {**SPEECH["data"], "speaker_symbol": True, "join": {"max": 2, "train": 40, "validation": 6, "test": 6}},
    "features": {"sampling_rate": RATE, "num_mel_bins": 16},
    "model": {**MODEL, "reduction_factor": 4},
    "training": TRAINING,
    "generation": {"maxlenratio": 20.0},
    "evaluation": {"metrics": ["wer"], "validation_samples": 3, "batch_size": 4},
    "card": {
        "title": "Tones",
        "language": "en",
        "task": "text to speech",
        "datasets": ["tones"],
        "example": "a low mid",
    },
}


def written(content: dict[str, Any], path: Path, **changes: Any) -> Path:
    """The recipe as a file, with `section__key=value` changed."""
    content = json.loads(json.dumps(content))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        content.setdefault(section, {})[key] = value
    file = path / "recipe.yaml"
    file.write_text(write_yaml(content))
    return file


def test_bursts_are_solved_and_written_as_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    main(None, None, [str(written(TOY, tmp_path)), "--output_dir", str(tmp_path / "run"), "--results", str(results)])
    metrics = json.loads(results.read_text())["metrics"]
    assert metrics["solved"] >= 80 and metrics["length_error"] < 5
    capsys.readouterr()
    predict([str(tmp_path / "run"), "ab", "d", "--sound", str(tmp_path / "said")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ab", "d"]
    stored = np.load(lines[0].split()[1])
    options = load_task(tmp_path / "recipe.yaml").recipe.data.toy
    assert stored["offsets"].tolist() == [0, len(stored["feats"])]
    assert abs(len(stored["feats"]) - len(options.spectrogram("ab"))) <= 1
    assert not list((tmp_path / "said").glob("*.wav"))


@pytest.fixture(scope="module")
def recognizer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811 - the fixture
    path = tmp_path_factory.mktemp("recognizer")
    content = {**SPEECH, "task": "speech", "training": {**SPEECH["training"], "num_train_epochs": 1}}
    main(None, None, [str(written(content, path)), "--data_dir", str(folder), "--output_dir", str(path / "run")])
    return path / "run"


@pytest.fixture(scope="module")
def spoken(folder: Path, recognizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("spoken")
    recipe = written(TONES, path, listening__recognizer=str(recognizer))
    arguments = ["--output_dir", str(path / "run"), "--results", str(path / "results.json")]
    main(None, None, [str(recipe), "--data_dir", str(folder), *arguments])
    return path


def test_a_run_reports_what_is_heard_and_draws_what_is_said(spoken: Path) -> None:
    metrics = json.loads((spoken / "results.json").read_text())["metrics"]
    assert set(metrics) == {"wer", "length_error", "validation_wer", "validation_length_error"}
    table = (spoken / "run" / "predictions_test.tsv").read_text().splitlines()
    assert table[0].split("\t") == ["id", "source", "vectors", "reference_vectors", "heard"] and len(table) == 7
    card = (spoken / "run" / "README.md").read_text()
    assert "](spectrogram.png)" in card and "Tacotron 2" in card and "pipeline_tag: text-to-speech" in card
    assert (spoken / "run" / "spectrogram.png").stat().st_size > 1000


def test_the_code_of_the_card_speaks(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (spoken / "run" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace('"your-name/tones"', repr(str(spoken / "run")))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    assert soundfile.info(tmp_path / "speech.wav").samplerate == RATE


def test_the_folder_alone_speaks(spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a low mid\n\nb high\n")
    out = tmp_path / "out.jsonl"
    predict([
        str(spoken / "run"), "--input_file", str(texts), "--output_file", str(out), "--sound", str(tmp_path / "said"),
    ])  # fmt: skip
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["text"] for record in records] == ["a low mid", "", "b high"] and records[1]["sound"] is None
    samples, rate = soundfile.read(records[0]["sound"], dtype="float32")
    stored = np.load(Path(records[0]["sound"]).with_suffix(".npz"))["feats"]
    extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(str(spoken / "run"))
    length, shift, _ = extractor.frame_samples
    assert rate == RATE and len(samples) == length + shift * (len(stored) - 1)
    np.testing.assert_allclose(samples, GriffinLim(extractor)(stored), atol=1e-4)
    # the same from the same text alone, whatever stood beside it
    predict([str(spoken / "run"), "b high", "--sound", str(tmp_path / "again")])
    again = np.load(next((tmp_path / "again").glob("*.npz")))["feats"]
    np.testing.assert_allclose(again, np.load(Path(records[2]["sound"]).with_suffix(".npz"))["feats"], rtol=1e-4)


def test_what_a_model_that_speaks_is_not_asked(spoken: Path, recognizer: Path) -> None:
    with pytest.raises(SystemExit, match=r"--sound: the model in .* speaks, wanted the folder"):
        predict([str(spoken / "run"), "a low"])
    with pytest.raises(SystemExit, match="--num_beams: got 3"):
        predict([str(spoken / "run"), "a low", "--sound", "x", "--num_beams", "3"])
    with pytest.raises(SystemExit, match="--sound: got x, but the model in"):
        predict([str(recognizer), "a.wav", "--sound", "x"])


def test_the_scale_is_that_of_the_training_data_alone(folder: Path, spoken: Path, tmp_path: Path) -> None:  # noqa: F811
    task: Any = load_task(spoken / "run" / "recipe.yaml")
    data = task.load_data(folder)
    task.build(data)
    frames = torch.from_numpy(np.concatenate(task.spectrograms(data["train"])))
    saved = AutoModelForTextToSpectrogram.from_pretrained(spoken / "run")
    torch.testing.assert_close(saved.scale.mean, frames.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(saved.scale.std, frames.std(0, correction=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (TOY, {"features__num_mel_bins": 8}, "features: the data is a toy"),
        (TOY, {"evaluation__metrics": ["wer"]}, "evaluation.metrics: got wer, which compare what is heard"),
        (TOY, {"evaluation__metrics": ["wer"], "listening__recognizer": "x"}, "which nobody can hear"),
        (TOY, {"training__teacher_forcing": {"ratio": 0.5}}, "training.teacher_forcing: a decoder of vectors"),
        (TOY, {"generation__num_beams": 2}, "generation.num_beams: vectors are not searched for"),
        (TOY, {"model__num_mel_bins": 3}, "model.num_mel_bins: cannot be set in a recipe; it follows from the data"),
        (TONES, {"features__num_mel_bin": 3}, "did you mean 'num_mel_bins'"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    content: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionsError, match=message):
        load_task(written(content, tmp_path, **changes))


def test_a_recogniser_of_another_rate_is_refused(folder: Path, recognizer: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = written(TONES, tmp_path, listening__recognizer=str(recognizer), features__sampling_rate=16000)
    with pytest.raises(OptionsError, match=f"hears {RATE} Hz, but features.sampling_rate is 16000 Hz"):
        load_task(recipe).load_data(folder)


def test_another_recipe_than_the_models_is_refused(spoken: Path, tmp_path: Path) -> None:
    task = load_task(spoken / "run" / "recipe.yaml", ["features.frame_shift=5.0"])
    with pytest.raises(OptionsError, match=r"features.frame_shift: the recipe says 5.0, but the model"):
        task.load_processors(spoken / "run")
    with pytest.raises(OptionsError, match="those that speak do so one by one"):
        task.load_ensemble([spoken / "run", spoken / "run"])
    toy = load_task(written(TOY, tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds a preprocessor_config\.json, but data.toy says otherwise"):
        toy.load_processors(spoken / "run")


def test_it_is_not_exported(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"RnnSeq2SeqForTextToSpectrogram, .* no graph of its decoder's step"):
        export_model(spoken / "run", tmp_path / "onnx")
