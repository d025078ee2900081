"""What a user replaces is used: overridden methods, hooks, other layers, wrappers; and the switch of fast paths."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny import STRUCTURES, gradients, padded_batch, random_ids, tiny_model
from torch import Tensor, nn
from transformers import EosTokenCriteria, LogitsProcessorList, StoppingCriteriaList, WatermarkingConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model import fast, fast_loss, fast_recurrence, fast_training, fast_words
from hf_rnn_seq2seq.model import fast_search as search_file
from hf_rnn_seq2seq.model.fast import is_own, may_look, plain
from hf_rnn_seq2seq.model.state import new_cache
from hf_rnn_seq2seq.model.transformers_names import REPLACED_BY_SEARCH


Model = RnnSeq2SeqForConditionalGeneration
REQUEST: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
PLACES: dict[str, Callable[[Model], nn.Module]] = {
    "model": lambda model: model,
    "inner": lambda model: model.model,
    "bridge": lambda model: model.model.bridge,
    "decoder": lambda model: model.model.decoder,
    "stack": lambda model: model.model.decoder.rnn,
    "attention": lambda model: model.model.decoder.attention,
    "embedding": lambda model: model.model.decoder.embed_tokens,
    "readout": lambda model: model.model.decoder.readout,
    "lm_head": lambda model: model.lm_head,
}
# What transformers' own search, or the plain decoder, calls at each step with a cache; the others belong to a mode.
CALLED = {
    "model": [
        "forward",
        "_logits",
        "prepare_inputs_for_generation",
        "_prefill",
        "_update_model_kwargs_for_generation",
    ],
    "inner": ["forward"],
    "bridge": ["forward"],
    "decoder": ["forward", "embed", "step", "_attend", "_read_out"],
    "stack": ["forward", "step", "weights"],
    "attention": ["forward"],
    "embedding": ["forward"],
    "readout": ["forward"],
    "lm_head": ["forward"],
}
METHODS = [(place, name) for place, names in CALLED.items() for name in names]


def sources() -> dict[str, Tensor]:
    batch = padded_batch("right", [4, 6, 2], 6)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def searches(patch: pytest.MonkeyPatch) -> list[int]:
    """Counts the searches that are ours, as the length of a list."""
    counted: list[int] = []
    start = search_file.start_search

    def counting(*args: Any, **kwargs: Any) -> Any:
        counted.append(1)
        return start(*args, **kwargs)

    patch.setattr(search_file, "start_search", counting)
    return counted


def counting(method: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    @functools.wraps(method)  # transformers reads signatures
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return method(*args, **kwargs)

    return counted


def replace(module: nn.Module, name: str, where: str, calls: list[int], patch: pytest.MonkeyPatch) -> None:
    """Put a method that counts its calls in the place of a module's own: on it, in a subclass, or in its class."""
    kind: Any = type(module)
    if where == "instance":
        setattr(module, name, counting(getattr(module, name), calls))
    elif where == "subclass":
        module.__class__ = type(f"My{kind.__name__}", (kind,), {name: counting(getattr(kind, name), calls)})
    else:
        patch.setattr(kind, name, counting(getattr(kind, name), calls))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("where", ["instance", "subclass", "class"])
@pytest.mark.parametrize(("place", "name"), METHODS, ids=[".".join(pair) for pair in METHODS])
@pytest.mark.fast_path
def test_generate_calls_what_replaces_a_method(
    place: str, name: str, where: str, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fast, calls = tiny_model("luong"), searches(monkeypatch), []
    wanted = model.generate(**sources(), **REQUEST, num_beams=beams)
    assert len(fast) == 1
    replace(PLACES[place](model), name, where, calls, monkeypatch)
    assert torch.equal(model.generate(**sources(), **REQUEST, num_beams=beams), wanted)
    once = (place, name) in [("model", "_prefill"), ("bridge", "forward")]
    assert len(fast) == 1 and len(calls) >= (1 if once else 6)


@pytest.mark.parametrize("name", ["forward", *REPLACED_BY_SEARCH])
@pytest.mark.fast_path
def test_any_method_that_the_search_replaces_turns_it_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(Model, name):
        kind: Any = type("MyModel", (Model,), {name: lambda self, cache, rows: (cache.reorder_cache(rows), cache)[1]})
    else:
        method = getattr(Model, name)
        static = isinstance(vars(next(k for k in Model.__mro__ if name in vars(k)))[name], staticmethod)
        changed = counting(method, [])
        kind = type("MyModel", (Model,), {name: staticmethod(changed) if static else changed})
    model, fast = tiny_model("luong"), searches(monkeypatch)
    wanted = model.generate(**sources(), **REQUEST, num_beams=2)
    model.__class__ = kind
    assert torch.equal(model.generate(**sources(), **REQUEST, num_beams=2), wanted)
    assert len(fast) == 1
    kind = type("SameDecoding", (kind,), {"use_fast_generation": True})  # says that its decoding is still ours
    model.__class__ = kind
    assert torch.equal(model.generate(**sources(), **REQUEST, num_beams=2), wanted)
    assert len(fast) == 2


def test_a_method_of_the_object_that_its_class_lacks_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast, calls = tiny_model("luong"), searches(monkeypatch), []
    model._reorder_cache = counting(lambda cache, rows: (cache.reorder_cache(rows), cache)[1], calls)
    model.generate(**sources(), **REQUEST, num_beams=2)
    assert not fast and len(calls) == 6


def uncached(model: Model, steps: int) -> Tensor:
    """Greedy search that runs over the whole prefix at each step."""
    ids = torch.full((3, 1), model.config.decoder_start_token_id)
    for _ in range(steps):
        with torch.no_grad():
            logits = model(**sources(), decoder_input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids


def _negate(output: Any) -> Any:
    if isinstance(output, Tensor):
        return -output
    output.last_hidden_state = -output.last_hidden_state
    return output


@pytest.mark.parametrize("place", ["inner", "decoder", "embedding", "readout", "lm_head"])
@pytest.mark.parametrize("how", ["hook", "instance", "subclass"])
@pytest.mark.parametrize("structure", ["luong", "bahdanau", "dot", "cho", "everything"])
def test_another_output_gives_other_logits(structure: str, how: str, place: str) -> None:
    options = {} if structure != "dot" else {"readout_type": "tanh"}
    model = tiny_model(structure, decoder_start_token_id=2, eos_token_id=None, **options)
    request = {**sources(), "max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    before = model.generate(**request)
    module: Any = PLACES[place](model)
    forward = module.forward
    if how == "hook":
        module.register_forward_hook(lambda _, __, output: _negate(output))
    elif how == "instance":
        module.forward = lambda *args, **kwargs: _negate(forward(*args, **kwargs))
    else:
        kind = type(module)
        changed = {"forward": lambda self, *args, **kwargs: _negate(kind.forward(self, *args, **kwargs))}
        module.__class__ = type("Negated", (kind,), changed)
    found = model.generate(**request)
    assert torch.equal(found.sequences, uncached(model, 6))
    assert not torch.allclose(torch.stack(found.logits), torch.stack(before.logits), atol=1e-3)


def test_an_output_layer_of_another_kind_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast = tiny_model("luong", decoder_start_token_id=2, eos_token_id=None), searches(monkeypatch)
    model.lm_head = nn.Sequential(model.lm_head, nn.Tanh(), nn.Linear(12, 12, dtype=torch.float64))
    assert torch.equal(model.generate(**sources(), do_sample=False, max_new_tokens=6), uncached(model, 6))
    assert not fast
    loss = model.train()(**sources(), labels=random_ids(3, 5)).loss
    torch.testing.assert_close(loss, model(**sources(), labels=random_ids(3, 5), skip_logits=False).loss)


@pytest.mark.parametrize("part", ["_get_logits_processor", "_get_stopping_criteria", "_prepare_generation_config"])
def test_a_method_that_prepares_a_request_is_asked_each_time(part: str) -> None:
    model, lengths = tiny_model("luong", eos_token_id=None), iter([7, 4, 5])
    prepare = getattr(model, part)

    def changing(*args: Any, **kwargs: Any) -> Any:
        kwargs["generation_config"] = kwargs.get("generation_config") or (args[0] if args else None)
        if part == "_prepare_generation_config":
            config, model_kwargs = prepare(kwargs.pop("generation_config"), **kwargs)
            config.max_length, config.max_new_tokens = 20, next(lengths)
            return config, model_kwargs
        if part == "_get_stopping_criteria":
            kwargs["generation_config"].max_length = next(lengths) + 1
            return prepare(**kwargs)
        length, processors = next(lengths), prepare(**kwargs)
        processors.append(lambda ids, scores: scores + 1e6 * (torch.arange(12) == length))
        return processors

    setattr(model, part, changing)
    for wanted in (7, 4, 5):
        found = model.generate(sources()["input_ids"], max_new_tokens=3, do_sample=False)
        if part == "_get_logits_processor":
            assert bool((found[:, 1:] == wanted).all())
        else:
            assert found.shape == (3, wanted + 1)


@pytest.mark.parametrize("beams", [1, 2])
def test_lists_of_another_class_are_called_themselves(beams: int) -> None:
    class Only(LogitsProcessorList):
        def __call__(self, ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
            return scores + 1e6 * (torch.arange(12) == 9)

    class Third(StoppingCriteriaList):
        def __call__(self, ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            return torch.full(ids.shape[:1], ids.shape[1] >= 3)

    model = tiny_model("luong", eos_token_id=None)
    model._get_logits_processor = lambda *_, **__: Only()  # type: ignore[method-assign]
    request = {"do_sample": False, "max_new_tokens": 5, "num_beams": beams, **sources()}
    assert bool((model.generate(**request)[:, 1:] == 9).all())
    model._get_stopping_criteria = lambda *_, **__: Third([EosTokenCriteria(8)])  # type: ignore[method-assign]
    assert model.generate(**request).shape == (3, 3)


# Training

LABELS = torch.tensor([[5, 6, 7, 8, 4, 3], [5, 6, 3, -100, -100, -100], [9, 4, 3, -100, -100, -100]])
WIDE = {"embedding_size": 40}  # so that a table of the symbols pays
TRAINED: dict[str, dict[str, Any]] = {
    "at_once": WIDE,
    "input_feeding": {**WIDE, "input_feeding": True},
    "bahdanau": {**WIDE, **STRUCTURES["bahdanau"]},
    "gru": {**WIDE, "rnn_type": "gru", "attention_type": "dot"},
    "rnn_tanh": {**WIDE, "rnn_type": "rnn_tanh", "attention_type": "additive", "coverage": True},
    "none": {**WIDE, **STRUCTURES["sutskever"]},
    "cho": {**WIDE, **STRUCTURES["cho"]},
    "copying": {**WIDE, "use_copy": True},
}


def trained(model: Model, **inputs: Any) -> dict[str, Tensor]:
    """Loss and gradients of a training step on a batch large enough for a table."""
    model.train()
    batch = {name: tensor.repeat(4, 1) for name, tensor in sources().items()}
    loss = model(**batch, labels=LABELS.repeat(4, 1), **inputs).loss
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


class Twice(nn.Embedding):
    """A table whose rows are twice as long."""

    def forward(self, ids: Tensor) -> Tensor:
        return 2 * super().forward(ids)


def _embed(model: Model) -> None:
    embed = model.model.decoder.embed
    model.model.decoder.embed = lambda *args: 2 * embed(*args)  # type: ignore[method-assign]


def _embedding(model: Model) -> None:
    model.model.decoder.embed_tokens.__class__ = Twice


def _source_embedding(model: Model) -> None:
    model.model.encoder.embed_tokens.__class__ = Twice


def _step(model: Model) -> None:
    step = model.model.decoder.step
    model.model.decoder.step = lambda embedded, *args: step(2 * embedded, *args)  # type: ignore[method-assign]


def _attention(model: Model) -> None:
    if not model.model.decoder.attends:
        return _stack(model)
    attention = model.model.decoder.attention
    forward = attention.forward
    # keys.transpose() of other axes than those that the plain attention takes
    attention.forward = lambda query, keys, *rest: forward(query, keys.transpose(0, 1).transpose(0, 1) * 2, *rest)  # type: ignore[method-assign]
    return None


def _stack(model: Model) -> None:
    forward = model.model.decoder.rnn.forward
    model.model.decoder.rnn.forward = lambda x, *args, **kwargs: forward(2 * x, *args, **kwargs)  # type: ignore[method-assign]


def _layer(model: Model) -> None:
    for layer in model.model.encoder.rnn.layers:
        run = layer._run_direction
        layer._run_direction = lambda x, *args, run=run: run(2 * x, *args)


def _output_layer(model: Model) -> None:
    model.lm_head.register_forward_hook(lambda _, __, output: 2 * output)


def _logits(model: Model) -> None:
    logits = model._logits
    model._logits = lambda *args: 2 * logits(*args)  # type: ignore[method-assign]


def _inner(model: Model) -> None:
    model.model.register_forward_hook(lambda _, __, output: _negate(output))


CHANGES = [_embed, _embedding, _source_embedding, _step, _attention, _stack, _layer, _output_layer, _logits, _inner]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("options", TRAINED.values(), ids=TRAINED)
def test_training_uses_what_is_replaced(options: dict[str, Any], change: Callable[[Model], Any]) -> None:
    model = tiny_model(**options)
    before = trained(model)
    change(model)
    found = trained(model)
    with plain():
        assert_close(found, trained(model))
    assert abs(found["loss"] - before["loss"]) > 1e-6


# The switch

FAST = [
    (search_file, "DecoderStep"),
    (fast_training, "DeferredGradients"),
    (fast_training, "_run_shrinking"),
    (fast_recurrence, "lookup_of"),
    (fast_recurrence, "run_packed_layers"),
    (fast_recurrence, "run_fused"),
    (fast_loss, "linear_cross_entropy"),
    (fast_loss, "checkpoint"),
    (fast_loss, "with_later_logits"),
    (fast_words, "read_each_once"),
]


@pytest.mark.fast_path
def test_the_switch_turns_every_fast_path_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[int]] = {name: [] for _, name in FAST}
    monkeypatch.setattr(fast, "ENOUGH_WORDS", 0)
    for owner, name in FAST:
        monkeypatch.setattr(owner, name, counting(getattr(owner, name), calls[name]))
    letters = {"character_vocab_size": 7, "character_embedding_size": 4, "character_hidden_size": 6}
    models = [tiny_model(**WIDE, rnn_type="gru", input_feeding=True, **letters), tiny_model(use_copy=True, **WIDE)]

    def run() -> list[dict[str, Tensor]]:
        results = []
        for model in models:
            ids = torch.randint(2, 7, (12, 6, 3), generator=torch.Generator().manual_seed(0))
            some = {"character_ids": ids} if model.config.character_vocab_size else {}
            results.append(trained(model, **some))
            some = {name: value[:3] for name, value in some.items()}
            results.append({"ids": model.eval().generate(**sources(), **some, **REQUEST)})
        return results

    sooner = run()
    assert [name for name in calls if not calls[name]] == []
    for made in calls.values():
        made.clear()
    with plain():
        slow = run()
    assert [name for name in calls if calls[name]] == []
    for found, wanted in zip(sooner, slow, strict=True):
        assert_close(found, wanted)
    assert may_look()


@pytest.mark.fast_path
def test_the_switch_is_that_of_its_thread() -> None:
    seen: list[bool] = []
    with plain():
        assert not may_look()
        with plain():
            assert not may_look()
        assert not may_look()
        thread = threading.Thread(target=lambda: seen.append(may_look()))
        thread.start()
        thread.join()
    assert seen == [True] and may_look()


@pytest.mark.parametrize(("value", "looks"), [("1", False), ("0", True), ("", True)])
def test_a_whole_process_is_switched_by_its_environment(value: str, looks: bool) -> None:
    program = "from hf_rnn_seq2seq.model.fast import may_look; print(may_look())"
    environment = {**os.environ, "HF_RNN_SEQ2SEQ_PLAIN": value}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{looks}\n"


def test_another_value_of_the_variable_is_refused() -> None:
    environment = {**os.environ, "HF_RNN_SEQ2SEQ_PLAIN": "yes"}
    done = subprocess.run(
        [sys.executable, "-c", "import hf_rnn_seq2seq.model.fast"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "HF_RNN_SEQ2SEQ_PLAIN must be 0, 1 or some of fused,packed," in done.stderr


@pytest.mark.fast_path
def test_what_may_be_looked_into() -> None:
    layer = nn.Linear(2, 3)
    assert may_look(layer) and is_own(layer)
    assert not may_look(nn.Sequential(layer)) and not may_look(nn.GRU(2, 3))
    assert not may_look(layer.to_empty(device="meta"))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not may_look(nn.Linear(2, 3))
    handle.remove()
    layer = nn.Linear(2, 3)
    layer.forward = layer.forward  # type: ignore[method-assign]  # what accelerate leaves behind when it is removed
    assert may_look(layer)
    layer.forward = nn.Linear(2, 3).forward  # type: ignore[method-assign]
    assert not may_look(layer)
    compiled = nn.Linear(2, 3)
    compiled.compile()
    assert not may_look(compiled)
    hooked = nn.Linear(2, 3)
    hooked.register_full_backward_hook(lambda *_: None)
    assert not may_look(hooked)
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(may_look())
        return x + 1

    torch.jit.trace(look, torch.zeros(1), check_trace=False)
    assert seen == [False]


# Wrappers and requests of other kinds


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.fast_path
def test_generate_after_the_mixed_precision_wrapper_is_taken_off(
    structure: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fast = tiny_model(structure, torch.float32), searches(monkeypatch)
    wanted = model.generate(**sources(), **REQUEST)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    taken_off = accelerator.unwrap_model(accelerator.prepare(model), keep_fp32_wrapper=False).eval()
    assert torch.equal(taken_off.generate(**sources(), **REQUEST), wanted)
    assert len(fast) == 2
    outputs = taken_off(**sources(), labels=LABELS, return_dict=False)
    assert isinstance(outputs, tuple) and torch.equal(outputs[0], taken_off(**sources(), labels=LABELS).loss)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_undecorated_generate_has_gradients(structure: str, beams: int) -> None:
    model = tiny_model(structure)
    request = {**sources(), **REQUEST, "num_beams": beams, "return_dict_in_generate": True, "output_logits": True}
    found = Model.generate.__wrapped__(model, **request)  # type: ignore[attr-defined]
    assert torch.equal(found.sequences, model.generate(**request).sequences)
    torch.stack([logits.amax(-1) for logits in found.logits]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("structure", [*STRUCTURES, "copying"])
def test_a_cache_that_knows_no_configuration_is_given_layers(structure: str, beams: int) -> None:
    model = tiny_model("luong", use_copy=True, coverage=True) if structure == "copying" else tiny_model(structure)
    request = {**sources(), **REQUEST, "num_beams": beams}
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    assert torch.equal(model.generate(**request, past_key_values=cache), model.generate(**request))
    assert cache.get_seq_length() == 6
    inputs = {**sources(), "decoder_input_ids": random_ids(3, 3)}
    found = model(**inputs, past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache())).logits
    assert torch.equal(found, model(**inputs).logits)


def test_layers_of_another_kind_or_number_are_refused() -> None:
    model, inputs = tiny_model("luong"), {**sources(), "decoder_input_ids": random_ids(3, 2)}
    filled = DynamicCache()
    filled.update(torch.zeros(3, 1, 2, 4), torch.zeros(3, 1, 2, 4), 0)
    more = new_cache(RnnSeq2SeqConfig(decoder_layers=3))
    static = StaticCache(config=RnnSeq2SeqConfig(decoder_layers=1), max_cache_len=4)
    others = {
        "1 layers of DynamicLayer, wanted 2": EncoderDecoderCache(filled, DynamicCache()),
        "3 layers, wanted 2": more,
        "1 layers, wanted 2": static,
    }
    for message, cache in others.items():
        with pytest.raises(ValueError, match=message):
            model(**inputs, past_key_values=cache)
    with pytest.raises(TypeError, match="is tuple, wanted a Cache"):
        model(**inputs, past_key_values=((torch.zeros(3, 1),),))


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_prompt_in_chunks_is_the_prompt(structure: str, masked: bool, beams: int) -> None:
    model, prompt = tiny_model(structure), random_ids(3, 4)
    request = {**sources(), **REQUEST, "num_beams": beams, "decoder_input_ids": prompt}
    if masked:
        request["decoder_attention_mask"] = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]])
    wanted = model.generate(**request)
    for size in (1, 2, 3, 9):
        assert torch.equal(model.generate(**copy.deepcopy(request), prefill_chunk_size=size), wanted)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("target", [5, 50])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "rnn_tanh"])
def test_a_watermark_marks_the_symbols_of_the_target(rnn_type: str, target: int, beams: int) -> None:
    model = tiny_model(rnn_type=rnn_type, decoder_vocab_size=target, eos_token_id=None, decoder_start_token_id=2)
    watermark = WatermarkingConfig(bias=1e6, greenlist_ratio=0.5)
    found = model.generate(
        **sources(), max_new_tokens=5, do_sample=False, num_beams=beams, watermarking_config=watermark
    )
    green = watermark.construct_processor(target, "cpu")
    for row in found:
        for last, symbol in itertools.pairwise(row):
            assert symbol in green._get_greenlist_ids(last[None])
    other = WatermarkingConfig(seeding_scheme="selfhash")
    request = {**sources(), "max_new_tokens": 3, "watermarking_config": other}
    if target == 50:
        assert model.generate(**request).shape == (3, 4)
    else:
        with pytest.raises(ValueError, match="at least 40 target symbols; got 5"):
            model.generate(**request)
