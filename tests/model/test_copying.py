"""Copying and coverage against a restatement of See, Liu & Manning 2017, and what holds for every other option too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import test_alignments
import test_generation
import test_generation_edges
import test_loss
import test_modeling
import test_padding
import test_state
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import (
    ALL,
    ATTENDING,
    LIVELY,
    PADDINGS,
    STRUCTURES,
    gradients,
    padded_batch,
    random_ids,
    tiny_config,
    tiny_model,
    trim,
)
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model.copying import Pointer, log_mixture, source_symbols
from hf_rnn_seq2seq.model.state import RecurrentStateLayer, new_cache


Model = RnnSeq2SeqForConditionalGeneration
TIGHT = {"atol": 1e-10, "rtol": 1e-8}

COPYING: dict[str, dict[str, Any]] = {
    "see": {"rnn_type": "lstm", "attention_type": "additive", "use_copy": True, "coverage": True,
            "coverage_loss_weight": 0.7, "decoder_layers": 1, "encoder_layers": 1},
    "pointer": {"rnn_type": "gru", "attention_type": "general", "use_copy": True, "readout_type": "none"},
    "covered": {"rnn_type": "lstm", "attention_type": "dot", "coverage": True, "context_feeding": "both"},
    "fed": {"rnn_type": "gru", "attention_type": "general", "attention_query": "previous_state",
            "input_feeding": True, "context_feeding": "both", "use_copy": True, "coverage": True,
            "share_embeddings": True, "tie_word_embeddings": True, "readout_type": "maxout"},
    # Of the twelve ids of the other modules' batches the last three are slots.
    "slots": {"rnn_type": "lstm", "attention_type": "additive", "use_copy": True, "coverage": True,
              "vocab_size": 9, "copy_slots": 3},
}  # fmt: skip
POINTERS = [name for name, options in COPYING.items() if options.get("use_copy")]
COVERED = [name for name, options in COPYING.items() if options.get("coverage")]
# Labels drawn at random are no labels for slots: a slot has to occur in the source.
LABELLED = [name for name in COPYING if name != "slots"]


@pytest.fixture(autouse=True)
def _known_structures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`tiny_model()` and the tests of the other modules know these structures by name."""
    for name, options in COPYING.items():
        monkeypatch.setitem(STRUCTURES, name, options)
        monkeypatch.setitem(ALL, name, options)
    ATTENDING.extend(COPYING)
    yield
    del ATTENDING[-len(COPYING) :]


def labels_of(rows: int = 3, steps: int = 5) -> Tensor:
    labels = random_ids(rows, steps, seed=3)
    labels[0, 3:] = -100
    return labels


# What the other modules state of every structure: (test, its arguments beside the structure).
PROPERTIES: list[tuple[Any, dict[str, Any]]] = [
    (test_generation.test_greedy_takes_the_likeliest_symbol_at_each_step, {}),
    *((test_generation.test_the_cache_changes_no_symbol, {"beams": n}) for n in (1, 4)),
    (test_generation.test_a_beam_that_holds_everything_is_exhaustive_search, {"length_penalty": 1.0}),
    (test_generation.test_n_best_lists_are_sorted_and_their_scores_are_log_probabilities, {}),
    (test_generation.test_sampling_follows_its_seed, {"beams": 3}),
    (test_generation.test_scores_attentions_and_hidden_states_are_those_of_a_whole_run, {}),
    (test_generation.test_drafted_symbols_come_with_the_attentions_of_greedy_search, {}),
    (test_generation.test_an_assistant_that_never_errs_is_never_undone, {}),
    (test_generation.test_generation_goes_on_from_a_given_state, {}),
    (test_generation.test_the_static_cache_compiles_in_one_graph, {}),
    *((test_generation_edges.test_padding_symbols_without_a_mask_are_padding_for_generate_too, {"num_beams": n})
      for n in (1, 3)),
    *((test_padding.test_source_padding_changes_no_logits_loss_or_gradients, {"kind": kind}) for kind in PADDINGS),
    *((test_padding.test_decoder_padding_changes_no_logits_loss_or_gradients, {"kind": kind}) for kind in PADDINGS),
    *((test_padding.test_source_padding_changes_no_generated_symbol, {"kind": kind, "beams": 3}) for kind in PADDINGS),
    *((test_padding.test_prompt_padding_changes_no_generated_symbol, {"kind": kind, "beams": 1}) for kind in PADDINGS),
    (test_padding.test_without_a_mask_padding_symbols_are_padding, {}),
    (test_padding.test_a_source_of_padding_only_gives_finite_results, {}),
    *((test_modeling.test_steps_from_the_cache_equal_the_whole_run, {"chunks": n}) for n in ([1] * 5, [3, 1, 1])),
    *((test_modeling.test_one_step_after_the_other_equals_all_at_once, {"padded": p}) for p in (False, True)),
    (test_modeling.test_given_encoder_outputs_stand_for_the_source, {}),
    *((test_state.test_beams_reorder_all_that_a_step_reads, {"make": make})
      for make in (new_cache, test_state.static_cache)),
    *((test_state.test_memory_does_not_grow_with_the_length, {"make": make})
      for make in (new_cache, test_state.static_cache)),
    (test_loss.test_the_loss_is_the_cross_entropy_of_the_labels_that_count, {}),
    (test_loss.test_training_on_drawn_symbols_has_finite_gradients, {}),
    (test_alignments.test_alignments_are_the_attention_used_while_decoding,
     {"beams": 4, "returned": 1, "sampled": False}),
    (test_alignments.test_references_are_aligned_as_in_training, {}),
]  # fmt: skip


# What slots cannot change, and what draws labels.
NOT_FOR_SLOTS = {
    test_padding.test_source_padding_changes_no_logits_loss_or_gradients,
    test_padding.test_decoder_padding_changes_no_logits_loss_or_gradients,
    test_padding.test_a_source_of_padding_only_gives_finite_results,
    test_state.test_memory_does_not_grow_with_the_length,
    test_loss.test_the_loss_is_the_cross_entropy_of_the_labels_that_count,
    test_loss.test_training_on_drawn_symbols_has_finite_gradients,
    test_alignments.test_references_are_aligned_as_in_training,
}
CASES = [
    pytest.param(test, arguments, structure, id=f"{test.__name__[5:]}-{structure}-{n}")
    for n, (test, arguments) in enumerate(PROPERTIES)
    for structure in COPYING
    if not (structure == "slots" and test in NOT_FOR_SLOTS)
]


@pytest.mark.parametrize(("test", "arguments", "structure"), CASES)
def test_as_every_structure(test: Any, arguments: dict[str, Any], structure: str) -> None:
    test(structure, **arguments)


@pytest.mark.parametrize("structure", LABELLED)
def test_a_saved_model_comes_back(structure: str, tmp_path: Any) -> None:
    model, source, labels = tiny_model(structure), random_ids(3, 6), labels_of()
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path, dtype=torch.float64)
    for option in ("use_copy", "coverage", "coverage_loss_weight"):
        assert getattr(loaded.config, option) == getattr(model.config, option)
    torch.testing.assert_close(loaded(source, labels=labels).logits, model(source, labels=labels).logits, **TIGHT)
    torch.testing.assert_close(loaded.train()(source, labels=labels).loss, model.train()(source, labels=labels).loss)
    options = {**LIVELY, "num_beams": 2, "max_new_tokens": 6}
    assert torch.equal(loaded.eval().generate(source, **options), model.eval().generate(source, **options))


def restated(model: Model, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    P(w) (T, V + slots), the summed cross entropy and the summed coverage loss of one target (T,) of one source (S,),
    by the equations of the paper; the encoder and the recurrence are those of the model.
    """
    config, decoder = model.config, model.model.decoder
    attention = decoder.attention
    encoded = model.get_encoder()(source[None])
    state, _ = model.model._read_source(encoded, None, source[None], needs_state=True)
    assert state is not None
    layers, memory = state.layers, encoded.last_hidden_state[0]
    symbols = range(config.vocab_size + config.copy_slots)
    coverage = [torch.zeros((), dtype=memory.dtype) for _ in source]  # eq. 10
    previous, rows, loss, coverage_loss = config.decoder_start_token_id, [], 0, 0
    for symbol in target:
        x = decoder.embed_tokens.weight[previous if previous < config.vocab_size else config.unk_token_id]
        stack = decoder.rnn.step(x[None], layers)
        layers, s = stack.states, stack.output[0]
        scores = []
        for m, covered in zip(memory, coverage, strict=True):  # eq. 11 and 1
            if config.attention_type == "additive":
                w = attention.coverage_weight if config.coverage else 0
                u = attention.key_projection.weight @ m + w * covered
                e = attention.query_projection.weight @ s + attention.query_projection.bias + u
                scores.append(attention.score_projection.weight[0] @ torch.tanh(e))
            else:
                w = attention.coverage_weight[0] if config.coverage else 0
                scores.append(s @ (attention.key_projection.weight @ m) + w * covered)
        exponentials = [score.exp() for score in scores]
        weights = [e / sum(exponentials) for e in exponentials]  # eq. 2
        context = sum(a * m for a, m in zip(weights, memory, strict=True))  # eq. 3
        readout = s
        if config.readout_type == "tanh":
            readout = torch.tanh(decoder.readout.weight @ torch.cat([context, s]))
        vocabulary = (model.lm_head.weight @ readout + model.lm_head.bias).exp()  # eq. 4
        vocabulary = vocabulary / vocabulary.sum()
        gate = decoder.generation_gate
        p_gen = 1 / (1 + torch.exp(-(gate.weight[0] @ torch.cat([context, s, x]) + gate.bias[0])))  # eq. 8
        row = []
        for w in symbols:  # eq. 9; "if w is an out-of-vocabulary word, then P_vocab(w) is zero"
            copied = sum((a for a, x_j in zip(weights, source, strict=True) if x_j == w), torch.zeros(()))
            row.append((p_gen * vocabulary[w] if w < config.vocab_size else 0) + (1 - p_gen) * copied)
        rows.append(torch.stack(row))
        loss = loss - rows[-1][symbol].log()
        coverage_loss = coverage_loss + sum(min(a, c) for a, c in zip(weights, coverage, strict=True))  # eq. 12
        coverage = [c + a for c, a in zip(coverage, weights, strict=True)]
        previous = symbol
    return torch.stack(rows), loss, coverage_loss


@pytest.mark.parametrize("attention_type", ["additive", "general"])
@pytest.mark.parametrize("coverage", [True, False], ids=["covered", "plain"])
@pytest.mark.parametrize(("rnn_type", "slots"), [("lstm", 0), ("gru", 0), ("gru", 4)])
def test_values_and_gradients_are_those_of_the_papers_equations(
    rnn_type: str, slots: int, coverage: bool, attention_type: str
) -> None:
    options: dict[str, Any] = {"coverage": True, "coverage_loss_weight": 0.7} if coverage else {}
    options |= {"vocab_size": 12 - slots, "copy_slots": slots}
    model = tiny_model(rnn_type=rnn_type, attention_type=attention_type, use_copy=True, **options).train()
    sources = [torch.tensor(ids) for ids in ([5, 7, 5, 5, 3], [8, 0, 3, 8, 11, 4, 8], [9])]
    labels = random_ids(3, 6, seed=2)
    labels[0, :2] = torch.tensor([5, 3])  # symbols of the source, also the end symbol
    labels[labels >= model.config.vocab_size] = 7
    labels[1, :3] = torch.tensor([8, 11, 8])  # if there are slots, these are two of them
    input_ids = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=1)
    out = model(input_ids, labels=labels, skip_logits=False)
    out.loss.backward()
    got = gradients(model)

    total = torch.zeros((), dtype=torch.float64)
    for row, source in enumerate(sources):
        wanted, loss, coverage_loss = restated(model, source, labels[row])
        torch.testing.assert_close(out.logits[row].exp(), wanted, **TIGHT)
        total = total + loss + (0.7 * coverage_loss if coverage else 0)
    torch.testing.assert_close(out.loss, total / labels.numel(), **TIGHT)
    (total / labels.numel()).backward()
    for name, wanted in gradients(model).items():
        assert name.startswith("model.encoder.embed") or (wanted != 0).any(), name
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("structure", POINTERS)
@pytest.mark.parametrize("kind", PADDINGS)
def test_the_distribution_sums_to_one_and_padding_has_none_of_it(structure: str, kind: str) -> None:
    model = tiny_model(structure)
    batch = padded_batch(kind, [5, 2, 7, 0], 7)
    # Symbol 4 only where there is padding, and never generated.
    ids = batch.input_ids.masked_fill(batch.input_ids == 4, 5).masked_fill(batch.attention_mask == 0, 4)
    with torch.no_grad():
        model.lm_head.bias[4] = -1e3
    logits = model(ids, batch.attention_mask, decoder_input_ids=random_ids(4, 3)).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(4, 3, dtype=torch.float64), **TIGHT)
    assert (logits[..., 4].exp() == 0).all() and torch.isfinite(logits).all()


def test_the_first_position_of_each_symbol_is_found() -> None:
    ids = torch.randint(0, 6, (50, 9))
    symbols = source_symbols(ids)
    assert torch.equal(symbols[:, 0], ids)
    assert symbols[:, 1].tolist() == [[row.index(symbol) for symbol in row] for row in ids.tolist()]


def test_a_gate_that_is_closed_copies_and_one_that_is_open_generates() -> None:
    model, source, target = tiny_model("pointer"), random_ids(3, 6), random_ids(3, 4)
    gate = model.model.decoder.generation_gate
    with torch.no_grad():
        gate.weight.zero_()
        gate.bias.fill_(-60)
        out = model(source, decoder_input_ids=target, output_attentions=True)
        weights = out.cross_attentions[0][:, 0]  # (B, T, S)
        copied = torch.zeros(3, 4, 12, dtype=torch.float64)
        for j in range(6):
            copied[torch.arange(3), :, source[:, j]] += weights[..., j]
        torch.testing.assert_close(out.logits.exp(), copied, **TIGHT)

        gate.bias.fill_(60)
        generator = tiny_model("pointer", use_copy=False, attention_type="none")  # nothing else reads the attention
        generator.load_state_dict(model.state_dict(), strict=False)
        wanted = generator(source, decoder_input_ids=target).logits.log_softmax(-1)
        torch.testing.assert_close(model(source, decoder_input_ids=target).logits, wanted, **TIGHT)


@pytest.mark.parametrize("gate", [-200.0, -30.0, 0.0, 30.0, 200.0])
def test_probabilities_that_underflow_stay_finite_with_finite_gradients(gate: float) -> None:
    # P_vocab of all but one symbol is zero in single precision, and so is the attention of all but one position.
    logits = (1e3 * torch.eye(2, 6)[None]).requires_grad_()
    weights = torch.tensor([[[0.0, 1.0, 0.0]] * 2], requires_grad=True)
    gates = torch.full((1, 2, 1), gate, requires_grad=True)
    mixed = log_mixture(logits, Pointer(gates, weights, source_symbols(torch.tensor([[3, 4, 3]]))))
    assert mixed.dtype == torch.float32 and torch.isfinite(mixed).all()
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(1, 2), atol=1e-4, rtol=0)
    mixed.sum().backward()
    for tensor in (logits, weights, gates):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("structure", LABELLED)
def test_in_half_precision_the_mixture_is_made_in_single(structure: str) -> None:
    model, source, labels = tiny_model(structure, torch.float32).train(), random_ids(3, 6), labels_of()
    wanted = model(source, labels=labels, skip_logits=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(source, labels=labels, skip_logits=False)
    out.loss.backward()
    torch.testing.assert_close(out.loss, wanted.loss, atol=0.1, rtol=0.05)
    if structure in POINTERS:
        assert out.logits.dtype == torch.float32
        torch.testing.assert_close(out.logits.exp().sum(-1), torch.ones(3, 5))
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_label_smoothing_smooths_the_mixture() -> None:
    model, source, labels = tiny_model("pointer", label_smoothing=0.2).train(), random_ids(3, 6), labels_of()
    out = model(source, labels=labels, skip_logits=False)
    real = labels != -100
    rows = out.logits[real]
    smoothed = 0.8 * rows.gather(1, labels[real][:, None]).sum() + 0.2 * rows.mean(-1).sum()
    torch.testing.assert_close(out.loss, -smoothed / real.sum(), **TIGHT)


def test_copying_alone_trains_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("pointer").train()
    monkeypatch.setattr(model.model.decoder, "_run_steps", None)
    assert torch.isfinite(model(random_ids(3, 6), labels=labels_of()).loss)


def test_scheduled_sampling_draws_from_the_mixture() -> None:
    for structure in [name for name in POINTERS if name in LABELLED]:
        model = tiny_model(structure).train()
        model.teacher_forcing_ratio = 0.0
        with torch.no_grad():
            model.model.decoder.generation_gate.weight.zero_()
            model.model.decoder.generation_gate.bias.fill_(-60)
        read: list[Tensor] = []
        model.model.decoder.embed_tokens.register_forward_hook(lambda _, x, __, read=read: read.append(x[0]))
        source = torch.tensor([[5, 6, 5], [7, 7, 8]]).repeat(20, 1)
        model(source, labels=random_ids(40, 6, seed=4))
        drawn = torch.cat(read[-5:], dim=1)
        assert (drawn[..., None] == source[:, None]).any(-1).all()
        assert set(drawn.flatten().tolist()) == {5, 6, 7, 8}


@pytest.mark.parametrize("structure", [name for name in COVERED if name in LABELLED])
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("items", [None, 29])
def test_the_coverage_loss_is_what_was_attended_to_again(structure: str, kind: str, items: int | None) -> None:
    model, batch, labels = tiny_model(structure), padded_batch(kind, [5, 2, 7], 7), labels_of()
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    plain = model(**source, labels=labels, num_items_in_batch=items, output_attentions=True)
    loss = model.train()(**source, labels=labels, num_items_in_batch=items).loss
    weights = plain.cross_attentions[0][:, 0]
    repeated = 0.0
    for row in range(3):
        for t in range(5):
            if labels[row, t] != -100:
                again = torch.minimum(weights[row, t], weights[row, :t].sum(0))
                repeated += again[batch.attention_mask[row].bool()].sum().item()
    weight = model.config.coverage_loss_weight
    count = int((labels != -100).sum()) if items is None else items
    torch.testing.assert_close(
        loss - plain.loss, torch.tensor(weight * repeated / count, dtype=torch.float64), **TIGHT
    )


@pytest.mark.parametrize("structure", [name for name in COVERED if name in LABELLED])
def test_the_coverage_loss_of_padded_steps_is_that_of_the_rows_alone(structure: str) -> None:
    model, sources = tiny_model(structure).train(), random_ids(4, 5)
    targets = padded_batch("interior", [3, 5, 1, 4], 5, seed=3)
    labels = random_ids(4, 5, seed=4).masked_fill(targets.attention_mask == 0, -100)
    got = model(sources, decoder_input_ids=targets.input_ids, decoder_attention_mask=targets.attention_mask,
                labels=labels).loss  # fmt: skip
    wanted = [
        model(sources[row : row + 1], decoder_input_ids=target, num_items_in_batch=13,
              labels=labels[row : row + 1, targets.attention_mask[row].bool()]).loss
        for row, target in enumerate(targets.rows)
    ]  # fmt: skip
    torch.testing.assert_close(got, torch.stack(wanted).sum(), **TIGHT)


@pytest.mark.parametrize("attention_type", ["additive", "general", "dot"])
def test_coverage_added_to_a_trained_model_changes_nothing_at_first(attention_type: str, tmp_path: Any) -> None:
    config = tiny_config(attention_type=attention_type, use_copy=True)
    trained = Model(config).eval()
    trained.save_pretrained(tmp_path)
    model, report = Model.from_pretrained(tmp_path, coverage=True, output_loading_info=True)
    assert set(report["missing_keys"]) == {"model.decoder.attention.coverage_weight"}
    source, target = random_ids(2, 5), random_ids(2, 4)
    got, wanted = (m(source, decoder_input_ids=target).logits for m in (model, trained))
    torch.testing.assert_close(got, wanted)
    model.train()(source, labels=target).loss.backward()
    assert (model.model.decoder.attention.coverage_weight.grad != 0).all()


@pytest.mark.parametrize("structure", COPYING)
def test_steps_that_were_undone_leave_no_trace(structure: str) -> None:
    model, batch = tiny_model(structure), padded_batch("left", [5, 2, 7], 7)
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    right, wrong = random_ids(3, 6), random_ids(3, 3, seed=5)
    cache = new_cache(model.config)
    cache.self_attention_cache.activate_past_recording()
    for part, undone in ((right[:, :2], 0), (wrong, 3), (right[:, 2:4], 0), (wrong[:, :2], 2)):
        model(**source, decoder_input_ids=part, past_key_values=cache)
        cache.crop(-undone)
    got = model(**source, decoder_input_ids=right[:, 4:], past_key_values=cache).logits
    wanted = model(**source, decoder_input_ids=right, use_cache=False).logits[:, 4:]
    torch.testing.assert_close(got, wanted, **TIGHT)


@pytest.mark.parametrize("structure", COPYING)
def test_prompt_lookup_undoes_wrong_guesses(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[int] = []
    crop = RecurrentStateLayer.crop
    monkeypatch.setattr(RecurrentStateLayer, "crop", lambda layer, n: (undone.append(-n), crop(layer, n))[1])
    options = {**LIVELY, "no_repeat_ngram_size": 0, "max_new_tokens": 30}
    model = tiny_model(structure, eos_token_id=None)
    for seed in range(3):
        source = random_ids(1, 5, seed=seed)
        wanted = model.generate(source, **options)
        assert torch.equal(model.generate(source, **options, prompt_lookup_num_tokens=4), wanted)
    assert max(undone) > 0


@pytest.mark.parametrize("structure", POINTERS)
def test_transition_scores_are_the_models_log_probabilities_as_they_are(structure: str) -> None:
    model, source = tiny_model(structure, eos_token_id=None), random_ids(3, 5)
    out = model.generate(source, do_sample=False, max_new_tokens=4, return_dict_in_generate=True, output_scores=True)
    plain, normalised = (
        model.compute_transition_scores(out.sequences, out.scores, normalize_logits=n) for n in (False, True)
    )
    torch.testing.assert_close(plain, normalised)
    mixed = model(source, decoder_input_ids=out.sequences[:, :-1]).logits
    wanted = mixed.gather(2, out.sequences[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(plain, wanted.float())


@pytest.mark.parametrize("structure", POINTERS)
def test_logits_to_keep_keep_their_own_copies(structure: str) -> None:
    model, source, target = tiny_model(structure), random_ids(2, 5), random_ids(2, 4)
    whole = model(source, decoder_input_ids=target).logits
    for keep, kept in ((1, whole[:, -1:]), (torch.tensor([0, 2]), whole[:, [0, 2]])):
        got = model(source, decoder_input_ids=target, logits_to_keep=keep).logits
        torch.testing.assert_close(got, kept, **TIGHT)


def test_without_the_symbols_of_the_source_there_is_nothing_to_copy() -> None:
    model, vectors, target = tiny_model("pointer"), torch.randn(2, 5, 6).double(), random_ids(2, 3)
    with pytest.raises(ValueError, match=r"use_copy=True .* give input_ids"):
        model(inputs_embeds=vectors, decoder_input_ids=target)
    with pytest.raises(ValueError, match=r"use_copy=True .* give input_ids"):
        model.generate(inputs_embeds=vectors, max_new_tokens=3)
    source = random_ids(2, 5)
    encoded = model.get_encoder()(source)
    wanted = model(source, decoder_input_ids=target).logits
    encoded.source_ids = None
    with pytest.raises(ValueError, match="encoder_outputs with source_ids"):
        model(encoder_outputs=encoded, decoder_input_ids=target)
    torch.testing.assert_close(model(source, encoder_outputs=encoded, decoder_input_ids=target).logits, wanted)
    assert isinstance(encoded, BaseModelOutput)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_copy": True, "attention_type": "none"}, r"(?s)use_copy=True.* needs .* choose an attention_type"),
        (
            {"coverage": True, "attention_type": "none"},
            r"(?s)coverage=True.* choose an attention_type",
        ),
        ({"use_copy": True, "decoder_vocab_size": 9}, r"(?s)decoder_vocab_size=9.* leave decoder_vocab_size out"),
        ({"use_copy": True, "input_feature_size": 3}, "use_copy=True, input_feature_size=3: the input is vectors"),
        ({"coverage": True, "coverage_loss_weight": -0.5}, r"(?s)coverage_loss_weight must be .* -0.5"),
        (
            {"coverage_loss_weight": 0.5},
            "coverage_loss_weight=0.5, coverage=False: there is no coverage loss",
        ),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        RnnSeq2SeqConfig(vocab_size=12, **options)


def copy_task(rows: int, low: int, high: int, seed: int) -> tuple[Tensor, Tensor]:
    """The target is the second, the first and again the second symbol, from low to high; five of any kind follow."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(4, 24, (rows, 5), generator=generator)
    source = torch.cat([torch.randint(low, high, (rows, 2), generator=generator), noise], dim=1)
    return source, torch.cat([source[:, [1, 0, 1]], torch.full((rows, 1), 3)], dim=1)


@pytest.mark.parametrize("use_copy", [True, False], ids=["copying", "generating"])
def test_symbols_that_were_never_targets_can_be_copied(use_copy: bool) -> None:
    config = RnnSeq2SeqConfig(vocab_size=24, embedding_size=16, encoder_hidden_size=32, decoder_hidden_size=32,
                              encoder_layers=1, decoder_layers=1, rnn_type="gru", use_copy=use_copy,
                              embedding_dropout=0.2)  # fmt: skip
    model = Model(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(200):
        source, labels = copy_task(32, 4, 14, seed=step)
        model(source, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    accuracies = []
    for low, high in ((4, 14), (14, 24)):
        source, labels = copy_task(100, low, high, seed=1000)
        written = model.generate(source, do_sample=False, max_new_tokens=4)
        right = [trim(got[1:]) == wanted for got, wanted in zip(written, labels.tolist(), strict=True)]
        accuracies.append(sum(right) / len(right))
    assert accuracies[0] > 0.9
    assert accuracies[1] > 0.9 if use_copy else accuracies[1] == 0
