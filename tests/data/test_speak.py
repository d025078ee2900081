"""The data of models that speak: bursts told by symbols, voices as symbols, and strings that training did not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hf_rnn_seq2seq.data import DataError, JoinOptions, SpeakDataOptions, load_spoken_data
from hf_rnn_seq2seq.data.speak import BurstOptions


RATE = 8000


def test_bursts_are_as_high_and_long_as_their_symbols_say() -> None:
    options = BurstOptions(heights=2, lengths=2, bands=3, train=10, validation=2, test=2)
    vectors = options.spectrogram("bc")  # 1 high, 4 long; 2 high, 2 long; a silent vector behind each
    heights = [1, 1, 1, 1, 0, 2, 2, 0]
    np.testing.assert_array_equal(vectors, [[height, -height, height] for height in heights])
    assert vectors.dtype == np.float32


def test_the_splits_of_a_toy_share_no_string_and_follow_from_the_seed() -> None:
    options = SpeakDataOptions(toy=BurstOptions(train=60, validation=20, test=20, max_symbols=4))
    data, again = (load_spoken_data(options, ".", RATE) for _ in range(2))
    strings = [text for split in data.values() for text in split["source"]]
    assert [len(split) for split in data.values()] == [60, 20, 20] and len(set(strings)) == 100
    assert strings == [text for split in again.values() for text in split["source"]]
    row = data["test"].with_format("numpy")[0]
    np.testing.assert_array_equal(row["input"].reshape(-1, 2), options.toy.spectrogram(row["source"]))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "manifest: got None, wanted one, or the section toy"),
        ({"manifest": "m.tsv", "toy": BurstOptions()}, "manifest: got 'm.tsv', wanted one"),
        ({"manifest": "m.tsv", "frames": "f.npz"}, "frames: got 'f.npz', wanted audio"),
        ({"manifest": "m.tsv", "speaker_symbol": True}, "speaker_column: needed by speaker_symbol"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeakDataOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heights": 9, "lengths": 3}, "heights: got 9 with lengths=3, wanted at most 26 symbols"),
        ({"max_symbols": 2}, "max_symbols: 1800 strings wanted, but only 42 exist"),
        ({"bands": 0}, "bands: got 0"),
    ],
)
def test_impossible_toys_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BurstOptions(**options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two words by two speakers, three recordings of each."""
    lines = ["id\tspeaker\ttranscript\tsplit"]
    for number in range(12):
        word, speaker = ("low", "high")[number % 2], "ab"[number % 4 // 2]
        soundfile.write(tmp_path / f"{number}.wav", np.full(1000 + number, 0.1), RATE)
        lines.append(f"{number}\t{speaker}\t{word}\t{'train' if number < 8 else 'test'}")
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def options(**changes: Any) -> SpeakDataOptions:
    given = {"audio_column": "id", "audio_suffix": ".wav", "speaker_column": "speaker", "speaker_symbol": True}
    return SpeakDataOptions(manifest="m.tsv", **{**given, **changes})


def test_the_speaker_is_the_first_word_of_the_source(folder: Path) -> None:
    data = load_spoken_data(options(), folder, RATE)
    assert data["test"]["source"][:] == ["a low", "a high", "b low", "b high"]
    assert data["test"]["transcript"][:] == ["low", "high", "low", "high"]
    assert load_spoken_data(options(speaker_symbol=False), folder, RATE)["test"]["source"][0] == "low"


def test_what_training_says_is_left_out_of_the_test(folder: Path) -> None:
    join = JoinOptions(min=1, max=6, train=20, test=20)
    data = load_spoken_data(options(unseen=True, join=join), folder, RATE)
    whole = load_spoken_data(options(join=join), folder, RATE)
    trained = set(data["train"]["transcript"])
    assert 0 < len(data["test"]) < len(whole["test"]) and not trained & set(data["test"]["transcript"])
    assert data["train"]["transcript"][:] == whole["train"]["transcript"][:]
    with pytest.raises(DataError, match=r"data.test: all that is said there is said in the training data, too"):
        load_spoken_data(options(unseen=True), folder, RATE)
