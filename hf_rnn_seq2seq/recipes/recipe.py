"""Recipes: one YAML file that says everything a training run depends on.

The key `task` names the kind of output. Sections: `data`, `tokenizer`, `model`, `training`, `generation`,
`evaluation`, `card`, and what a `RecipeKind` adds. Every key is checked before anything is read or trained: an unknown
one is refused with the nearest known name, a wrong type with `section.key`. The sections map onto options classes of
this package, `RnnSeq2SeqConfig`, `Seq2SeqTrainingArguments` and `GenerationConfig`. Needs the extras `train` and
`metrics`.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, Seq2SeqTrainingArguments

from ..data.files import read_text, sentence
from ..data.option_checks import check_range, check_share
from ..data.pairs import DataOptions
from ..data.tokenizers import TokenizerOptions
from ..evaluation.metrics import METRICS, TEXT_METRICS, load_metric
from ..model.configuration_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig
from ..model.generation_rules import ENDING_RULES, GENERATION_RULES
from ..training.teacher_forcing import TeacherForcingOptions
from .options import OptionsError, build_options, check_types, nearest, read_yaml, write_yaml
from .other_models import RerankerOptions, TeacherOptions
from .scale import chosen_values, filled, without_auto


# Settings that follow from something else, and where to make them instead.
_SET_BY_TOKENIZERS = "it follows from the tokenizers"
_SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
_RESERVED: dict[str, dict[str, str]] = {
    "model": dict.fromkeys(
        ["vocab_size", "decoder_vocab_size", "character_vocab_size", "is_encoder_decoder", *_SPECIAL_IDS],
        _SET_BY_TOKENIZERS,
    )
    | dict.fromkeys(
        [
            *("input_feature_size", "num_mel_bins", "num_labels", "id2label", "label2id"),
            *("prediction_length", "context_length", "num_time_features"),
        ],
        "it follows from the data",
    ),
    "training": {
        "output_dir": "give --output_dir",
        "resume_from_checkpoint": "give --resume",
        "do_train": "give --eval_only to skip training",
        "do_eval": "name data.validation",
        "do_predict": "name data.test",
        "predict_with_generate": "set evaluation.metrics and evaluation.validation_samples",
        "generation_config": "use the section generation",
        "generation_max_length": "set generation.max_new_tokens",
        "generation_num_beams": "set generation.num_beams",
        "load_best_model_at_end": "the best checkpoint is always loaded",
        "metric_for_best_model": "set evaluation.best_metric",
        "greater_is_better": "it follows from evaluation.best_metric",
        "label_smoothing_factor": "set model.label_smoothing",
        "remove_unused_columns": "the pipeline makes the columns",
        "length_column_name": "set training.max_tokens",
        "sortish_sampler": "set training.max_tokens",
        "label_names": "the pipeline makes the columns",
        "use_liger_kernel": "it has no kernels for RNNs",
        "enable_jit_checkpoint": "SIGTERM and SIGINT always save a checkpoint",
        **dict.fromkeys(
            ["save_only_model", "ignore_data_skip", "restore_callback_states_from_checkpoint"],
            "a run that goes on ends as an unbroken one",
        ),
    },
    "generation": dict.fromkeys(_SPECIAL_IDS, _SET_BY_TOKENIZERS)
    | dict.fromkeys(["return_dict_in_generate", "transformers_version"], "the pipeline sets it"),
}


# Numbers with which the Trainer fails, or does as if nothing were set, as `GENERATION_RULES` has those of a search.
_TRAINING_RULES: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    ("per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps save_total_limit "
     "eval_accumulation_steps torch_empty_cache_steps dataloader_prefetch_factor", "whole number", lambda n: n >= 1,
     "at least 1"),
    ("max_steps", "whole number", lambda n: n >= 1 or n == -1, "at least 1"),  # -1: the Trainer's word for no limit
    ("dataloader_num_workers", "whole number", lambda n: n >= 0, "at least 0"),
    ("seed data_seed", "whole number", lambda n: 0 <= n < 2**32, "at least 0 and less than 2**32"),
    ("num_train_epochs logging_steps eval_steps save_steps", "number", lambda x: 0 < x < math.inf, "more than 0"),
    ("learning_rate weight_decay max_grad_norm adam_epsilon warmup_steps eval_delay neftune_noise_alpha", "number",
     lambda x: 0 <= x < math.inf, "a finite number, at least 0"),
    ("adam_beta1 adam_beta2", "number", lambda x: 0 <= x < 1, "at least 0 and less than 1"),
)  # fmt: skip

# What the Trainer itself reports at an evaluation: a metric of such a name would be taken for it, or be lost.
_TAKEN_NAMES = ["loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch"]
_TAKEN_NAMES += ["num_input_tokens_seen", "total_flos", "step"]


class RecipeError(OptionsError):
    """A recipe that cannot be used; the message names `section.key`."""


@dataclass
class TokenizerSection:
    """The tokenizers of both sides.

    Args:
        shared: one vocabulary, trained on sources and targets together as `source` says.
        source: the source tokenizer.
        target: the target tokenizer; not given if `shared`.
    """

    shared: bool = False
    source: TokenizerOptions = field(default_factory=TokenizerOptions)
    target: TokenizerOptions | None = None

    def __post_init__(self) -> None:
        if self.shared and self.target is not None:
            raise ValueError("target: given together with shared: true, which trains one tokenizer as source says")
        if not self.shared and self.target is None:
            self.target = TokenizerOptions()

    def stand_in_sizes(self) -> dict[str, int | None]:
        """Vocabulary sizes for checking a model's options before there are tokenizers."""
        return {"vocab_size": 1000, "decoder_vocab_size": None if self.shared else 1000}


@dataclass
class PipelineOptions:
    """The keys of the section `training` that are ours; the others are fields of `Seq2SeqTrainingArguments`.

    Args:
        max_tokens: largest padded size of a training batch in tokens on either side; batches are then made by length
            buckets. `None`: batches of `per_device_train_batch_size` samples.
        updates: length of the training in updates; `None`: as `num_train_epochs` or `max_steps` say.
        teacher_forcing: scheduled sampling.
        early_stopping_patience: stop after so many evaluations without a better `evaluation.best_metric`; `None`:
            never.
        average_checkpoints: average the weights of so many checkpoints after training, and keep the average if its
            `best_metric` on the validation data is at least as good as the best checkpoint's. 0 or 1: no averaging.
        average_which: average the "best" or the "last" checkpoints.
        skip_non_finite: leave out so many updates whose loss or gradient is not finite; the next one, or with 0 the
            first, stops the run.
        ema_decay: evaluate and save an exponential moving average of the weights (see `moving_average.py`), in which
            the old average has this share at each update, 0.999 say; `None`: the weights themselves.
        teacher: trained models from whose answers this one learns, too; `None`: from the references alone.
    """

    max_tokens: int | None = None
    updates: int | None = None
    teacher_forcing: TeacherForcingOptions = field(default_factory=TeacherForcingOptions)
    early_stopping_patience: int | None = None
    average_checkpoints: int = 0
    average_which: Literal["best", "last"] = "best"
    skip_non_finite: int = 0
    ema_decay: float | None = None
    teacher: TeacherOptions | None = None

    def __post_init__(self) -> None:
        check_range(self, "max_tokens", "updates", "early_stopping_patience", least=1)
        check_range(self, "average_checkpoints", "skip_non_finite", least=0)
        check_share(self, "ema_decay")


@dataclass
class EvaluationOptions:
    """How the model is chosen and scored.

    Args:
        metrics: names of metrics (see `metrics.py`), or a mapping from the reported name to the metric's name or to
            `{metric: name, option: value}`.
        best_metric: what chooses the best checkpoint: "loss" or a reported name.
        validation_samples: score this many validation items by greedy decoding at each evaluation, evenly taken;
            `None`: all, 0: none (then `best_metric` must be "loss").
        batch_size: number of items decoded at a time.
        splits: which splits are predicted and reported after training; `None`: validation and all test splits.
        reranker: of the hypotheses of these splits, text to text; `None`: as the search ranks them.
    """

    metrics: list[str] | dict[str, str | dict[str, Any]] = field(default_factory=list)
    best_metric: str = "loss"
    validation_samples: int | None = None
    batch_size: int = 64
    splits: list[str] | None = None
    reranker: RerankerOptions | None = None

    def __post_init__(self) -> None:
        check_range(self, "batch_size", least=1)
        check_range(self, "validation_samples", least=0)
        for reported, (name, options) in self.metric_specs.items():
            if reported in _TAKEN_NAMES or reported.startswith(("eval_", "validation_")):
                taken = f"{', '.join(_TAKEN_NAMES)} and what begins with eval_ or validation_"
                raise ValueError(f"metrics: got the name {reported!r}, wanted another one: {taken} have a meaning")
            if name not in METRICS:
                raise ValueError(f"metrics: {reported} is {name!r}, wanted one of {', '.join(METRICS)}")
            try:
                load_metric(name, **options)
            except (TypeError, ValueError) as error:
                raise ValueError(f"metrics: {reported}: {error}") from error
        computed = ["loss", *([] if self.validation_samples == 0 else self.metric_specs)]
        if self.best_metric not in computed:
            reported = ", ".join(computed)
            raise ValueError(f"best_metric: got {self.best_metric!r}, wanted one of those computed: {reported}")

    @property
    def metric_specs(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Reported name -> name of the metric and its options."""
        named = self.metrics if isinstance(self.metrics, dict) else {name: name for name in self.metrics}
        specs: dict[str, tuple[str, dict[str, Any]]] = {}
        for reported, spec in named.items():
            options = {"metric": spec} if isinstance(spec, str) else dict(spec)
            specs[reported] = (str(options.pop("metric", reported)), options)
        return specs


@dataclass
class CardOptions:
    """What the model card says beyond what the run itself knows; without this section no card is written.

    Args:
        title: heading.
        language: ISO 639 code, or several.
        task: in words, for instance "grapheme-to-phoneme conversion".
        datasets: names of the training data: ids of the Hub, OWNER/NAME, or words.
        license: a licence id of the Hub.
        example: an input for the card's code; a file name for speech.
        limitations: one more limitation.
    """

    title: str
    language: str | list[str]
    task: str
    datasets: list[str]
    license: str = "apache-2.0"
    example: str = "hello"
    limitations: str | None = None


@dataclass(frozen=True)
class RecipeKind:
    """The sections that recipes of one kind of task have, beside those of every recipe.

    Args:
        task: what recipes of this kind say in the key `task`.
        data, tokenizer: options classes of these sections; `stand_in_sizes()` of the second gives the sizes that a
            model's configuration takes from the tokenizers, for checking a recipe before they exist.
        generates: whether there is a section `generation`.
        generation: options of generation beside those of `GenerationConfig`, and their types.
        more: other sections and their options classes.
        metrics: names of those that can count its outputs; none: the task itself says it.
    """

    task: str
    data: type
    tokenizer: type
    generates: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, type] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()

    @property
    def sections(self) -> list[str]:
        """Names of all sections, in the order in which they are written."""
        generation = ["generation"] if self.generates else []
        return ["data", *self.more, "tokenizer", "model", "training", *generation, "evaluation", "card"]


# Text to text.
SEQ2SEQ = RecipeKind("seq2seq", DataOptions, TokenizerSection, generates=True, metrics=TEXT_METRICS)


@dataclass
class Recipe:
    """A checked recipe.

    Args:
        name: stem of the recipe's file name; names the results file.
        data, tokenizer: what is read, and how the vocabularies are made, of the kind's classes.
        model: options of `RnnSeq2SeqConfig`, and optionally `preset`.
        training, pipeline: fields of `Seq2SeqTrainingArguments`, and the other keys of that section.
        generation: fields of `GenerationConfig`, used for the reported splits.
        evaluation, card: metrics and selection; texts of the model card, or `None`.
        content: the recipe as written, overrides and `task` included.
        more: the other sections of the kind.
        derived: `section.key` -> the value that took the place of `auto` (see `scale.py`), once it is known; before
            that the fields above have one of a thousand items, and `content` the word.
    """

    name: str
    data: Any
    tokenizer: Any
    model: dict[str, Any]
    training: dict[str, Any]
    pipeline: PipelineOptions
    generation: dict[str, Any]
    evaluation: EvaluationOptions
    card: CardOptions | None
    content: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Seed of the weights, of dropout and of the data's order."""
        return int(self.training.get("seed", Seq2SeqTrainingArguments.seed))

    def model_config(self, **fixed: Any) -> RnnSeq2SeqConfig:
        """Return the model's configuration; RecipeError if its options contradict each other or are out of range.

        `fixed` is what follows from the data: `vocab_size`, `decoder_vocab_size`, `pad_token_id` and the like.
        """
        options = {**self.model, **fixed}
        preset = options.pop("preset", None)
        if preset not in (None, *PRESETS):
            raise RecipeError(f"model.preset: got {preset!r}, wanted one of {', '.join(PRESETS)}")
        try:
            if preset is None:
                return RnnSeq2SeqConfig(**options)
            return RnnSeq2SeqConfig.from_preset(preset, **options)
        except (ValueError, StrictDataclassError) as error:
            # The configuration's own sentence, without what @strict says around it.
            raise RecipeError(f"model: {error.__cause__ or error}") from error

    def to_yaml(self) -> str:
        """The recipe as YAML, overrides included, without comments."""
        return write_yaml(self.content)


def _generation_hints() -> dict[str, Any]:
    """Names of `GenerationConfig`; the type of a default that is not None is the type wanted."""
    hints: dict[str, Any] = {name: Any for name in vars(GenerationConfig()) if not name.startswith("_")}
    for name, default in GenerationConfig._get_default_generation_params().items():
        if default is not None:
            hints[name] = type(default) | None
    # Also the string "never" (see GenerationConfig).
    hints["early_stopping"] = bool | str
    hints["max_new_tokens"] = int | None
    return hints


def apply_overrides(content: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Change a recipe's content in place as `--set section.key=value` says; the value is read as YAML."""
    for override in overrides:
        path, equals, text = override.partition("=")
        *keys, last = path.split(".")
        if not equals or not keys or not all([*keys, last]):
            raise RecipeError(f"--set {override}: wanted section.key=value")
        place = content
        for key in keys:
            place[key] = {} if place.get(key) is None else place[key]
            place = place[key]
            if not isinstance(place, dict):
                raise RecipeError(f"--set {override}: {key} is not a mapping")
        place[last] = read_yaml(text, f"--set {override}")
    return content


def _check_subwords(data: DataOptions, tokenizers: TokenizerSection, config: RnnSeq2SeqConfig) -> None:
    """Refuse options that only work with, or only without, subwords."""
    source = tokenizers.source.type
    if config.copy_slots and source not in ("word", "character"):
        raise RecipeError(
            f"model.copy_slots: got {config.copy_slots} with tokenizer.source.type {source}, whose "
            "subwords spell every word, so that none is unknown; wanted type word or character, or copy_slots 0"
        )
    if config.copy_slots and data.delexicalised_slots:
        raise RecipeError("data.delexicalised_slots: model.copy_slots copies names already; leave one of them out")
    target = source if tokenizers.target is None else tokenizers.target.type
    for name, tokenizer_type in (("source_bpe_dropout", source), ("target_bpe_dropout", target)):
        if getattr(data, name) and tokenizer_type != "bpe":
            raise RecipeError(
                f"data.{name}: got {getattr(data, name)} with a tokenizer of type {tokenizer_type}, wanted type bpe, "
                "which has merges to leave out, or 0"
            )


def with_task(content: dict[str, Any], kind: RecipeKind) -> dict[str, Any]:
    """Return a recipe's content with its task as the first key, which recipes older than the key lack."""
    if content.get("task", kind.task) != kind.task:
        raise RecipeError(
            f"task: got {content['task']!r}, wanted {kind.task}, which is all that is run here; scripts/run.py runs "
            "recipes of every task"
        )
    return {"task": kind.task, **content}


def _check_rules(section: str, values: Mapping[str, Any], rules: Any) -> None:
    """Refuse numbers out of their ranges, by their keys."""
    for names, _, holds, words in rules:
        for name in names.split():
            value = values.get(name)
            if value is not None and not holds(value):
                raise RecipeError(f"{section}.{name}: got {value}, wanted {words}")


def _check_metrics(kind: RecipeKind, evaluation: EvaluationOptions) -> None:
    """Refuse metrics of another kind of output."""
    for reported, (name, _) in evaluation.metric_specs.items():
        if kind.metrics and name not in kind.metrics:
            known = ", ".join(kind.metrics)
            raise RecipeError(f"evaluation.metrics: {reported} is {name!r}, wanted one of {known} for {kind.task}")


def derive_values(recipe: Recipe, kind: RecipeKind, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with values, by `section.key`, in place of `auto` where it says so and they are given."""
    found = chosen_values(recipe.content, values)
    if not found:
        return recipe
    derived = {**recipe.derived, **found}
    return dataclasses.replace(build_recipe(filled(recipe.content, found), recipe.name, kind), derived=derived)


def build_recipe(content: dict[str, Any], name: str, kind: RecipeKind = SEQ2SEQ) -> Recipe:
    """Check a recipe's content, the mapping read from YAML; `name` is what the results file is called.

    Raises:
        OptionsError: anything unknown, of a wrong type, out of range or contradictory.
    """
    if not isinstance(content, dict):
        raise RecipeError(f"{name}: wanted the sections {', '.join(kind.sections)}, got {type(content).__name__}")
    content = with_task(content, kind)
    for section in content:
        if section not in ("task", *kind.sections):
            raise RecipeError(f"{section}: unknown section{nearest(str(section), kind.sections)}")
    if content.get("data") is None:
        raise RecipeError("data: the section is missing")
    checked = without_auto(content, kind.task)
    sections: dict[str, Any] = {section: checked.get(section) or {} for section in (*kind.sections, "generation")}
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise RecipeError(f"{section}: wanted a mapping of keys, got {values!r} (type {type(values).__name__})")

    own_names = {option.name for option in dataclasses.fields(PipelineOptions)}
    pipeline = {key: value for key, value in sections["training"].items() if key in own_names}
    training = {key: value for key, value in sections["training"].items() if key not in own_names}
    training_hints = {option.name: option.type for option in dataclasses.fields(Seq2SeqTrainingArguments)}
    for section, values, hints in (
        ("training", training, {**dict.fromkeys(own_names, Any), **training_hints}),  # own: for the nearest name only
        ("model", sections["model"], {"preset": str, **inspect.get_annotations(RnnSeq2SeqConfig)}),
        ("generation", sections["generation"], {**_generation_hints(), **kind.generation}),
    ):
        check_types(values, hints, section, _RESERVED[section])
    _check_rules("training", training, _TRAINING_RULES)
    _check_rules("generation", sections["generation"], (*GENERATION_RULES, *ENDING_RULES))
    try:
        GenerationConfig(**sections["generation"]).validate(strict=True)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"generation: {sentence(error)}") from error

    recipe = Recipe(
        name=name,
        data=build_options(kind.data, sections["data"], "data"),
        tokenizer=build_options(kind.tokenizer, sections["tokenizer"], "tokenizer"),
        model=sections["model"],
        training=training,
        pipeline=build_options(PipelineOptions, pipeline, "training"),
        generation=sections["generation"],
        evaluation=build_options(EvaluationOptions, sections["evaluation"], "evaluation"),
        card=build_options(CardOptions, sections["card"], "card") if sections["card"] else None,
        content=content,
        more={section: build_options(cls, sections[section], section) for section, cls in kind.more.items()},
    )
    _check_metrics(kind, recipe.evaluation)
    splits = ["validation", *(getattr(recipe.data, "test_splits", None) or ["test"])]
    for split in recipe.evaluation.splits or []:
        if split not in splits:
            raise RecipeError(f"evaluation.splits: got {split!r}, the data has {', '.join(splits)}")
    if recipe.pipeline.teacher is not None and kind is not SEQ2SEQ:
        raise RecipeError(f"training.teacher: answers are text, wanted task seq2seq, got {kind.task}; leave it out")
    if recipe.evaluation.reranker is not None:
        if kind is not SEQ2SEQ:
            raise RecipeError(f"evaluation.reranker: slots are of texts, wanted task seq2seq, got {kind.task}")
        if (beams := recipe.generation.get("num_beams") or 1) < 2:
            raise RecipeError(f"evaluation.reranker: generation.num_beams is {beams}, wanted 2 or more to choose from")
    if recipe.pipeline.updates is not None and training.get("max_steps", -1) > 0:
        raise RecipeError(f"training.updates: got {recipe.pipeline.updates} beside max_steps, leave one of them out")
    # Contradictory model options are refused now, not after the data has been read.
    config = recipe.model_config(**recipe.tokenizer.stand_in_sizes())
    if config.aligns and recipe.pipeline.teacher_forcing != TeacherForcingOptions():
        raise RecipeError(
            "training.teacher_forcing: model.attention_type hard_monotonic sums over alignments of the reference, and "
            "reads no symbols of its own; leave it out"
        )
    if isinstance(recipe.tokenizer, TokenizerSection):
        _check_subwords(recipe.data, recipe.tokenizer, config)
    return recipe


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return a recipe file's content with overrides such as "training.num_train_epochs=1", not checked further."""
    content = read_yaml(read_text(path, most=2**20), str(path))
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: wanted a mapping of sections, got {type(content).__name__}")
    return apply_overrides(content, overrides)
