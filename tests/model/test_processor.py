"""The processor: one call for every kind of model, one folder, and the folders of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import randomize, tiny_config
from transformers import AutoFeatureExtractor, AutoProcessor

from hf_rnn_seq2seq import (
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqProcessor,
    RnnSeq2SeqTokenizer,
    RnnSeq2SeqTwoSidedTokenizer,
    RnnSeq2SeqWordTokenizer,
)
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, save_tokenizers, train_tokenizer


SOURCE = train_tokenizer(["the cat sat"], TokenizerOptions("character"))
TARGET = train_tokenizer(["die katze sass"], TokenizerOptions("word"), "target")
EXTRACTOR = RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10)
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
BACKWARDS = Preprocessing([["cat", "tac"]], reverse_source=True)


def two_sided() -> RnnSeq2SeqTwoSidedTokenizer:
    return RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(SOURCE, TARGET, [["cat", "tac"]], True)


PARTS: dict[str, Any] = {
    "one_vocabulary": lambda: (SOURCE, None),
    "two_sides": lambda: (two_sided(), None),
    "words": lambda: (train_tokenizer(["the cat"], TokenizerOptions("word", characters=True)), None),
    "speech": lambda: (TARGET, EXTRACTOR),
}


@pytest.mark.parametrize("kind", PARTS)
def test_saved_and_loaded_it_does_the_same(kind: str, tmp_path: Path) -> None:
    processor = RnnSeq2SeqProcessor(*PARTS[kind]())
    processor.save_pretrained(tmp_path / "once")
    loaded = AutoProcessor.from_pretrained(tmp_path / "once")
    loaded.save_pretrained(tmp_path / "twice")
    call = {"audio": [SOUND], "sampling_rate": 8000} if kind == "speech" else {"text": ["the cat"]}
    for one in (loaded, AutoProcessor.from_pretrained(tmp_path / "twice")):
        assert type(one) is RnnSeq2SeqProcessor and type(one.tokenizer) is type(processor.tokenizer)
        batch, wanted = (part(**call, text_target=["die katze"], return_tensors="pt") for part in (one, processor))
        assert batch.keys() == wanted.keys() and all(torch.equal(batch[name], wanted[name]) for name in wanted)
        assert one.model_input_names == processor.model_input_names
    names = {path.name for path in (tmp_path / "once").iterdir() if path.suffix == ".json"}
    assert names == {path.name for path in (tmp_path / "twice").iterdir() if path.suffix == ".json"}


def test_a_call_gives_the_inputs_the_labels_and_the_text_back() -> None:
    processor = RnnSeq2SeqProcessor(two_sided())
    batch = processor(["the cat", "cat"], text_target=["die katze", "katze"], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 8) and batch["labels"].shape == (2, 3)
    assert processor.batch_decode(batch["labels"], skip_special_tokens=True) == ["die katze", "katze"]
    assert processor.decode(batch["labels"][0], skip_special_tokens=True) == "die katze"
    assert processor.reverse_source and processor.source_replacements == [["cat", "tac"]]
    assert processor(text_target="katze")["input_ids"] == TARGET("katze")["input_ids"]
    assert processor.source_tokenizer("cat")["input_ids"] == SOURCE("cat")["input_ids"]


def test_speech_gets_its_loss_from_one_call() -> None:
    processor = RnnSeq2SeqProcessor(TARGET, EXTRACTOR)
    config = tiny_config("luong", vocab_size=len(TARGET), input_feature_size=EXTRACTOR.feature_size)
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    randomize(model)
    batch = processor(
        audio=[SOUND, SOUND[:900]], text_target=["die katze", "sass"], sampling_rate=8000, padding=True,
        return_tensors="pt",
    )  # fmt: skip
    assert batch.keys() == {"input_features", "attention_mask", "labels"}
    assert model(**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        ("two_sides", {}, "got neither text nor text_target"),
        ("two_sides", {"audio": [SOUND]}, "this model reads text; give text"),
        ("two_sides", {"text": "a", "sampling_rate": 8000}, "this model reads text; give text"),
        ("speech", {}, "got neither audio nor text_target"),
        ("speech", {"text": "a"}, "text: this model reads audio or frames"),
        ("speech", {"audio": [SOUND], "sampling_rate": 16000}, "the audio has 16000 Hz"),
    ],
)
def test_what_a_model_does_not_read_is_refused(kind: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RnnSeq2SeqProcessor(*PARTS[kind]())(**call)


def test_parts_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="tokenizer must be a tokenizer of transformers; got dict"):
        RnnSeq2SeqProcessor({})
    with pytest.raises(TypeError, match="feature_extractor must be one of audio; got RnnSeq2SeqTokenizer"):
        RnnSeq2SeqProcessor(SOURCE, SOURCE)


@pytest.mark.parametrize("target", [None, TARGET], ids=["one_vocabulary", "two"])
@pytest.mark.parametrize("preprocessing", [None, Preprocessing(), BACKWARDS], ids=["unknown", "plain", "backwards"])
def test_a_folder_of_an_earlier_version_gives_the_same_processor(
    target: Any, preprocessing: Preprocessing | None, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_tokenizers(old, SOURCE, target)
    if preprocessing is not None:
        preprocessing.save(old)
    save_processor(new, SOURCE, target, preprocessing)
    before, now = (RnnSeq2SeqProcessor.from_pretrained(folder) for folder in (old, new))
    assert dict(before("the cat", text_target="die katze")) == dict(now("the cat", text_target="die katze"))
    # What older programs read is there too, as it was.
    for path in old.rglob("*.json"):
        if path.name != "tokenizer_config.json":
            was, now_is = (json.loads(file.read_text()) for file in (path, new / path.relative_to(old)))
            assert {**now_is, "padding": None, "truncation": None} == {**was, "padding": None, "truncation": None}
    assert Preprocessing.load(new) == preprocessing


@pytest.mark.parametrize(
    ("recipe", "refused"),
    [
        ("data:\n  reverse_source: true\n", True),
        ("data:\n  source_replacements:\n  - - a\n    - b\n  reverse_source: false\n", True),
        ("data:\n  source_replacements: [[a, b]]\n", True),
        ("data:\n  source_replacements: []\n  reverse_source: false\n", False),
        ("data:\n  train: train.tsv\n", False),
    ],
)
def test_a_folder_that_says_it_in_its_recipe_alone_is_not_misread(recipe: str, refused: bool, tmp_path: Path) -> None:
    save_tokenizers(tmp_path, SOURCE, TARGET)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    if refused:
        with pytest.raises(ValueError, match=r"has no preprocessing\.json, but its recipe\.yaml says"):
            RnnSeq2SeqProcessor.from_pretrained(tmp_path)
    else:
        assert RnnSeq2SeqProcessor.from_pretrained(tmp_path)("the")["input_ids"] == SOURCE("the")["input_ids"]


def test_tokenizers_keep_their_class_where_one_side_is_enough(tmp_path: Path) -> None:
    save_processor(tmp_path, SOURCE, SOURCE, Preprocessing())
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "RnnSeq2SeqTokenizer"
    assert type(AutoProcessor.from_pretrained(tmp_path).tokenizer) is RnnSeq2SeqTokenizer
    words = train_tokenizer(["the cat"], TokenizerOptions("word", characters=True))
    save_processor(tmp_path, words)
    assert type(AutoProcessor.from_pretrained(tmp_path).tokenizer) is RnnSeq2SeqWordTokenizer


def test_a_feature_extractor_saved_alone_names_its_processor(tmp_path: Path) -> None:
    RnnSeq2SeqProcessor(TARGET, EXTRACTOR).save_pretrained(tmp_path / "whole")
    AutoFeatureExtractor.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "alone")
    TARGET.save_pretrained(tmp_path / "alone")
    assert type(AutoProcessor.from_pretrained(tmp_path / "alone")) is RnnSeq2SeqProcessor
