"""Text to text as a task: tokenizers of both sides, the encoder-decoder, decoding by `generate()`.

The scores of decoded text are computed by `scoring.Scorer`. Needs the extras `train` and `metrics`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast, set_seed

from ..data.features import split_tags, tags_of
from ..data.pairs import encode_dataset, evaluation_items, load_data, pair_lengths, vocabulary_texts
from ..data.preprocessing import Preprocessing
from ..data.processors import save_processor
from ..data.splits import Dataset, DatasetDict
from ..data.tokenizers import load_tokenizers, normalized, train_tokenizer
from ..evaluation.ensemble import RnnSeq2SeqEnsemble
from ..evaluation.reranker import RERANKER_FOLDER, SlotReranker
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from ..training.augmentation import BpeDropout
from ..training.batches import pad_rows
from .options import OptionsError
from .recipe import SEQ2SEQ, Recipe
from .reranking import train_reranker
from .scale import derive_from_texts
from .scoring import Scorer, check_metrics, write_predictions
from .task import Scores, Task, check_folder
from .teaching import taught


def build_tokenizers(
    recipe: Recipe, train: Dataset, vocabulary: Sequence[str] = ()
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Train the source and the target tokenizer, the same object twice if they are shared.

    They take entries from the training split, and from `vocabulary`, texts of both sides.
    """
    options = recipe.tokenizer
    tags = tags_of(train["source"]) if recipe.data.has_features else []
    if options.target is None:
        shared = train_tokenizer([*train["source"], *train["target"], *vocabulary], options.source, "shared", tags)
        return shared, shared
    source = train_tokenizer([*train["source"], *vocabulary], options.source, tags=tags)
    return source, train_tokenizer([*train["target"], *vocabulary], options.target, "target")


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special ids that a model's configurations name, from the tokenizer of its target side."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {**ids, "decoder_start_token_id": tokenizer.bos_token_id}


def generation_config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, longest_target: int) -> GenerationConfig:
    """The search that a model is saved with: the recipe's, but a user who does not ask gets one hypothesis.

    Unless the recipe sets `max_new_tokens` or `max_length`, a hypothesis may be half as long again as the longest
    training target in tokens.
    """
    options = {name: value for name, value in recipe.generation.items() if name != "num_return_sequences"}
    if options.get("max_new_tokens") is None and options.get("max_length") is None:
        options["max_new_tokens"] = longest_target + (longest_target + 1) // 2
    return GenerationConfig(**options, **token_ids(tokenizer))


def build_model(
    recipe: Recipe,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
    longest_target: int,
) -> RnnSeq2SeqForConditionalGeneration:
    """A fresh model of a recipe, with its `generation_config`; its weights follow from `training.seed`."""
    shared = source_tokenizer is target_tokenizer
    config = recipe.model_config(
        vocab_size=len(source_tokenizer),
        decoder_vocab_size=None if shared else len(target_tokenizer),
        **token_ids(target_tokenizer),
    )
    set_seed(recipe.seed)
    model = RnnSeq2SeqForConditionalGeneration(config)
    model.generation_config = generation_config(recipe, target_tokenizer, longest_target)
    return model


class SearchingTask(Task):
    """A task whose model has `generate()`."""

    @property
    @abstractmethod
    def scorer(self) -> Scorer:
        """What decodes with the model as it is now."""

    def try_predicting(self, split: Dataset) -> None:
        self.scorer.try_search(split)

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        return self.scorer.validation_scorer(validation)


class Seq2SeqTask(SearchingTask):
    """A sequence whose length the model decides, of a text (translation, dialogue, inflection, pronunciation)."""

    kind = SEQ2SEQ
    model_class = RnnSeq2SeqForConditionalGeneration
    ensemble_class = RnnSeq2SeqEnsemble
    model: RnnSeq2SeqForConditionalGeneration | RnnSeq2SeqEnsemble
    vocabulary: Sequence[str] = ()
    source_tokenizer: PreTrainedTokenizerBase
    target_tokenizer: PreTrainedTokenizerBase
    reranker: SlotReranker | None = None

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        for folder in [] if recipe.pipeline.teacher is None else recipe.pipeline.teacher.models:
            check_folder("training.teacher.models", folder)

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        self.vocabulary = vocabulary_texts(self.recipe.data, data_dir)
        data = load_data(self.recipe.data, data_dir)
        for name, split in data.items():
            if name != "train":
                _, references = evaluation_items(split, self.recipe.data.group_references)
                check_metrics(self.recipe, [items[0] for items in references], references)
        return data

    def derive_from_texts(self, train: Dataset) -> dict[str, str]:
        sources = [split_tags(source)[1] for source in train["source"]]
        return derive_from_texts(self.recipe.content, sources, train["target"])

    def build(self, data: DatasetDict) -> None:
        preprocessing, train = self.recipe.data.preprocessing, data["train"]
        if preprocessing.delexicalised_slots:
            sources = list(train["source"])
            columns = {"source": sources, "target": list(train["target"])}
            train = Dataset.from_dict({name: preprocessing.delexicalised(sources, columns[name]) for name in columns})
        self.source_tokenizer, self.target_tokenizer = build_tokenizers(self.recipe, train, self.vocabulary)
        for placeholder in preprocessing.delexicalised_slots:
            (written,) = normalized([placeholder], self.target_tokenizer)
            if written != placeholder:
                raise OptionsError(
                    f"data.delexicalised_slots: got the placeholder {placeholder!r}, which the target tokenizer makes "
                    f"{written!r}; wanted one that it leaves as it is"
                )
        targets = self.target_tokenizer(list(train["target"]), add_special_tokens=False)["input_ids"]
        limit = self.recipe.data.max_target_length
        longest = max(len(ids) + 1 for ids in targets if limit is None or len(ids) < limit)
        if (options := self.recipe.evaluation.reranker) is not None:
            pairs = list(data["train"]["source"]), list(data["train"]["target"])
            on_cpu, seed = bool(self.recipe.training.get("use_cpu", False)), self.recipe.seed
            target = cast(PreTrainedTokenizerFast, self.target_tokenizer)
            self.reranker = train_reranker(*pairs, target, preprocessing, options, seed, on_cpu)
        self.model = build_model(self.recipe, self.source_tokenizer, self.target_tokenizer, longest)

    def training_split(self, split: Dataset) -> Dataset:
        teacher = self.recipe.pipeline.teacher
        return split if teacher is None else taught(split, self.recipe, teacher)

    def load_processors(self, directory: str | Path) -> None:
        self.source_tokenizer, self.target_tokenizer = load_tokenizers(directory)
        # A model that does not say how it reads its sources is believed.
        saved, wanted = Preprocessing.load(directory), self.recipe.data.preprocessing
        for name in () if saved is None else wanted.differences(saved):
            raise OptionsError(
                f"data.{name}: the recipe says {getattr(self.recipe.data, name)!r}, but the model in {directory} was "
                f"trained with {getattr(saved, name)!r}; give the recipe the model's value"
            )
        if (options := self.recipe.evaluation.reranker) is not None:
            folder = Path(directory) / RERANKER_FOLDER
            if not folder.is_dir():
                raise OptionsError(
                    f"evaluation.reranker: {directory} holds no folder {RERANKER_FOLDER}, which a training with this "
                    "key writes; leave the key out"
                )
            self.reranker = SlotReranker.from_pretrained(folder)
            if self.reranker.slots != options.slots:
                raise OptionsError(
                    f"evaluation.reranker.slots: got {options.slots!r}, but the classifier in {folder} was trained "
                    f"with {self.reranker.slots!r}; give the recipe its value"
                )
            self.reranker.penalty = options.penalty

    def save_processors(self, directory: str | Path) -> None:
        source, target = cast("list[PreTrainedTokenizerFast]", [self.source_tokenizer, self.target_tokenizer])
        save_processor(directory, source, target, self.recipe.data.preprocessing)
        if self.reranker is not None:
            self.reranker.save_pretrained(Path(directory) / RERANKER_FOLDER)

    def encode(self, split: Dataset, name: str) -> Dataset:
        tokenizers = self.source_tokenizer, self.target_tokenizer
        return encode_dataset(split, *tokenizers, self.recipe.data, name, self.model.config)

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        return pair_lengths(encoded)

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        padding = {"input_ids": self.source_tokenizer.pad_token_id, "attention_mask": 0, "labels": -100}
        return pad_rows(rows, padding)

    def augment(self, batch: dict[str, Any]) -> dict[str, Any]:
        cut_sources, cut_targets = self.bpe_dropout
        if not (cut_sources or cut_targets):
            return batch
        lengths = batch["attention_mask"].sum(-1).tolist()
        sources = [ids[:length] for ids, length in zip(batch["input_ids"].tolist(), lengths, strict=True)]
        targets = [[number for number in ids if number != -100] for ids in batch["labels"].tolist()]
        if cut_sources:
            sources = cut_sources(sources, self.recipe.data.reverse_source)
        if cut_targets:
            targets = cut_targets(targets)
        rows = zip(sources, targets, strict=True)
        padded = self.collate([{"input_ids": s, "attention_mask": [1] * len(s), "labels": t} for s, t in rows])
        return {**batch, **{name: tensor.to(batch[name].device) for name, tensor in padded.items()}}

    @cached_property
    def bpe_dropout(self) -> tuple[BpeDropout | None, BpeDropout | None]:
        """What cuts sources and targets anew in training."""
        data = self.recipe.data
        source = BpeDropout(self.source_tokenizer, data.source_bpe_dropout) if data.source_bpe_dropout else None
        target = BpeDropout(self.target_tokenizer, data.target_bpe_dropout) if data.target_bpe_dropout else None
        return source, target

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.recipe, self.model, self.source_tokenizer, self.target_tokenizer, self.reranker)

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        scorer = self.scorer
        sources, references = evaluation_items(split, self.recipe.data.group_references)
        ranked = scorer.reranked(sources)
        write_predictions(predictions, sources, scorer.normalized(references), ranked)
        return Scores(*scorer.metrics(sources, references, [hypotheses[0].text for hypotheses in ranked]))

    def card_fields(self) -> dict[str, Any]:
        return asdict(self.recipe.data.preprocessing)
