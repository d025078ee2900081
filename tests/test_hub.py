"""Model cards: valid for the Hub, complete, true to the configuration, and with code that runs."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from transformers import BartConfig

from hf_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.hub import create_model_card, describe_structure, save_model_card
from hf_rnn_seq2seq.tokenization import TokenizerOptions, save_tokenizers, train_tokenizer


ROOT = Path(__file__).parents[1]
FIELDS = {
    "title": "English pronunciation",
    "language": "en",
    "task": "grapheme-to-phoneme conversion",
    "datasets": ["CMU Pronouncing Dictionary", "someone/cmudict"],
    "metrics": {"validation_per": 4.875, "per": 5.04, "g2p_wer": 21.69, "my_score": 1.0},
    "recipe": "g2p_cmudict.yaml",
    "training_summary": {"epochs": 25, "hardware": "2 cores"},
    "license": "apache-2.0",
}
HEADINGS = ["What it is", "How to use it", "Training", "Results", "Limitations", "Citation"]


def tiny_model(**options) -> RnnSeq2SeqForConditionalGeneration:
    sizes = {"vocab_size": 20, "embedding_size": 8, "encoder_hidden_size": 8, "decoder_hidden_size": 8}
    return RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(**{**sizes, **options})).eval()


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoder_vocab_size": 12},
        {"attention_type": "none", "context_feeding": "every_step", "rnn_type": "rnn_tanh"},
    ],
)
@pytest.mark.parametrize("change", [{}, {"recipe": None, "metrics": {}, "reverse_source": True}])
def test_the_card_is_complete(options, change):
    text = create_model_card(tiny_model(**options), **{**FIELDS, **change})
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
    assert data.datasets == ["someone/cmudict"]  # an id; the other is a name in words
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
        "CMU Pronouncing Dictionary, someone/cmudict",
        "- Names of places are hard.",
    ):
        assert expected in text
    prose = create_model_card(model, **{**FIELDS, "training_summary": "Trained over night.\n", "metrics": {}})
    assert "\nTrained over night.\n" in prose
    assert "Not evaluated." in prose


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({}, ["general", "new state asks", "16 units each", "2 layers, 32 units"], ["input feeding"]),
        (
            {"attention_type": "additive", "attention_query": "previous_state", "readout_type": "maxout"},
            ["additive", "previous state asks", "deep output of size 32"],
            ["new state"],
        ),
        ({"input_feeding": True, "bidirectional_encoder": False}, ["input feeding", "from left to right, 32"], []),
        (
            {"attention_type": "none"},
            ["**Context vector.** The encoder's last state", "no other way (Sutskever", "copy of", "reads its state"],
            ["Attention", "every step"],
        ),
        (
            {"attention_type": "none", "context_feeding": "every_step", "context_vector": "mean", "rnn_type": "gru"},
            ["The mean of all encoder states", "starts from zeros, and C is an input of every step (Cho", "GRU"],
            ["Attention", "LSTM"],
        ),
        (
            {"attention_type": "none", "context_feeding": "both", "context_vector": "max", "bridge_type": "mlp"},
            ["element-wise maximum", "linear map with tanh", "C is an input of every step"],
            [],
        ),
        ({"context_feeding": "both", "bridge_type": "linear"}, ["a linear map of", "summary is an input of"], []),
        ({"encoder_layers": 1, "decoder_layers": 3}, ["LSTM, 1 layer,", "LSTM, 3 layers, 32"], []),
        ({"decoder_vocab_size": 70}, ["of 50 source symbols", "among 70 target symbols"], ["share"]),
        (
            {"share_embeddings": True, "tie_word_embeddings": True},
            ["share one embedding table", "matrix is the decoder's embedding table"],
            [],
        ),
        ({"feed_previous_token": False}, ["does not read the symbol it gave before"], []),
    ],
)
def test_the_structure_is_that_of_the_configuration(options, present, absent):
    sizes = {"vocab_size": 50, "embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32}
    text = describe_structure(RnnSeq2SeqConfig(**{**sizes, **options}))
    assert [phrase for phrase in present if phrase not in text] == []
    assert [phrase for phrase in absent if phrase in text] == []
    assert len(text.split("\n\n")) == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_described(preset):
    text = describe_structure(RnnSeq2SeqConfig.from_preset(preset))
    paper = {"sutskever2014": "Sutskever", "cho2014": "Cho", "bahdanau2015": "Bahdanau", "luong2015": "Luong"}
    assert paper.get(preset, "tanh RNN") in text


def test_papers_are_cited_for_what_is_used():
    def cited(**options) -> set[str]:
        return set(re.findall(r"@inproceedings\{(\w+),", create_model_card(tiny_model(**options), **FIELDS)))

    classics = {"sutskever2014", "cho2014"}
    assert cited(attention_type="none") == classics
    assert cited(attention_type="general") == classics | {"bahdanau2015", "luong2015"}
    assert cited(attention_type="additive", attention_query="previous_state") == classics | {"bahdanau2015"}


@pytest.mark.parametrize("two_vocabularies", [False, True])
@pytest.mark.parametrize("reverse_source", [False, True])
def test_the_snippet_of_a_saved_card_runs(tmp_path, capsys, two_vocabularies, reverse_source):
    source = train_tokenizer(["hello", 'say "a"'], TokenizerOptions(type="character"))
    target = train_tokenizer(["HH AH L OW"], TokenizerOptions(type="word")) if two_vocabularies else None
    model = tiny_model(
        vocab_size=len(source), decoder_vocab_size=None if target is None else len(target), encoder_layers=1
    )
    model.generation_config.max_new_tokens = 4
    model.save_pretrained(tmp_path)
    save_tokenizers(tmp_path, source, target)
    path = save_model_card(
        tmp_path, model, **FIELDS, model_id=str(tmp_path), example='say "a"\\', reverse_source=reverse_source
    )
    assert path == tmp_path / "README.md"
    ModelCard.load(path)
    (snippet,) = python_blocks(path.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    exec(snippet, names)

    text = 'say "a"\\'
    ids = source(text)["input_ids"]
    if reverse_source:
        ids = [*reversed(ids[:-1]), ids[-1]]
    encoded = source.pad({"input_ids": [ids]}, return_tensors="pt")
    expected = (target or source).batch_decode(model.generate(encoded["input_ids"]), skip_special_tokens=True)
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


def test_the_template_is_installed_with_the_package():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "model_card_template.md" in configuration["tool"]["setuptools"]["package-data"]["hf_rnn_seq2seq"]


def test_the_packages_own_card():
    card = ModelCard.load(ROOT / "model_card.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    named = set(re.findall(r"`\"?(\w+)\"?`", card.text)) | set(re.findall(r"`(\w+)=", card.text))
    options = {field.name for field in fields(RnnSeq2SeqConfig)}
    structure = ["rnn_type", "context_vector", "context_feeding", "attention_type", "attention_query", "readout_type"]
    assert set(structure) <= named & options
    assert [name for name in PRESETS if f'"{name}"' not in card.text] == []

    names: dict[str, object] = {}
    exec(python_blocks(card.text)[0], names)
    assert names["weights"].shape == (3, names["outputs"].shape[1] - 1, 4)
    assert names["loss"].isfinite()
