"""Speech recognition as a task: features of audio or of frames, the speech model, word and character error rates.

The budget `training.max_tokens` counts vectors of the encoder's input (frames, after stacking) on the source side and
target tokens on the other. Needs the extras `train`, `metrics` and, for audio, `audio`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, set_seed
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import TRANSCRIPTS_HEADER, write_table
from ..data.processors import save_processor
from ..data.speech import SpeechDataOptions, load_speech_data, make_dataset
from ..data.splits import Dataset, DatasetDict
from ..data.tokenizers import TokenizerOptions, load_tokenizers, train_tokenizer
from ..evaluation.decoding import IGNORE_INDEX
from ..evaluation.ensemble import RnnSeq2SeqSpeechEnsemble
from ..evaluation.metrics import TEXT_METRICS
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from ..training.augmentation import SpecAugmentOptions, spec_augment
from .options import OptionsError
from .recipe import Recipe, RecipeError, RecipeKind
from .scoring import Scorer, check_metrics
from .task import Scores
from .task_text import SearchingTask, generation_config, token_ids


@dataclass
class TargetTokenizerOptions(TokenizerOptions):
    """The tokenizer of the transcripts, the only one that speech recognition has."""

    def stand_in_sizes(self) -> dict[str, int | None]:
        """Sizes for checking a model's options before there is data."""
        return {"vocab_size": 1000, "input_feature_size": 1}


# Name, type and default of what a recipe says of the extractor: its arguments but those that are fitted, or follow.
_EXTRACTOR_OPTIONS = [
    (argument.name, argument.annotation, argument.default)
    for argument in inspect.signature(RnnSeq2SeqFeatureExtractor).parameters.values()
    if argument.name not in ("mean", "std", "padding_value", "kwargs")
]


@dataclass
class _FeatureOptions:
    spec_augment: SpecAugmentOptions | None = None

    def __post_init__(self) -> None:
        self.extractor()  # refuses what does not go together

    def extractor(self) -> RnnSeq2SeqFeatureExtractor:
        """Return the feature extractor, not fitted."""
        return RnnSeq2SeqFeatureExtractor(**{name: getattr(self, name) for name, _, _ in _EXTRACTOR_OPTIONS})


# The section `features`, what the encoder reads: arguments of `RnnSeq2SeqFeatureExtractor`, and `spec_augment`: in
# training, blank bands and stretches (Park et al. 2019); `None`: no. The features should be normalised.
FeatureOptions = dataclasses.make_dataclass("FeatureOptions", _EXTRACTOR_OPTIONS, bases=(_FeatureOptions,))


# Audio to text.
SPEECH = RecipeKind(
    "speech",
    SpeechDataOptions,
    TargetTokenizerOptions,
    generates=True,
    generation={"ctc_weight": float},
    more={"features": FeatureOptions},
    metrics=TEXT_METRICS,
)


@dataclass
class SpeechScorer(Scorer):
    """Decodes and scores utterances, which are arrays of features; `features` turns a split into them."""

    features: Callable[[Dataset], list[np.ndarray]] = lambda split: []

    def items(self, split: Dataset) -> tuple[list[Any], list[list[str]]]:
        """What of a split is decoded and scored: features, and for each its reference."""
        return self.features(split), [[transcript] for transcript in split["transcript"]]

    def encoded(self, sources: Sequence[Any]) -> list[Any]:
        """The features as they are."""
        return list(sources)


class SpeechTask(SearchingTask):
    """What is said, of audio or of vectors computed from it."""

    kind = SPEECH
    model_class = RnnSeq2SeqForSpeechSeq2Seq
    ensemble_class = RnnSeq2SeqSpeechEnsemble
    model: RnnSeq2SeqForSpeechSeq2Seq | RnnSeq2SeqSpeechEnsemble
    tokenizer: PreTrainedTokenizerBase
    extractor: RnnSeq2SeqFeatureExtractor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        feature_type, frames = self.options.feature_type, recipe.data.frames
        if (feature_type == "none") != (frames is not None):
            raise RecipeError(
                f"features.feature_type: got {feature_type}, but data.frames is {frames!r}; none is for frames, the "
                "others for audio"
            )

    @property
    def options(self) -> Any:
        """The section `features`."""
        return self.recipe.more["features"]

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        data = load_speech_data(self.recipe.data, data_dir, self.options.sampling_rate)
        for name, split in data.items():
            if name != "train":
                transcripts = list(split["transcript"])
                check_metrics(self.recipe, transcripts, [[text] for text in transcripts])
        return data

    def build(self, data: DatasetDict) -> None:
        train = data["train"]
        self.tokenizer = train_tokenizer(list(train["transcript"]), self.recipe.tokenizer, "target")
        self.extractor = self.options.extractor()
        if self.extractor.normalization == "global":
            self.extractor.fit(self._inputs(train))
        config = self.recipe.model_config(
            vocab_size=len(self.tokenizer),
            input_feature_size=self.extractor.feature_size,
            **token_ids(self.tokenizer),
        )
        longest = max(len(ids) for ids in self._labels(train))
        set_seed(self.recipe.seed)
        self.model = RnnSeq2SeqForSpeechSeq2Seq(config)
        self.model.generation_config = generation_config(self.recipe, self.tokenizer, longest)

    def load_processors(self, directory: str | Path) -> None:
        self.tokenizer = load_tokenizers(directory)[0]
        if not (Path(directory) / FEATURE_EXTRACTOR_NAME).is_file():
            raise FileNotFoundError(
                f"{directory} holds no {FEATURE_EXTRACTOR_NAME}: nothing says what the model reads"
            )
        self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(str(directory))
        for name, _, _ in _EXTRACTOR_OPTIONS:
            wanted, saved = getattr(self.options, name), getattr(self.extractor, name, None)
            if wanted != saved:
                raise OptionsError(
                    f"features.{name}: the recipe says {wanted!r}, but the model in {directory} was trained "
                    f"with {saved!r}; give the recipe the model's value"
                )

    def save_processors(self, directory: str | Path) -> None:
        tokenizer = cast(PreTrainedTokenizerFast, self.tokenizer)
        save_processor(directory, tokenizer, feature_extractor=self.extractor)

    def _labels(self, split: Dataset) -> list[list[int]]:
        """Target ids with one `</s>` each."""
        ids = self.tokenizer(list(split["transcript"]), add_special_tokens=False)["input_ids"]
        return [[*tokens, self.tokenizer.eos_token_id] for tokens in ids]

    def _inputs(self, split: Dataset) -> list[np.ndarray]:
        """Samples (N,) or frames (S, F) of each utterance."""
        shape = (-1,) if self.extractor.frame_size is None else (-1, self.extractor.frame_size)
        return [numbers.reshape(shape) for numbers in split.with_format("numpy")["input"]]

    def features(self, split: Dataset) -> list[np.ndarray]:
        """What the encoder reads of each utterance: (S, F) each, float32."""
        batch = self.extractor(
            self._inputs(split),
            speaker=list(split["speaker"]),
            sampling_rate=self.options.sampling_rate,
            padding=False,
        )
        return list(batch["input_features"])

    def encode(self, split: Dataset, name: str) -> Dataset:
        encoded = make_dataset({"labels": self._labels(split)}, {"input_features": self.features(split)})
        return encoded.with_format("numpy")

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        width = self.extractor.feature_size
        columns = zip(encoded["input_features"], encoded["labels"], strict=True)
        return [(len(numbers) // width, len(ids)) for numbers, ids in columns]

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        width = self.extractor.feature_size
        vectors = [torch.tensor(row["input_features"]).view(-1, width) for row in rows]
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {
            "input_features": pad_sequence(vectors, batch_first=True),
            "attention_mask": pad_sequence([torch.ones(len(v), dtype=torch.long) for v in vectors], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        }

    def augment(self, batch: dict[str, Any]) -> dict[str, Any]:
        options = self.options.spec_augment
        if options is None:
            return batch
        lengths = batch["attention_mask"].sum(1)
        masked = spec_augment(batch["input_features"], lengths, options, self.extractor.num_static)
        return {**batch, "input_features": masked}

    @property
    def scorer(self) -> SpeechScorer:
        """What decodes with the model as it is now."""
        return SpeechScorer(self.recipe, self.model, self.tokenizer, self.tokenizer, features=self.features)

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        scorer = self.scorer
        sources, references = scorer.items(split)
        hypotheses = [ranked[0].text for ranked in scorer.hypotheses(sources, scorer.search())]
        wanted = [items[0] for items in scorer.normalized(references)]
        write_table(predictions, TRANSCRIPTS_HEADER, zip(split["id"], wanted, hypotheses, strict=True))
        return Scores(*scorer.metrics(sources, references, hypotheses))
