"""Hard monotonic attention: the forward algorithm gives what adding up all alignments gives, with its gradients."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import padded_batch, random_ids, tiny_config, tiny_model
from torch import Tensor

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model.fast import plain


KINDS: dict[str, dict[str, Any]] = {
    "zeroth": {"rnn_type": "gru", "alignment_order": 0, "decoder_hidden_size": 7, "readout_size": 5},
    "first": {"rnn_type": "lstm", "alignment_order": 1, "context_feeding": "both", "layer_norm": True},
    "copying": {"rnn_type": "gru", "alignment_order": 0, "use_copy": True},
    "tied": {"rnn_type": "rnn_tanh", "alignment_order": 1, "share_embeddings": True, "tie_word_embeddings": True},
}  # fmt: skip
LONG = 9  # longer than the distances that have a score of their own


def model_of(kind: str, **options: Any) -> RnnSeq2SeqForConditionalGeneration:
    return tiny_model(attention_type="hard_monotonic", **{**KINDS[kind], **options})


def sum_over_alignments(model: Any, source: Tensor, labels: Tensor) -> Tensor:
    """Return log p(labels | source) of one pair (1, S), (1, T): every alignment by itself, as the paper defines it."""
    decoder, memory = model.model.decoder, model.get_encoder()(source)
    attention, order = decoder.attention, model.config.alignment_order
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    states = model.model(source, decoder_input_ids=inputs, output_layer=model.lm_head).last_hidden_state[0]
    vectors = memory.last_hidden_state[0]  # (S, D)
    keys, length = vectors @ attention.key_projection.weight.T, len(vectors)

    def move(t: int, i: int, j: int) -> Tensor:
        scores = []
        for k in range(i, length):
            score = states[t] @ keys[k]
            if order == 1:
                by_distance = attention.distance_from_state(states[t]) + attention.distance_from_key(keys[i])
                score = score + by_distance[min(k - i, 5)]
            scores.append(score)
        return torch.stack(scores).log_softmax(0)[j - i]

    def emit(t: int, j: int) -> Tensor:
        readout = (attention.memory_readout(vectors[j]) + attention.state_readout(states[t])).tanh()
        likely = model.lm_head(readout).softmax(-1)[labels[0, t]]
        if model.config.use_copy:
            gate = attention.generation_gate(readout).sigmoid().squeeze()
            likely = gate * likely + (1 - gate) * (source[0, j] == labels[0, t])
        return likely.log()

    steps = labels.shape[1]
    moves = {(t, i, j): move(t, i, j) for t in range(steps) for i in range(length) for j in range(i, length)}
    emissions = {(t, j): emit(t, j) for t in range(steps) for j in range(length)}
    paths = [
        sum(moves[t, i, j] + emissions[t, j] for t, (i, j) in enumerate(itertools.pairwise((0, *alignment))))
        for alignment in itertools.combinations_with_replacement(range(length), steps)
    ]
    return torch.stack(paths).logsumexp(0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("length", "steps"), [(1, 2), (4, 3), (LONG, 2)])
def test_a_loss_is_that_of_all_alignments_and_so_are_its_gradients(kind: str, length: int, steps: int) -> None:
    model, source, labels = model_of(kind), random_ids(1, length), random_ids(1, steps, seed=2)
    wanted = -sum_over_alignments(model, source, labels) / steps
    wanted.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model(source, labels=labels).loss
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-9, rtol=1e-6, msg=name)
    # With one position nothing is chosen, and the scores of positions have no gradient.
    chosen = "model.decoder.attention.key_projection.weight"
    assert (model.get_parameter(chosen).grad.abs().max() > 1e-6) == (length > 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "copying"])
def test_alignments_never_go_back(kind: str) -> None:
    model, batch = model_of(kind), padded_batch("interior", [5, 3, 6], 7)
    with torch.no_grad():  # else what a symbol tells of its position may speak for an earlier one afterwards
        model.model.decoder.attention.memory_readout.weight.zero_()
    sequences = torch.cat([torch.full((3, 1), 2), random_ids(3, 5)], dim=1)
    weights = model.alignments(sequences, batch.input_ids, attention_mask=batch.attention_mask)  # (B, T, S)
    behind = weights.flip(-1).cumsum(-1).flip(-1)  # p(a_t >= j)
    assert (behind[:, 1:] - behind[:, :-1]).min() > -1e-6 and (weights[:, -1] - weights[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_short_targets_add_up_to_one(kind: str) -> None:
    model, source = model_of(kind), random_ids(1, 4)
    logits = model(source, decoder_input_ids=torch.tensor([[2, 5, 7]])).logits
    torch.testing.assert_close(logits.logsumexp(-1), torch.zeros_like(logits[..., 0]))
    torch.testing.assert_close(logits, logits.log_softmax(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_pair_of_a_sure_model_has_a_finite_loss_and_gradients(dtype: torch.dtype) -> None:
    model = model_of("first").to(dtype).train()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    source, labels = random_ids(2, 60), random_ids(2, 50)
    mask = torch.ones_like(source)
    mask[1, 3:] = 0
    loss = model(source, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_dropout_does_not_part_training_step_by_step_from_all_at_once() -> None:
    """What y_{t-1} tells of a_{t-1} is asked of the h_{t-1} that wrote it, whatever dropout left of it."""
    model = model_of("first", hidden_dropout=0.4).train()
    source, labels, losses = random_ids(2, 5), random_ids(2, 4), []
    for off in ((), ("chunked",), ("later", "trimmed")):
        torch.manual_seed(0)
        with plain(*off) if off else plain():
            losses.append(model(source, labels=labels).loss)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


REFUSED: dict[str, dict[str, Any]] = {
    "copy_slots": {"use_copy": True, "copy_slots": 2},
    "coverage": {"coverage": True},
    "input_feeding": {"input_feeding": True},
    "attention_query": {"attention_query": "previous_state"},
    "readout_type": {"readout_type": "maxout"},
    "num_mel_bins": {"num_mel_bins": 4},
    "alignment_order": {"attention_type": "general", "alignment_order": 1},
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_do_not_go_with_it_are_refused_by_name(option: str) -> None:
    with pytest.raises(StrictDataclassError, match=rf"(?s)({option}=.*attention_type=|attention_type=.*{option}=)"):
        tiny_config(**{"attention_type": "hard_monotonic", **REFUSED[option]})


def test_inputs_that_do_not_tell_the_symbols_are_refused() -> None:
    model, source = model_of("zeroth"), random_ids(1, 4)
    with pytest.raises(ValueError, match=r"hard_monotonic.* not decoder_inputs_embeds"):
        model(source, decoder_inputs_embeds=torch.zeros(1, 2, 6, dtype=torch.float64))
    model.train().teacher_forcing_ratio = 0.0
    with pytest.raises(ValueError, match=r"teacher_forcing_ratio=0.0: .*hard_monotonic"):
        model(source, labels=random_ids(1, 3))


def test_it_learns_to_copy_and_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = model_of("first", encoder_layers=1, decoder_layers=1, layer_norm=False).float().train()
    for number, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(80):
        ids = torch.cat([random_ids(16, 3, seed=step), torch.full((16, 1), 3)], 1)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    source = torch.cat([random_ids(16, 3, seed=999), torch.full((16, 1), 3)], 1)
    found = model.eval().generate(source, max_new_tokens=4, do_sample=False)[:, 1:]
    assert (found == source).all(1).float().mean() > 0.9
    model.save_pretrained(tmp_path)
    loaded = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(source, max_new_tokens=4, do_sample=False)[:, 1:], found)
