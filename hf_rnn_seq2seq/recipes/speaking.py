"""What a model says to texts, and the files of it: what the task and `predict` share.

A text becomes `NAME.npz` with the arrays `feats` (vectors) and `offsets`, which `predict` of a speech model and
`data.frames` of a recipe read, and `NAME.wav` where the folder of the model has the extractor whose vectors are sound.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.outputs import replacing
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from ..model.modeling_spectrogram import RnnSeq2SeqForTextToSpectrogram


# So much of a text is legible in a file's name.
_LEGIBLE = 40


class Spoken(NamedTuple):
    """What a model said."""

    spectrogram: np.ndarray  # (T, M)
    attention: np.ndarray | None  # (U, S)


def speak(
    model: RnnSeq2SeqForTextToSpectrogram,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
    seed: int,
) -> list[Spoken]:
    """Return what a model says to texts; the dropout of its pre-net is that of the seed."""
    spoken: list[Spoken] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(texts), batch_size):
            spoken += _speak(model, tokenizer, list(texts[start : start + batch_size]))
    return spoken


def _speak(
    model: RnnSeq2SeqForTextToSpectrogram, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Iterator[Spoken]:
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False).to(model.device)
    attends = model.config.attention_type != "none"
    spectrograms, lengths, *attention = model.generate_speech(
        **inputs, return_output_lengths=True, output_cross_attentions=attends
    )
    symbols = inputs["attention_mask"].sum(1).tolist()
    for row, length in enumerate(lengths):
        weights = None
        if attends:
            steps = -(-length // model.config.reduction_factor)
            weights = attention[0][row, 0, 0, :steps, : symbols[row]].float().cpu().numpy()
        yield Spoken(spectrograms[row, :length].float().cpu().numpy(), weights)


def file_name(text: str) -> str:
    """Return the name, without its ending, of the files of a text: legible, and another one for every text."""
    legible = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LEGIBLE]
    return f"{legible}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def write_spoken(folder: Path, text: str, spoken: Spoken, extractor: RnnSeq2SeqFeatureExtractor | None) -> Path:
    """Write what was said to a text, and return the path of its sound, or of its vectors if these are no sound."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = folder / f"{file_name(text)}.npz"
    with replacing(vectors) as file, file.open("wb") as handle:
        np.savez(handle, feats=spoken.spectrogram, offsets=np.array([0, len(spoken.spectrogram)]))
    if extractor is None:
        return vectors
    from ..evaluation.sound import GriffinLim, write_wav

    sound = vectors.with_suffix(".wav")
    with replacing(sound) as file:
        write_wav(file, GriffinLim(extractor)(spoken.spectrogram), extractor.sampling_rate)
    return sound
