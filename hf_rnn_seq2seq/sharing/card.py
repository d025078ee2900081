"""Model cards: the README.md of a saved model, filled in from its configuration and its results.

Here are the Hub's metadata and what the template asks; `card_text.py` has the words, `hub.py` publishes. The modeling
files are not imported.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import read_object
from ..data.outputs import write_whole
from ..data.preprocessing import Preprocessing
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .card_text import ModelKind, citations, code, describe_limitations, describe_structure, gives_values, plain
from .results import VALIDATION_PREFIX, readable_number


# What a reader of a card should see for the metrics' recipe names; others are shown as they are.
_METRIC_TITLES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "wer": "word error rate (%)",
    "cer": "character error rate (%)",
    "per": "phone error rate (%)",
    "g2p_wer": "words with a wrong phone string (%)",
    "exact_match": "exact match (%)",
    "token_accuracy": "token accuracy (%)",
    "perplexity": "perplexity",
    "length_error": "difference in length (%)",
    "solved": "solved (%)",
    "accuracy": "accuracy (%)",
    "macro_f1": "macro F1 (%)",
    "entity_f1": "entity F1 (%)",
    "entity_f1_precision": "entity precision (%)",
    "entity_f1_recall": "entity recall (%)",
    "mse": "mean squared error",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "phm": "PHM score",
    "smape": "symmetric mean absolute percentage error (%)",
    "mase": "mean absolute scaled error",
    "crps": "continuous ranked probability score",
    "coverage": "values within the 80 % band (%)",
    **{
        f"naive_{name}": f"{title} of the seasonal naive forecast"
        for name, title in (
            *(("mse", "mean squared error"), ("rmse", "root mean squared error"), ("mae", "mean absolute error")),
            *(("crps", "continuous ranked probability score"), ("coverage", "values within the 80 % band (%)")),
        )
    },
    "last_rmse": "root mean squared error at the last row",
    "last_mae": "mean absolute error at the last row",
    "last_phm": "PHM score at the last row",
    "f1": "F1 (%)",
    "f1_precision": "precision (%)",
    "f1_recall": "recall (%)",
}

# By the name of a class, since with trust_remote_code a class is another copy of the same code: the kind, the Auto
# class that loads it, and the Hub's name of its task if it reads text or speech.
KINDS: dict[str, tuple[ModelKind, str, str]] = {
    "RnnSeq2SeqForConditionalGeneration": ("seq2seq", "AutoModelForSeq2SeqLM", "text-generation"),
    "RnnSeq2SeqForSpeechSeq2Seq": (
        "speech_seq2seq", "AutoModelForSpeechSeq2Seq", "automatic-speech-recognition",
    ),
    "RnnSeq2SeqForTextToSpectrogram": ("text_to_spectrogram", "AutoModelForTextToSpectrogram", "text-to-speech"),
    "RnnSeq2SeqForTokenClassification": (
        "token_classification", "AutoModelForTokenClassification", "token-classification",
    ),
    "RnnSeq2SeqForSequenceClassification": (
        "sequence_classification", "AutoModelForSequenceClassification", "text-classification",
    ),
    "RnnSeq2SeqForTimeSeriesPrediction": (
        "forecast", "AutoModelForTimeSeriesPrediction", "time-series-forecasting",
    ),
}  # fmt: skip
# Text-to-text tasks that the Hub has under their own name.
_TEXT_TO_TEXT_TASKS = ("translation", "summarization")


def _kind_of(model: PreTrainedModel) -> tuple[ModelKind, str, str]:
    """Return the entry in `KINDS` of the most special class that has one."""
    names = [base.__name__ for base in type(model).__mro__]
    for name in names:
        if name in KINDS:
            return KINDS[name]
    raise TypeError(f"model must be one of {', '.join(KINDS)}; got {names[0]}")


def _tags(kind: ModelKind, task: str, config: RnnSeq2SeqConfig) -> list[str]:
    """Return what the Hub's users can search for."""
    tags = ["rnn", config.rnn_type]
    if kind in ("seq2seq", "speech_seq2seq", "text_to_spectrogram", "forecast"):
        tags += ["seq2seq", "encoder-decoder"]
        used = {
            "attention": config.attention_type != "none",
            "pointer-generator": config.use_copy,
            "coverage": config.coverage,
            "ctc": kind == "speech_seq2seq" and config.ctc_weight > 0,
        }
        tags += [tag for tag, is_used in used.items() if is_used]
    elif kind == "token_classification" and config.use_crf:
        tags.append("crf")
    return [*tags, _slug(task), "hf_rnn_seq2seq"]


def _literal(text: str) -> str:
    """Return a string as Python source; JSON's escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _split_of(metric: str) -> tuple[str, str]:
    """Return split and metric of a metric's name in a results file.

    Numbers of the validation data have a prefix, and so have those of test sets with a name of their own, such as
    test_2016_bleu; where that name ends is known of known metrics.
    """
    name = metric.removeprefix(VALIDATION_PREFIX)
    if name != metric:
        return "validation", name
    for known in sorted(_METRIC_TITLES, key=len, reverse=True):
        split = metric.removesuffix(f"_{known}")
        if split != metric and re.match("test(_|$)", split):
            return split, known
    return "test", metric


def _results_table(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "Not evaluated."
    rows = ["| split | metric | value |", "| --- | --- | ---: |"]
    for metric, value in metrics.items():
        split, name = _split_of(metric)
        title = _METRIC_TITLES.get(name, name)
        shown = code(name) if title == name else f"{title} ({code(name)})"
        rows.append(f"| {split} | {shown} | {readable_number(name, value)} |")
    return "\n".join(rows)


def _training_text(summary: Mapping[str, object] | str) -> str:
    if isinstance(summary, str):
        return summary.strip().replace("<", "&lt;")
    return "\n".join(["| | |", "| --- | --- |", *(f"| {plain(n)} | {plain(v)} |" for n, v in summary.items())])


def _front_matter(
    title: str,
    languages: list[str],
    task: str,
    datasets: Sequence[str],
    metrics: Mapping[str, float],
    license: str,
    config: RnnSeq2SeqConfig,
    kind: ModelKind,
    hub_task: str,
) -> str:
    """Return the metadata that the Hub reads, as YAML."""
    if kind == "seq2seq":
        hub_task = next((name for name in _TEXT_TO_TEXT_TASKS if name in _slug(task)), hub_task)
    if kind not in ("speech_seq2seq", "forecast") and config.input_feature_size is not None:
        hub_task = "other"
    results = []
    for metric, value in metrics.items():
        split, name = _split_of(metric)
        results.append(
            EvalResult(
                task_type=hub_task,
                task_name=task,
                dataset_type=_slug(datasets[0]),
                dataset_name=datasets[0],
                dataset_split=split,
                metric_type=name,
                metric_name=_METRIC_TITLES.get(name, name),
                metric_value=round(float(value), 2),
            )
        )
    data = ModelCardData(
        language=languages,
        license=license,
        library_name="transformers",
        pipeline_tag=hub_task,
        tags=_tags(kind, task, config),
        # The Hub's field takes ids, OWNER/NAME; any other name stands in the text only.
        datasets=[name for name in datasets if re.fullmatch(r"[\w.-]+/[\w.-]+", name)] or None,
        metrics=sorted({_split_of(metric)[1] for metric in metrics}) or None,
        model_name=title,
        eval_results=results or None,
    )
    if not results:
        # Without results there is no model index, and a bare model_name is no field of the Hub's.
        data.pop("model_name")
    return data.to_yaml()


def _usage(kind: ModelKind, config: RnnSeq2SeqConfig, preprocessing: Preprocessing) -> dict[str, object]:
    """Return what the template's section on use asks about a model."""
    reads_text = config.input_feature_size is None
    if reads_text:
        source, unit = "input_ids" if config.copy_slots else "**inputs", "each input symbol"
    else:
        source = "**inputs" if kind == "speech_seq2seq" else "input_features=input_features"
        unit = "each position of the encoder's output"
    labels = (config.id2label or {}).values()
    return {
        "vector_size": config.input_feature_size,
        "forecast": {
            "past": config.context_length,
            "ahead": config.prediction_length,
            "time_features": config.num_time_features,
            "static_features": config.num_static_real_features,
            "static_classes": config.num_static_categorical_features,
            "draws": config.distribution_output != "none",
        },
        "uses_pipeline": reads_text and kind in ("token_classification", "sequence_classification"),
        # Only labels such as B-PER and I-PER can be grouped: two nouns in a row are two.
        "spans": any(label.startswith("B-") for label in labels),
        "values": gives_values(config, kind),
        "crf": kind == "token_classification" and config.use_crf,
        "ctc": config.ctc_weight > 0,
        "reverse_source": preprocessing.reverse_source,
        "source_replacements": ", ".join(
            f"({_literal(pattern)}, {_literal(replacement)})"
            for pattern, replacement in preprocessing.source_replacements
        ),
        "delexicalised": bool(preprocessing.delexicalised_slots),
        "copy_slots": kind == "seq2seq" and config.copy_slots > 0,
        "two_vocabularies": kind == "seq2seq" and reads_text and config.decoder_vocab_size is not None,
        "attends": kind in ("seq2seq", "speech_seq2seq") and config.attention_type != "none",
        "alignment_source": source,
        "alignment_unit": unit,
    }


def _check_needed(datasets: Sequence[str], metrics: Mapping[str, float], **needed: object) -> None:
    """Refuse empty fields, and metrics without a data set."""
    for name, value in needed.items():
        if not value:
            raise ValueError(f"{name} must not be empty, the Hub and the card's readers need it")
    if isinstance(datasets, str) or not all(datasets):
        raise ValueError(f"datasets must be a list of names, got {datasets!r}")
    if metrics and not datasets:
        raise ValueError("datasets must name the data that the metrics were measured on, got an empty list")


def create_model_card(
    model: PreTrainedModel,
    *,
    title: str,
    language: str | Sequence[str],
    task: str,
    datasets: Sequence[str],
    metrics: Mapping[str, float],
    recipe: str | None,
    training_summary: Mapping[str, object] | str,
    license: str,
    model_id: str | None = None,
    example: str = "hello",
    reverse_source: bool = False,
    source_replacements: Sequence[Sequence[str]] = (),
    delexicalised_slots: Mapping[str, str] | None = None,
    sampling_rate: int | None = None,
    limitations: str | None = None,
    picture: tuple[str, str] | None = None,
) -> str:
    """Return a model card: YAML front matter for the Hub, structure in words, use, training, results, citation.

    Args:
        model (`PreTrainedModel`): the model; its configuration and number of parameters are read.
        title (`str`): the card's heading.
        language (`str` or `Sequence[str]`): ISO 639 codes, such as "en" or `["en", "de"]`.
        task (`str`): what it does, in words: "grapheme-to-phoneme conversion", "named entity recognition".
        datasets (`Sequence[str]`): the training data; Hub ids also go into the front matter.
        metrics (`Mapping[str, float]`): results as in a results file: `validation_` marks the validation data, and
            the name of a test set that has one is a prefix too, as in test_2016_bleu.
        recipe (`str`, *optional*): the recipe's file name.
        training_summary (`Mapping[str, object]` or `str`): how it was trained, a table's rows or a text.
        license (`str`): a licence id of the Hub, "apache-2.0", "cc-by-sa-4.0", "other".
        model_id (`str`, *optional*): where users load it from. None: a name made from the title, to be replaced.
        example (`str`, *optional*): an input for the code snippet: a text, or the audio file of a speech model (an
            .npy file of frames if it does not read audio).
        reverse_source (`bool`, *optional*): the model was trained on reversed sources.
        source_replacements (`Sequence[Sequence[str]]`, *optional*): regular expressions and their replacements that
            the sources of the training went through.
        delexicalised_slots (`Mapping[str, str]`, *optional*): the placeholders of values, as `Preprocessing` has them.
        sampling_rate (`int`, *optional*): of the audio that a speech model reads, in Hz; None: it reads frames.
        limitations (`str`, *optional*): one more limitation, beside those that hold for every such model.
        picture (`tuple[str, str]`, *optional*): file name and caption of a picture of results, beside the card.

    Raises:
        ValueError: an empty title, language, task or licence, or metrics without a data set.
        TypeError: a model of another family, or one without an output layer.
    """
    languages = [language] if isinstance(language, str) else list(language)
    _check_needed(datasets, metrics, title=title, language=all(languages) and languages, task=task, license=license)
    config = cast(RnnSeq2SeqConfig, model.config)
    if config.model_type != RnnSeq2SeqConfig.model_type:
        raise TypeError(f"model must be one of hf_rnn_seq2seq, got model_type={config.model_type!r}")
    kind, auto_class, hub_task = _kind_of(model)
    # StrictUndefined: a placeholder that is not filled is an error and not an empty line.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = resources.files(__package__).joinpath("model_card_template.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        card_data=_front_matter(title, languages, task, datasets, metrics, license, config, kind, hub_task),
        kind=kind,
        auto_class=auto_class,
        title=plain(title),
        task=plain(task),
        languages=plain(", ".join(languages)),
        parameters=f"{model.num_parameters():,}",
        structure=describe_structure(config, kind),
        model_id=_literal(model_id or f"your-name/{_slug(title)}"),
        example=_literal(example),
        sampling_rate=sampling_rate,
        **_usage(kind, config, Preprocessing(source_replacements, reverse_source, delexicalised_slots or {})),
        datasets=plain(", ".join(datasets)) or "not stated",
        recipe=recipe and code(recipe),
        training_summary=_training_text(training_summary),
        results=_results_table(metrics),
        picture=picture and (quote(picture[0]), plain(picture[1])),
        limitations=describe_limitations(config, kind, limitations),
        citations=citations(config, kind),
    )


def save_model_card(directory: str | os.PathLike[str], model: PreTrainedModel, **fields: Any) -> Path:
    """Write the card of a saved model as `README.md`, which is what the Hub shows, and return its path.

    `fields` are the keyword arguments of [`create_model_card`]; a feature extractor in the model's folder gives the
    `sampling_rate` of a speech model.
    """
    path = Path(directory) / "README.md"
    extractor = Path(directory) / FEATURE_EXTRACTOR_NAME
    if extractor.is_file():
        options = read_object(extractor)
        reads_audio = options.get("feature_type") != "none"
        fields = {"sampling_rate": options.get("sampling_rate") if reads_audio else None, **fields}
    card = create_model_card(model, **fields)
    write_whole(path, card)
    return path
