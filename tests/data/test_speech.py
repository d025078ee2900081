"""Reading speech: manifests, audio in folders and archives, frames, held-out and joined utterances, bad files."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.speech import (
    JoinOptions,
    SpeechDataOptions,
    Utterance,
    hold_out_utterances,
    joined,
    load_speech_data,
)
from hf_rnn_seq2seq.data.splits import HoldoutOptions


RATE = 8000
LINES = [
    "path\tspeaker\ttranscript\tsplit",
    "a.wav\tann\tyes\ttrain",
    "b.flac\tbob\tno  no\ttrain",
    "c.wav\tann\tgo\ttest",
]


def samples_of(number: int) -> np.ndarray:
    """Different lengths and levels, exact in 16 bits."""
    return np.full(100 + number, (number + 1) / 128, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.wav", "b.flac", "c.wav")):
        soundfile.write(tmp_path / name, samples_of(number), RATE, subtype="PCM_16")
    write(tmp_path, LINES)
    return tmp_path


def write(folder: Path, lines: list[str], name: str = "manifest.tsv") -> None:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def options(**changes: Any) -> SpeechDataOptions:
    return SpeechDataOptions(
        **{"manifest": "manifest.tsv", "id_column": "path", "speaker_column": "speaker", **changes}
    )


def utterances(count: int, speakers: int = 3) -> list[Utterance]:
    """Utterance k says "k" in k + 1 samples; the speakers take turns."""
    return [
        Utterance("m.tsv", "train", str(k), f"s{k % speakers}", str(k), "", np.full(k + 1, k, np.float32))
        for k in range(count)
    ]


def test_wav_and_flac_of_a_folder(folder: Path) -> None:
    data = load_speech_data(options(), folder, RATE)
    assert {split: list(rows["id"]) for split, rows in data.items()} == {
        "train": ["a.wav", "b.flac"],
        "test": ["c.wav"],
    }
    assert list(data["train"]["transcript"]) == ["yes", "no no"]
    assert list(data["train"]["speaker"]) == ["ann", "bob"]
    read = list(data["train"].with_format("numpy")["input"])
    for number in range(2):
        np.testing.assert_array_equal(read[number], samples_of(number))


@pytest.mark.parametrize("suffix", ["tar", "tar.xz", "tar.gz"])
def test_audio_of_an_archive_is_that_of_the_folder(folder: Path, suffix: str) -> None:
    archive = folder / f"audio.{suffix}"
    with tarfile.open(archive, f"w:{suffix[4:]}") as handle:
        for name in ("c.wav", "b.flac", "a.wav"):
            handle.add(folder / name, f"./{name}")
    plain, archived = (
        load_speech_data(options(), folder, RATE),
        load_speech_data(options(audio=archive.name), folder, RATE),
    )
    for split in plain:
        assert plain[split][:] == archived[split][:]


def test_a_suffix_completes_the_name_of_the_file(folder: Path) -> None:
    write(folder, ["id\tspeaker\ttranscript\tsplit", "a\tann\tyes\ttrain", "c\tann\tgo\ttest"])
    data = load_speech_data(options(audio_column="id", audio_suffix=".wav", id_column="id"), folder, RATE)
    assert list(data["train"]["id"]) == ["a"]
    assert len(data["test"][0]["input"]) == len(samples_of(2))


def test_one_manifest_a_split(folder: Path) -> None:
    header, first, second, third = ["\t".join(line.split("\t")[:3]) for line in LINES]
    write(folder, [header, first, second], "one.tsv")
    write(folder, [header, third], "two.tsv")
    data = load_speech_data(options(manifest={"train": "one.tsv", "validation": "two.tsv"}), folder, RATE)
    assert {split: list(rows["id"]) for split, rows in data.items()} == {
        "train": ["a.wav", "b.flac"],
        "validation": ["c.wav"],
    }


def test_only_the_first_utterances_if_asked(folder: Path) -> None:
    data = load_speech_data(options(max_train_samples=1), folder, RATE)
    assert {split: list(rows["id"]) for split, rows in data.items()} == {"train": ["a.wav"], "test": ["c.wav"]}


# ---- Frames -----------------------------------------------------------------------------------------------------


def save_frames(folder: Path, lengths: list[int], **changes: np.ndarray) -> np.ndarray:
    frames = np.arange(sum(lengths) * 4, dtype=np.float32).reshape(-1, 4)
    np.savez(folder / "frames.npz", **{"feats": frames, "offsets": np.cumsum([0, *lengths]), **changes})
    return frames


def test_frames_belong_to_the_lines_of_the_manifest_in_their_order(folder: Path) -> None:
    frames = save_frames(folder, [2, 3, 1])
    data = load_speech_data(options(frames="frames.npz"), folder, RATE)
    first, second = (flat.reshape(-1, 4) for flat in data["train"].with_format("numpy")["input"])
    np.testing.assert_array_equal(first, frames[:2])
    np.testing.assert_array_equal(second, frames[2:5])
    np.testing.assert_array_equal(data["test"].with_format("numpy")[0]["input"].reshape(-1, 4), frames[5:])


@pytest.mark.parametrize(
    ("lengths", "changes", "message"),
    [
        ([2, 3], {}, r"frames.npz: feats has shape \(5, 4\) and offsets \(3,\), wanted .*\(4,\) for the 3 utterances"),
        ([2, 0, 1], {}, "manifest.tsv, line 3: .* holds no frames"),
        ([2, 3, 1], {"offsets": np.array([0, 2, 5, 9])}, "offsets go from 0 to 9, wanted 0 to 6"),
        ([2, 3, 1], {"feats": np.full((6, 4), np.nan, np.float32)}, "line 2: its frames .* not all finite"),
    ],
)
def test_frames_that_do_not_fit_the_manifest(
    folder: Path, lengths: list[int], changes: dict[str, np.ndarray], message: str
) -> None:
    save_frames(folder, lengths, **changes)
    with pytest.raises(DataError, match=message):
        load_speech_data(options(frames="frames.npz"), folder, RATE)


def test_a_file_that_holds_no_frames(folder: Path) -> None:
    for content in (b"nonsense", b""):
        (folder / "frames.npz").write_bytes(content)
        with pytest.raises(DataError, match="wanted an npz file with the arrays feats and offsets"):
            load_speech_data(options(frames="frames.npz"), folder, RATE)
    np.savez(folder / "frames.npz", feats=np.zeros((3, 4)))
    with pytest.raises(DataError, match="offsets"):
        load_speech_data(options(frames="frames.npz"), folder, RATE)
    with pytest.raises(DataError, match=r"absent.npz: no such file"):
        load_speech_data(options(frames="absent.npz"), folder, RATE)


# ---- Bad files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("d.wav\tann\tyes\ttrain", r"manifest.tsv, line 3: 'd.wav' in .*: no such audio file"),
        ("a.wav\tann\t \ttrain", "manifest.tsv, line 3: empty transcript"),
        ("a.wav\tann\tyes", "manifest.tsv, line 3: 3 columns, wanted 4"),
        ("manifest.tsv\tann\tyes\ttrain", r"line 3: 'manifest.tsv' in .*: not readable as audio"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str, message: str) -> None:
    write(folder, [*LINES[:2], line, *LINES[2:]])
    with pytest.raises(DataError, match=message):
        load_speech_data(options(), folder, RATE)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (samples_of(0), 16000, "line 3: 'b.flac' in .*: has 16000 Hz, but features.sampling_rate is 8000 Hz"),
        (np.zeros((50, 2)), RATE, "has 2 channels, wanted 1"),
        (np.zeros(0), RATE, "holds no samples"),
    ],
)
def test_audio_that_the_model_cannot_read(folder: Path, samples: np.ndarray, rate: int, message: str) -> None:
    (folder / "b.flac").unlink()
    soundfile.write(folder / "b.flac", samples, rate, format="WAV")
    with pytest.raises(DataError, match=message):
        load_speech_data(options(), folder, RATE)


def test_audio_that_is_not_finite(folder: Path) -> None:
    soundfile.write(folder / "a.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"line 2: .* not finite"):
        load_speech_data(options(), folder, RATE)


def test_a_file_that_is_missing_in_the_archive_and_an_archive_that_is_none(folder: Path) -> None:
    with tarfile.open(folder / "audio.tar", "w") as handle:
        content = (folder / "a.wav").read_bytes()
        member = tarfile.TarInfo("a.wav")
        member.size = len(content)
        handle.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"line 3: 'b.flac' in .*audio.tar: no such audio file"):
        load_speech_data(options(audio="audio.tar"), folder, RATE)
    for name in ("manifest.tsv", "absent.tar"):
        with pytest.raises(DataError, match="not a readable folder or tar archive"):
            load_speech_data(options(audio=name), folder, RATE)


def test_a_missing_column_and_a_missing_split(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: data.transcript_column is 'text', the file has \['path'"):
        load_speech_data(options(transcript_column="text"), folder, RATE)
    with pytest.raises(DataError, match=r"data.validation: .* has no line of this split"):
        load_speech_data(options(validation="dev"), folder, RATE)
    with pytest.raises(DataError, match=r"end it in .tsv, .csv"):
        load_speech_data(options(manifest="a.wav"), folder, RATE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifest": {"test": "a.tsv"}}, "manifest: got the keys"),
        ({"manifest": {"train": "a.tsv"}, "frames": "f.npz"}, "one npz file needs one manifest"),
        ({"frames": "f.npz", "audio": "a.tar"}, "frames: given together with audio"),
        ({"validation": "dev", "holdout": HoldoutOptions()}, "holdout: there is validation data already"),
        ({"speaker_column": None, "join": JoinOptions()}, "speaker_column: needed by join"),
        ({"max_test_samples": 0}, "max_test_samples"),
    ],
)
def test_options_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="fraction"):
        HoldoutOptions(fraction=1.0)
    with pytest.raises(ValueError, match="max: got 2, wanted at least min=3"):
        JoinOptions(min=3, max=2)
    with pytest.raises(ValueError, match="test: got 0"):
        JoinOptions(test=0)


# ---- Held out and joined ----------------------------------------------------------------------------------------


def test_held_out_speakers_are_in_one_part_only_and_the_same_every_time() -> None:
    every = utterances(60, speakers=10)
    train, validation = hold_out_utterances(every, HoldoutOptions(by="speaker", fraction=0.2))
    assert {item.speaker for item in train} & {item.speaker for item in validation} == set()
    assert len(validation) == 12 and len(train) == 48
    assert [item.id for item in hold_out_utterances(every, HoldoutOptions(fraction=0.2))[1]] == [
        item.id for item in validation
    ]
    assert [item.id for item in hold_out_utterances(every, HoldoutOptions(fraction=0.2, seed=5))[1]] != [
        item.id for item in validation
    ]


def test_held_out_utterances() -> None:
    every = utterances(60)
    train, validation = hold_out_utterances(every, HoldoutOptions(by="utterance", fraction=0.25))
    assert len(validation) == 15
    assert sorted([*train, *validation], key=lambda item: int(item.id)) == every
    with pytest.raises(DataError, match=r"data\.holdout \(by speaker\): cannot hold out 1 of 1"):
        hold_out_utterances(utterances(4, speakers=1), HoldoutOptions(by="speaker"))


def test_held_out_utterances_are_never_of_the_test_split(folder: Path) -> None:
    write(folder, [*LINES, *(f"c.wav\ts{k}\tgo\t{'train' if k % 2 else 'test'}" for k in range(40))])
    data = load_speech_data(options(holdout=HoldoutOptions(fraction=0.3)), folder, RATE)
    speakers = {split: set(rows["speaker"]) for split, rows in data.items()}
    assert speakers["validation"] and speakers["validation"] <= {"ann", "bob", *(f"s{k}" for k in range(1, 40, 2))}
    assert not speakers["validation"] & speakers["train"]


def test_joined_utterances_are_recordings_of_one_speaker_one_after_the_other() -> None:
    found = list(joined(utterances(30), JoinOptions(min=1, max=4, train=200), "train"))
    assert len(found) == 200
    assert {len(item.transcript.split()) for item in found} == {1, 2, 3, 4}
    for item in found:
        said = [int(word) for word in item.transcript.split()]
        assert {f"s{k % 3}" for k in said} == {item.speaker}
        np.testing.assert_array_equal(item.input, np.concatenate([np.full(k + 1, k) for k in said]))
    assert len({item.id for item in found}) == 200
    assert {speaker: sum(item.speaker == speaker for item in found) for speaker in ("s0", "s1", "s2")} == {
        "s0": 67,
        "s1": 67,
        "s2": 66,
    }


def test_joining_is_the_same_every_time_and_differs_by_seed_and_split() -> None:
    def texts(split: str, **changes: int) -> list[str]:
        counts = replace(JoinOptions(train=50, validation=50, test=50), **changes)
        return [item.transcript for item in joined(utterances(30), counts, split)]

    assert texts("train") == texts("train")
    assert texts("train") != texts("test") and texts("train") != texts("train", seed=1)


def test_each_split_is_joined_of_its_own_recordings(folder: Path) -> None:
    write(folder, [LINES[0], "a.wav\tann\tone\ttrain", "b.flac\tann\ttwo\ttrain", "c.wav\tann\tthree\ttest"])
    data = load_speech_data(options(join=JoinOptions(train=20, test=10, max=3)), folder, RATE)
    assert (len(data["train"]), len(data["test"])) == (20, 10)
    words = {split: set(" ".join(rows["transcript"]).split()) for split, rows in data.items()}
    assert words == {"train": {"one", "two"}, "test": {"three"}}
