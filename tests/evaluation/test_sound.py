"""Sound out of log-mel energies: the tone, its length and its loudness come back; what cannot be undone is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hf_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from hf_rnn_seq2seq.evaluation import GriffinLim, plot_spectrogram, write_wav


RATE = 8000


def extractor(**options: Any) -> RnnSeq2SeqFeatureExtractor:
    return RnnSeq2SeqFeatureExtractor(
        **{"sampling_rate": RATE, "num_mel_bins": 40, "frame_length": 32.0, "normalization": "none", **options}
    )


@pytest.mark.parametrize("preemphasis", [0.0, 0.97])
@pytest.mark.parametrize("frequency", [300, 1000, 2500])
def test_a_tone_comes_back(frequency: int, preemphasis: float) -> None:
    features = extractor(preemphasis=preemphasis)
    tone = 0.3 * torch.sin(2 * torch.pi * frequency * torch.arange(4000) / RATE)
    energies = features(tone, padding=False)["input_features"][0]
    samples = GriffinLim(features)(energies)
    assert len(samples) == 256 + 80 * (len(energies) - 1)  # whole frames
    middle = samples[500:3500]
    assert abs(int(torch.fft.rfft(middle).abs().argmax()) * RATE / 3000 - frequency) < 60  # a band of the filters
    torch.testing.assert_close(middle.square().mean(), tone.square().mean(), rtol=0.35, atol=0)
    again = features(samples, padding=False)["input_features"][0]
    loud = energies > energies.max() - 4
    assert np.abs(again - energies)[loud].mean() < 0.5


def test_it_is_the_same_each_time_and_of_arrays_too() -> None:
    energies = np.random.default_rng(0).normal(-5, 2, (20, 40))
    vocoder = GriffinLim(extractor())
    assert torch.equal(vocoder(energies), vocoder(torch.from_numpy(energies)))
    assert vocoder.config.sampling_rate == RATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_type": "mfcc"}, "extractor.feature_type: got 'mfcc', wanted 'log_mel'"),
        ({"normalization": "utterance"}, "extractor.normalization: got 'utterance', wanted 'none'"),
        ({"stack": 2}, "extractor.stack: got 2, wanted 1"),
        ({"delta_order": 1}, "extractor.delta_order: got 1, wanted 0"),
    ],
)
def test_features_that_cannot_become_sound_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GriffinLim(extractor(**options))


@pytest.mark.parametrize(
    ("spectrogram", "message"),
    [
        (torch.zeros(5, 39), r"has shape \(5, 39\), wanted \(frames, 40\)"),
        (torch.zeros(0, 40), r"has shape \(0, 40\)"),
        (torch.full((5, 40), float("nan")), "not finite"),
    ],
)
def test_what_is_no_spectrogram_is_refused(spectrogram: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GriffinLim(extractor())(spectrogram)


def test_without_iterations_there_is_no_sound() -> None:
    with pytest.raises(ValueError, match="iterations: got 0, wanted at least 1"):
        GriffinLim(extractor(), iterations=0)


def test_a_wav_file(tmp_path: Path) -> None:
    samples = torch.linspace(-1, 1, 800)
    write_wav(tmp_path / "x.wav", samples, RATE)
    read, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert rate == RATE and soundfile.info(tmp_path / "x.wav").subtype == "PCM_16"
    np.testing.assert_allclose(read, samples, atol=1e-4)


def test_a_picture_of_a_spectrogram_and_its_alignment(tmp_path: Path) -> None:
    weights = torch.eye(4)[:, :3]
    figure = plot_spectrogram(torch.rand(12, 5), weights, ["$a$", "b", "c"], tmp_path / "p.png", "title", 10.0)
    top, bottom = figure.axes[:2]
    assert top.images[0].get_array().shape == (5, 12) and bottom.images[0].get_array().shape == (3, 4)
    assert [label.get_text() for label in bottom.get_yticklabels()] == ["$a$", "b", "c"]
    assert top.get_xlim() == bottom.get_xlim() == (0, 0.12)
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert len(plot_spectrogram(np.zeros((3, 2))).axes) == 2  # without attention: the map and its bar


@pytest.mark.parametrize(
    ("spectrogram", "weights", "message"),
    [
        (torch.zeros(5), None, r"spectrogram has shape \(5,\)"),
        (torch.zeros(5, 2), torch.zeros(5, 3), r"weights has shape \(5, 3\), wanted \(steps, 1 source_tokens\)"),
    ],
)
def test_pictures_of_other_arrays_are_refused(spectrogram: Any, weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_spectrogram(spectrogram, weights, ["a"])
