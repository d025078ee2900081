"""The stock generate() on these models: each way of decoding against a plain search written here."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tiny import ALL, ATTENDING, LIVELY, padded_batch, random_ids, tiny_model, tiny_tokenizer, trim
from torch import Tensor
from transformers.generation import BaseStreamer, CompileConfig

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model.state import RecurrentStateLayer


Model = RnnSeq2SeqForConditionalGeneration
STEPS = 8


def inputs_of() -> dict[str, Tensor]:
    batch = padded_batch("left", [5, 2, 7], 7)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def log_probabilities(model: Model, source: Tensor, target: list[int]) -> Tensor:
    """log p of every symbol at every position, (T, V), in one uncached run over the start symbol and the target."""
    with torch.no_grad():
        ids = torch.tensor([[model.config.decoder_start_token_id, *target]])
        return model(source, decoder_input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def score(model: Model, source: Tensor, target: list[int]) -> float:
    """log p of a target sequence."""
    rows = log_probabilities(model, source, target)
    return sum(rows[t, symbol].item() for t, symbol in enumerate(target))


@pytest.mark.parametrize("structure", ALL)
def test_greedy_takes_the_likeliest_symbol_at_each_step(structure: str) -> None:
    model = tiny_model(structure)
    batch = padded_batch("left", [5, 2, 7], 7)
    sequences = model.generate(**inputs_of(), do_sample=False, max_new_tokens=STEPS)
    for sequence, source in zip(sequences, batch.rows, strict=True):
        written: list[int] = []
        while len(written) < STEPS and written[-1:] != [3]:
            written.append(int(log_probabilities(model, source, written)[-1].argmax()))
        assert sequence.tolist() == [2, *written, *[1] * (sequences.shape[1] - 1 - len(written))]


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("beams", [1, 4])
def test_the_cache_changes_no_symbol(structure: str, beams: int) -> None:
    model = tiny_model(structure)
    options = {**inputs_of(), **LIVELY, "num_beams": beams, "max_new_tokens": 12}
    cached = model.generate(**options)
    assert cached.shape[1] > 4
    assert torch.equal(model.generate(**options, use_cache=False), cached)
    assert torch.equal(model.generate(**options, cache_implementation="static"), cached)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_that_holds_everything_is_exhaustive_search(structure: str, length_penalty: float) -> None:
    symbols, steps = 5, 3
    model = tiny_model(structure, vocab_size=symbols, eos_token_id=3)
    source = torch.tensor([[4, 0, 4, 2]])
    hypotheses = []
    for length in range(1, steps + 1):
        for target in itertools.product(range(symbols), repeat=length):
            ended = target[-1] == 3
            if 3 not in target[:-1] and (ended or length == steps):
                value = score(model, source, list(target)) / length**length_penalty
                hypotheses.append((value, [*target, *[1] * (steps - length)]))
    hypotheses.sort(reverse=True)
    assert len(hypotheses) == 1 + 4 + 16 + 64

    out = model.generate(
        source,
        attention_mask=torch.ones_like(source),
        num_beams=symbols**steps,
        num_return_sequences=len(hypotheses),
        max_new_tokens=steps,
        length_penalty=length_penalty,
        early_stopping="never",
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    wanted = torch.tensor([value for value, _ in hypotheses])
    torch.testing.assert_close(out.sequences_scores, wanted, atol=1e-5, rtol=0)
    assert out.sequences[:20, 1:].tolist() == [target for _, target in hypotheses[:20]]
    assert {tuple(row) for row in out.sequences[:, 1:].tolist()} == {tuple(target) for _, target in hypotheses}


@pytest.mark.parametrize("structure", ALL)
def test_n_best_lists_are_sorted_and_their_scores_are_log_probabilities(structure: str) -> None:
    model, batch = tiny_model(structure), padded_batch("left", [5, 2, 7], 7)
    out = model.generate(**inputs_of(), num_beams=5, num_return_sequences=3, max_new_tokens=6, do_sample=False,
                         length_penalty=0.0, return_dict_in_generate=True, output_scores=True)  # fmt: skip
    assert out.sequences.shape[0] == 9
    scores = out.sequences_scores.view(3, 3)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert len({tuple(row) for row in out.sequences[:3].tolist()}) == 3
    for n, value in enumerate(out.sequences_scores):
        # Behind the end symbol there is only padding; a padding symbol before it is one that the model wrote.
        target = out.sequences[n, 1:].tolist()
        target = target[: target.index(3) + 1] if 3 in target else target
        assert value.item() == pytest.approx(score(model, batch.rows[n // 3], target), abs=1e-4)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("beams", [1, 3])
def test_sampling_follows_its_seed(structure: str, beams: int) -> None:
    model = tiny_model(structure)
    options = {**inputs_of(), "do_sample": True, "temperature": 2.0, "num_beams": beams, "max_new_tokens": STEPS}
    runs = []
    for seed, use_cache in ((1, True), (1, True), (1, False), (2, True)):
        torch.manual_seed(seed)
        runs.append(model.generate(**options, use_cache=use_cache))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[3])


def test_samples_have_the_models_distribution() -> None:
    model, source = tiny_model("luong"), random_ids(1, 5)
    drawn = model.generate(source, do_sample=True, top_k=0, num_return_sequences=4000, max_new_tokens=1)[:, 1]
    shares = drawn.bincount(minlength=12) / 4000
    torch.testing.assert_close(shares, log_probabilities(model, source, [])[0].exp(), atol=0.03, rtol=0)


@pytest.mark.parametrize("structure", ALL)
def test_scores_attentions_and_hidden_states_are_those_of_a_whole_run(structure: str) -> None:
    model, inputs = tiny_model(structure), inputs_of()
    out = model.generate(**inputs, **LIVELY, max_new_tokens=5, eos_token_id=None, return_dict_in_generate=True,
                         output_logits=True, output_attentions=True, output_hidden_states=True)  # fmt: skip
    whole = model(**inputs, decoder_input_ids=out.sequences[:, :-1], output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(torch.stack(out.logits, dim=1), whole.logits.float())
    for layer, wanted in enumerate(whole.decoder_hidden_states):
        torch.testing.assert_close(torch.cat([step[layer] for step in out.decoder_hidden_states], dim=1), wanted)
    for got, wanted in zip(out.encoder_hidden_states, whole.encoder_hidden_states, strict=True):
        torch.testing.assert_close(got, wanted)
    if structure in ATTENDING:
        weights = torch.cat([step[0] for step in out.cross_attentions], dim=2)
        torch.testing.assert_close(weights, whole.cross_attentions[0])


class Collector(BaseStreamer):
    """Takes what generate() streams."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_a_streamer_gets_each_symbol() -> None:
    model, streamer = tiny_model("bahdanau"), Collector()
    sequences = model.generate(random_ids(1, 5), **LIVELY, max_new_tokens=6, streamer=streamer)
    assert streamer.ids == sequences[0].tolist() and streamer.ended


def test_stop_strings_end_a_sequence() -> None:
    model, tokenizer, source = tiny_model("luong", eos_token_id=None), tiny_tokenizer(), random_ids(1, 5)
    free = model.generate(source, **LIVELY, max_new_tokens=10)[0].tolist()
    stop = tokenizer.decode(free[3])
    stopped = model.generate(source, **LIVELY, max_new_tokens=10, stop_strings=[stop], tokenizer=tokenizer)[0].tolist()
    assert stopped == free[: free.index(free[3]) + 1]


@pytest.mark.parametrize("beams", [1, 3])
def test_bad_words_and_allowed_symbols(beams: int) -> None:
    model, inputs = tiny_model("luong"), inputs_of()
    options = {**inputs, **LIVELY, "num_beams": beams, "max_new_tokens": 6}
    free = set(model.generate(**options)[:, 1:].flatten().tolist())
    bad = max(free - {1, 3})
    assert bad not in model.generate(**options, bad_words_ids=[[bad]])
    allowed = {0: [4, 5, 6, 3], 1: [7, 8, 3], 2: [9, 10, 3]}
    sequences = model.generate(**options, prefix_allowed_tokens_fn=lambda row, _: allowed[row])
    for row, sequence in enumerate(sequences):
        assert set(trim(sequence)[1:]) <= set(allowed[row])


def perturbed(structure: str, noise: float = 0.3) -> Model:
    """A model that mostly agrees with `tiny_model(structure)`."""
    model = tiny_model(structure, eos_token_id=None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


@pytest.fixture
def rollbacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each rollback of a decoder layer undid."""
    undone: list[int] = []
    crop = RecurrentStateLayer.crop

    def counted(layer: RecurrentStateLayer, tokens_to_remove: int) -> None:
        undone.append(-tokens_to_remove)
        crop(layer, tokens_to_remove)

    monkeypatch.setattr(RecurrentStateLayer, "crop", counted)
    return undone


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("way", ["assistant", "prompt_lookup"])
def test_drafted_symbols_change_nothing_and_are_rolled_back(structure: str, way: str, rollbacks: list[int]) -> None:
    model, batch = tiny_model(structure, eos_token_id=None), padded_batch("left", [5], 8)
    options = {"attention_mask": batch.attention_mask, "suppress_tokens": [0, 1, 2], "do_sample": False,
               "max_new_tokens": 30}  # fmt: skip
    wanted = model.generate(batch.input_ids, **options)
    assert rollbacks == []
    # Drafts that are often wrong, so that there is something to undo.
    drafts = {"assistant_model": perturbed(structure)} if way == "assistant" else {"prompt_lookup_num_tokens": 3}
    assert torch.equal(model.generate(batch.input_ids, **options, **drafts), wanted)
    assert way == "prompt_lookup" or max(rollbacks) > 0


@pytest.mark.parametrize("structure", ALL)
def test_drafted_symbols_come_with_the_attentions_of_greedy_search(structure: str) -> None:
    model, source = tiny_model(structure, eos_token_id=None), random_ids(1, 5)
    options = {"do_sample": False, "max_new_tokens": 12, "output_attentions": True, "return_dict_in_generate": True}
    plain = model.generate(source, **options)
    drafted = model.generate(source, **options, prompt_lookup_num_tokens=3)
    assert torch.equal(drafted.sequences, plain.sequences)
    for got, wanted in zip(drafted.cross_attentions, plain.cross_attentions, strict=True):
        assert len(got) == len(wanted) == (structure in ATTENDING)
        for weights, wanted_weights in zip(got, wanted, strict=True):
            torch.testing.assert_close(weights, wanted_weights)


@pytest.mark.parametrize("structure", ALL)
def test_an_assistant_that_never_errs_is_never_undone(structure: str) -> None:
    # Its own state must be right too, in each round: the model runs once for five drafted symbols and one of its own.
    model, assistant = (tiny_model(structure, eos_token_id=None) for _ in range(2))
    assistant.generation_config.num_assistant_tokens = 5
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0
    runs = []
    model.model.decoder.register_forward_hook(lambda *_: runs.append(1))
    options = {**LIVELY, "max_new_tokens": 30}
    wanted = model.generate(random_ids(1, 5), **options)
    runs.clear()
    assert torch.equal(model.generate(random_ids(1, 5), **options, assistant_model=assistant), wanted)
    assert len(runs) == 5


def test_prompt_lookup_undoes_wrong_guesses(rollbacks: list[int]) -> None:
    model = tiny_model("luong", eos_token_id=None)
    options = {**LIVELY, "no_repeat_ngram_size": 3, "max_new_tokens": 30}
    wanted = model.generate(random_ids(1, 5), **options)
    got = model.generate(random_ids(1, 5), **options, prompt_lookup_num_tokens=4)
    assert torch.equal(got, wanted) and max(rollbacks) > 0


@pytest.mark.parametrize("structure", ALL)
def test_generation_goes_on_from_a_given_state(structure: str) -> None:
    model, inputs = tiny_model(structure, eos_token_id=None), inputs_of()
    options = {**inputs, **LIVELY}
    whole = model.generate(**options, max_new_tokens=9)
    first = model.generate(**options, max_new_tokens=4, return_dict_in_generate=True)
    assert torch.equal(first.sequences, whole[:, :5])
    rest = model.generate(
        **options, decoder_input_ids=first.sequences, past_key_values=first.past_key_values, max_new_tokens=5
    )
    assert torch.equal(rest, whole)
    # It is the state that is read, and not the prompt again: a wrong state is refused.
    other = model.generate(**{**options, "input_ids": inputs["input_ids"].flip(0)}, max_new_tokens=4,
                           return_dict_in_generate=True)  # fmt: skip
    state = {"decoder_input_ids": first.sequences, "past_key_values": other.past_key_values}
    with pytest.raises(ValueError, match="row 0 has the state of another source"):
        model.generate(**options, **state, max_new_tokens=5)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("beams", [1, 3])
def test_given_encoder_outputs_stand_for_the_source(structure: str, beams: int) -> None:
    model, inputs = tiny_model(structure), inputs_of()
    options = {**LIVELY, "num_beams": beams, "max_new_tokens": STEPS}
    wanted = model.generate(**inputs, **options)
    encoder_outputs = model.get_encoder()(**inputs)
    got = model.generate(encoder_outputs=encoder_outputs, attention_mask=inputs["attention_mask"], **options)
    assert torch.equal(got, wanted)
    vectors = model.get_encoder().embed_tokens(inputs["input_ids"])
    got = model.generate(inputs_embeds=vectors, attention_mask=inputs["attention_mask"], **options)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(("source_size", "target_size"), [(7, 30), (30, 7)])
@pytest.mark.parametrize("beams", [1, 4])
def test_two_vocabularies_of_different_size(source_size: int, target_size: int, beams: int) -> None:
    model = tiny_model("luong", vocab_size=source_size, decoder_vocab_size=target_size)
    source = random_ids(3, 6, source_size)
    options = {**LIVELY, "num_beams": beams, "max_new_tokens": 10}
    sequences = model.generate(source, **options)
    assert sequences.max() < target_size and (sequences.max() >= source_size or target_size < source_size)
    assert torch.equal(model.generate(source, **options, use_cache=False), sequences)
    assert torch.equal(model.generate(source, **options, cache_implementation="static"), sequences)
    assistant = tiny_model("sutskever", vocab_size=source_size, decoder_vocab_size=target_size)
    greedy = {**options, "num_beams": 1, "no_repeat_ngram_size": 0}
    got = model.generate(source[:1], **greedy, assistant_model=assistant)
    assert torch.equal(got, model.generate(source[:1], **greedy))


@pytest.mark.parametrize("structure", ["luong", "cho"])
def test_the_static_cache_compiles_in_one_graph(structure: str) -> None:
    model, inputs = tiny_model(structure, torch.float32), inputs_of()
    options = {**inputs, **LIVELY, "max_new_tokens": 6}
    wanted = model.generate(**options)
    compiled_calls = 0

    def backend(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Any:
        nonlocal compiled_calls
        compiled_calls += 1
        return graph.forward

    torch._dynamo.reset()
    config = CompileConfig(fullgraph=True, dynamic=False, backend=backend, mode=None)
    config._compile_all_devices = True
    got = model.generate(**options, cache_implementation="static", compile_config=config)
    assert torch.equal(got, wanted)
    assert compiled_calls == 1  # every step but the first runs in the same graph


@pytest.mark.slow
def test_the_compiled_step_of_inductor_gives_equal_symbols() -> None:
    model, inputs = tiny_model("luong", torch.float32), inputs_of()
    options = {**inputs, **LIVELY, "max_new_tokens": 12}
    wanted = model.generate(**options)
    torch._dynamo.reset()
    config = CompileConfig(fullgraph=True, dynamic=False, mode="default")
    config._compile_all_devices = True
    assert torch.equal(model.generate(**options, cache_implementation="static", compile_config=config), wanted)
