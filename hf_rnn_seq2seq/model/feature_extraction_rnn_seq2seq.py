"""From audio to the vectors that a speech encoder reads: log-mel energies or MFCC, deltas, normalisation, stacking.

Davis & Mermelstein 1980 (mel-frequency cepstra), Furui 1986 (deltas); the steps and their order are Kaldi's and HTK's.
N samples, S frames, F numbers a frame.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_origin

import torch
from huggingface_hub.dataclasses import type_validator
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor


_NORMALIZATIONS = ("none", "utterance", "speaker", "global")
# (names of options, what must hold of each, the same in words)
_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("feature_type", lambda x: x in ("log_mel", "mfcc", "none"), "must be one of log_mel, mfcc, none"),
    ("normalization", lambda x: x in _NORMALIZATIONS, f"must be one of {', '.join(_NORMALIZATIONS)}"),
    ("sampling_rate num_mel_bins num_cepstra delta_window stack", lambda n: n >= 1, "must be at least 1"),
    ("sampling_rate", lambda n: n <= 1_000_000, "must be at most 1000000"),
    ("num_mel_bins num_cepstra delta_window stack", lambda n: n <= 1024, "must be at most 1024"),
    ("delta_order", lambda n: n in (0, 1, 2), "must be 0, 1 or 2"),
    ("preemphasis", lambda a: 0 <= a < 1, "must be at least 0 and less than 1"),
    ("dither", lambda x: 0 <= x < math.inf, "must not be negative"),
    (
        "frame_length frame_shift low_frequency high_frequency padding_value",
        lambda x: x is None or math.isfinite(x),
        "must be a finite number",
    ),
)
# Whole numbers are numbers, too.
_WITH_INTEGERS: dict[Any, Any] = {
    float: float | int, float | None: float | int | None, list[float] | None: list[float | int] | None,
}  # fmt: skip
# What `SequenceFeatureExtractor` takes beside, and what transformers writes into a file.
_OF_EVERY_EXTRACTOR = frozenset(
    "padding_side return_attention_mask feature_extractor_type processor_class auto_map _name_or_path".split()
)
# Below any energy that 16 bits can hold, so that digital silence has a logarithm.
_ENERGY_FLOOR = 1e-10
# A coordinate that never changes is divided by this: it comes out as zero.
_STD_FLOOR = 1e-5


class RnnSeq2SeqFeatureExtractor(SequenceFeatureExtractor):
    """
    Turns audio into `input_features` (B, S, F) and `attention_mask` (B, S).

    A frame of samples loses its mean, gets the pre-emphasis x_t - a x_{t-1} and a Hamming window; the energies of its
    spectrum under triangular filters, evenly spaced in mel, give their logarithms (`"log_mel"`), and these by an
    orthonormal cosine transform the cepstra (`"mfcc"`, c_0 included, not liftered). Then come deltas, normalisation
    and stacking, in this order.

    Args:
        feature_type (`str`, defaults to `"log_mel"`): `"log_mel"`, `"mfcc"`, or `"none"`: the input is frames already,
            (S, `frame_size`) instead of (N,).
        sampling_rate (`int`, defaults to 16000): Samples a second of the audio, in Hz.
        num_mel_bins (`int`, defaults to 40): Number of mel filters.
        num_cepstra (`int`, defaults to 13): Number of cepstra.
        frame_size (`int`, *optional*): Numbers a frame of the input with `feature_type="none"`.
        frame_length (`float`, defaults to 25.0): Length of a frame in milliseconds.
        frame_shift (`float`, defaults to 10.0): Time from one frame to the next in milliseconds.
        low_frequency (`float`, defaults to 20.0): Lower end of the lowest filter in Hz.
        high_frequency (`float`, *optional*): Upper end of the highest filter in Hz; default: half the sampling rate.
        preemphasis (`float`, defaults to 0.97): a, from 0 (none) to less than 1.
        dither (`float`, defaults to 0.0): Standard deviation of Gaussian noise added to the samples, which are from -1
            to 1; its random numbers are torch's.
        delta_order (`int`, defaults to 0): 1: append the slopes of all coordinates, 2: and the slopes of the slopes.
        delta_window (`int`, defaults to 2): W of the slope sum_n n (c_{t+n} - c_{t-n}) / (2 sum_n n^2), n = 1..W; the
            first and the last frame go on beyond the ends.
        normalization (`str`, defaults to `"utterance"`): To mean 0 and variance 1 in each coordinate over the
            `"utterance"`, over those utterances of a call that are of the same `"speaker"`, or (`"global"`) over what
            `fit` was given; or `"none"`.
        mean (`list[float]`, *optional*): Of the `"global"` normalisation; `fit` sets it.
        std (`list[float]`, *optional*): Likewise.
        stack (`int`, defaults to 1): So many successive frames become one vector, and the sequence as much shorter;
            its last frame is repeated where they do not come out even.
        padding_value (`float`, defaults to 0.0): What shorter sequences are padded with.
    """

    model_input_names = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_type: Literal["log_mel", "mfcc", "none"] = "log_mel",
        sampling_rate: int = 16000,
        num_mel_bins: int = 40,
        num_cepstra: int = 13,
        frame_size: int | None = None,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        low_frequency: float = 20.0,
        high_frequency: float | None = None,
        preemphasis: float = 0.97,
        dither: float = 0.0,
        delta_order: int = 0,
        delta_window: int = 2,
        normalization: Literal["none", "utterance", "speaker", "global"] = "utterance",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        stack: int = 1,
        padding_value: float = 0.0,
        **kwargs: Any,
    ):
        kwargs.pop("feature_size", None)  # in a saved file; it follows from the others
        unknown = sorted(kwargs.keys() - _OF_EVERY_EXTRACTOR)
        if unknown and "feature_extractor_type" not in kwargs:  # of a saved file those of other versions are kept
            raise TypeError(f"RnnSeq2SeqFeatureExtractor has no option {unknown[0]!r}")
        self.feature_type, self.num_mel_bins, self.num_cepstra = feature_type, num_mel_bins, num_cepstra
        self.frame_size, self.frame_length, self.frame_shift = frame_size, frame_length, frame_shift
        self.low_frequency, self.high_frequency = low_frequency, high_frequency
        self.preemphasis, self.dither = preemphasis, dither
        self.delta_order, self.delta_window, self.stack = delta_order, delta_window, stack
        self.normalization, self.mean, self.std = normalization, mean, std
        self.sampling_rate, self.padding_value = sampling_rate, padding_value
        self._check()
        feature_size = self.num_static * (1 + delta_order) * stack
        if feature_size < 2:
            raise ValueError("frame_size=1 gives vectors of one number; set delta_order or stack as well")
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def _check(self) -> None:
        """Refuse options out of range, and those that cannot work together."""
        for option in inspect.signature(type(self).__init__).parameters.values():
            if option.default is not option.empty and get_origin(option.annotation) is not Literal:
                type_validator(
                    option.name, getattr(self, option.name), _WITH_INTEGERS.get(option.annotation, option.annotation)
                )
        for names, holds, wanted in _RANGES:
            for name in names.split():
                _refuse(not holds(getattr(self, name)), f"{name} {wanted}", getattr(self, name))
        rate, moments = self.sampling_rate, (self.mean, self.std)
        _refuse(sum(part is None for part in moments) == 1, "mean and std must come together", moments)
        if self.feature_type == "none":
            size = self.frame_size or 0
            _refuse(size < 1, "frame_size must be the numbers a frame with feature_type='none'", self.frame_size)
            _refuse(size > 2**16, f"frame_size must be at most {2**16}", size)
            return
        _refuse(self.frame_size is not None, "frame_size belongs to feature_type='none'", self.feature_type)
        too_many = self.feature_type == "mfcc" and self.num_cepstra > self.num_mel_bins
        _refuse(too_many, f"num_cepstra must be at most num_mel_bins={self.num_mel_bins}", self.num_cepstra)
        for name in ("frame_length", "frame_shift"):
            length = getattr(self, name)
            _refuse(not 1.5 < rate * length / 1000 <= 2**17, f"{name} must be 2 to {2**17} samples", length)
        low, high = self.low_frequency, self._highest
        wanted = f"must be from 0 to half of sampling_rate={rate}, the first below the second"
        _refuse(not 0 <= low < high <= rate / 2, f"low_frequency and high_frequency {wanted}", (low, high))

    @property
    def _highest(self) -> float:
        return self.sampling_rate / 2 if self.high_frequency is None else self.high_frequency

    @property
    def num_static(self) -> int:
        """Numbers a frame before deltas and stacking."""
        sizes = {"log_mel": self.num_mel_bins, "mfcc": self.num_cepstra, "none": self.frame_size or 0}
        return sizes[self.feature_type]

    def __call__(
        self,
        raw_speech: Any,
        *,
        speaker: Sequence[str] | str | None = None,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **pad_options: Any,
    ) -> BatchFeature:
        """
        Args:
            raw_speech (array or tensor of shape `(samples,)`, a list of numbers, or a list of such): One utterance or
                several, one channel, floating-point samples from -1 to 1. With `feature_type="none"` an utterance has
                the shape `(frames, frame_size)`.
            speaker (`list[str]`, *optional*): Who speaks, for each utterance; for `normalization="speaker"`. Absent:
                every utterance counts as a speaker of its own.
            sampling_rate (`int`, *optional*): Rate of `raw_speech`, to make sure.
            padding, return_tensors, pad_options: As for every feature extractor.

        Returns:
            `input_features` and `attention_mask`, always as a batch.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate: the audio has {sampling_rate} Hz, but the model was trained with "
                f"{self.sampling_rate} Hz; resample it"
            )
        if not isinstance(speaker, str | list | tuple | None):
            raise TypeError(f"speaker is {speaker!r}; wanted a name for each utterance")
        vectors = [self._vectors(utterance) for utterance in self._utterances(raw_speech)]
        longest = pad_options.get("max_length")
        if longest is not None and (not isinstance(longest, int) or longest < 1):
            raise ValueError(f"max_length is {longest!r}; wanted a whole number, at least 1")
        if speaker is not None and (count := 1 if isinstance(speaker, str) else len(speaker)) != len(vectors):
            raise ValueError(f"speaker names {count} utterances, but there are {len(vectors)}")
        normalized = self._normalize(vectors, [speaker] if isinstance(speaker, str) else speaker)
        features = [self._stacked(vector).numpy() for vector in normalized]
        return self.pad(
            BatchFeature({"input_features": features}), padding=padding, return_tensors=return_tensors, **pad_options
        )

    def fit(self, raw_speech: Any) -> None:
        """Set `mean` and `std` of the `"global"` normalisation to those of the training utterances, as for a call."""
        frames = torch.cat([self._vectors(utterance) for utterance in self._utterances(raw_speech)]).double()
        self.mean, self.std = frames.mean(0).tolist(), frames.std(0, correction=0).tolist()

    def _utterances(self, raw_speech: Any) -> list[Tensor]:
        """Return checked utterances, (N,) or (S, frame_size) each, float32."""
        several = isinstance(raw_speech, list | tuple) and not (raw_speech and isinstance(raw_speech[0], int | float))
        utterances = list(raw_speech) if several else [raw_speech]
        if not utterances:
            raise ValueError("raw_speech is empty; wanted at least one utterance")
        return [self._checked(item, number) for number, item in enumerate(utterances)]

    def _checked(self, item: Any, number: int) -> Tensor:
        """Return one utterance as float32 on the CPU."""
        name = f"raw_speech: utterance {number}"
        try:
            utterance = torch.as_tensor(item)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} is {type(item).__name__}; wanted an array or a list of numbers") from error
        shape = tuple(utterance.shape)
        if self.feature_type == "none" and shape[1:] != (self.frame_size,):
            raise ValueError(f"{name} has shape {shape}; wanted (frames, {self.frame_size})")
        if self.feature_type != "none" and len(shape) != 1:
            raise ValueError(f"{name} has shape {shape}; wanted one channel, (samples,), and a list for several")
        if not len(utterance):
            raise ValueError(f"{name} is empty")
        if not utterance.is_floating_point():
            raise ValueError(f"{name} holds {utterance.dtype}; wanted floating-point numbers (samples from -1 to 1)")
        if not utterance.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
        return utterance.detach().to("cpu", torch.float32)

    def _vectors(self, utterance: Tensor) -> Tensor:
        """Return static features and their deltas: (N,) or (S, frame_size) -> (S, F), before normalisation."""
        static = utterance if self.feature_type == "none" else self._spectral(utterance)
        blocks = [static]
        for _ in range(self.delta_order):
            blocks.append(self._slopes(blocks[-1]))
        return torch.cat(blocks, dim=1)

    def _spectral(self, samples: Tensor) -> Tensor:
        """Compute log-mel energies (S, num_mel_bins) or cepstra (S, num_cepstra) of samples (N,)."""
        length, shift, bins = self.frame_samples
        if self.dither > 0:
            samples = samples + self.dither * torch.randn_like(samples)
        # Only whole frames, but at least one.
        frames = F.pad(samples, (0, max(0, length - len(samples)))).unfold(0, length, shift)  # (S, length)
        frames = frames - frames.mean(1, keepdim=True)  # (S, length)
        # A frame's first sample stands in for the one before it.
        frames = frames - self.preemphasis * torch.cat([frames[:, :1], frames[:, :-1]], dim=1)  # (S, length)
        power = torch.fft.rfft(frames * torch.hamming_window(length, periodic=False), n=bins).abs().square()
        log_mel = (power @ self.mel_filters()).clamp(min=_ENERGY_FLOOR).log()  # (S, num_mel_bins)
        return log_mel if self.feature_type == "log_mel" else log_mel @ self._cosines()

    @property
    def frame_samples(self) -> tuple[int, int, int]:
        """Length and shift of a frame, and size of its Fourier transform, in samples."""
        length, shift = (round(self.sampling_rate * time / 1000) for time in (self.frame_length, self.frame_shift))
        return length, shift, 1 << (length - 1).bit_length()

    def mel_filters(self) -> Tensor:
        """Return filters (bins / 2 + 1, num_mel_bins): triangles of height 1, their corners evenly spaced in mel."""
        filters = mel_filter_bank(
            num_frequency_bins=self.frame_samples[2] // 2 + 1,
            num_mel_filters=self.num_mel_bins,
            min_frequency=self.low_frequency,
            max_frequency=self._highest,
            sampling_rate=self.sampling_rate,
            norm=None,
            mel_scale="htk",
        )
        return torch.from_numpy(filters).float()

    def _cosines(self) -> Tensor:
        """Return the orthonormal cosine transform, DCT-II, (num_mel_bins, num_cepstra) (Davis 1980)."""
        place = torch.arange(self.num_mel_bins).double().unsqueeze(1) + 0.5  # (num_mel_bins, 1)
        order = torch.arange(self.num_cepstra).double()  # (num_cepstra,)
        matrix = torch.cos(torch.pi / self.num_mel_bins * place * order) * (2 / self.num_mel_bins) ** 0.5
        matrix[:, 0] /= 2**0.5
        return matrix.float()

    def _slopes(self, features: Tensor) -> Tensor:
        """Compute the slopes of regression lines over 2 W + 1 frames, (S, F) -> (S, F) (Furui 1986)."""
        width, count = self.delta_window, len(features)
        padded = torch.cat([features[:1].expand(width, -1), features, features[-1:].expand(width, -1)])  # (S + 2 W, F)
        total = torch.zeros_like(features)
        for n in range(1, width + 1):
            total += n * (padded[width + n : width + n + count] - padded[width - n : width - n + count])
        return total / (2 * sum(n * n for n in range(1, width + 1)))

    def _normalize(self, vectors: list[Tensor], speaker: Sequence[str] | None) -> list[Tensor]:
        """Normalise utterances (S, F) each to mean 0 and variance 1 as `normalization` says."""
        if self.normalization == "none":
            return vectors
        if self.normalization == "global":
            if self.mean is None:
                raise ValueError("normalization='global' needs mean and std; call fit(training utterances) first")
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            if len(mean) != vectors[0].shape[1]:
                raise ValueError(f"mean has {len(mean)} numbers; wanted {vectors[0].shape[1]}")
            return [_standardized(vector, mean, std) for vector in vectors]
        speakers: Sequence[Any] = range(len(vectors))
        if self.normalization == "speaker" and speaker is not None:
            speakers = speaker
        moments = {}
        for name in set(speakers):
            frames = torch.cat([vector for vector, other in zip(vectors, speakers, strict=True) if other == name])
            moments[name] = frames.mean(0), frames.std(0, correction=0)
        return [_standardized(vector, *moments[name]) for vector, name in zip(vectors, speakers, strict=True)]

    def _stacked(self, vectors: Tensor) -> Tensor:
        """Stack frames, (S, F) -> (ceil(S / stack), F stack): the earlier frame's numbers first."""
        missing = -len(vectors) % self.stack
        padded = torch.cat([vectors, vectors[-1:].expand(missing, -1)])  # (S + missing, F)
        return padded.reshape(len(padded) // self.stack, -1)


def _standardized(vectors: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (S, F) of mean 0 and variance 1."""
    return (vectors - mean) / std.clamp(min=_STD_FLOOR)


def _refuse(is_wrong: bool, wanted: str, got: object) -> None:
    """Refuse an option."""
    if is_wrong:
        raise ValueError(f"{wanted}; got {got!r}")
