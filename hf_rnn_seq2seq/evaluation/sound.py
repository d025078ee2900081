"""From a log-mel spectrogram back to sound: the phase by the algorithm of Griffin & Lim 1984, from librosa.

A vocoder: any function of a spectrogram (frames, bands) that returns a waveform. This one knows what the feature
extractor in a model's folder did, and undoes it; it is trained on nothing. Needs the extra `speak`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


try:
    import librosa
    import soundfile
except ImportError as error:
    raise ImportError(f"sound needs the package '{error.name}': pip install 'hf_rnn_seq2seq[speak]'") from error
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor


class GriffinLim:
    """A vocoder for the log-mel energies of a `RnnSeq2SeqFeatureExtractor`.

    The energies of the spectrum are those, not negative, whose mel energies are nearest; their phase is the one that
    Griffin and Lim's iterations find; then the pre-emphasis is undone.

    Args:
        extractor: of the model's folder: log-mel energies as they are, neither normalised nor stacked nor with deltas.
        iterations: how often spectrum and waveform are made of each other.
        seed: of the first phases.

    Raises:
        ValueError: the extractor's features are others.
    """

    def __init__(self, extractor: RnnSeq2SeqFeatureExtractor, iterations: int = 32, seed: int = 0) -> None:
        wanted = {"feature_type": "log_mel", "normalization": "none", "delta_order": 0, "stack": 1}
        for name, value in wanted.items():
            got = getattr(extractor, name)
            if got != value:
                raise ValueError(f"extractor.{name}: got {got!r}, wanted {value!r}: only that can become sound again")
        if iterations < 1:
            raise ValueError(f"iterations: got {iterations}, wanted at least 1")
        self.extractor, self.iterations, self.seed = extractor, iterations, seed
        self.filters = extractor.mel_filters().double().numpy().T  # (bands, frequencies)

    @property
    def config(self) -> SimpleNamespace:
        """What transformers' pipeline "text-to-speech" asks a vocoder: its `sampling_rate`."""
        return SimpleNamespace(sampling_rate=self.extractor.sampling_rate)

    def __call__(self, spectrogram: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Return samples (N,) from -1 to 1 of log-mel energies (frames, bands).

        Raises:
            ValueError: no such array, or numbers that are not finite.
        """
        energies = torch.as_tensor(spectrogram).detach().cpu().double().numpy()
        if energies.ndim != 2 or energies.shape[1] != len(self.filters) or not len(energies):
            raise ValueError(f"spectrogram has shape {energies.shape}, wanted (frames, {len(self.filters)})")
        if not np.isfinite(energies).all():
            raise ValueError("spectrogram holds numbers that are not finite")
        length, shift, bins = self.extractor.frame_samples
        power = librosa.util.nnls(self.filters, np.exp(energies).T)  # (frequencies, frames)
        samples = librosa.griffinlim(
            np.sqrt(power),
            n_iter=self.iterations,
            hop_length=shift,
            win_length=length,
            n_fft=bins,
            window=np.hamming(length),
            center=False,
            random_state=self.seed,
        )
        samples = librosa.effects.deemphasis(samples, coef=self.extractor.preemphasis, zi=[0.0])
        return torch.from_numpy(np.clip(samples, -1, 1).astype(np.float32))


def write_wav(path: str | Path, samples: torch.Tensor | np.ndarray, sampling_rate: int) -> None:
    """Write samples (N,) from -1 to 1 as a wav file of 16 bits."""
    numbers: Any = torch.as_tensor(samples).detach().cpu().float().numpy()
    soundfile.write(path, numbers, sampling_rate, subtype="PCM_16", format="WAV")
