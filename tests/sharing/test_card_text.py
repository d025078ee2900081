"""The words of model cards: true to the configuration and to the kind of model, and the papers of what is used."""

from __future__ import annotations

import re

import pytest
from tiny import SIZES

from hf_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig
from hf_rnn_seq2seq.sharing.card_text import (
    ModelKind,
    bibliography,
    citations,
    describe_limitations,
    describe_structure,
)


VECTORS = {"input_feature_size": 5}


def named(labels: list[str]) -> dict[str, dict]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}


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
        (
            {"attention_type": "hard_monotonic", "alignment_order": 1, "use_copy": True},
            ["Hard monotonic", "distance from the last", "may also copy"],
            ["context vector of its own"],
        ),
        ({"feed_previous_token": False}, ["does not read the symbol it gave before"], []),
        ({"use_copy": True}, ["source's symbols, so that these can be copied"], ["coverage"]),
        ({"coverage": True}, ["attended to so far (coverage, See"], ["copied"]),
        (
            {"character_vocab_size": 30, "character_hidden_size": 10, "rnn_type": "gru"},
            ["another GRU, which reads the word's characters in both directions, 5 units each"],
            [],
        ),
    ],
)
def test_the_structure_is_that_of_the_configuration(options, present, absent):
    sizes = {"vocab_size": 50, "embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32}
    text = describe_structure(RnnSeq2SeqConfig(**{**sizes, **options}))
    assert [phrase for phrase in present if phrase not in text] == []
    assert [phrase for phrase in absent if phrase in text] == []
    assert len(text.split("\n\n")) == 3


MANY = [f"L{n}" for n in range(50)]


@pytest.mark.parametrize(
    ("kind", "options", "present", "absent"),
    [
        ("token_classification", {**named(["O", "B-X"]), "rnn_type": "gru"},
         ["**Encoder.** GRU", "each token", "2 labels (`O`, `B-X`)", "by itself (softmax)"], ["random field"]),
        ("token_classification", {**named(MANY), "use_crf": True}, ["50 labels,", "random field", "Viterbi"],
         ["softmax", "L49"]),
        ("token_classification", {**named(MANY), **VECTORS}, ["vectors of size 5", "each vector"],
         ["token", "symbols"]),
        ("sequence_classification", {**named(["bad", "good"]), "classifier_pooling": "attention"},
         ["one learned query (Raffel", "2 labels (`bad`, `good`), one of which"], ["last state"]),
        ("sequence_classification", {**named(["a", "b"]), "problem_type": "multi_label_classification"},
         ["the encoder's last state", "each of which holds or not"], ["softmax"]),
        ("sequence_classification", {"num_labels": 1, "classifier_pooling": "max"},
         ["maximum", "gives one value in the units", "squared error"], ["labels", "LABEL_0"]),
        ("token_classification", {**named(["heat", "wear"]), **VECTORS, "problem_type": "regression",
                                  "regression_loss": "huber"},
         ["each vector 2 values (`heat`, `wear`) in the units", "Huber's error"], ["labels", "softmax"]),
        ("token_classification", {**named(["a", "b"]), "problem_type": "multi_label_classification"},
         ["Several labels for each token", "(sigmoid)"], ["softmax"]),
        ("speech_seq2seq", {**VECTORS, "ctc_weight": 0.3, "time_reduction": 4, "encoder_layers": 3},
         ["over vectors of size 5.", "4 successive vectors become one position of the encoder's output: 2 layers with",
          "**Attention.**", "**Decoder.**", "Its weight is 0.3, that of the decoder 0.7"], ["stacked"]),
        ("speech_seq2seq", {**VECTORS, "time_reduction": 8, "encoder_layers": 2},
         ["4 vectors are stacked before the first layer, then 1 layer with pairs"], ["CTC"]),
        ("speech_seq2seq", {**VECTORS, "time_reduction": 2, "encoder_layers": 1}, ["2 vectors are stacked"],
         ["pairs"]),
    ],
)  # fmt: skip
def test_the_structure_says_what_is_on_the_encoder(kind, options, present, absent):
    sizes = {"vocab_size": 50, "embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32}
    text = describe_structure(RnnSeq2SeqConfig(**{**sizes, **options}), kind)
    assert [phrase for phrase in present if phrase not in text] == []
    assert [phrase for phrase in absent if phrase in text] == []
    if kind.endswith("classification"):
        assert "decoder" not in text.lower() and "Attention" not in text


@pytest.mark.parametrize(
    ("kind", "options", "present", "absent"),
    [
        ("seq2seq", {}, ["repeat parts", "<unk>"], ["in its vocabulary"]),
        ("seq2seq", {"use_copy": True}, ["copies only symbols that are in its vocabulary"], []),
        ("seq2seq", {"use_copy": True, "copy_slots": 7}, ["copies the first 7 of an input"], ["copies only"]),
        ("seq2seq", {"attention_type": "none"}, ["vector of fixed size"], ["repeat"]),
        (
            "token_classification",
            {"attention_type": "none"},
            ["contradict each other", "letter case"],
            ["fixed size", "repeat"],
        ),
        (
            "token_classification",
            {"use_crf": True, "character_vocab_size": 9},
            ["told by their characters only"],
            ["contradict"],
        ),
        ("sequence_classification", {}, ["vector of fixed size: long inputs"], ["repeat", "other labels"]),
        ("sequence_classification", {"classifier_pooling": "mean"}, ["letter case"], ["fixed size", "repeat"]),
        ("speech_seq2seq", VECTORS, ["other voices", "repeat parts"], ["<unk>", "letter case"]),
    ],
)
def test_the_limitations_fit_the_kind_of_model(kind, options, present, absent):
    text = describe_limitations(RnnSeq2SeqConfig(**{**SIZES, **options}), kind, "Names are hard.")
    assert text.endswith("\n- Names are hard.")
    assert [phrase for phrase in present if phrase not in text] == []
    assert [phrase for phrase in absent if phrase in text] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_described(preset):
    text = describe_structure(RnnSeq2SeqConfig.from_preset(preset))
    paper = {"sutskever2014": "Sutskever", "cho2014": "Cho", "bahdanau2015": "Bahdanau", "luong2015": "Luong"}
    assert paper.get(preset, "tanh RNN") in text


def test_papers_are_cited_for_what_is_used():
    def cited(kind: ModelKind = "seq2seq", **options) -> set[str]:
        entries = citations(RnnSeq2SeqConfig(**{**SIZES, **options}), kind)
        return set(re.findall(r"^@\w+\{(\w+),", entries, flags=re.MULTILINE))

    classics = {"sutskever2014", "cho2014"}
    assert cited(attention_type="none") == classics
    assert cited(attention_type="general") == classics | {"bahdanau2015", "luong2015"}
    assert cited(attention_type="hard_monotonic") == classics | {"wu2019"}
    additive = {"attention_type": "additive", "attention_query": "previous_state"}
    assert cited(**additive) == classics | {"bahdanau2015"}
    assert cited(**additive, use_copy=True) == cited(**additive, coverage=True) == {*cited(**additive), "see2017"}
    assert cited("speech_seq2seq", **VECTORS, **additive) == {*cited(**additive), "chan2016"}
    assert cited("speech_seq2seq", **VECTORS, **additive, ctc_weight=0.2) == {
        *cited(**additive),
        "chan2016",
        "watanabe2017",
    }
    assert cited("token_classification") == {"hochreiter1997", "huang2015"}
    characters = {"ling2015", "lample2016"}
    assert cited("token_classification", use_crf=True, rnn_type="gru", character_vocab_size=9) == {
        *("cho2014", "huang2015", "lafferty2001"),
        *characters,
    }
    assert cited("sequence_classification", rnn_type="rnn_tanh") == {"elman1990"}
    assert cited("sequence_classification", classifier_pooling="attention") == {"hochreiter1997", "raffel2015"}
    assert cited(character_vocab_size=9, **additive) == {*cited(**additive), *characters}


def test_the_entries_of_the_bibliography_have_their_keys():
    for key, entry in bibliography().items():
        assert re.match(rf"@(inproceedings|article|misc)\{{{key},\n", entry)
        assert f"year = {{{key[-4:]}}}" in entry and entry.count("{") == entry.count("}")
        first_author = re.search(r"author = \{(\w+)", entry)
        assert first_author and first_author[1].lower() == key[:-4]
