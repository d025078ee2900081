"""Speech for training: a manifest of utterances, their audio or frames, held-out speakers, joined recordings.

A manifest is a tsv or csv file whose first line names the columns. Audio is read by `soundfile` from a folder or a tar
archive; precomputed frames come from one npz file. Bad files are refused with file and line number. Needs the extras
`train` and `audio`; must not import the model files.
"""

import io
import logging
import random
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import DataError, format_of, reading, table_columns
from .option_checks import check_range
from .splits import SPLITS, Dataset, DatasetDict, HoldoutOptions, SizeOptions, first_samples, hold_out


logger = logging.getLogger(__name__)


# ---- Options ----------------------------------------------------------------------------------------------------


@dataclass
class JoinOptions:
    """Longer utterances, each made of random recordings of one speaker and one split.

    Args:
        min: fewest recordings an utterance.
        max: most recordings an utterance.
        train: number of training utterances; the speakers take turns.
        validation: the same for validation utterances.
        test: the same for test utterances.
        seed: seed of the choice.
    """

    min: int = 1
    max: int = 7
    train: int = 4000
    validation: int = 300
    test: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise ValueError(f"max: got {self.max}, wanted at least min={self.min}, and that 1")
        check_range(self, *SPLITS, least=1)


@dataclass
class SpeechDataOptions(SizeOptions):
    """The files of a speech data set (the `data` section of a recipe).

    Args:
        manifest: one line an utterance, the first line names the columns (.tsv or .csv, .gz may follow); or a mapping
            from "train", "validation" and "test" to such files.
        audio: folder, or tar archive (also compressed), of the audio files; `None`: the folder of the manifest.
        audio_column: names the audio file.
        audio_suffix: appended to that name, such as ".wav".
        frames: npz file of precomputed frames in place of audio: `feats` (all frames, F) and `offsets` (utterances +
            1), in the order of the manifest.
        id_column: names the utterance in the predictions; `None`: the line number does.
        transcript_column: the transcript.
        speaker_column: the speaker; `None`: unknown.
        split_column: the split of a line, if one manifest holds all.
        train: the value of `split_column` for training utterances.
        validation: likewise for those that select the model; `None`: see `holdout`.
        test: likewise for those that are reported; `None`: none are.
        holdout: take the validation data out of the training data.
        join: join recordings to longer utterances.
    """

    manifest: str | dict[str, str]
    audio: str | None = None
    audio_column: str = "path"
    audio_suffix: str = ""
    frames: str | None = None
    id_column: str | None = "id"
    transcript_column: str = "transcript"
    speaker_column: str | None = None
    split_column: str = "split"
    train: str = "train"
    validation: str | None = None
    test: str | None = "test"
    holdout: HoldoutOptions | None = None
    join: JoinOptions | None = None

    def __post_init__(self) -> None:
        files = self.manifest if isinstance(self.manifest, dict) else None
        if files is not None and ("train" not in files or not set(files) <= set(SPLITS)):
            raise ValueError(f"manifest: got the keys {sorted(files)}, wanted train, validation and test")
        if self.frames is not None and files is not None:
            raise ValueError("frames: one npz file needs one manifest, got a mapping")
        if self.frames is not None and self.audio is not None:
            raise ValueError("frames: given together with audio; give one of them")
        if self.holdout is not None and (self.validation is not None or "validation" in (files or ())):
            raise ValueError("holdout: there is validation data already; leave one of them out")
        by_speaker = self.join is not None or (self.holdout is not None and self.holdout.by == "speaker")
        if by_speaker and self.speaker_column is None:
            raise ValueError("speaker_column: needed by join and by holdout.by: speaker, got null")
        super().__post_init__()


# ---- Manifests --------------------------------------------------------------------------------------------------


@dataclass
class Utterance:
    """A line of a manifest."""

    place: str  # file and line, for messages
    split: str | None  # `None`: of a split that is not used
    id: str
    speaker: str  # "": unknown
    transcript: str
    audio: str  # name of the file; "" with precomputed frames
    input: np.ndarray  # samples (N,) or frames (S, F), once read


def read_manifest(path: Path, options: SpeechDataOptions, split: str | None = None) -> list[Utterance]:
    """Return the utterances of a manifest, without audio; `split` is that of all lines, `None`: of its `split_column`.

    Raises:
        DataError: a column is missing, a line has too few or too many, a transcript is empty.
    """
    file_format = format_of(path, ("tsv", "csv"))
    names = ["transcript", *(["audio"] if options.frames is None else []), *(["split"] if split is None else [])]
    names += [name for name in ("id", "speaker") if getattr(options, f"{name}_column") is not None]
    columns = {f"{name}_column": getattr(options, f"{name}_column") for name in names}
    splits = {getattr(options, name): name for name in reversed(SPLITS)}
    utterances: list[Utterance] = []
    unused: Counter[str] = Counter()
    for number, row in table_columns(path, file_format, columns, header=None):
        place, values = f"{path}, line {number}", dict(zip(names, row, strict=True))
        transcript = " ".join(values["transcript"].split())
        if not transcript:
            raise DataError(f"{place}: empty transcript")
        if split is None and values["split"] not in splits:
            unused[values["split"]] += 1
        of_split = splits.get(values["split"]) if split is None else split
        audio = values["audio"] + options.audio_suffix if "audio" in values else ""
        name, speaker = values.get("id", str(number)), values.get("speaker", "")
        utterances.append(Utterance(place, of_split, name, speaker, transcript, audio, np.empty(0, np.float32)))
    if unused:
        counts = ", ".join(f"{count} of {name!r}" for name, count in sorted(unused.items()))
        known = ", ".join(f"{name}: {value!r}" for value, name in splits.items() if value is not None)
        logger.warning(
            "%s: %d of %d lines are of a split that is not used (%s); used are %s",
            *(path, unused.total(), len(utterances), counts, known),
        )
    return utterances


# ---- Audio and frames -------------------------------------------------------------------------------------------


_LARGEST_MEMBER = 2**30  # bytes of a recording in an archive


def _archived(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Return the wanted files of a tar archive, read in one pass: seeking back would decompress it from the start."""
    found: dict[str, bytes] = {}
    # tarfile and the libraries that decompress each have errors of their own.
    place = f"{archive}: not a readable folder or tar archive"
    with reading(place, "one that is whole", any_error=True), tarfile.open(archive) as handle:
        for member in handle:
            name = member.name.removeprefix("./")
            if member.size > _LARGEST_MEMBER:
                raise DataError(f"{archive}: {name!r} has {member.size} bytes, wanted at most {_LARGEST_MEMBER}")
            content = handle.extractfile(member) if name in names else None
            if content is not None:
                found[name] = content.read()
    return found


def read_audio(utterances: Sequence[Utterance], source: Path, sampling_rate: int) -> None:
    """Read the audio of utterances, from a folder or tar archive, into their `input`, float32 from -1 to 1.

    Raises:
        DataError: a file is missing, is no audio, is empty, or has another rate (Hz) or several channels; the message
            names the manifest's line.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("reading audio needs soundfile: pip install 'hf_rnn_seq2seq[audio]'") from error
    archived = None if source.is_dir() else _archived(source, {utterance.audio for utterance in utterances})
    for utterance in utterances:
        where = f"{utterance.place}: {utterance.audio!r} in {source}"
        file: Any = source / utterance.audio
        if not (file.is_file() if archived is None else utterance.audio in archived):
            raise DataError(f"{where}: no such audio file")
        if archived is not None:
            file = io.BytesIO(archived[utterance.audio])
        with reading(f"{where}: not readable as audio", "wav, flac or another format with a header"):
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)  # (N, channels)
        own_rate = f"features.sampling_rate is {sampling_rate} Hz; resample the file, or change the recipe"
        for wrong, what in (
            (rate != sampling_rate, f"has {rate} Hz, but {own_rate}"),
            (samples.shape[1] != 1, f"has {samples.shape[1]} channels, wanted 1"),
            (not len(samples), "holds no samples"),
            (not np.isfinite(samples).all(), "holds samples that are not finite"),
        ):
            if wrong:
                raise DataError(f"{where}: {what}")
        utterance.input = samples[:, 0]


def read_frames(utterances: Sequence[Utterance], path: Path) -> None:
    """Read precomputed frames into the `input` of all utterances of a manifest, in its order.

    The npz file has `feats` (frames, F) and `offsets` (utterances + 1); a DataError says what does not fit.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file (files are looked up under --data_dir)")
    wanted = "an npz file with the arrays feats and offsets"
    # A plain npy file is an array, which is no context manager: AttributeError or TypeError.
    with reading(path, wanted, any_error=True), np.load(path) as arrays:
        frames, offsets = arrays["feats"].astype(np.float32), arrays["offsets"].astype(np.int64)
    if frames.ndim != 2 or offsets.shape != (len(utterances) + 1,):
        raise DataError(
            f"{path}: feats has shape {frames.shape} and offsets {offsets.shape}, wanted (frames, F) and "
            f"({len(utterances) + 1},) for the {len(utterances)} utterances of the manifest"
        )
    if offsets[0] != 0 or offsets[-1] != len(frames):
        raise DataError(f"{path}: offsets go from {offsets[0]} to {offsets[-1]}, wanted 0 to {len(frames)}")
    for utterance, start, end in zip(utterances, offsets[:-1], offsets[1:], strict=True):
        if end <= start:
            raise DataError(f"{utterance.place}: {path} holds no frames for it")
        utterance.input = frames[start:end]
        if not np.isfinite(utterance.input).all():
            raise DataError(f"{utterance.place}: its frames in {path} are not all finite")


# ---- Splits -----------------------------------------------------------------------------------------------------


def hold_out_utterances(
    train: Sequence[Utterance], options: HoldoutOptions
) -> tuple[list[Utterance], list[Utterance]]:
    """Return training and validation utterances, each in the order of the manifest."""
    units = [item.speaker if options.by == "speaker" else str(number) for number, item in enumerate(train)]
    number = max(1, round(options.fraction * len(set(units))))
    return hold_out(train, units, number, options.seed, f"data.holdout (by {options.by})")


def joined(recordings: Sequence[Utterance], options: JoinOptions, split: str) -> Iterator[Utterance]:
    """Yield utterances made of random recordings of one speaker, one after the other; the speakers take turns."""
    of_speaker: dict[str, list[Utterance]] = {}
    for recording in recordings:
        of_speaker.setdefault(recording.speaker, []).append(recording)
    speakers = sorted(of_speaker)
    generator = random.Random(f"{options.seed} {split}")
    for number in range(getattr(options, split)):
        speaker = speakers[number % len(speakers)]
        parts = generator.choices(of_speaker[speaker], k=generator.randint(options.min, options.max))
        transcript = " ".join(part.transcript for part in parts)
        audio = np.concatenate([part.input for part in parts])
        yield Utterance(parts[0].place, split, f"{speaker}-{number}", speaker, transcript, "", audio)


def make_dataset(columns: Mapping[str, Sequence[Any]], arrays: Mapping[str, Sequence[np.ndarray]]) -> Dataset:
    """Return a data set of plain columns (one value a row) and of float32 arrays (one a row, which becomes flat).

    It is made and read without a Python object a number.
    """
    import pyarrow as pa  # comes with datasets

    table = dict(columns)
    for name, rows in arrays.items():
        offsets = pa.array(np.cumsum([0, *(row.size for row in rows)]), pa.int64())
        numbers = np.concatenate([row.reshape(-1) for row in rows]).astype(np.float32, copy=False)
        table[name] = pa.LargeListArray.from_arrays(offsets, pa.array(numbers))
    return Dataset(pa.table(table))


def load_speech_data(options: SpeechDataOptions, data_dir: str | Path, sampling_rate: int) -> DatasetDict:
    """Read the `data` section of a recipe; every audio file must have the `sampling_rate`, in Hz.

    Returns:
        The splits, each with the columns `id`, `speaker`, `transcript` and `input`: samples (N,), or frames (S F,) one
            after the other.

    Raises:
        DataError: a file is missing or bad (the message names file and line), or a split is empty.
    """
    folder = Path(data_dir)
    utterances: list[Utterance] = []
    if isinstance(options.manifest, dict):
        wanted = list(options.manifest)
        for split, name in options.manifest.items():
            utterances += read_manifest(folder / name, options, split)
        home = (folder / options.manifest["train"]).parent
    else:
        utterances = read_manifest(folder / options.manifest, options)
        wanted = [split for split in SPLITS if getattr(options, split) is not None]
        home = (folder / options.manifest).parent
    if options.frames is not None:
        read_frames(utterances, folder / options.frames)
    splits = {split: [item for item in utterances if item.split == split] for split in wanted}
    for split, items in splits.items():
        if not items:
            raise DataError(f"data.{split}: the manifest {options.manifest!r} has no line of this split")
    if options.holdout is not None:
        splits["train"], splits["validation"] = hold_out_utterances(splits["train"], options.holdout)
        logger.info("held out: %d of the training utterances for validation", len(splits["validation"]))
    if options.join is None:
        splits = first_samples(splits, options)
    if options.frames is None:
        source = home if options.audio is None else folder / options.audio
        read_audio([item for items in splits.values() for item in items], source, sampling_rate)
    if options.join is not None:
        splits = {split: list(joined(items, options.join, split)) for split, items in splits.items()}
        splits = first_samples(splits, options)
    data = DatasetDict()
    for split, items in splits.items():
        columns = {name: [getattr(item, name) for item in items] for name in ("id", "speaker", "transcript")}
        data[split] = make_dataset(columns, {"input": [item.input for item in items]})
    return data
