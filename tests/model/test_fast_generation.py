"""Our greedy and beam search against those of transformers: the same tokens, scores, outputs and caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LIVELY, PADDINGS, STRUCTURES, padded_batch, random_ids, tiny_model
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, TextStreamer

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForSpeechSeq2Seq
from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqEnsemble
from hf_rnn_seq2seq.model import fast_search
from hf_rnn_seq2seq.model.decoder import RnnSeq2SeqDecoder
from hf_rnn_seq2seq.model.fast_beams import best_extensions
from hf_rnn_seq2seq.model.fast_step import DecoderStep
from hf_rnn_seq2seq.model.state import new_cache


pytestmark = pytest.mark.fast_path


LENGTHS, WIDTH = [4, 6, 2], 6
OUTPUTS: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
Model = RnnSeq2SeqForConditionalGeneration


class Ours:
    """Counts the searches that are ours."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.searches = 0
        start = fast_search.start_search

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.searches += 1
            return start(*args, **kwargs)

        patch.setattr(fast_search, "start_search", counted)


def both(model: Model, **request: Any) -> tuple[Any, Any]:
    """What our search gives, and what that of transformers does; it is an error if it was not that."""
    results, searches = [], []
    for fast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            ours = Ours(patch)
            patch.setattr(model, "use_fast_generation", fast)
            # Processors and criteria may remember what they have seen: made anew for each.
            made = {name: value() if name in ("logits_processor", "stopping_criteria", "streamer") else value
                    for name, value in request.items()}  # fmt: skip
            results.append(model.generate(**made))
        searches.append(ours.searches)
    assert searches == [1, 0]
    return results[0], results[1]


def assert_same(ours: Any, theirs: Any) -> None:
    """Two outputs of `generate()` with all that `OUTPUTS` asks for."""
    assert type(ours) is type(theirs) and ours.keys() == theirs.keys()
    assert torch.equal(ours.sequences, theirs.sequences)
    for name in ("scores", "logits"):
        assert len(ours[name]) == len(theirs[name])
        for x, y in zip(ours[name], theirs[name], strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    if "sequences_scores" in theirs:
        torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-5, rtol=1e-5)
        assert ours.beam_indices.dtype == theirs.beam_indices.dtype
        assert torch.equal(ours.beam_indices, theirs.beam_indices)
    for half in ("self_attention_cache", "cross_attention_cache"):
        pairs = zip(getattr(ours.past_key_values, half).layers, getattr(theirs.past_key_values, half).layers)
        for x, y in pairs:
            assert x.is_initialized == y.is_initialized and x.get_seq_length() == y.get_seq_length()
            for name in x.tensor_names if x.is_initialized else ():
                torch.testing.assert_close(getattr(x, name), getattr(y, name), equal_nan=True)


def sources(kind: str = "right", **options: Any) -> dict[str, Tensor]:
    batch = padded_batch(kind, LENGTHS, WIDTH, **options)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


COPYING: dict[str, dict[str, Any]] = {
    "copying": {"structure": "luong", "use_copy": True},
    "coverage": {"structure": "bahdanau", "use_copy": True, "coverage": True, "rnn_type": "lstm"},
    "dot_coverage": {"structure": "dot", "coverage": True, "rnn_type": "gru"},
    "two_vocabularies": {"structure": "luong", "decoder_vocab_size": 9, "rnn_type": "gru"},
    "large_vocabulary": {"structure": "both_max", "vocab_size": 3000},
}
MODELS = {**{name: {"structure": name} for name in STRUCTURES}, **COPYING}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Options of `generate()` for a batch of three sources."""
    beams = draw(st.sampled_from([1, 1, 2, 3, 5]))
    shortest = draw(st.integers(0, 3))
    request: dict[str, Any] = {
        "num_beams": beams,
        "do_sample": False,
        "max_new_tokens": draw(st.integers(shortest + 1, 9)),
        "eos_token_id": draw(st.sampled_from([3, [3, 5], [4, 5, 6, 7], None])),
        "pad_token_id": draw(st.sampled_from([0, 1])),
    }
    if shortest and request["eos_token_id"] is not None:
        request[draw(st.sampled_from(["min_new_tokens", "min_length"]))] = shortest
    if draw(st.booleans()):
        request["decoder_input_ids"] = random_ids(len(LENGTHS), draw(st.integers(1, 3)), vocab_size=9)
    if draw(st.booleans()):
        request |= draw(
            st.sampled_from([
                {"no_repeat_ngram_size": 2},
                {"suppress_tokens": [0, 1, 2]},
                {"bad_words_ids": [[4], [5, 6]]},
                {"repetition_penalty": 1.5},
                {"prefix_allowed_tokens_fn": allowed},
                {"forced_eos_token_id": 3},
            ])
        )  # fmt: skip
    if beams > 1:
        request["num_return_sequences"] = draw(st.integers(1, beams))
        request["length_penalty"] = draw(st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.0]))
        request["early_stopping"] = draw(st.sampled_from([True, False, "never"]))
    return request


def allowed(source: int, prefix: Tensor) -> list[int]:
    """Which symbols may follow a prefix: not the same ones for each source, and at times a single one."""
    return [3, 4, 5 + source, 8] if len(prefix) % 3 else [6]


@pytest.mark.parametrize("name", MODELS)
def test_the_search_is_that_of_transformers(name: str) -> None:
    options = dict(MODELS[name])
    model = tiny_model(options.pop("structure"), **options)

    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(request=requests(), kind=st.sampled_from(PADDINGS), whole=st.booleans())
    def check(request: dict[str, Any], kind: str, whole: bool) -> None:
        request |= sources(kind)
        if whole:
            assert_same(*both(model, **request, **OUTPUTS))
        else:
            ours, theirs = both(model, **request)
            assert torch.equal(ours, theirs)

    check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beams", [1, 4])
def test_in_lower_precision_too(dtype: torch.dtype, beams: int) -> None:
    # bfloat16 rounds differently in other products: only what is far from rounding is the same.
    model = tiny_model("luong", dtype)
    ours, theirs = both(model, **sources(), num_beams=beams, max_new_tokens=1, do_sample=False, **OUTPUTS)
    tolerance = 1e-5 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(ours.logits[0], theirs.logits[0], atol=tolerance, rtol=tolerance)
    assert ours.scores[0].dtype == theirs.scores[0].dtype == torch.float32


@pytest.mark.parametrize("beams", [1, 3])
def test_processors_criteria_and_streamers_are_called_as_there(beams: int) -> None:
    seen: list[list[Any]] = []

    class Watch(LogitsProcessor):
        def __init__(self) -> None:
            self.calls: list[Any] = []
            seen.append(self.calls)

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            self.calls.append((input_ids.tolist(), tuple(scores.shape)))
            return scores * 0.7

    class Seven(StoppingCriteria):
        """A row ends when its symbols add up to a multiple of seven."""

        def __init__(self) -> None:
            self.calls: list[Any] = []
            seen.append(self.calls)

        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            self.calls.append((input_ids.tolist(), None if scores is None else len(scores)))
            return input_ids.sum(1) % 7 == 0

    ours, theirs = both(
        tiny_model("luong"),
        **sources(),
        **OUTPUTS,
        num_beams=beams,
        max_new_tokens=7,
        do_sample=False,
        logits_processor=lambda: LogitsProcessorList([Watch()]),
        stopping_criteria=lambda: StoppingCriteriaList([Seven()]),
    )
    assert_same(ours, theirs)
    assert seen[0] == seen[2] and seen[1] == seen[3] and len(seen[1]) > 2


def test_a_streamer_gets_every_symbol() -> None:
    streamed: list[list[list[int]]] = []

    class Keep(TextStreamer):
        def __init__(self) -> None:
            self.kept: list[list[int]] = []
            streamed.append(self.kept)

        def put(self, value: Tensor) -> None:
            self.kept.append(value.flatten().tolist())

        def end(self) -> None:
            self.kept.append([])

    source = random_ids(1, 5)
    both(tiny_model("luong"), input_ids=source, do_sample=False, max_new_tokens=6, streamer=Keep)
    assert streamed[0] == streamed[1] and streamed[0][-1] == [] and len(streamed[0]) > 3


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_ctc_takes_part(beams: int, weight: float) -> None:
    size = {"input_feature_size": 3, "time_reduction": 2, "ctc_weight": 0.3}
    config = tiny_model("luong", **size).config
    model = RnnSeq2SeqForSpeechSeq2Seq(config).double().eval()
    features = torch.randn(3, 9, 3, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[9], [4], [7]])
    request = {"input_features": features, "attention_mask": mask.long(), "ctc_weight": weight, "do_sample": False}
    assert_same(*both(model, **request, num_beams=beams, max_new_tokens=6, **OUTPUTS))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("structure", ["cho", "luong"])
def test_the_cache_goes_on_where_the_search_ended(structure: str, beams: int) -> None:
    model = tiny_model(structure)
    request = {**sources(), "num_beams": beams, "do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    outputs = both(model, **request, **OUTPUTS)
    logits = [
        model(
            decoder_input_ids=out.sequences[:, -1:].repeat_interleave(beams, dim=0),
            past_key_values=out.past_key_values,
            attention_mask=request["attention_mask"].repeat_interleave(beams, dim=0),
        ).logits
        for out in outputs
    ]
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("structure", ["cho", "bahdanau", "luong", "everything"])
def test_a_source_that_is_all_padding(structure: str) -> None:
    batch = sources()
    batch["attention_mask"][1] = 0
    for beams in (1, 3):
        assert_same(
            *both(tiny_model(structure), **batch, num_beams=beams, do_sample=False, max_new_tokens=4, **OUTPUTS)
        )


@pytest.mark.parametrize("structure", ["luong", "everything"])  # of the first the scores are products
def test_beams_share_the_source_and_it_is_projected_once(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(structure)
    projected: list[int] = []
    read: list[tuple[int, ...]] = []
    attend = DecoderStep._attend

    def watched(self: DecoderStep, query: Tensor, coverage: Tensor | None) -> Any:
        attended, weights = attend(self, query, coverage)
        read.append((len(query), *weights.shape[:2], len(self.source.keys), len(self.source.memory)))
        return attended, weights

    monkeypatch.setattr(DecoderStep, "_attend", watched)
    project = RnnSeq2SeqDecoder.source_memory

    def projecting(self: RnnSeq2SeqDecoder, *args: Any) -> Any:
        source = project(self, *args)
        projected.append(len(source.keys))
        return source

    monkeypatch.setattr(RnnSeq2SeqDecoder, "source_memory", projecting)
    ours = Ours(monkeypatch)
    model.generate(**sources(), num_beams=4, do_sample=False, max_new_tokens=5, min_new_tokens=5)
    assert ours.searches == 1 and projected == [3]
    assert read == [(12, 3, 4, 3, 3)] * 5  # 3 sources, 4 queries each


# Weights of sizes for which single precision takes oneDNN's layouts and fused LSTM, at one row and at many.
LARGE: dict[str, dict[str, Any]] = {
    "lstm": {"attention_type": "general", "input_feeding": True},
    "gru": {"rnn_type": "gru", "attention_type": "dot", "readout_type": "maxout", "attention_query": "previous_state"},
    "rnn_tanh": {"rnn_type": "rnn_tanh", "attention_type": "additive", "coverage": True},
    "fed_lstm": {"attention_type": "none", "context_feeding": "both", "context_vector": "mean"},
}


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", LARGE)
def test_prepared_weights_give_the_same_logits(name: str, beams: int) -> None:
    sizes = {"vocab_size": 2000, "embedding_size": 64, "encoder_hidden_size": 512, "decoder_hidden_size": 512}
    model = tiny_model(dtype=torch.float32, **{**sizes, "decoder_layers": 2, **LARGE[name]})
    for parameter in model.parameters():
        parameter.data *= 0.1  # small enough that rounding stays where it is
    batch = padded_batch("right", [5], 5, 2000) if beams == 1 else padded_batch("right", [5, 3, 4, 1], 5, 2000)
    request = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "max_new_tokens": 6}
    ours, theirs = both(model, **request, num_beams=beams, do_sample=False, **OUTPUTS)
    # The last digits are not the same: later on, two hypotheses that are as good may have changed places.
    assert torch.equal(ours.sequences, theirs.sequences)
    for x, y in zip(ours.logits[: 2 if beams > 1 else None], theirs.logits):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    if beams > 1:
        torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=1e-4)


def test_a_replaced_layer_is_called() -> None:
    model = tiny_model("luong", torch.float32)
    request = {**sources(), "do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    calls: list[str] = []
    decoder = model.model.decoder
    layers = {
        "embed": decoder.embed_tokens,
        "attend": decoder.attention,
        "read": decoder.readout,
        "out": model.lm_head,
    }
    wanted = model.generate(**request)
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    assert torch.equal(model.generate(**request), wanted)
    assert calls == ["embed", "attend", "read", "out"] * 4


def test_finished_sequences_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("both_max")
    batch = padded_batch("right", [4, 6, 2, 5, 3, 6, 1, 4], WIDTH)
    rows: list[int] = []
    step = DecoderStep.__call__

    def counted(self: DecoderStep, tokens: Tensor, *args: Any) -> Any:
        rows.append(len(tokens))
        return step(self, tokens, *args)

    monkeypatch.setattr(DecoderStep, "__call__", counted)
    request = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "do_sample": False}
    ours, theirs = both(model, **request, max_new_tokens=12, eos_token_id=[5, 9])
    assert torch.equal(ours, theirs)
    assert rows[0] == 8 and rows == sorted(rows, reverse=True) and len(set(rows)) > 2


def test_the_best_extensions_of_a_large_vocabulary() -> None:
    generator = torch.Generator().manual_seed(0)
    running = torch.randn(3, 4, generator=generator)
    for vocab in (3000, 4096, 2049):
        scores = torch.randn(3, 4, vocab, generator=generator).log_softmax(-1)
        equal = scores.mul(2).round()  # many are equal
        forbidden = scores.clone()
        forbidden[:, :, 3:] = -torch.inf  # fewer are left than are wanted
        early = running.clone()
        early[:, 1:] = -1e9
        for case, base in ((scores, running), (equal, running.round()), (forbidden, running), (scores, early)):
            top, index = best_extensions(case, base, 8)
            wanted = (case + base.unsqueeze(-1)).flatten(1).topk(8)
            assert torch.equal(top, wanted.values) and torch.equal(index, wanted.indices)


def _with_hook(model: Model) -> dict[str, Any]:
    model.model.decoder.register_forward_hook(lambda *_: None)
    return {}


def _training(model: Model) -> dict[str, Any]:
    model.train()
    return {}


def _switched_off(model: Model) -> dict[str, Any]:
    model.use_fast_generation = False
    return {}


OTHERS: dict[str, Callable[[Model], dict[str, Any]]] = {
    "sampling": lambda _: {"do_sample": True},
    "attentions": lambda _: {"output_attentions": True, "return_dict_in_generate": True},
    "hidden_states": lambda _: {"output_hidden_states": True, "return_dict_in_generate": True},
    "no_cache": lambda _: {"use_cache": False},
    "own_cache": lambda model: {"past_key_values": new_cache(model.config)},
    "static_cache": lambda _: {"cache_implementation": "static"},
    "prompt_mask": lambda _: {"decoder_input_ids": random_ids(3, 2), "decoder_attention_mask": torch.ones(3, 2)},
    "hook": _with_hook,
    "training": _training,
    "switched_off": _switched_off,
}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("other", OTHERS)
def test_other_requests_are_left_to_transformers(other: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("luong")
    ours = Ours(monkeypatch)
    request = {"do_sample": False, "max_new_tokens": 3, "num_beams": beams, **sources()}
    model.generate(**request)
    assert ours.searches == 1
    assert model.generate(**{**request, **OTHERS[other](model)}) is not None
    assert ours.searches == 1


def test_so_is_what_runs_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ours = tiny_model("luong", torch.float32), Ours(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        assert len(model.generate(**sources(), do_sample=False, max_new_tokens=3)) == 3
    assert ours.searches == 0


def test_a_class_with_another_forward_keeps_the_search_that_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Other(Model):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return super().forward(*args, **kwargs)

    class Same(Model):
        pass

    ours = Ours(monkeypatch)
    model = tiny_model("luong")
    request = {**sources(), "do_sample": False, "max_new_tokens": 3, **LIVELY}
    wanted = model.generate(**request)
    for kind, searches in ((Same, 2), (Other, 2)):
        other = kind(model.config).double().eval()
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.generate(**request), wanted)
        assert ours.searches == searches
    assert len(calls) == 3
    assert torch.equal(RnnSeq2SeqEnsemble([model]).generate(**request), wanted) and ours.searches == 2


@pytest.mark.parametrize("option", ["min_new_tokens", "min_length"])
def test_the_shortest_target_is_that_of_transformers(option: str) -> None:
    """Where the end would be chosen at once."""
    model = tiny_model("luong")
    bias = model.get_output_embeddings().bias
    with torch.no_grad():
        bias[3] += 30.0
    ours, theirs = both(model, **sources(), max_new_tokens=8, num_beams=1, **{option: 4})
    assert torch.equal(ours, theirs) and (ours[:, 1:4] != 3).all() and (ours == 3).any(1).all()
