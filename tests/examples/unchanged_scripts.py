"""The example scripts of transformers, as they are, on folders of this package; scripts/test_examples.sh runs this.

Every task can be learnt exactly, and only by a model that gets its inputs right: two vocabularies whose ids mean
different things, sources reversed and rewritten as the folder says. Its name keeps it out of the other tests: it needs
the scripts.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from transformers import AutoModelForSequenceClassification, AutoModelForSpeechSeq2Seq, AutoTokenizer, pipeline

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqProcessor,
)
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, train_tokenizer


sys.path.insert(0, str(Path(__file__).parent))
from fetch import example_script


SIZES: dict[str, Any] = {
    "embedding_size": 48, "encoder_hidden_size": 64, "decoder_hidden_size": 64, "encoder_layers": 1,
    "decoder_layers": 1,
}  # fmt: skip
RATE = 8000
LETTERS = "abcdefgh"
TARGETS = ["zulu", "yankee", "xray", "whiskey", "victor", "uniform", "tango", "sierra"]
COLOURS = {"red": "warm", "orange": "warm", "blue": "cold", "green": "cold"}
# What the Trainer's scripts and the one without say in common.
COMMON = ["--per_device_train_batch_size", "16", "--learning_rate", "0.01", "--seed", "1"]
TRAINER = [*COMMON, "--do_train", "--do_eval", "--report_to", "none", "--save_strategy", "no", "--use_cpu",
           "--disable_tqdm", "True", "--eval_strategy", "no", "--logging_steps", "5"]  # fmt: skip


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Letters and their names; a capital is read as its small letter, as the folder's replacements say."""
    numbers = random.Random(seed)
    words = [[numbers.randrange(len(LETTERS)) for _ in range(numbers.randint(2, 5))] for _ in range(count)]
    return [("".join(LETTERS[n] for n in w).title(), " ".join(TARGETS[n] for n in w)) for w in words]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_folder(folder: Path) -> None:
    """An untrained model of two vocabularies that reads its sources backwards, with small letters."""
    train = pairs(300, 0)
    source = train_tokenizer([LETTERS], TokenizerOptions("character"))
    target = train_tokenizer([b for _, b in train], TokenizerOptions("word"), "target")
    config = RnnSeq2SeqConfig(vocab_size=len(source), decoder_vocab_size=len(target), **SIZES)
    model = RnnSeq2SeqForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    replacements = [[letter.upper(), letter] for letter in LETTERS]
    save_processor(folder, source, target, Preprocessing(replacements, reverse_source=True))


def label_folder(folder: Path, model_class: Any, **options: Any) -> None:
    """An untrained model of words with their characters."""
    tokenizer = train_tokenizer([" ".join(COLOURS)], TokenizerOptions("word", characters=True, add_eos=False))
    config = RnnSeq2SeqConfig(
        vocab_size=len(tokenizer), character_vocab_size=len(tokenizer.character_vocab), **SIZES, **options
    )
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def speech_folder(folder: Path) -> None:
    extractor = RnnSeq2SeqFeatureExtractor(sampling_rate=RATE, num_mel_bins=20)
    tokenizer = train_tokenizer(["low high low"], TokenizerOptions("word"))
    config = RnnSeq2SeqConfig(vocab_size=len(tokenizer), input_feature_size=extractor.feature_size, **SIZES)
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder)
    save_processor(folder, tokenizer, feature_extractor=extractor)


def tones(path: Path, words: list[str]) -> np.ndarray:
    """One tone of 0.15 seconds a word, low or high."""
    time = np.arange(int(0.15 * RATE)) / RATE
    sound = np.concatenate([0.4 * np.sin(2 * np.pi * {"low": 300, "high": 1500}[w] * time) for w in words])
    soundfile.write(path, sound.astype(np.float32), RATE)
    return sound.astype(np.float32)


# ---- What each script is given ------------------------------------------------------------------------------------


def translation(folder: Path, trainer: bool) -> list[str]:
    text_folder(folder / "model")
    files = [
        write_lines(folder / f"{name}.json", [{"translation": {"xx": a, "yy": b}} for a, b in pairs(count, seed)])
        for name, count, seed in (("train", 300, 0), ("validation", 40, 1))
    ]
    data = ["--train_file", str(files[0]), "--validation_file", str(files[1]), "--max_target_length", "10"]
    data += ["--source_lang", "xx", "--target_lang", "yy", "--num_train_epochs", "12"]
    return [*data, *([*TRAINER, "--predict_with_generate"] if trainer else COMMON)]


def summarization(folder: Path) -> list[str]:
    text_folder(folder / "model")
    files = [
        write_lines(folder / f"{name}.json", [{"text": a, "summary": b} for a, b in pairs(count, seed)])
        for name, count, seed in (("train", 300, 0), ("validation", 40, 1))
    ]
    data = ["--train_file", str(files[0]), "--validation_file", str(files[1]), "--max_target_length", "10"]
    return [*data, *TRAINER, "--num_train_epochs", "12", "--predict_with_generate"]


def coloured(count: int, seed: int) -> list[list[str]]:
    numbers = random.Random(seed)
    return [numbers.choices(list(COLOURS), k=numbers.randint(2, 6)) for _ in range(count)]


def ner(folder: Path) -> list[str]:
    label_folder(folder / "model", RnnSeq2SeqForTokenClassification, use_crf=True, num_labels=2)
    files = [
        write_lines(
            folder / f"{name}.json",
            [{"tokens": words, "ner_tags": [f"B-{COLOURS[w]}" for w in words]} for words in coloured(count, seed)],
        )
        for name, count, seed in (("train", 120, 0), ("validation", 20, 1))
    ]
    return ["--train_file", str(files[0]), "--validation_file", str(files[1]), *TRAINER, "--num_train_epochs", "4"]


def classification(folder: Path) -> list[str]:
    label_folder(folder / "model", RnnSeq2SeqForSequenceClassification, num_labels=2)
    files = [
        write_lines(
            folder / f"{name}.json",
            [{"sentence": " ".join(words), "label": COLOURS[words[-1]]} for words in coloured(count, seed)],
        )
        for name, count, seed in (("train", 200, 0), ("validation", 30, 1))
    ]
    data = ["--train_file", str(files[0]), "--validation_file", str(files[1]), "--text_column_names", "sentence"]
    return [*data, "--label_column_name", "label", "--metric_name", "accuracy", *TRAINER, "--num_train_epochs", "8"]


def speech(folder: Path) -> list[str]:
    speech_folder(folder / "model")
    numbers = random.Random(0)
    for split, count in (("train", 120), ("test", 20)):
        place = folder / "audio" / split
        place.mkdir(parents=True)
        with (place / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "text"])
            for number in range(count):
                words = numbers.choices(["low", "high"], k=numbers.randint(1, 4))
                tones(place / f"{number}.wav", words)
                rows.writerow([f"{number}.wav", " ".join(words)])
    data = ["--dataset_name", str(folder / "audio"), "--train_split_name", "train", "--eval_split_name", "test"]
    return [*data, *TRAINER, "--num_train_epochs", "8", "--predict_with_generate"]


class Example(NamedTuple):
    """A script, and what its run has to reach."""

    script: str
    prepare: Callable[[Path], list[str]]
    metric: str
    least: float  # of the metric; of an error rate, which is better the smaller, 1 - it


EXAMPLES = [
    Example("run_translation", lambda folder: translation(folder, True), "eval_bleu", 90),
    Example("run_translation_no_trainer", lambda folder: translation(folder, False), "eval_bleu", 90),
    Example("run_summarization", summarization, "eval_rouge1", 90),
    Example("run_ner", ner, "eval_f1", 0.99),
    Example("run_classification", classification, "eval_accuracy", 0.95),
    Example("run_speech_recognition_seq2seq", speech, "eval_wer", 0.9),
]


def loaded_again(example: Example, folder: Path) -> bool:
    """Whether what the script has saved answers right: a folder like any other."""
    out = str(folder / "out")
    if example.script == "run_ner":
        tag = pipeline("token-classification", model=out)
        return [item["entity"] for item in tag("red blue")] == ["B-warm", "B-cold"]
    if example.script == "run_classification":
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
        logits = model(**tokenizer(["blue red", "red blue"], padding=True, return_tensors="pt")).logits
        return [model.config.id2label[n] for n in logits.argmax(-1).tolist()] == ["warm", "cold"]
    if example.script.startswith("run_speech"):
        # The script saves the feature extractor beside the model; the tokenizer is where it was.
        model = AutoModelForSpeechSeq2Seq.from_pretrained(out)
        processor = RnnSeq2SeqProcessor.from_pretrained(folder / "model")
        write = pipeline("seq2seq-generation", model=model, processor=processor)
        sound = tones(folder / "new.wav", ["high", "low", "low"])
        return str(write({"array": sound, "sampling_rate": RATE})[0]["generated_text"]) == "high low low"
    write = pipeline("seq2seq-generation", model=out)
    source, target = pairs(1, 5)[0]
    return str(write(source, num_beams=3)[0]["generated_text"]) == target


def run(example: Example, folder: Path, package: bool) -> dict[str, float]:
    """Run a script, and return what it says of its training: `train_loss` and the metric."""
    arguments = [*example.prepare(folder), "--model_name_or_path", str(folder / "model")]
    arguments += ["--output_dir", str(folder / "out"), *([] if package else ["--trust_remote_code"])]
    if not package and "no_trainer" not in example.script:
        arguments[-1:] = ["--trust_remote_code", "True"]
    command = [sys.executable, str(Path(__file__).with_name("start.py")), *([] if package else ["--without-package"])]
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*command, str(example_script(example.script)), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    out = folder / "out"
    results = json.loads((out / "all_results.json").read_text(encoding="utf-8"))
    return {("eval_bleu" if name == "bleu" else name): value for name, value in results.items()}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("package", [True, False], ids=["with_the_package", "without_it"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.script)
def test_an_unchanged_script_trains_and_its_result_loads(example: Example, package: bool, tmp_path: Path) -> None:
    results = run(example, tmp_path, package)
    value = 1 - results["eval_wer"] if example.metric == "eval_wer" else results[example.metric]
    again = loaded_again(example, tmp_path)
    shown = {name: round(results[name], 3) for name in ("train_loss", example.metric) if name in results}
    way = "with the package" if package else "without the package"
    sys.stdout.write(f"\n{example.script} | {way} | {shown} | loads again: {again}\n")
    assert value >= example.least and again
