"""What is to be said, and how it sounds: the data of models that speak.

Recordings and their transcripts, as in `speech.py`; or the toy task of bursts, which a symbol tells loudness and
length of. Needs the extras `train` and, for recordings, `audio`; must not import the model files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


try:
    from datasets import Dataset, DatasetDict
except ImportError as error:
    raise ImportError("reading data needs datasets: pip install 'hf_rnn_seq2seq[train]'") from error
from .files import DataError
from .option_checks import check_range
from .speech import SpeechDataOptions, load_speech_data, make_dataset
from .splits import SPLITS


@dataclass
class BurstOptions:
    """The toy task: a string of symbols, of which each is a burst: so many vectors of one height, then a silent one.

    Symbol number n (a, b, c ...) is 1 + n // `lengths` high and 2 (1 + n % `lengths`) vectors long; each of the
    `bands` numbers of a vector is the height, of every second one its negative.

    Args:
        heights: number of different heights.
        lengths: number of different lengths.
        bands: numbers a vector.
        max_symbols: longest string.
        train: number of training strings.
        validation: number of validation strings.
        test: number of test strings; the splits share none.
        seed: seed of the strings.
    """

    heights: int = 3
    lengths: int = 2
    bands: int = 2
    max_symbols: int = 5
    train: int = 1500
    validation: int = 100
    test: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "heights", "lengths", "bands", "max_symbols", *SPLITS, least=1)
        symbols = self.heights * self.lengths
        if symbols > 26:
            raise ValueError(f"heights: got {self.heights} with lengths={self.lengths}, wanted at most 26 symbols")
        possible = sum(symbols**length for length in range(1, self.max_symbols + 1))
        wanted = self.train + self.validation + self.test
        if 2 * wanted > possible:  # half of all strings, so that drawing without repetition ends soon
            raise ValueError(f"max_symbols: {wanted} strings wanted, but only {possible} exist; let them be longer")

    def spectrogram(self, text: str) -> np.ndarray:
        """Return the vectors (T, bands) of a string."""
        signs = np.where(np.arange(self.bands) % 2, -1, 1)
        parts = []
        for symbol in text:
            height, length = divmod(ord(symbol) - ord("a"), self.lengths)
            parts += [np.full((2 * (1 + length), 1), 1.0 + height), np.zeros((1, 1))]
        return (np.concatenate(parts) * signs).astype(np.float32)


@dataclass
class SpeakDataOptions(SpeechDataOptions):
    """The data of a model that speaks (the `data` section of a recipe): recordings as in speech recognition, or a toy.

    Args:
        manifest: as in `SpeechDataOptions`, whose options these are too; `None`: the data is a toy.
        toy: the toy task in place of recordings.
        speaker_symbol: put the speaker's name before what is to be said, as its first word: one model, many voices.
        unseen: leave out of validation and test what is said in the training data, too.
    """

    manifest: str | dict[str, str] | None = None  # type: ignore[assignment]  # a toy has none
    toy: BurstOptions | None = None
    speaker_symbol: bool = False
    unseen: bool = False

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.toy is None):
            raise ValueError(f"manifest: got {self.manifest!r}, wanted one, or the section toy in its place")
        if self.frames is not None:
            raise ValueError(f"frames: got {self.frames!r}, wanted audio: nothing says how frames become sound")
        if self.speaker_symbol and self.speaker_column is None:
            raise ValueError("speaker_column: needed by speaker_symbol, got null")
        super().__post_init__()


def load_spoken_data(options: SpeakDataOptions, data_dir: str | Path, sampling_rate: int) -> DatasetDict:
    """Read a recipe's data.

    Args:
        options: the `data` section.
        data_dir: folder that file names are relative to.
        sampling_rate: the rate that every audio file must have, in Hz; a toy has none.

    Returns:
        The splits, each with the columns `id`, `source` (what the model reads), `transcript` (what is said) and
        `input`: samples (N,), or of a toy the numbers of its vectors (T bands,).

    Raises:
        DataError: as `load_speech_data`, or nothing is left that is not said in the training data.
    """
    if options.toy is not None:
        return DatasetDict({split: _dataset(rows, options.toy) for split, rows in _strings(options.toy)})
    data = load_speech_data(options, data_dir, sampling_rate)
    if options.unseen:
        known = set(data["train"]["transcript"])
        for split in [name for name in data if name != "train"]:
            rows = [row for row, text in enumerate(data[split]["transcript"]) if text not in known]
            if not rows:
                raise DataError(f"data.{split}: all that is said there is said in the training data, too (unseen)")
            data[split] = data[split].select(rows)
    for split, rows in data.items():
        said = zip(rows["speaker"], rows["transcript"], strict=True)
        sources = [f"{speaker} {text}" if options.speaker_symbol else text for speaker, text in said]
        data[split] = rows.add_column("source", sources)
    return data


def _strings(options: BurstOptions) -> Iterator[tuple[str, list[str]]]:
    """Yield the splits and their strings, all different."""
    generator = random.Random(options.seed)
    symbols = [chr(ord("a") + number) for number in range(options.heights * options.lengths)]
    found: dict[str, None] = {}
    while len(found) < options.train + options.validation + options.test:
        found["".join(generator.choices(symbols, k=generator.randint(1, options.max_symbols)))] = None
    strings = list(found)
    generator.shuffle(strings)  # short ones run out first
    for split in SPLITS:
        count = getattr(options, split)
        yield split, strings[:count]
        strings = strings[count:]


def _dataset(strings: list[str], options: BurstOptions) -> Dataset:
    spectrograms = [options.spectrogram(text) for text in strings]
    columns = {"id": [str(number) for number in range(len(strings))], "source": strings, "transcript": strings}
    return make_dataset(columns, {"input": spectrograms})
