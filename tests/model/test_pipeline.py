"""The pipeline "seq2seq-generation": its hypotheses are `generate()`'s, its scores the model's own probabilities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALL, randomize, tiny_config
from transformers import AutoModel, AutoModelForTextEncoding, pipeline

from hf_rnn_seq2seq import (
    RnnSeq2SeqEncoderModel,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
    RnnSeq2SeqProcessor,
)
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, train_tokenizer


TEXTS = ["abc", "fedcba", "a"]
SOURCE = train_tokenizer(["abcdef"], TokenizerOptions("character"))
TARGET = train_tokenizer(["uvw xyz x y"], TokenizerOptions("word"), "target")
EXTRACTOR = RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10)
SOUNDS = [np.random.default_rng(n).uniform(-0.5, 0.5, 1500 + 500 * n).astype(np.float32) for n in range(2)]
SEARCH: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 6, "suppress_tokens": [0, 1, 2]}


def text_folder(folder: Path, structure: str = "luong") -> Path:
    shared = bool(ALL[structure].get("share_embeddings"))
    sizes = {"vocab_size": len(SOURCE), "decoder_vocab_size": None if shared else len(TARGET)}
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(structure, **sizes))
    randomize(model, scale=0.3)
    model.save_pretrained(folder)
    save_processor(folder, SOURCE, SOURCE if shared else TARGET, Preprocessing([["x", "a"]], reverse_source=True))
    return folder


def speech_folder(folder: Path, **options: Any) -> Path:
    config = tiny_config("luong", vocab_size=len(TARGET), input_feature_size=EXTRACTOR.feature_size, **options)
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    randomize(model, scale=0.3)
    model.save_pretrained(folder)
    save_processor(folder, TARGET, feature_extractor=EXTRACTOR)
    return folder


@pytest.mark.parametrize("structure", ALL)
def test_hypotheses_are_those_of_generate_and_scores_those_of_the_model(structure: str, tmp_path: Path) -> None:
    write = pipeline("seq2seq-generation", model=str(text_folder(tmp_path, structure)))
    model, processor = write.model, RnnSeq2SeqProcessor.from_pretrained(tmp_path)
    for text, hypotheses in zip(TEXTS, write(TEXTS, **SEARCH), strict=True):
        inputs = processor([text], return_tensors="pt")
        sequences = model.generate(**inputs, **SEARCH)
        texts = processor.batch_decode(sequences, skip_special_tokens=True)
        assert [one["generated_text"] for one in hypotheses] == texts
        for one, sequence in zip(hypotheses, sequences, strict=True):
            written = sequence[1 : 1 + len(one["tokens"])]
            assert one["tokens"] == processor.target_tokenizer.convert_ids_to_tokens(written.tolist())
            with torch.no_grad():
                loss = model(**inputs, labels=written[None]).loss
            assert one["score"] == pytest.approx(-float(loss) * len(written), abs=1e-4)
            assert math.fsum(one["token_scores"]) == pytest.approx(one["score"], abs=1e-5)
            assert set(sequence[1 + len(written) :].tolist()) <= {model.config.pad_token_id}


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_change_nothing(batch_size: int, tmp_path: Path) -> None:
    write = pipeline("seq2seq-generation", model=str(text_folder(tmp_path)), **SEARCH)
    together = write(TEXTS, batch_size=batch_size, return_alignments=True)
    for text, hypotheses in zip(TEXTS, together, strict=True):
        for one, alone in zip(hypotheses, write(text, return_alignments=True), strict=True):
            assert one["tokens"] == alone["tokens"] and one["source_tokens"] == alone["source_tokens"]
            assert one["score"] == pytest.approx(alone["score"], abs=1e-5)
            torch.testing.assert_close(torch.tensor(one["alignments"]), torch.tensor(alone["alignments"]))


def test_alignments_have_a_row_a_token_and_a_column_a_source_token(tmp_path: Path) -> None:
    write = pipeline("seq2seq-generation", model=str(text_folder(tmp_path)))
    for one in write("xbc", **SEARCH, return_alignments=True):
        assert one["source_tokens"] == ["c", "b", "a", "</s>"]  # as the model reads it
        weights = torch.tensor(one["alignments"])
        assert weights.shape == (len(one["tokens"]), 4)
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_alignments_of_a_model_without_attention_are_refused(tmp_path: Path) -> None:
    write = pipeline("seq2seq-generation", model=str(text_folder(tmp_path, "sutskever")))
    with pytest.raises(ValueError, match="return_alignments: the model has attention_type='none'"):
        write("abc", return_alignments=True)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
@pytest.mark.parametrize("time_reduction", [1, 2])
def test_audio_goes_in_as_arrays_and_dictionaries(ctc_weight: float, time_reduction: int, tmp_path: Path) -> None:
    folder = speech_folder(tmp_path, ctc_weight=ctc_weight, time_reduction=time_reduction)
    write = pipeline("seq2seq-generation", model=str(folder))
    assert type(write.model) is RnnSeq2SeqForSpeechSeq2Seq
    arrays = write(SOUNDS, **SEARCH, return_alignments=True)
    assert len(arrays) == 2 and all(len(hypotheses) == 3 for hypotheses in arrays)
    assert arrays == [
        write({name: sound, "sampling_rate": 8000}, **SEARCH, return_alignments=True)
        for name, sound in zip(("array", "raw"), SOUNDS, strict=True)
    ]
    options = {"num_beams": 4, "max_new_tokens": 6}
    words = pipeline("automatic-speech-recognition", model=str(folder))(SOUNDS[0], generate_kwargs=options)
    assert words["text"] == write(SOUNDS[0], **options)[0]["generated_text"]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    text = pipeline("seq2seq-generation", model=str(text_folder(tmp_path / "text")))
    speech = pipeline("seq2seq-generation", model=str(speech_folder(tmp_path / "speech")))
    with pytest.raises(ValueError, match="a source must be a text, several a list of texts; got dict"):
        text({"text": "a"})
    with pytest.raises(ValueError, match="audio must have one of array and raw, and sampling_rate; got array"):
        speech({"array": SOUNDS[0]})
    with pytest.raises(ValueError, match="the audio has 16000 Hz"):
        speech({"array": SOUNDS[0], "sampling_rate": 16000})
    with pytest.raises(ValueError, match="give a processor, or a tokenizer"):
        pipeline("seq2seq-generation", model=RnnSeq2SeqForConditionalGeneration(tiny_config("luong")))
    with pytest.raises(ValueError, match="the model reads audio or frames, but its processor has none"):
        pipeline("seq2seq-generation", model=speech.model, tokenizer=TARGET)


def test_a_saved_pipeline_loads_again(tmp_path: Path) -> None:
    write = pipeline("seq2seq-generation", model=str(text_folder(tmp_path / "once")))
    write.save_pretrained(tmp_path / "twice")
    assert pipeline("seq2seq-generation", model=str(tmp_path / "twice"))("abc") == write("abc")


HEADS = {
    "tokens": RnnSeq2SeqForTokenClassification,
    "sequence": RnnSeq2SeqForSequenceClassification,
    "encoder": RnnSeq2SeqEncoderModel,
    "bare": RnnSeq2SeqModel,
    "generation": RnnSeq2SeqForConditionalGeneration,
}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("kind", HEADS)
def test_auto_model_reads_features_of_every_folder(kind: str, cell: str, tmp_path: Path) -> None:
    model = HEADS[kind](tiny_config(vocab_size=len(SOURCE), rnn_type=cell)).eval()
    randomize(model)
    model.save_pretrained(tmp_path)
    SOURCE.save_pretrained(tmp_path)
    inputs = SOURCE(["abc"], return_tensors="pt")
    base = model.base_model
    encoder = base if isinstance(base, RnnSeq2SeqEncoderModel) else base.get_encoder()
    wanted = encoder(**inputs).last_hidden_state
    for loaded in (AutoModel.from_pretrained(tmp_path), AutoModelForTextEncoding.from_pretrained(tmp_path)):
        assert torch.equal(loaded.eval()(**inputs).last_hidden_state, wanted)
    assert type(AutoModel.from_pretrained(tmp_path)) is (
        RnnSeq2SeqModel if kind in ("bare", "generation") else RnnSeq2SeqEncoderModel
    )
    assert type(loaded) is RnnSeq2SeqEncoderModel
    features = pipeline("feature-extraction", model=str(tmp_path))("abc")
    torch.testing.assert_close(torch.tensor(features), wanted)
