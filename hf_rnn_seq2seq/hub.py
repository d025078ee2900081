"""Model cards: the README.md of a saved model, filled in from its configuration and its results.

To publish a trained model, upload its folder, which holds weights, code, tokenizers and card:
`hf upload USER/NAME FOLDER`. `model.push_to_hub` and `tokenizer.push_to_hub` work as well, but each uploads only its
own files, and neither the card nor the target tokenizer of a model with two vocabularies is among them. This module
reads a configuration and a parameter count; it does not import the modeling files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .results import VALIDATION_PREFIX
from .tokenization import TARGET_TOKENIZER_FOLDER


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
}

# Tasks that the Hub has under their own name; it files every other sequence-to-sequence model under text-generation.
_HUB_TASKS = ("translation", "summarization")

_CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "tanh RNN"}

_CITATIONS = {
    "sutskever2014": """@inproceedings{sutskever2014,
  title = {Sequence to Sequence Learning with Neural Networks},
  author = {Sutskever, Ilya and Vinyals, Oriol and Le, Quoc V.},
  booktitle = {Advances in Neural Information Processing Systems 27},
  year = {2014}
}""",
    "cho2014": """@inproceedings{cho2014,
  title = {Learning Phrase Representations using {RNN} Encoder-Decoder for Statistical Machine Translation},
  author = {Cho, Kyunghyun and van Merri{\\"e}nboer, Bart and Gulcehre, Caglar and Bahdanau, Dzmitry and
            Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua},
  booktitle = {Proceedings of EMNLP},
  year = {2014}
}""",
    "bahdanau2015": """@inproceedings{bahdanau2015,
  title = {Neural Machine Translation by Jointly Learning to Align and Translate},
  author = {Bahdanau, Dzmitry and Cho, Kyunghyun and Bengio, Yoshua},
  booktitle = {Proceedings of ICLR},
  year = {2015}
}""",
    "luong2015": """@inproceedings{luong2015,
  title = {Effective Approaches to Attention-based Neural Machine Translation},
  author = {Luong, Minh-Thang and Pham, Hieu and Manning, Christopher D.},
  booktitle = {Proceedings of EMNLP},
  year = {2015}
}""",
}


def describe_structure(config: RnnSeq2SeqConfig) -> str:
    """A model's structure in words: encoder, context vector or attention, decoder. Markdown, one paragraph each.

    Args:
        config (`RnnSeq2SeqConfig`): the model's configuration.
    """
    return "\n\n".join([_describe_encoder(config), _describe_context(config), _describe_decoder(config)])


def _layers(number: int) -> str:
    return f"{number} layer" if number == 1 else f"{number} layers"


def _describe_encoder(config: RnnSeq2SeqConfig) -> str:
    directions = (
        f"in both directions, {config.encoder_hidden_size // 2} units each"
        if config.bidirectional_encoder
        else f"from left to right, {config.encoder_hidden_size} units"
    )
    return (
        f"**Encoder.** {_CELLS[config.rnn_type]}, {_layers(config.encoder_layers)}, {directions}, over embeddings of "
        f"size {config.embedding_size} of {config.vocab_size} source symbols."
    )


def _describe_context(config: RnnSeq2SeqConfig) -> str:
    summary = {
        "last": "the encoder's last state",
        "mean": "the mean of all encoder states",
        "max": "the element-wise maximum of all encoder states",
    }[config.context_vector]
    start = {
        "zeros": "The decoder starts from zeros",
        "copy": f"The decoder starts from a copy of {summary}",
        "linear": f"The decoder starts from a linear map of {summary}",
        "mlp": f"The decoder starts from a linear map with tanh of {summary}",
    }[str(config.bridge_type)]
    if config.attention_type == "none":
        where = (
            "C is an input of every step (Cho et al. 2014)"
            if config.feeds_context
            else "C reaches it no other way (Sutskever et al. 2014)"
        )
        return (
            f"**Context vector.** {summary[0].upper()}{summary[1:]} is the context vector C, of fixed size whatever "
            f"the input's length. {start}, and {where}."
        )
    score = {
        "dot": "dot (q·m, Luong et al. 2015)",
        "general": "general (q·Wm, Luong et al. 2015)",
        "additive": "additive (v·tanh(Wq + Um), Bahdanau et al. 2015)",
    }[config.attention_type]
    query = (
        "its new state asks, after the recurrent step, and the context is mixed into what the output layer reads"
        if config.attention_query == "new_state"
        else "its previous state asks, before the recurrent step, and the context is an input of that step"
    )
    fed = ", and this summary is an input of every step" if config.feeds_context else ""
    sentences = [
        f"**Attention.** Score: {score}. At every step the decoder gets a context vector of its own, a mix of all "
        f"encoder states: {query}.",
        f"{start}{fed}.",
    ]
    if config.input_feeding:
        sentences.append("The attentional vector is fed to the next step (input feeding, Luong et al. 2015).")
    return " ".join(sentences)


def _describe_decoder(config: RnnSeq2SeqConfig) -> str:
    readout = {
        "none": "its state",
        "tanh": f"an attentional vector of size {config.readout_size} (tanh)",
        "maxout": f"a deep output of size {config.readout_size} (maxout)",
    }[str(config.readout_type)]
    sentences = [
        f"**Decoder.** {_CELLS[config.rnn_type]}, {_layers(config.decoder_layers)}, {config.decoder_hidden_size} "
        f"units. The output layer reads {readout} and chooses among {config.target_vocab_size} target symbols.",
    ]
    if not config.feed_previous_token:
        sentences.append("The decoder does not read the symbol it gave before: only its state and the context.")
    if config.share_embeddings:
        sentences.append("Source and target share one embedding table.")
    if config.tie_word_embeddings:
        sentences.append("The output layer's matrix is the decoder's embedding table.")
    return " ".join(sentences)


def _limitations(config: RnnSeq2SeqConfig, extra: str | None) -> str:
    points = [
        "It knows only what its training data shows: other domains, spellings and languages will go wrong, and it "
        "answers every input without saying that it does not know.",
        "Symbols that the training data did not contain may be read as `<unk>`.",
        "Biases of the training data are reproduced.",
    ]
    if config.attention_type == "none":
        points.append(
            "Without attention all of the input must fit into a vector of fixed size: quality falls with its length."
        )
    else:
        points.append("Inputs much longer than those of the training data may lose or repeat parts.")
    if extra:
        points.append(extra)
    return "\n".join(f"- {point}" for point in points)


def _citations(config: RnnSeq2SeqConfig) -> str:
    keys = ["sutskever2014", "cho2014"]
    if config.attention_type != "none":
        keys.append("bahdanau2015")
        if config.attention_type != "additive" or config.attention_query == "new_state":
            keys.append("luong2015")
    return "\n\n".join(_CITATIONS[key] for key in keys)


def _literal(text: str) -> str:
    """A string as Python source; JSON's escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _split_of(metric: str) -> tuple[str, str]:
    """(split, metric): results files mark numbers of the validation data by a prefix."""
    name = metric.removeprefix(VALIDATION_PREFIX)
    return ("test" if name == metric else "validation"), name


def _results_table(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "Not evaluated."
    rows = ["| split | metric | value |", "| --- | --- | ---: |"]
    for metric, value in metrics.items():
        split, name = _split_of(metric)
        title = _METRIC_TITLES.get(name, name)
        shown = f"`{name}`" if title == name else f"{title} (`{name}`)"
        rows.append(f"| {split} | {shown} | {value:.2f} |")
    return "\n".join(rows)


def _training_text(summary: Mapping[str, object] | str) -> str:
    if isinstance(summary, str):
        return summary.strip()
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in summary.items())])


def _front_matter(
    title: str,
    languages: list[str],
    task: str,
    datasets: Sequence[str],
    metrics: Mapping[str, float],
    license: str,
    config: RnnSeq2SeqConfig,
) -> str:
    hub_task = next((name for name in _HUB_TASKS if name in _slug(task)), "text-generation")
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
    attention = ["attention"] if config.attention_type != "none" else []
    data = ModelCardData(
        language=languages,
        license=license,
        library_name="transformers",
        pipeline_tag=hub_task,
        tags=["rnn", config.rnn_type, "seq2seq", "encoder-decoder", *attention, _slug(task), "hf_rnn_seq2seq"],
        # The Hub's field takes ids; a name in words stands in the text only.
        datasets=[name for name in datasets if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)] or None,
        metrics=sorted({_split_of(metric)[1] for metric in metrics}) or None,
        model_name=title,
        eval_results=results or None,
    )
    if not results:
        # Without results there is no model index, and a bare model_name is no field of the Hub's.
        data.pop("model_name")
    return data.to_yaml()


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
    limitations: str | None = None,
) -> str:
    """The model card as text: YAML front matter for the Hub, structure in words, use, training, results, citation.

    Args:
        model (`PreTrainedModel`): the model; its configuration and number of parameters are read.
        title (`str`): the card's heading.
        language (`str` or `Sequence[str]`): ISO 639 codes, such as "en" or `["en", "de"]`.
        task (`str`): what it does, in words: "grapheme-to-phoneme conversion", "translation".
        datasets (`Sequence[str]`): the training data; Hub ids also go into the front matter.
        metrics (`Mapping[str, float]`): results as in a results file, `validation_` marking the validation data.
        recipe (`str`, *optional*): the recipe's file name.
        training_summary (`Mapping[str, object]` or `str`): how it was trained, a table's rows or a text.
        license (`str`): a licence id of the Hub, "apache-2.0", "cc-by-sa-4.0", "other".
        model_id (`str`, *optional*): where users load it from. None: a name made from the title, to be replaced.
        example (`str`, *optional*): an input for the code snippet.
        reverse_source (`bool`, *optional*): the model was trained on reversed sources.
        limitations (`str`, *optional*): one more limitation, beside those that hold for every such model.

    Returns:
        `str`, the text of a README.md.

    Raises:
        ValueError: an empty title, language, task or licence, or metrics without a data set.
        TypeError: a model of another family.
    """
    languages = [language] if isinstance(language, str) else list(language)
    for name, value in (
        ("title", title),
        ("language", all(languages) and languages),
        ("task", task),
        ("license", license),
    ):
        if not value:
            raise ValueError(f"{name} must not be empty, the Hub and the card's readers need it")
    if isinstance(datasets, str) or not all(datasets):
        raise ValueError(f"datasets must be a list of names, got {datasets!r}")
    if metrics and not datasets:
        raise ValueError("datasets must name the data that the metrics were measured on, got an empty list")
    # By model type: with trust_remote_code the class is another copy of the same code.
    config = cast(RnnSeq2SeqConfig, model.config)
    if config.model_type != RnnSeq2SeqConfig.model_type:
        raise TypeError(f"model must be one of hf_rnn_seq2seq, got model_type={config.model_type!r}")
    # StrictUndefined: a placeholder that is not filled is an error and not an empty line.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    template = resources.files("hf_rnn_seq2seq").joinpath("model_card_template.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        card_data=_front_matter(title, languages, task, datasets, metrics, license, config),
        title=title,
        task=task,
        languages=", ".join(languages),
        parameters=f"{model.num_parameters():,}",
        structure=describe_structure(config),
        model_id=_literal(model_id or f"your-name/{_slug(title)}"),
        example=_literal(example),
        reverse_source=reverse_source,
        two_vocabularies=config.decoder_vocab_size is not None,
        target_folder=TARGET_TOKENIZER_FOLDER,
        attends=config.attention_type != "none",
        datasets=", ".join(datasets) or "not stated",
        recipe=recipe,
        training_summary=_training_text(training_summary),
        results=_results_table(metrics),
        limitations=_limitations(config, limitations),
        citations=_citations(config),
    )


def save_model_card(directory: str | os.PathLike[str], model: PreTrainedModel, **fields: Any) -> Path:
    """Writes the card of a saved model as `README.md`, which is what the Hub shows.

    Args:
        directory (`str` or `os.PathLike`): the folder that `model.save_pretrained` wrote.
        model (`PreTrainedModel`): the model.
        **fields: the keyword arguments of [`create_model_card`].

    Returns:
        `Path` of the card.
    """
    path = Path(directory) / "README.md"
    card = create_model_card(model, **fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card, encoding="utf-8")
    return path
