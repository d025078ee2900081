"""The training loss by hand, and scheduled sampling: which symbol each training step reads."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import STRUCTURES, gradients, padded_batch, random_ids, tiny_model
from torch import Tensor
from torch.nn import functional as F

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model.loss import cross_entropy, shift_tokens_right
from hf_rnn_seq2seq.model.scheduled_sampling import ScheduledSampling


def inputs_of(rows: int = 3) -> dict[str, Tensor]:
    batch = padded_batch("left", [5, 2, 7, 4][:rows], 7)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def labels_of(rows: int = 3) -> Tensor:
    labels = random_ids(rows, 5)
    labels[0, 2:] = -100
    labels[1, 4:] = -100
    labels[2, 1] = -100  # in the middle too
    return labels


def loss_by_hand(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> list[float]:
    """-log p of every label that counts; smoothed: (1 - e) of it and e of the mean over all symbols."""
    losses = []
    for row_logits, row_labels in zip(logits.tolist(), labels.tolist(), strict=True):
        for scores, label in zip(row_logits, row_labels, strict=True):
            if label != -100:
                log_z = math.log(sum(math.exp(score) for score in scores))
                log_p = [score - log_z for score in scores]
                losses.append(-(1 - smoothing) * log_p[label] - smoothing * sum(log_p) / len(log_p))
    return losses


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_loss_is_the_cross_entropy_of_the_labels_that_count(structure: str) -> None:
    model, labels = tiny_model(structure), labels_of()
    out = model(**inputs_of(), labels=labels)
    by_hand = loss_by_hand(out.logits, labels)
    assert len(by_hand) == 10
    assert out.loss.item() == pytest.approx(sum(by_hand) / 10, rel=1e-10)
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits.transpose(1, 2), labels))
    assert out.past_key_values is None


def test_labels_are_shifted_behind_the_start_symbol_and_not_the_logits() -> None:
    model, labels = tiny_model("luong"), labels_of()
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted.tolist() == [[2, *[1 if label == -100 else label for label in row[:-1]]] for row in labels.tolist()]
    with_labels = model(**inputs_of(), labels=labels)
    with_inputs = model(**inputs_of(), decoder_input_ids=shifted)
    torch.testing.assert_close(with_labels.logits, with_inputs.logits)
    # Decoder inputs that are given are read as they are.
    other = model(**inputs_of(), decoder_input_ids=random_ids(3, 5, seed=9), labels=labels)
    assert not torch.allclose(other.logits, with_labels.logits)


def test_label_smoothing_is_of_the_training_loss_only() -> None:
    model, labels = tiny_model("luong", label_smoothing=0.3), labels_of()
    evaluated = model(**inputs_of(), labels=labels)
    trained = model.train()(**inputs_of(), labels=labels)
    plain, smoothed = (sum(loss_by_hand(evaluated.logits, labels, smoothing)) / 10 for smoothing in (0.0, 0.3))
    assert evaluated.loss.item() == pytest.approx(plain, rel=1e-10)
    assert trained.loss.item() == pytest.approx(smoothed, rel=1e-10)
    assert abs(plain - smoothed) > 0.01


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.75])
@pytest.mark.parametrize(("slots", "normalised"), [(0, True), (0, False), (3, True)])
def test_the_cross_entropy_is_smoothed_over_the_vocabulary_without_its_slots(
    smoothing: float, slots: int, normalised: bool
) -> None:
    vocabulary = 5
    scores = torch.randn(4, vocabulary + slots)
    log_p = scores.log_softmax(-1)
    labels = torch.tensor([1, -100, vocabulary + slots - 1, 0])
    found = cross_entropy(log_p if normalised else scores, labels, smoothing, normalised, vocabulary)
    wanted = sum(
        -(1 - smoothing) * log_p[row, label] - smoothing * log_p[row, :vocabulary].mean()
        for row, label in enumerate(labels.tolist())
        if label != -100
    )
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    half = cross_entropy(log_p.bfloat16(), labels, smoothing, normalised, vocabulary)
    assert half.dtype == torch.float32 and float(half) == pytest.approx(float(wanted), rel=0.05)


def test_where_there_is_no_padding_symbol_masked_labels_become_the_first() -> None:
    labels = torch.tensor([[4, -100, 5]])
    assert shift_tokens_right(labels, None, 2).tolist() == [[2, 4, 0]]
    assert shift_tokens_right(labels, 1, 2).tolist() == [[2, 4, 1]]
    with pytest.raises(ValueError, match="decoder_start_token_id is None"):
        shift_tokens_right(labels, 1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [37, torch.tensor(37)], ids=["int", "tensor"])
def test_the_sum_is_divided_by_the_number_of_items_given(count: int | Tensor) -> None:
    model, labels = tiny_model("luong"), labels_of()
    out = model(**inputs_of(), labels=labels, num_items_in_batch=count)
    assert out.loss.item() == pytest.approx(sum(loss_by_hand(out.logits, labels)) / 37, rel=1e-10)


@pytest.mark.parametrize("structure", ["cho", "luong"])
def test_gradients_add_up_over_parts_of_a_batch(structure: str) -> None:
    # What Trainer does when it accumulates: rows of very different length, one count for all.
    model, inputs, labels = tiny_model(structure), inputs_of(4), labels_of(4)
    model(**inputs, labels=labels).loss.backward()
    wanted = gradients(model)
    count = (labels != -100).sum()
    for row in range(4):
        part = {name: value[row : row + 1] for name, value in inputs.items()}
        model(**part, labels=labels[row : row + 1], num_items_in_batch=count).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-12, rtol=1e-10)


# Scheduled sampling. The model below always draws symbol 11, which no reference contains; so what it read can be told.

DRAWN = 11


def drawing_model(structure: str, ratio: float) -> tuple[RnnSeq2SeqForConditionalGeneration, list[Tensor]]:
    """A model in training that predicts `DRAWN` only, and a list that takes the ids its decoder embeds."""
    model = tiny_model(structure)
    model.train()
    with torch.no_grad():
        model.lm_head.bias.fill_(-1e4)
        model.lm_head.bias[DRAWN] = 1e4
    model.teacher_forcing_ratio = ratio
    read: list[Tensor] = []
    model.model.decoder.embed_tokens.register_forward_hook(lambda _, arguments, output: read.append(arguments[0]))
    return model, read


READERS = [name for name in STRUCTURES if name != "textbook"]


@pytest.mark.parametrize("structure", READERS)
def test_ratio_one_is_teacher_forcing(structure: str) -> None:
    model, labels = tiny_model(structure).train(), labels_of()
    assert model.teacher_forcing_ratio == 1.0
    wanted = model.eval()(**inputs_of(), labels=labels)
    got = model.train()(**inputs_of(), labels=labels, skip_logits=False)
    torch.testing.assert_close(got.logits, wanted.logits, atol=1e-12, rtol=1e-10)
    # The path that draws, with coins that all say reference. (The model itself then takes the other path.)
    always = ScheduledSampling(model._logits, model.prepare_decoder_input_ids_from_labels(labels), 1.0, "step", None)
    assert always.forced.all()
    model._scheduled_sampling = lambda reference: always
    stepped = model(**inputs_of(), labels=labels, skip_logits=False)
    stepped.loss.backward()
    drawn_gradients = gradients(model)
    del model._scheduled_sampling
    model(**inputs_of(), labels=labels).loss.backward()
    torch.testing.assert_close(stepped.logits, wanted.logits, atol=1e-12, rtol=1e-10)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(drawn_gradients[name], gradient, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("structure", READERS)
def test_ratio_zero_never_reads_the_reference(structure: str) -> None:
    model = tiny_model(structure)
    model.train()
    model.teacher_forcing_ratio = 0.0
    references = [random_ids(3, 5), random_ids(3, 5, seed=5)]
    assert not torch.equal(*references)
    logits = []
    for reference in references:
        torch.manual_seed(7)
        logits.append(model(**inputs_of(), labels=reference, skip_logits=False).logits)
    torch.testing.assert_close(*logits, rtol=0, atol=0)
    torch.manual_seed(8)  # and what it reads is drawn
    drawn_again = model(**inputs_of(), labels=references[0], skip_logits=False).logits
    assert not torch.allclose(drawn_again, logits[0])


def test_the_coin_is_tossed_for_each_step_and_row() -> None:
    rows, steps, ratio = 60, 30, 0.7
    model, read = drawing_model("sutskever", ratio)
    labels = random_ids(rows, steps, vocab_size=DRAWN)
    model(input_ids=random_ids(rows, 3), labels=labels)
    chosen = torch.cat(read[-(steps - 1) :], dim=1)
    reference = labels[:, :-1]
    kept = chosen == reference
    assert ((chosen == DRAWN) | kept).all()
    frequency = kept.double()
    spread = math.sqrt(ratio * (1 - ratio) / kept.numel())
    assert abs(frequency.mean().item() - ratio) < 5 * spread
    # Not one coin a row, and not one a step: the rows' and the steps' means scatter as independent coins do.
    for dimension, count in ((1, steps - 1), (0, rows)):
        scatter = frequency.mean(dim=dimension).std().item()
        assert 0.6 < scatter / math.sqrt(ratio * (1 - ratio) / count) < 1.6


def test_symbols_are_drawn_from_the_models_own_distribution() -> None:
    model = tiny_model("sutskever")
    model.train()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(torch.tensor([-1e4] * 4 + [0.5, 0.25, 0.25, *[1e-9] * 5]).clamp(min=1e-9).log())
        model.lm_head.bias[:4] = -1e4
    model.teacher_forcing_ratio = 0.0
    read: list[Tensor] = []
    model.model.decoder.embed_tokens.register_forward_hook(lambda _, arguments, output: read.append(arguments[0]))
    model(input_ids=random_ids(200, 2), labels=random_ids(200, 21))
    drawn = torch.cat(read[-20:], dim=1).flatten()
    shares = drawn.bincount(minlength=12) / drawn.numel()
    torch.testing.assert_close(shares[4:7], torch.tensor([0.5, 0.25, 0.25]), atol=0.05, rtol=0)
    assert shares[4:7].sum() == 1


def test_a_coin_can_be_tossed_for_whole_sequences() -> None:
    rows, steps, ratio = 400, 4, 0.7
    model, read = drawing_model("sutskever", ratio)
    model.teacher_forcing_unit = "sequence"
    labels = random_ids(rows, steps, vocab_size=DRAWN)
    model(input_ids=random_ids(rows, 3), labels=labels)
    chosen = torch.cat(read[-(steps - 1) :], dim=1)
    forced = (chosen == labels[:, :-1]).all(1)
    assert (forced | (chosen == DRAWN).all(1)).all()
    assert abs(forced.double().mean().item() - ratio) < 5 * math.sqrt(ratio * (1 - ratio) / rows)


def test_where_all_coins_say_reference_nothing_is_drawn() -> None:
    model, read = drawing_model("sutskever", 0.5)
    model.teacher_forcing_unit = "sequence"
    labels = random_ids(1, 6, vocab_size=DRAWN)
    for _ in range(40):
        model(input_ids=random_ids(1, 3), labels=labels)
    at_once = [ids for ids in read if torch.equal(ids, model.prepare_decoder_input_ids_from_labels(labels))]
    drawn = [ids for ids in read if ids.shape[1] == 1]
    # Of 40 passes some 20 read the reference all at once, the others embed it and then 5 symbols one after another.
    assert len(at_once) == 40 and 5 * 5 <= len(drawn) <= 5 * 35 and all((ids == DRAWN).all() for ids in drawn)


@pytest.mark.parametrize("structure", READERS)
def test_a_sequence_left_to_itself_reads_what_greedy_search_finds_and_learns_up_to_its_own_end(structure: str) -> None:
    model, labels, inputs = tiny_model(structure), random_ids(40, 12), {"input_ids": random_ids(40, 5, seed=3)}
    end = int(model.config.eos_token_id)
    with torch.no_grad():  # so that sequences end early
        logits = model(**inputs, decoder_input_ids=random_ids(40, 12, seed=4)).logits
        behind = logits.amax(-1) - logits[..., end]
        model.lm_head.bias[end] += behind.flatten().quantile(0.1)
    found = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=12)
    fed = F.pad(found, (0, 12), value=1)[:, :12]
    assert (fed == end).any()
    own_end = (fed == end).cumsum(1) > 0
    learnt = labels.masked_fill(own_end, -100)
    wanted = model(**inputs, decoder_input_ids=fed).logits
    model.train()
    model.teacher_forcing_ratio, model.teacher_forcing_unit = 0.0, "sequence"
    got = model(**inputs, labels=labels, skip_logits=False)
    real = learnt != -100
    assert not real.all()
    torch.testing.assert_close(got.logits[real], wanted[real], atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(got.loss, F.cross_entropy(wanted[real], learnt[real]), atol=1e-10, rtol=1e-8)


def test_units_of_scheduled_sampling_have_names() -> None:
    model = tiny_model("luong").train()
    model.teacher_forcing_ratio, model.teacher_forcing_unit = 0.5, "token"
    with pytest.raises(ValueError, match="teacher_forcing_unit must be one of step, sequence; got 'token'"):
        model(**inputs_of(), labels=labels_of())


def test_evaluation_and_generation_are_not_sampled() -> None:
    model, read = drawing_model("luong", 0.0)
    model.eval()
    labels = random_ids(2, 4, vocab_size=DRAWN)
    model(**inputs_of(2), labels=labels)
    (ids,) = read
    assert torch.equal(ids, model.prepare_decoder_input_ids_from_labels(labels))


@pytest.mark.parametrize("structure", READERS)
def test_training_on_drawn_symbols_has_finite_gradients(structure: str) -> None:
    model, _ = drawing_model(structure, 0.5)
    labels = random_ids(3, 4, vocab_size=DRAWN)
    model(**inputs_of(), labels=labels).loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_two_vocabularies_are_sampled_from_the_target_one() -> None:
    model = tiny_model("luong", vocab_size=9, decoder_vocab_size=30)
    model.train()
    model.teacher_forcing_ratio = 0.0
    loss = model(input_ids=random_ids(8, 3, 9), labels=random_ids(8, 12, 30)).loss
    loss.backward()
    assert torch.isfinite(loss)
