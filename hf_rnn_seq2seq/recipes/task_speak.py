"""Speaking as a task: text in, a spectrogram and its sound out, and how much of it a recogniser understands.

The budget `training.max_tokens` counts source tokens on one side and vectors on the other. Needs the extras `train`,
`metrics` and, for recordings, `speak`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import SPOKEN_HEADER, write_table
from ..data.speak import SpeakDataOptions, load_spoken_data
from ..data.speech import make_dataset
from ..data.splits import evenly_taken
from ..data.tokenizers import TokenizerOptions, load_tokenizers, normalized, train_tokenizer
from ..evaluation.decoding import decode
from ..evaluation.saved_model import load_model
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from ..model.modeling_spectrogram import IGNORED, RnnSeq2SeqForTextToSpectrogram
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from ..training.teacher_forcing import TeacherForcingOptions
from .options import OptionsError
from .recipe import Recipe, RecipeError, RecipeKind
from .run_folder import SPOKEN_PICTURE
from .scoring import compute_metrics
from .speaking import Spoken, speak
from .task import Scores, Task, check_folder
from .task_text import token_ids


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


# How far a number of a toy's spectrogram may be from the right one; heights are 1 apart.
_TOLERANCE = 0.25
_CAPTION = "A spectrogram that the model spoke, and beneath it what its steps attended to"
_ENDING = {"threshold": float, "minlenratio": float, "maxlenratio": float}


@dataclass
class SpokenTokenizerOptions(TokenizerOptions):
    """The tokenizer of what is to be said: by default words."""

    type: str = "word"

    def stand_in_sizes(self) -> dict[str, int | None]:
        """Sizes for checking a model's options before there is data."""
        return {"vocab_size": 1000, "num_mel_bins": 1}


@dataclass
class SpectrogramOptions:
    """What the decoder emits (the section `features`): log-mel energies, with these arguments of the extractor."""

    sampling_rate: int = 16000
    num_mel_bins: int = 40
    frame_length: float = 32.0
    frame_shift: float = 10.0
    low_frequency: float = 20.0
    high_frequency: float | None = None
    preemphasis: float = 0.97

    def __post_init__(self) -> None:
        self.extractor()  # refuses what does not go together

    def extractor(self) -> RnnSeq2SeqFeatureExtractor:
        """The feature extractor, whose energies can become sound again: they are neither normalised nor stacked."""
        return RnnSeq2SeqFeatureExtractor(normalization="none", **dataclasses.asdict(self))


@dataclass
class ListeningOptions:
    """Who listens to what the model says (the section `listening`).

    Args:
        recognizer: directory of a speech model of this family, relative to the working directory, whose transcripts of
            the model's sound `evaluation.metrics` compare with what was to be said; `None`: nobody.
    """

    recognizer: str | None = None


# Text to sound.
SPEAK = RecipeKind(
    "speak",
    SpeakDataOptions,
    SpokenTokenizerOptions,
    generates=True,
    generation=_ENDING,
    more={"features": SpectrogramOptions, "listening": ListeningOptions},
)


class Listener:
    """A saved speech model that writes down what it hears.

    Args:
        directory: its folder.
        batch_size: utterances at a time.
    """

    def __init__(self, directory: str | Path, batch_size: int) -> None:
        self.model = load_model(RnnSeq2SeqForSpeechSeq2Seq, directory).eval()
        self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(str(directory))
        self.tokenizer = load_tokenizers(directory)[0]
        self.batch_size = batch_size

    def __call__(self, sounds: Sequence[torch.Tensor], sampling_rate: int) -> list[str]:
        """Return the transcripts of waveforms (N,)."""
        features = self.extractor(list(sounds), sampling_rate=sampling_rate, padding=False)["input_features"]
        search = self.model.generation_config
        ranked = decode(self.model, list(features), self.tokenizer, search, self.batch_size)
        return [hypotheses[0].text for hypotheses in ranked]


class SpeakTask(Task):
    """The sound of a text."""

    kind = SPEAK
    model_class = RnnSeq2SeqForTextToSpectrogram
    ensemble_class = None
    model: RnnSeq2SeqForTextToSpectrogram
    tokenizer: PreTrainedTokenizerBase
    extractor: RnnSeq2SeqFeatureExtractor | None = None  # a toy has none

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.data.toy is not None and recipe.content.get("features"):
            raise RecipeError("features: the data is a toy, whose vectors are no sound; leave the section out")
        if recipe.evaluation.metric_specs and self.listening.recognizer is None:
            names = ", ".join(recipe.evaluation.metric_specs)
            raise RecipeError(
                f"evaluation.metrics: got {names}, which compare what is heard: name listening.recognizer, the folder "
                "of a speech model, or leave them out"
            )
        if recipe.evaluation.metric_specs and recipe.data.toy is not None:
            raise RecipeError("evaluation.metrics: the data is a toy, which nobody can hear; leave them out")
        if recipe.pipeline.teacher_forcing != TeacherForcingOptions():
            raise RecipeError("training.teacher_forcing: a decoder of vectors reads the reference; leave it out")
        check_folder("listening.recognizer", self.listening.recognizer)
        for name in recipe.generation:
            if name not in _ENDING:
                raise RecipeError(f"generation.{name}: vectors are not searched for, wanted {', '.join(_ENDING)}")

    @property
    def listening(self) -> ListeningOptions:
        """The section `listening`."""
        options = self.recipe.more["listening"]
        assert isinstance(options, ListeningOptions)
        return options

    @property
    def features(self) -> SpectrogramOptions:
        """The section `features`."""
        options = self.recipe.more["features"]
        assert isinstance(options, SpectrogramOptions)
        return options

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        if self.listening.recognizer is not None:
            rate = self._listener().extractor.sampling_rate
            if rate != self.features.sampling_rate:
                raise RecipeError(
                    f"listening.recognizer: the model in {self.listening.recognizer} hears {rate} Hz, but "
                    f"features.sampling_rate is {self.features.sampling_rate} Hz"
                )
        return load_spoken_data(self.recipe.data, data_dir, self.features.sampling_rate)

    def build(self, data: DatasetDict) -> None:
        train = data["train"]
        self.tokenizer = train_tokenizer(list(train["source"]), self.recipe.tokenizer, "source")
        self.extractor = None if self.recipe.data.toy else self.features.extractor()
        spectrograms = self.spectrograms(train)
        config = self.recipe.model_config(
            vocab_size=len(self.tokenizer), num_mel_bins=self.width, **token_ids(self.tokenizer)
        )
        set_seed(self.recipe.seed)
        self.model = RnnSeq2SeqForTextToSpectrogram(config)
        self.model.scale.fit(torch.from_numpy(np.concatenate(spectrograms)))
        symbols = [len(ids) for ids in self.tokenizer(list(train["source"]))["input_ids"]]
        longest = max(len(rows) / count for rows, count in zip(spectrograms, symbols, strict=True))
        # Half as long again as the slowest of the training data, as in texts.
        for name, value in {"maxlenratio": 1.5 * longest, **self.recipe.generation}.items():
            setattr(self.model.generation_config, name, value)

    def load_processors(self, directory: str | Path) -> None:
        self.tokenizer = load_tokenizers(directory)[0]
        has_sound = (Path(directory) / FEATURE_EXTRACTOR_NAME).is_file()
        if has_sound == (self.recipe.data.toy is not None):
            found = "a" if has_sound else "no"
            raise FileNotFoundError(f"{directory} holds {found} {FEATURE_EXTRACTOR_NAME}, but data.toy says otherwise")
        if not has_sound:
            return
        self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(str(directory))
        for name, wanted in dataclasses.asdict(self.features).items():
            if wanted != getattr(self.extractor, name):
                raise OptionsError(
                    f"features.{name}: the recipe says {wanted!r}, but the model in {directory} was trained with "
                    f"{getattr(self.extractor, name)!r}; give the recipe the model's value"
                )

    def load_ensemble(self, directories: Sequence[str | Path]) -> None:
        raise OptionsError(f"--eval_only: got {len(directories)} models, but those that speak do so one by one")

    def save_processors(self, directory: str | Path) -> None:
        self.tokenizer.save_pretrained(directory)
        if self.extractor is not None:
            self.extractor.save_pretrained(directory)

    def spectrograms(self, split: Dataset) -> list[np.ndarray]:
        """Return the vectors (T, M) of each recording, or of each string of a toy."""
        inputs = list(split.with_format("numpy")["input"])
        if self.extractor is None:
            return [numbers.reshape(-1, self.width) for numbers in inputs]
        rate = self.features.sampling_rate
        return list(self.extractor(inputs, sampling_rate=rate, padding=False)["input_features"])

    def encode(self, split: Dataset, name: str) -> Dataset:
        ids = self.tokenizer(list(split["source"]))["input_ids"]
        return make_dataset({"input_ids": ids}, {"labels": self.spectrograms(split)}).with_format("numpy")

    @property
    def width(self) -> int:
        """Numbers a vector, M."""
        return self.recipe.data.toy.bands if self.extractor is None else self.extractor.feature_size

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        width = self.width
        columns = zip(encoded["input_ids"], encoded["labels"], strict=True)
        return [(len(ids), len(numbers) // width) for ids, numbers in columns]

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        vectors = [torch.tensor(row["labels"]).view(-1, self.width) for row in rows]
        ends = [torch.arange(1 - len(row), 1) == 0 for row in vectors]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": pad_sequence(vectors, batch_first=True, padding_value=IGNORED),
            "stop_labels": pad_sequence([row.float() for row in ends], batch_first=True, padding_value=IGNORED),
        }

    def _listener(self) -> Listener:
        assert self.listening.recognizer is not None
        return Listener(self.listening.recognizer, self.recipe.evaluation.batch_size)

    def say(self, split: Dataset) -> list[Spoken]:
        """Return what the model, as it is now, says to the sources of a split."""
        training = self.model.training
        self.model.eval()
        spoken = speak(
            self.model, self.tokenizer, split["source"], self.recipe.evaluation.batch_size, self.recipe.seed
        )
        self.model.train(training)
        return spoken

    def hear(self, spoken: Sequence[Spoken]) -> list[str]:
        """Return what the recogniser hears when that is made into sound."""
        from ..evaluation.sound import GriffinLim

        assert self.extractor is not None
        vocoder = GriffinLim(self.extractor)
        return self._listener()([vocoder(item.spectrogram) for item in spoken], self.extractor.sampling_rate)

    def metrics(self, split: Dataset, heard: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
        """Return the recipe's metrics of what is heard."""
        tokenizer = self._listener().tokenizer
        references = [normalized([text], tokenizer) for text in split["transcript"]]
        return compute_metrics(self.recipe, normalized(heard, tokenizer), references)

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        options = self.recipe.evaluation
        if not options.metric_specs or options.validation_samples == 0:
            return None
        taken = validation.select(evenly_taken(len(validation), options.validation_samples))
        return lambda: self.metrics(taken, self.hear(self.say(taken)))[0]

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        spoken, wanted = self.say(split), self.spectrograms(split)
        hears = bool(self.recipe.evaluation.metric_specs)
        heard = self.hear(spoken) if hears else [""] * len(spoken)
        rows = zip(split["id"], split["source"], spoken, wanted, heard, strict=True)
        write_table(
            predictions,
            SPOKEN_HEADER,
            [(name, text, str(len(a.spectrogram)), str(len(b)), words) for name, text, a, b, words in rows],
        )
        numbers, details = self.metrics(split, heard) if hears else ({}, {})
        differences = [abs(len(a.spectrogram) - len(b)) / len(b) for a, b in zip(spoken, wanted, strict=True)]
        numbers["length_error"] = 100 * float(np.mean(differences))
        if self.recipe.data.toy is not None:
            numbers["solved"] = 100 * float(np.mean([_agree(a, b) for a, b in zip(spoken, wanted, strict=True)]))
        self._shown = spoken[0], split["source"][0]
        return Scores(numbers, details)

    def draw(self, directory: Path) -> None:
        from ..evaluation.spectrogram_plot import plot_spectrogram

        spoken, text = self._shown
        tokens = self.tokenizer.convert_ids_to_tokens(self.tokenizer(text)["input_ids"])
        shift = None if self.extractor is None else self.features.frame_shift
        plot_spectrogram(spoken.spectrogram, spoken.attention, tokens, directory / SPOKEN_PICTURE, text, shift)

    def card_fields(self) -> dict[str, Any]:
        return {"picture": (SPOKEN_PICTURE, _CAPTION)}


def _agree(spoken: Spoken, wanted: np.ndarray) -> bool:
    """Whether a toy's spectrogram has the right length, and each of its numbers is nearly right."""
    got = spoken.spectrogram
    return got.shape == wanted.shape and bool(np.abs(got - wanted).max() < _TOLERANCE)
