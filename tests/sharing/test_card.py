"""Model cards: valid for the Hub, complete, true to the configuration, and with code that runs."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import transformers
from huggingface_hub import ModelCard
from tiny import randomize
from transformers import AutoTokenizer, BartConfig, PreTrainedModel

from hf_rnn_seq2seq import (
    PRESETS,
    RnnSeq2SeqConfig,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, train_tokenizer
from hf_rnn_seq2seq.sharing.card import create_model_card, save_model_card
from hf_rnn_seq2seq.sharing.card_text import bibliography


ROOT = Path(__file__).parents[2]
FIELDS = {
    "title": "English pronunciation",
    "language": "en",
    "task": "grapheme-to-phoneme conversion",
    "datasets": ["CMU Pronouncing Dictionary", "cmudict", "someone/cmudict"],
    "metrics": {"validation_per": 4.875, "per": 5.04, "g2p_wer": 21.69, "my_score": 1.0},
    "recipe": "g2p_cmudict.yaml",
    "training_summary": {"epochs": 25, "hardware": "2 cores"},
    "license": "apache-2.0",
}
HEADINGS = ["What it is", "How to use it", "Training", "Results", "Limitations", "Citation"]


Text2Text, Speech = RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForSpeechSeq2Seq
Tagger, Classifier = RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification
VECTORS = {"input_feature_size": 5}


def tiny_model(kind: type[PreTrainedModel] = Text2Text, **options) -> PreTrainedModel:
    sizes = {"vocab_size": 20, "embedding_size": 8, "encoder_hidden_size": 8, "decoder_hidden_size": 8}
    return kind(RnnSeq2SeqConfig(**{**sizes, **options})).eval()


def named(labels: list[str]) -> dict[str, dict]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Text2Text, {}),
        (Text2Text, {"decoder_vocab_size": 12}),
        (Text2Text, {"attention_type": "none", "context_feeding": "every_step", "rnn_type": "rnn_tanh"}),
        (Text2Text, VECTORS),
        (Speech, {**VECTORS, "ctc_weight": 0.3}),
        (Speech, {**VECTORS, "attention_type": "none"}),
        (Tagger, {"use_crf": True, "character_vocab_size": 9}),
        (Tagger, named(["O", "B-PER", "I-PER"])),
        (Tagger, {**VECTORS, "use_crf": True}),
        (Classifier, {"decoder_vocab_size": 12}),  # its encoder was a translation model's
        (Classifier, VECTORS),
    ],
)
@pytest.mark.parametrize(
    "change", [{}, {"recipe": None, "metrics": {}, "reverse_source": True, "sampling_rate": 8000}]
)
def test_the_card_is_complete(kind, options, change):
    text = create_model_card(tiny_model(kind, **options), **{**FIELDS, **change})
    pattern = r"\A---\n.+?\n---\n\n# English pronunciation\n\n.+?" + "".join(
        rf"\n## {heading}\n\n\S.+?" for heading in HEADINGS
    )
    assert re.search(pattern + r"\Z", text, flags=re.DOTALL)
    # Braces of the template are gone (BibTeX keeps single ones), and so are values that were not given.
    assert not re.search(r"\{\{|\}\}\s*$|\{%|None|\bundefined\b", text)
    assert "\n\n\n" not in text
    assert text.endswith("```\n")
    assert text.count("```") % 2 == 0


def test_the_front_matter_is_the_hubs():
    data = ModelCard(create_model_card(tiny_model(decoder_vocab_size=12), **FIELDS)).data
    assert data.language == ["en"]
    assert data.license == "apache-2.0"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.datasets == ["someone/cmudict"]  # an id; the others are names in words
    assert data.metrics == ["g2p_wer", "my_score", "per"]
    assert {"rnn", "lstm", "attention", "grapheme-to-phoneme-conversion", "hf_rnn_seq2seq"} <= set(data.tags)
    assert data.model_name == "English pronunciation"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results}
    assert found == {
        ("validation", "per"): 4.88,
        ("test", "per"): 5.04,
        ("test", "g2p_wer"): 21.69,
        ("test", "my_score"): 1.0,
    }
    assert {result.dataset_name for result in data.eval_results} == {"CMU Pronouncing Dictionary"}

    translation = {**FIELDS, "task": "translation", "language": ["no", "de"], "metrics": {}}
    data = ModelCard(create_model_card(tiny_model(), **translation)).data
    assert data.pipeline_tag == "translation"
    assert data.language == ["no", "de"]  # not false, which YAML reads from a bare `no`
    assert data.eval_results is None


@pytest.mark.parametrize(
    ("kind", "options", "task", "tag", "present", "absent"),
    [
        (Text2Text, {"use_copy": True, "coverage": True}, "dialogue", "text-generation",
         {"seq2seq", "attention", "pointer-generator", "coverage"}, {"ctc", "crf"}),
        (Text2Text, {}, "machine translation", "translation", {"machine-translation"}, {"coverage"}),
        (Text2Text, VECTORS, "gesture translation", "other", {"seq2seq"}, set()),
        (Speech, {**VECTORS, "ctc_weight": 0.3}, "speech translation", "automatic-speech-recognition",
         {"seq2seq", "ctc", "attention"}, {"crf"}),
        (Speech, VECTORS, "speech recognition", "automatic-speech-recognition", {"seq2seq"}, {"ctc"}),
        (Tagger, {"use_crf": True}, "translation of tags", "token-classification", {"crf"}, {"seq2seq", "attention"}),
        (Tagger, {}, "part-of-speech tagging", "token-classification", {"part-of-speech-tagging"}, {"crf"}),
        (Classifier, {"use_crf": True}, "sentiment", "text-classification", {"sentiment"}, {"crf", "encoder-decoder"}),
        (Classifier, VECTORS, "keyword spotting", "other", {"lstm"}, {"attention"}),
    ],
)  # fmt: skip
def test_the_hub_files_each_kind_under_its_task(kind, options, task, tag, present, absent):
    data = ModelCard(create_model_card(tiny_model(kind, **options), **{**FIELDS, "task": task})).data
    assert data.pipeline_tag == tag
    assert {result.task_type for result in data.eval_results} == {tag}
    assert present | {"rnn", "hf_rnn_seq2seq"} <= set(data.tags) and not absent & set(data.tags)


def test_numbers_of_named_test_sets_stand_under_their_names():
    metrics = {
        "test_2016_bleu": 38.5,
        "test_oov_g2p_wer": 20.0,
        "lower_bleu": 40.0,
        "test_2016_my_score": 1.0,
        "validation_f1_precision": 70.0,
        "entity_f1": 60.0,
        "macro_f1": 50.0,
    }
    text = create_model_card(tiny_model(), **{**FIELDS, "metrics": metrics})
    rows = re.findall(r"^\| (\S+) \| (.+?) \| [\d.]+ \|$", text, flags=re.MULTILINE)
    assert rows == [
        ("test_2016", "BLEU (`bleu`)"),
        ("test_oov", "words with a wrong phone string (%) (`g2p_wer`)"),
        ("test", "`lower_bleu`"),
        ("test", "`test_2016_my_score`"),
        ("validation", "precision (%) (`f1_precision`)"),
        ("test", "entity F1 (%) (`entity_f1`)"),
        ("test", "macro F1 (%) (`macro_f1`)"),
    ]
    found = {(result.dataset_split, result.metric_type) for result in ModelCard(text).data.eval_results}
    assert {("test_2016", "bleu"), ("test_oov", "g2p_wer"), ("test", "lower_bleu")} <= found


def test_the_text_holds_what_was_given():
    model = tiny_model()
    text = create_model_card(model, **FIELDS, limitations="Names of places are hard.")
    for expected in (
        f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters",
        "| test | phone error rate (%) (`per`) | 5.04 |",
        "| validation | phone error rate (%) (`per`) | 4.88 |",
        "| test | `my_score` | 1.00 |",
        "| epochs | 25 |",
        "Recipe: `g2p_cmudict.yaml`.",
        "CMU Pronouncing Dictionary, cmudict, someone/cmudict",
        "- Names of places are hard.",
    ):
        assert expected in text
    prose = create_model_card(model, **{**FIELDS, "training_summary": "Trained over night.\n", "metrics": {}})
    assert "\nTrained over night.\n" in prose
    assert "Not evaluated." in prose


@pytest.mark.parametrize("two_vocabularies", [False, True])
@pytest.mark.parametrize("replacements", [[], [["E", "e"]]], ids=["as_it_is", "rewritten"])
@pytest.mark.parametrize("reverse_source", [False, True])
def test_the_snippet_of_a_saved_card_runs(tmp_path, capsys, two_vocabularies, replacements, reverse_source):
    """Whatever is done to a source, the reader of a card calls the processor and no more."""
    source = train_tokenizer(["hello", 'say "a"'], TokenizerOptions(type="character"))
    target = train_tokenizer(["HH AH L OW"], TokenizerOptions(type="word")) if two_vocabularies else None
    model = tiny_model(
        vocab_size=len(source), decoder_vocab_size=None if target is None else len(target), encoder_layers=1
    )
    model.generation_config.max_new_tokens = 4
    model.save_pretrained(tmp_path)
    preprocessing = {"source_replacements": replacements, "reverse_source": reverse_source}
    save_processor(tmp_path, source, target, Preprocessing(**preprocessing))
    path = save_model_card(tmp_path, model, **FIELDS, **preprocessing, model_id=str(tmp_path), example='hEllo "\\')
    assert path == tmp_path / "README.md"
    ModelCard.load(path)
    (snippet,) = python_blocks(path.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    exec(snippet, names)

    ids = source('hello "\\' if replacements else 'hEllo "\\')["input_ids"]
    if reverse_source:
        ids = [*reversed(ids[:-1]), ids[-1]]
    assert names["inputs"]["input_ids"].tolist() == [ids]
    encoded = source.pad({"input_ids": [ids]}, return_tensors="pt")
    expected = (target or source).batch_decode(model.generate(encoded["input_ids"]), skip_special_tokens=True)
    assert capsys.readouterr().out == f"{expected}\n"


def run_card(path: Path) -> dict[str, object]:
    """What the snippet of a card leaves behind, after the calls in its prose have been tried."""
    card = path.read_text(encoding="utf-8")
    (snippet,) = python_blocks(card)
    names: dict[str, object] = {}
    exec(snippet, names)
    if "model" not in names:
        (auto_class,) = re.findall(r"`(AutoModel\w+)\.from_pretrained\(model_id\)`", card)
        names["model"] = getattr(transformers, auto_class).from_pretrained(names["model_id"])
        names["inputs"] = AutoTokenizer.from_pretrained(names["model_id"])("Anna", return_tensors="pt")
    for call in re.findall(r"`(model\.\w+\(.*?\))`", card):
        assert eval(call, names).numel() > 0
    return names


SENTENCES = ["Anna sees Paris", "New York sees Bob", "Bob flies to New York"]
SENTENCE = "Anna flies to Paris and sees New York"


def saved_classifier(folder: Path, kind: type[PreTrainedModel], labels: list[str], characters: bool, **options):
    """A classifier with large random weights, saved with its tokenizer and card; and the tokenizer."""
    tokenizer = train_tokenizer(SENTENCES, TokenizerOptions(type="word", add_eos=False, characters=characters))
    if characters:
        options["character_vocab_size"] = len(tokenizer.character_vocab)
    model = tiny_model(kind, **{**named(labels), "vocab_size": len(tokenizer), **options})
    randomize(model, scale=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_model_card(folder, model, **FIELDS, model_id=str(folder), example=SENTENCE)
    return model, tokenizer


@pytest.mark.parametrize(
    ("options", "characters"), [({}, False), ({"use_crf": True}, True)], ids=["softmax", "crf and characters"]
)
@pytest.mark.parametrize("labels", [["NOUN", "VERB", "X"], ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]])
def test_the_snippet_of_a_taggers_card_runs(tmp_path, capsys, options, characters, labels):
    model, tokenizer = saved_classifier(tmp_path, Tagger, labels, characters, **options)
    run_card(tmp_path / "README.md")
    path = [labels[n] for n in model.decode(**tokenizer(SENTENCE, return_tensors="pt"))[0]]
    if labels[0] == "O":
        # As the pipeline groups them: a span begins at B- and where the type changes.
        types = [label[2:] for label in path]
        begins = [n for n, label in enumerate(path) if label[:2] == "B-" or n == 0 or types[n] != types[n - 1]]
        expected = [types[n] for n in begins if path[n] != "O"]
    else:
        expected = path
    assert expected
    assert re.findall(r"'entity(?:_group)?': '(.+?)'", capsys.readouterr().out) == expected


@pytest.mark.parametrize("characters", [False, True])
def test_the_snippet_of_a_text_classifiers_card_runs(tmp_path, capsys, characters):
    model, tokenizer = saved_classifier(
        tmp_path, Classifier, ["bad", "good", "so-so"], characters, classifier_pooling="attention"
    )
    run_card(tmp_path / "README.md")
    label = ["bad", "good", "so-so"][int(model(**tokenizer(SENTENCE, return_tensors="pt")).logits.argmax())]
    assert f"'label': '{label}'" in capsys.readouterr().out


@pytest.mark.parametrize("audio", [True, False])
def test_the_snippet_of_a_speech_models_card_runs(tmp_path, capsys, audio):
    if audio:
        extractor = RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10, delta_order=1)
        example = tmp_path / "speech.wav"
        given = np.random.default_rng(0).uniform(-0.5, 0.5, 3000).astype(np.float32)
        soundfile.write(example, given, 8000, subtype="FLOAT")
    else:
        extractor = RnnSeq2SeqFeatureExtractor(feature_type="none", frame_size=4, stack=2)
        example = tmp_path / "speech.npy"
        given = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
        np.save(example, given)
    tokenizer = train_tokenizer(["low high"], TokenizerOptions(type="character"))
    options = {"input_feature_size": extractor.feature_size, "time_reduction": 2, "ctc_weight": 0.3}
    model = tiny_model(Speech, vocab_size=len(tokenizer), **options)
    randomize(model)
    model.generation_config.max_new_tokens = 6
    for part in (model, tokenizer, extractor):
        part.save_pretrained(tmp_path)
    save_model_card(tmp_path, model, **FIELDS, model_id=str(tmp_path), example=str(example))
    assert ("8000 Hz" in (tmp_path / "README.md").read_text()) == audio
    run_card(tmp_path / "README.md")
    expected = tokenizer.batch_decode(
        model.generate(**extractor(given, return_tensors="pt")), skip_special_tokens=True
    )
    assert expected != [""]
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize("kind", [Text2Text, Tagger, Classifier])
def test_the_snippet_of_a_model_of_other_vectors_runs(tmp_path, capsys, kind):
    tokenizer = train_tokenizer(["low high"], TokenizerOptions(type="character"))
    model = tiny_model(kind, **VECTORS, **named(["A", "B"]), vocab_size=len(tokenizer))
    randomize(model)
    model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
    model.generation_config.max_new_tokens = 6
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    save_model_card(tmp_path, model, **FIELDS, model_id=str(tmp_path))
    run_card(tmp_path / "README.md")
    zeros = torch.zeros(1, 20, 5)
    if kind is Text2Text:
        expected = str(tokenizer.batch_decode(model.generate(input_features=zeros), skip_special_tokens=True))
    elif kind is Tagger:
        expected = str([model.config.id2label[n] for n in model.decode(input_features=zeros)[0].tolist()])
    else:
        expected = str(model(input_features=zeros).logits)
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"title": ""}, ValueError, "title must not be empty"),
        ({"language": []}, ValueError, "language must not be empty"),
        ({"task": ""}, ValueError, "task must not be empty"),
        ({"license": ""}, ValueError, "license must not be empty"),
        ({"datasets": "cmudict"}, ValueError, "datasets must be a list of names, got 'cmudict'"),
        ({"datasets": []}, ValueError, "datasets must name the data that the metrics were measured on"),
        ({"licence": "mit"}, TypeError, "licence"),
    ],
)
def test_bad_fields_are_named(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        save_model_card(tmp_path, tiny_model(), **{**FIELDS, **change})
    assert not (tmp_path / "README.md").exists()


def test_a_model_of_another_family_is_refused():
    with pytest.raises(TypeError, match="got model_type='bart'"):
        create_model_card(SimpleNamespace(config=BartConfig()), **FIELDS)
    with pytest.raises(TypeError, match=r"model must be one of RnnSeq2SeqForConditional.*; got RnnSeq2SeqModel"):
        create_model_card(tiny_model(RnnSeq2SeqModel), **FIELDS)


def test_template_and_bibliography_are_installed_with_the_package():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = configuration["tool"]["setuptools"]["package-data"]["hf_rnn_seq2seq"]
    assert {"sharing/model_card_template.md", "sharing/citations.bib"} <= set(installed)


def test_the_packages_own_card():
    card = ModelCard.load(ROOT / "model_card.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    named = set(re.findall(r"`\"?(\w+)\"?`", card.text)) | set(re.findall(r"`(\w+)=", card.text))
    options = {field.name for field in fields(RnnSeq2SeqConfig)}
    structure = ["rnn_type", "context_vector", "context_feeding", "attention_type", "attention_query", "readout_type"]
    assert set(structure) <= named & options
    assert [name for name in PRESETS if f'"{name}"' not in card.text] == []

    assert [key for key, entry in bibliography().items() if entry not in card.text] == []

    names: dict[str, object] = {}
    for block in python_blocks(card.text)[:2]:  # the others load what a reader has
        exec(block, names)
    assert names["tags"].shape == (1, 4) and names["scores"].shape == (1, 5) and names["text"].shape[0] == 1
    assert names["weights"].shape == (3, names["outputs"].shape[1] - 1, 4)
    assert names["loss"].isfinite()
