"""Speech recognition end to end on audio made here: three words that are three tones, by the script's own way."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, pipeline

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.recipe import Recipe, build_recipe
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask
from hf_rnn_seq2seq.training.checkpoints import checkpoints_of


RATE = 8000
TONES = {"low": 300, "mid": 800, "high": 2000}

CONTENT: dict[str, Any] = {
    "data": {
        "manifest": "manifest.tsv",
        "audio_column": "id",
        "audio_suffix": ".wav",
        "speaker_column": "speaker",
        "holdout": {"by": "utterance", "fraction": 0.2},
        "join": {"max": 3, "train": 96, "validation": 12, "test": 12},
    },
    "features": {
        "sampling_rate": RATE,
        "num_mel_bins": 16,
        "delta_order": 1,
        "normalization": "global",
        "stack": 2,
        "spec_augment": {"frequency_width": 2, "time_width": 2},
    },
    "tokenizer": {"type": "word"},
    "model": {
        "time_reduction": 2,
        "encoder_hidden_size": 32,
        "encoder_layers": 2,
        "embedding_size": 8,
        "decoder_hidden_size": 32,
        "decoder_layers": 1,
        "ctc_weight": 0.5,
    },
    "training": {
        "num_train_epochs": 8,
        "max_tokens": 250,
        "learning_rate": 0.02,
        "lr_scheduler_type": "cosine",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 1,
    },
    "generation": {"num_beams": 2, "length_penalty": 0.0, "ctc_weight": 0.4},
    "evaluation": {"metrics": ["wer", "cer"], "best_metric": "wer"},
}


def content(**changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed; the value `None` takes the key away."""
    changed: dict[str, Any] = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if value is None:
            changed[section].pop(key)
        else:
            changed[section][key] = value
    return changed


def recipe(**changes: Any) -> Recipe:
    return build_recipe(content(**changes), "tones", SpeechTask.kind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 recordings of three words by two speakers, every third one for the test."""
    path, generator = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    lines = ["id\tspeaker\ttranscript\tsplit"]
    for number in range(45):
        word, speaker = list(TONES)[number % 3], "ab"[number % 2]
        time = np.arange(generator.integers(1000, 1400)) / RATE
        frequency = TONES[word] * (1.1 if speaker == "b" else 1)
        samples = 0.3 * np.sin(2 * np.pi * frequency * time) * np.hanning(len(time))
        samples += 0.001 * generator.standard_normal(len(time))
        soundfile.write(path / f"{number}.wav", samples, RATE)
        lines.append(f"{number}\t{speaker}\t{word}\t{'test' if number // 3 % 3 == 0 else 'train'}")
    (path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return path


def run(folder: Path, output: Path, *arguments: str) -> dict[str, float]:
    path = output / "tones.yaml"
    path.write_text(write_yaml(CONTENT))
    return main(SpeechTask, None, [str(path), "--data_dir", str(folder), "--output_dir", str(output), *arguments])


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe, with the results file `results.json` in it."""
    output = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    run(folder, output, "--results", str(output / "results.json"))
    return output


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_a_run_learns_to_tell_the_words(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())["metrics"]
    assert set(results) == {"wer", "cer", "validation_wer", "validation_cer"}
    assert results["wer"] < 20
    rows = predictions(trained / "predictions_test.tsv")
    assert list(rows[0]) == ["id", "reference", "hypothesis"] and len(rows) == 12
    wrong = sum(row["reference"] != row["hypothesis"] for row in rows)
    assert (wrong == 0) == (results["wer"] == 0)


def test_the_saved_model_gives_the_same_predictions(folder: Path, trained: Path, tmp_path: Path) -> None:
    results = json.loads((trained / "results.json").read_text())["metrics"]
    assert run(folder, tmp_path, "--eval_only", str(trained)) == pytest.approx(results)
    assert predictions(tmp_path / "predictions_test.tsv") == predictions(trained / "predictions_test.tsv")


def test_an_ensemble_and_a_mean_of_checkpoints_are_evaluated(folder: Path, trained: Path, tmp_path: Path) -> None:
    folders = list(map(str, checkpoints_of(trained)))
    assert len(folders) >= 2
    for more in ([], ["--average"]):
        output = tmp_path / f"out{len(more)}"
        output.mkdir()
        results = run(folder, output, "--eval_only", *folders, *more)
        assert set(results) == {"wer", "cer", "validation_wer", "validation_cer"} and results["wer"] < 60
        assert (output / "model.safetensors").exists() == bool(more)
    assert AutoFeatureExtractor.from_pretrained(output).mean is not None
    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    extractor = AutoFeatureExtractor.from_pretrained(other)
    extractor.preemphasis = 0.5
    extractor.save_pretrained(other)
    with pytest.raises(SystemExit, match=r"other reads other features than .*: they differ in preemphasis"):
        run(folder, tmp_path, "--eval_only", folders[0], str(other))


def test_the_stock_pipeline_transcribes_with_the_saved_model(folder: Path, trained: Path) -> None:
    data = SpeechTask(recipe()).load_data(folder)["test"].with_format("numpy")
    transcriber = pipeline("automatic-speech-recognition", model=str(trained))
    assert transcriber.type == "seq2seq"
    expected = predictions(trained / "predictions_test.tsv")
    options = {"num_beams": 2, "length_penalty": 0.0, "ctc_weight": 0.4}
    for number in range(4):
        audio = {"raw": np.array(data[number]["input"]), "sampling_rate": RATE}
        assert transcriber(audio, generate_kwargs=options)["text"] == expected[number]["hypothesis"]


def test_the_auto_classes_load_what_was_saved(trained: Path) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(trained)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(trained)
    assert extractor.mean is not None  # fitted
    assert model.config.input_feature_size == extractor.feature_size == 16 * 2 * 2
    batch = extractor(np.zeros(3000, np.float32), return_tensors="pt")
    assert model.generate(**batch).shape[0] == 1


# ---- Parts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(folder: Path) -> SpeechTask:
    task = SpeechTask(recipe())
    task.build(task.load_data(folder))
    return task


def test_batches_hold_what_the_extractor_computes(folder: Path, built: SpeechTask) -> None:
    data = built.load_data(folder)["validation"]
    encoded = built.encode(data, "validation")
    batch = built.collate([encoded[number] for number in range(3)])
    features = built.features(data)
    for number in range(3):
        length = int(batch["attention_mask"][number].sum())
        assert length == len(features[number]) == built.lengths(encoded)[number][0]
        np.testing.assert_array_equal(batch["input_features"][number, :length], features[number])
        assert batch["input_features"][number, length:].abs().sum() == 0
        labels = [label for label in batch["labels"][number].tolist() if label != -100]
        assert len(labels) == built.lengths(encoded)[number][1] and labels[-1] == built.tokenizer.eos_token_id
        assert built.tokenizer.decode(labels[:-1]) == data[number]["transcript"]


def test_only_training_batches_are_augmented(folder: Path, built: SpeechTask) -> None:
    encoded = built.encode(built.load_data(folder)["train"], "train")
    batch = dict(built.collate([encoded[0], encoded[1]]))
    augmented = built.augment(batch)
    assert torch.equal(built.collate([encoded[0], encoded[1]])["input_features"], batch["input_features"])
    assert not torch.equal(augmented["input_features"], batch["input_features"])
    assert torch.equal(augmented["labels"], batch["labels"])
    plain = SpeechTask(recipe(features__spec_augment=None))
    assert plain.augment(batch) is batch


def test_the_weight_of_ctc_reaches_the_search(built: SpeechTask) -> None:
    assert built.scorer.search().ctc_weight == 0.4
    assert built.scorer.greedy().ctc_weight == 0.4
    # Also of a model that was saved without one.
    del built.model.generation_config.ctc_weight
    assert built.scorer.search().ctc_weight == 0.4


def test_frames_in_place_of_audio(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    np.savez(tmp_path / "frames.npz", feats=frames, offsets=np.array([0, 10, 18, 30]))
    lines = ["id\tspeaker\ttranscript\tsplit", "1\ta\tyes\ttrain", "2\tb\tno\ttrain", "3\ta\tyes\ttest"]
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    changed = content(data__frames="frames.npz", data__holdout=None, data__join=None, features__stack=1)
    changed["features"] = {"feature_type": "none", "frame_size": 3, "normalization": "none"}
    task = SpeechTask(build_recipe(changed, "frames", SpeechTask.kind))
    data = task.load_data(tmp_path)
    task.build(data)
    encoded = task.encode(data["train"], "train")
    assert task.lengths(encoded) == [(10, 2), (8, 2)]
    batch = task.collate([encoded[0], encoded[1]])
    np.testing.assert_array_equal(batch["input_features"][0], frames[:10])
    np.testing.assert_array_equal(batch["input_features"][1, :8], frames[10:18])


# ---- Bad recipes and bad audio ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features__feature_type": "log-mel"}, "features.feature_type: wanted one of log_mel, mfcc, none"),
        ({"features__num_mel_bin": 3}, "features.num_mel_bin: unknown key; did you mean 'num_mel_bins'"),
        ({"features__stack": 0}, "features.stack must be at least 1"),
        ({"features__high_frequency": 9000.0}, "half of sampling_rate=8000"),
        ({"features__spec_augment": {"time_share": 2.0}}, "features.spec_augment.time_share: got 2.0"),
        ({"data__frames": "f.npz"}, "features.feature_type: got log_mel, but data.frames is 'f.npz'"),
        ({"data__speaker_column": None}, "data.speaker_column: needed by join"),
        ({"model__input_feature_size": 3}, "model.input_feature_size: cannot be set in a recipe"),
        ({"model__time_reduction": 3}, "model: time_reduction"),
        ({"generation__ctc_weight": "much"}, "generation.ctc_weight: wanted a number"),
    ],
)
def test_a_bad_recipe_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        SpeechTask(recipe(**changes))


def test_audio_of_another_rate_stops_the_script_with_file_and_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"manifest.tsv, line \d+: '\d+.wav' .* has 8000 Hz, but .* is 16000 Hz"):
        run(folder, tmp_path, "--set", "features.sampling_rate=16000")
