"""The feature extractor: against an implementation in plain numpy, against scaling and silence, and bad audio."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_rnn_seq2seq import RnnSeq2SeqFeatureExtractor


RATE = 8000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """A tone in noise, float32 from -1 to 1."""
    time = np.arange(samples) / RATE
    generator = np.random.default_rng(seed)
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * generator.standard_normal(samples)).astype(np.float32)


def frames_of(count: int, size: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def plain_log_mel(samples: np.ndarray, bins: int = 20) -> np.ndarray:
    """Log-mel energies by the definitions: 25 ms every 10 ms, pre-emphasis 0.97, Hamming, 20 Hz to half the rate."""
    length, shift, size = 200, 80, 256
    mel = lambda f: 2595 * math.log10(1 + f / 700)  # noqa: E731
    corners = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(mel(20), mel(RATE / 2), bins + 2)]
    window = [0.54 - 0.46 * math.cos(2 * math.pi * n / (length - 1)) for n in range(length)]
    rows = []
    for start in range(0, len(samples) - length + 1, shift):
        frame = samples[start : start + length].astype(np.float64)
        frame = frame - frame.mean()
        emphasized = [frame[n] - 0.97 * frame[max(n - 1, 0)] for n in range(length)]
        windowed = np.asarray(emphasized) * window
        # The discrete Fourier transform as a sum.
        angles = -2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(length)) / size
        power = np.abs((np.exp(angles) * windowed).sum(1)) ** 2
        row = []
        for low, peak, high in zip(corners, corners[1:], corners[2:], strict=False):
            energy = 0.0
            for k, value in enumerate(power):
                frequency = k * RATE / size
                energy += value * max(0.0, min((frequency - low) / (peak - low), (high - frequency) / (high - peak)))
            row.append(math.log(max(energy, 1e-10)))
        rows.append(row)
    return np.asarray(rows)


def extractor(**options: object) -> RnnSeq2SeqFeatureExtractor:
    return RnnSeq2SeqFeatureExtractor(
        **{"sampling_rate": RATE, "num_mel_bins": 20, "normalization": "none", **options}
    )


def of_frames(**options: object) -> RnnSeq2SeqFeatureExtractor:
    return RnnSeq2SeqFeatureExtractor(feature_type="none", frame_size=5, **options)


def test_log_mel_energies_are_those_of_the_definitions() -> None:
    samples = noise(1000)
    features = extractor()(samples)["input_features"][0]
    assert features.shape == (11, 20)
    np.testing.assert_allclose(features, plain_log_mel(samples), atol=2e-3)


def test_cepstra_are_the_cosine_transform_of_the_log_energies() -> None:
    samples = noise(1000)
    log_mel = plain_log_mel(samples)
    expected = np.zeros((len(log_mel), 13))
    for order in range(13):
        scale = math.sqrt((1 if order == 0 else 2) / 20)
        for place in range(20):
            expected[:, order] += scale * log_mel[:, place] * math.cos(math.pi * order * (place + 0.5) / 20)
    np.testing.assert_allclose(extractor(feature_type="mfcc")(samples)["input_features"][0], expected, atol=5e-3)


def test_a_louder_recording_only_shifts_the_log_energies() -> None:
    samples = noise(2000)
    quiet, loud = (extractor()(gain * samples)["input_features"][0] for gain in (0.1, 1.0))
    np.testing.assert_allclose(loud - quiet, np.full_like(loud, 2 * math.log(10)), atol=1e-2)


def test_digital_silence_and_a_clip_shorter_than_a_frame_give_finite_features() -> None:
    for samples in (np.zeros(900, np.float32), noise(30)):
        features = extractor(normalization="utterance", delta_order=2)(samples)["input_features"]
        assert np.isfinite(features).all()


def test_dither_is_noise_of_torch_s_generator() -> None:
    dithered = extractor(dither=1e-3)
    torch.manual_seed(1)
    first = dithered(noise(900))["input_features"]
    assert not np.array_equal(first, dithered(noise(900))["input_features"])
    torch.manual_seed(1)
    np.testing.assert_array_equal(first, dithered(noise(900))["input_features"])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_deltas_are_the_slope_of_the_least_squares_line(window: int) -> None:
    frames = frames_of(12)
    features = of_frames(delta_order=1, delta_window=window, normalization="none")(frames)["input_features"][0]
    padded = np.concatenate([frames[:1]] * window + [frames] + [frames[-1:]] * window)
    for t in range(12):
        slopes = np.polyfit(np.arange(-window, window + 1), padded[t : t + 2 * window + 1], 1)[0]
        np.testing.assert_allclose(features[t, 5:], slopes, atol=1e-5)


def test_deltas_of_deltas() -> None:
    frames = frames_of(9)
    twice = of_frames(delta_order=2, normalization="none")(frames)["input_features"][0]
    slopes = twice[:, 5:10]
    again = of_frames(delta_order=1, normalization="none")(slopes)["input_features"][0]
    np.testing.assert_allclose(twice[:, 10:], again[:, 5:], atol=1e-6)


def test_normalization_over_the_utterance() -> None:
    features = of_frames()(3 * frames_of(50) + 7)["input_features"][0]
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-4)


def test_normalization_over_the_utterances_of_a_speaker() -> None:
    loud, soft, loud_too = 3 * frames_of(20, seed=1) + 7, frames_of(30, seed=2), 5 * frames_of(10, seed=3) + 9
    out = of_frames(normalization="speaker")([loud, soft, loud_too], speaker=["a", "b", "a"], padding=False)
    first, second, third = out["input_features"]
    both = np.concatenate([loud, loud_too])
    np.testing.assert_allclose(first, (loud - both.mean(0)) / both.std(0), atol=1e-4)
    np.testing.assert_allclose(third, (loud_too - both.mean(0)) / both.std(0), atol=1e-4)
    np.testing.assert_allclose(second, of_frames()(soft)["input_features"][0], atol=1e-5)


def test_without_speakers_the_other_utterances_of_a_call_do_not_matter() -> None:
    first, second = frames_of(20, seed=1), frames_of(20, seed=2)
    together = of_frames(normalization="speaker")([first, second])["input_features"]
    alone = of_frames(normalization="speaker")(first)["input_features"]
    np.testing.assert_array_equal(together[0], alone[0])


def test_global_normalization_is_fitted_and_saved(tmp_path: Path) -> None:
    train, other = [frames_of(20, seed=1) + 3, frames_of(40, seed=2)], frames_of(9, seed=3)
    fitted = of_frames(normalization="global", stack=2)
    with pytest.raises(ValueError, match="call fit"):
        fitted(other)
    fitted.fit(train)
    frames = np.concatenate(train)
    out = fitted(other)["input_features"][0]
    expected = (other - frames.mean(0)) / frames.std(0)
    np.testing.assert_allclose(out[0], expected[:2].reshape(-1), atol=1e-4)
    fitted.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(loaded, RnnSeq2SeqFeatureExtractor)
    np.testing.assert_array_equal(loaded(other)["input_features"][0], out)


@pytest.mark.parametrize("stack", [1, 2, 3, 4])
def test_stacking_makes_shorter_sequences_of_longer_vectors(stack: int) -> None:
    frames = frames_of(7)
    stacking = of_frames(stack=stack, normalization="none")
    out = stacking(frames)["input_features"][0]
    assert out.shape == (-(-7 // stack), 5 * stack) and out.shape[1] == stacking.feature_size
    np.testing.assert_array_equal(out.reshape(-1, 5)[:7], frames)
    np.testing.assert_array_equal(out.reshape(-1, 5)[7:], np.repeat(frames[-1:], -7 % stack, axis=0))


def test_a_batch_is_padded_and_masked() -> None:
    batch = of_frames()([frames_of(4), frames_of(6)], return_tensors="pt")
    assert batch["input_features"].shape == (2, 6, 5) and batch["input_features"].dtype == torch.float32
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch["input_features"][0, 4:].abs().sum() == 0
    np.testing.assert_array_equal(batch["input_features"][0, :4], of_frames()(frames_of(4))["input_features"][0])


def test_arrays_tensors_and_lists_are_the_same_audio() -> None:
    samples = noise(900)
    expected = extractor()(samples)["input_features"]
    for same in (torch.from_numpy(samples), samples.tolist(), samples.astype(np.float64), [samples]):
        np.testing.assert_allclose(extractor()(same)["input_features"], expected, atol=1e-5)


def test_the_input_is_not_changed() -> None:
    samples, frames = noise(900), frames_of(8)
    before = samples.copy(), frames.copy()
    extractor(normalization="utterance")(samples)
    of_frames(stack=2)(frames)
    np.testing.assert_array_equal(samples, before[0])
    np.testing.assert_array_equal(frames, before[1])


def test_saved_and_loaded_it_computes_the_same(tmp_path: Path) -> None:
    made = extractor(feature_type="mfcc", delta_order=2, normalization="utterance", stack=2)
    made(noise(900))
    made.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == RnnSeq2SeqFeatureExtractor.from_pretrained(tmp_path).to_dict()
    assert (loaded.feature_size, loaded.sampling_rate) == (78, RATE)
    np.testing.assert_array_equal(loaded(noise(900))["input_features"], made(noise(900))["input_features"])


def test_the_code_travels_with_a_saved_extractor(tmp_path: Path) -> None:
    extractor().save_pretrained(tmp_path)
    remote = AutoFeatureExtractor.from_pretrained(tmp_path, trust_remote_code=True)
    assert (tmp_path / "feature_extraction_rnn_seq2seq.py").is_file()
    np.testing.assert_array_equal(remote(noise(900))["input_features"], extractor()(noise(900))["input_features"])


def test_another_sampling_rate_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"16000 Hz.*8000 Hz"):
        extractor()(noise(900), sampling_rate=16000)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((900, 2), np.float32), r"shape \(900, 2\); wanted one channel"),
        ([np.zeros((900, 2), np.float32)], "one channel"),
        ([noise(900), np.zeros(0, np.float32)], "utterance 1 is empty"),
        ([], "at least one utterance"),
        (np.array([0.0, np.nan, 1.0], np.float32), "not finite"),
        (np.array([0.0, np.inf], np.float32), "not finite"),
        (np.zeros(900, np.int16), "floating-point"),
    ],
)
def test_bad_audio_is_refused(audio: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor()(audio)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 6\); wanted \(frames, 5\)"):
        of_frames()(frames_of(4, size=6))


def test_a_speaker_for_each_utterance() -> None:
    with pytest.raises(ValueError, match="speaker names 1 utterances, but there are 2"):
        of_frames(normalization="speaker")([frames_of(4), frames_of(4)], speaker=["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_type": "plp"}, "log_mel, mfcc, none; got 'plp'"),
        ({"normalization": "batch"}, "utterance"),
        ({"sampling_rate": 0}, "sampling_rate must be at least 1"),
        ({"num_mel_bins": 0}, "num_mel_bins"),
        ({"stack": 0}, "stack"),
        ({"delta_order": 3}, "0, 1 or 2"),
        ({"preemphasis": 1.0}, "preemphasis"),
        ({"dither": -1.0}, "dither"),
        ({"feature_type": "none"}, "frame_size must be"),
        ({"frame_size": 5}, "belongs to feature_type='none'"),
        ({"feature_type": "none", "frame_size": 1}, "vectors of one number"),
        ({"feature_type": "mfcc", "num_cepstra": 50}, "num_cepstra must be at most num_mel_bins=20; got 50"),
        ({"frame_length": 0.1}, "frame_length"),
        ({"high_frequency": 4001.0}, "half of sampling_rate=8000"),
        ({"low_frequency": 4000.0}, "the first below the second"),
        ({"mean": [0.0]}, "mean and std must come together"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(**options)
