"""Options: what is filled in, what is refused and in which words, the presets, and a fuzz over all of them."""

from __future__ import annotations

import re
import tempfile
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tiny import SIZES, STRUCTURES, padded_batch, random_ids, tiny_config
from transformers import AutoConfig

from hf_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration


REFUSALS = (ValueError, StrictDataclassError)
DROPOUTS = ("embedding_dropout", "hidden_dropout", "output_dropout", "recurrent_dropout")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"bridge_type": "copy", "readout_type": "tanh", "readout_size": 512}),
        ({"encoder_hidden_size": 100}, {"bridge_type": "linear"}),
        ({"context_feeding": "every_step"}, {"bridge_type": "zeros"}),
        ({"context_feeding": "both", "decoder_hidden_size": 100}, {"bridge_type": "linear", "readout_size": 100}),
        ({"attention_type": "none"}, {"readout_type": "none", "readout_size": None, "output_size": 512}),
        ({"tie_word_embeddings": True}, {"readout_size": 256, "output_size": 256}),
        ({"decoder_vocab_size": 7}, {"target_vocab_size": 7, "vocab_size": 8000}),
        ({"hidden_size": 64, "num_hidden_layers": 3}, {"decoder_hidden_size": 64, "decoder_layers": 3}),
    ],
)
def test_options_that_follow_from_others_are_filled_in(options: dict[str, Any], wanted: dict[str, Any]) -> None:
    config = RnnSeq2SeqConfig(**options)
    assert {name: getattr(config, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        # misspelt
        ({"hiden_dropout": 0.1}, "hiden_dropout.*did you mean 'hidden_dropout'"),
        ({"encoder_size": 3}, "no option 'encoder_size'"),
        # out of range, or of another kind
        *[({name: 0}, f"{name} must be at least 1; got 0") for name in SIZES],
        ({"attention_type": "additive", "attention_size": 0}, "attention_size must be at least 1"),
        ({"decoder_vocab_size": -1}, "decoder_vocab_size must be at least 1"),
        *[
            ({name: value}, f"{name} must be at least 0 and less than 1")
            for name in (*DROPOUTS, "label_smoothing")
            for value in (-0.1, 1, 2.0, float("nan"))
        ],
        ({"init_std": -1.0}, "init_std"),
        ({"init_std": float("nan")}, "init_std"),
        ({"vocab_size": "12"}, "vocab_size"),
        ({"rnn_type": "LSTM"}, "rnn_type.*lstm"),
        ({"attention_type": "bilinear"}, "attention_type.*general"),
        ({"attention_query": "old_state"}, "attention_query.*previous_state"),
        ({"context_vector": "first"}, "context_vector.*last"),
        ({"context_feeding": "sometimes"}, "context_feeding.*every_step"),
        ({"bridge_type": "conv"}, "bridge_type"),
        ({"readout_type": "relu"}, "readout_type"),
        ({"input_feeding": 1}, "input_feeding"),
        ({"pad_token_id": 12}, "pad_token_id=12.*0 to 11"),
        ({"decoder_vocab_size": 3}, "eos_token_id=3.*0 to 2"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id=-1"),
        ({"eos_token_id": [3, 99]}, "eos_token_id=99"),
        # combinations that cannot work
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False.*leave is_encoder_decoder out"),
        ({"encoder_hidden_size": 7}, "encoder_hidden_size=7.*even.*bidirectional_encoder=False"),
        ({"bridge_type": "copy", "decoder_hidden_size": 6}, "bridge_type='copy'.*make them equal"),
        ({"attention_type": "dot", "decoder_hidden_size": 6}, "attention_type='dot'.*'general'"),
        ({"context_feeding": "every_step", "bridge_type": "copy"}, "every_step.*'both'"),
        ({"context_feeding": "both", "bridge_type": "zeros"}, "both.*'every_step'"),
        ({"attention_type": "none", "bridge_type": "zeros"}, "nothing of the input reaches the decoder"),
        ({"attention_size": 4}, "attention_size.*'additive'"),
        ({"attention_type": "none", "attention_query": "previous_state"}, "attention_query"),
        ({"attention_type": "none", "input_feeding": True}, "input_feeding.*attention_type='none'"),
        ({"input_feeding": True, "readout_type": "none"}, "input_feeding.*readout_type='tanh'"),
        ({"readout_type": "none", "readout_size": 4}, "readout_size"),
        ({"share_embeddings": True, "decoder_vocab_size": 9}, "share_embeddings.*decoder_vocab_size"),
        ({"share_embeddings": True, "feed_previous_token": False}, "feed_previous_token=False.*share_embeddings"),
        ({"tie_word_embeddings": True, "feed_previous_token": False}, "feed_previous_token=False"),
        ({"tie_word_embeddings": True, "readout_size": 8}, "tie_word_embeddings.*embedding_size=6"),
        ({"tie_word_embeddings": True, "attention_type": "none"}, "tie_word_embeddings.*readout_type='tanh'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words_that_help(options: dict[str, Any], words: str) -> None:
    with pytest.raises(REFUSALS, match=f"(?s){words}"):
        tiny_config(**options)


def test_a_saved_configuration_comes_back_equal(tmp_path: Any) -> None:
    for name in STRUCTURES:
        config = tiny_config(name, hidden_dropout=0.25)
        config.save_pretrained(tmp_path)
        for loaded in (RnnSeq2SeqConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
            assert type(loaded) is RnnSeq2SeqConfig
            got, wanted = loaded.to_dict(), config.to_dict()
            for options in (got, wanted):
                options.pop("_name_or_path")
            assert got == {**wanted, "auto_map": loaded.auto_map}
        assert RnnSeq2SeqConfig.from_pretrained(tmp_path, hidden_dropout=0.5).hidden_dropout == 0.5


def test_every_option_is_documented_and_nothing_else() -> None:
    documented = re.findall(r"^        (\w+) \(`", RnnSeq2SeqConfig.__doc__ or "", re.MULTILINE)
    own = {name for name in RnnSeq2SeqConfig.__annotations__ if not name.endswith("token_id")}
    assert set(documented) == own - {"use_cache", "is_encoder_decoder"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_papers_sizes_and_build_when_made_small(name: str) -> None:
    full = RnnSeq2SeqConfig.from_preset(name)
    for option, value in PRESETS[name].items():
        assert getattr(full, option) == value
    small = {**SIZES, "decoder_vocab_size": None, "encoder_layers": full.encoder_layers,
             "decoder_layers": full.decoder_layers, "attention_size": None, "readout_size": None}  # fmt: skip
    if full.attention_type == "none" and full.readout_type == "none":
        del small["readout_size"]
    config = RnnSeq2SeqConfig.from_preset(name, **small)
    sizes = {*small, "readout_size", "attention_size"}
    assert all(getattr(config, option) == value for option, value in PRESETS[name].items() if option not in sizes)
    assert_works(config)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("sutskever2014", {"rnn_type": "lstm", "encoder_layers": 4, "decoder_layers": 4, "decoder_hidden_size": 1000,
                           "vocab_size": 160_000, "target_vocab_size": 80_000, "attention_type": "none",
                           "context_feeding": "initial_state", "bidirectional_encoder": False}),
        ("cho2014", {"rnn_type": "gru", "decoder_hidden_size": 1000, "embedding_size": 100, "context_feeding": "both",
                     "readout_type": "maxout", "readout_size": 500, "vocab_size": 15_000}),
        ("bahdanau2015", {"rnn_type": "gru", "attention_type": "additive", "attention_query": "previous_state",
                          "encoder_hidden_size": 2000, "decoder_hidden_size": 1000, "embedding_size": 620,
                          "attention_size": 1000, "bidirectional_encoder": True, "readout_size": 500}),
        ("luong2015", {"rnn_type": "lstm", "attention_type": "general", "input_feeding": True, "decoder_layers": 4,
                       "attention_query": "new_state", "hidden_dropout": 0.2, "vocab_size": 50_000}),
        ("textbook", {"rnn_type": "rnn_tanh", "feed_previous_token": False, "context_feeding": "both"}),
    ],
)  # fmt: skip
def test_presets_are_what_the_papers_print(name: str, facts: dict[str, Any]) -> None:
    config = RnnSeq2SeqConfig.from_preset(name)
    assert {fact: getattr(config, fact) for fact in facts} == facts


def test_a_preset_takes_overrides_and_refuses_what_it_does_not_know() -> None:
    assert RnnSeq2SeqConfig.from_preset("luong2015", hidden_dropout=0.5).hidden_dropout == 0.5
    with pytest.raises(ValueError, match=r"luong2015.*got 'luong2016'"):
        RnnSeq2SeqConfig.from_preset("luong2016")
    with pytest.raises(ValueError, match="hiden_dropout"):
        RnnSeq2SeqConfig.from_preset("luong2015", hiden_dropout=0.5)


def assert_works(config: RnnSeq2SeqConfig) -> None:
    """One training step, generation, and a saved model with equal logits."""
    torch.manual_seed(0)
    model = RnnSeq2SeqForConditionalGeneration(config)
    batch = padded_batch("interior", [4, 2], 4, config.vocab_size)
    labels = random_ids(2, 3, config.target_vocab_size)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    optimizer.step()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())

    model.eval()
    sequences = model.generate(**inputs, max_new_tokens=3, num_beams=2)
    assert sequences.shape[0] == 2 and 2 <= sequences.shape[1] <= 4 and sequences.max() < config.target_vocab_size
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        loaded = RnnSeq2SeqForConditionalGeneration.from_pretrained(folder).eval()
        torch.testing.assert_close(
            loaded(**inputs, labels=labels).logits, model(**inputs, labels=labels).logits, rtol=0, atol=0
        )
        assert loaded.config.to_diff_dict() == {**config.to_diff_dict(), "auto_map": loaded.config.auto_map}


SIZE = st.sampled_from([2, 4, 4, 6])
LAYERS = st.integers(1, 3)
RATE = st.sampled_from([0, 0.0, 0.3])
RARELY = st.sampled_from([False, False, False, True])
OPTIONS = st.fixed_dictionaries(
    {
        "vocab_size": st.sampled_from([5, 9]),
        "embedding_size": SIZE,
        "encoder_hidden_size": st.sampled_from([4, 4, 4, 1, 3, 6]),
        "decoder_hidden_size": st.sampled_from([4, 4, 4, 1, 3, 6]),
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "attention_type": st.sampled_from(["none", "dot", "general", "additive", "hard_monotonic"]),
    },
    optional={
        "rnn_type": st.sampled_from(["lstm", "gru", "rnn_tanh"]),
        "decoder_vocab_size": st.sampled_from([None, 5, 7]),
        "bidirectional_encoder": st.booleans(),
        "context_vector": st.sampled_from(["last", "mean", "max"]),
        "context_feeding": st.sampled_from(["initial_state", "every_step", "both"]),
        "bridge_type": st.sampled_from([None, None, "zeros", "copy", "linear", "mlp"]),
        "attention_query": st.sampled_from(["new_state", "previous_state"]),
        "attention_size": st.sampled_from([None, None, None, 3]),
        "input_feeding": RARELY,
        "feed_previous_token": st.sampled_from([True, True, True, False]),
        "readout_type": st.sampled_from([None, "none", "tanh", "maxout"]),
        "readout_size": st.sampled_from([None, None, None, 3]),
        "share_embeddings": RARELY,
        "tie_word_embeddings": RARELY,
        "embedding_dropout": RATE,
        "hidden_dropout": RATE,
        "output_dropout": st.one_of(st.none(), RATE),
        "recurrent_dropout": RATE,
        "label_smoothing": RATE,
        "layer_norm": st.booleans(),
        "residual": st.booleans(),
        "init_scheme": st.sampled_from(["orthogonal", "torch"]),
        "init_std": st.sampled_from([None, 0, 0.1]),
        "use_cache": st.booleans(),
        "pad_token_id": st.sampled_from([1, 0]),
        "bos_token_id": st.sampled_from([2, None]),
        "eos_token_id": st.sampled_from([3, [3, 4], None]),
        "decoder_start_token_id": st.sampled_from([2, 0]),
    },
)
OUT_OF_RANGE = st.sampled_from(
    [(name, 0) for name in (*SIZES, "decoder_vocab_size", "attention_size", "readout_size")]
    + [(name, 1.0) for name in (*DROPOUTS, "label_smoothing")]
    + [(name, 99) for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")]
    + [(name, "other") for name in RnnSeq2SeqConfig.__annotations__]
)


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(OPTIONS)
def test_any_combination_is_refused_by_name_or_works(options: dict[str, Any]) -> None:
    try:
        config = RnnSeq2SeqConfig(**options)
    except REFUSALS as refusal:
        event("refused")
        assert any(name in str(refusal) for name in options), refusal
        return
    event("works")
    assert_works(config)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(OPTIONS, OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_whatever_stands_beside_it(
    options: dict[str, Any], wrong: tuple[str, Any]
) -> None:
    with pytest.raises(REFUSALS) as refusal:
        RnnSeq2SeqConfig(**{**options, wrong[0]: wrong[1]})
    assert any(name in str(refusal.value) for name in (wrong[0], *options))
