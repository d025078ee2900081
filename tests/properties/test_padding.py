"""Padding never changes a result: not logits, loss, gradients or generated symbols; wherever it is, whatever is in it.

A padded batch is compared with its rows alone and without padding, so these tests also say: a batch gives what its
rows give one by one.
"""

from __future__ import annotations

import pytest
import torch
from tiny import (
    ALL,
    ATTENDING,
    LIVELY,
    PADDINGS,
    STRUCTURES,
    gradients,
    padded_batch,
    padding_mask,
    random_ids,
    tiny_model,
    trim,
)
from torch import Tensor


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
LENGTHS, WIDTH, STEPS = [5, 2, 7, 1], 7, 4


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("kind", PADDINGS)
def test_source_padding_changes_no_logits_loss_or_gradients(structure: str, kind: str) -> None:
    model = tiny_model(structure)
    batch, labels = padded_batch(kind, LENGTHS, WIDTH), random_ids(4, STEPS)
    labels[0, 2:] = labels[2, 3:] = -100
    out = model(batch.input_ids, batch.attention_mask, labels=labels)
    out.loss.backward()
    got = gradients(model)

    total = torch.zeros((), dtype=torch.float64)
    for row, source in enumerate(batch.rows):
        real = int((labels[row] != -100).sum())
        alone = model(source, labels=labels[row : row + 1, :real])
        torch.testing.assert_close(out.logits[row, :real], alone.logits[0], **TIGHT)
        total = total + alone.loss * real
    loss = total / (labels != -100).sum()
    loss.backward()
    torch.testing.assert_close(out.loss, loss, **TIGHT)
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("kind", PADDINGS)
def test_nan_in_padded_source_vectors_goes_nowhere(structure: str, kind: str) -> None:
    model = tiny_model(structure)
    mask, labels = padding_mask(kind, LENGTHS, WIDTH), random_ids(4, STEPS)
    clean = torch.randn(4, WIDTH, 6, dtype=torch.float64)
    results = []
    for filling in (0.0, float("nan")):
        vectors = clean.masked_fill(mask[..., None] == 0, filling).requires_grad_()
        out = model(inputs_embeds=vectors, attention_mask=mask, labels=labels)
        out.loss.backward()
        results.append((out.loss, out.logits, vectors.grad, *gradients(model).values()))
    for clean_result, poisoned_result in zip(*results, strict=True):
        assert torch.isfinite(poisoned_result).all()
        torch.testing.assert_close(poisoned_result, clean_result, **TIGHT)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("kind", PADDINGS)
def test_decoder_padding_changes_no_logits_loss_or_gradients(structure: str, kind: str) -> None:
    model = tiny_model(structure)
    sources, targets = padded_batch("right", LENGTHS, WIDTH), padded_batch(kind, [3, 5, 1, 4], 5, seed=3)
    labels = random_ids(4, 5, seed=4).masked_fill(targets.attention_mask == 0, -100)
    out = model(
        sources.input_ids,
        sources.attention_mask,
        decoder_input_ids=targets.input_ids,
        decoder_attention_mask=targets.attention_mask,
        labels=labels,
    )
    out.loss.backward()
    got = gradients(model)
    for row, (source, target) in enumerate(zip(sources.rows, targets.rows, strict=True)):
        real = targets.attention_mask[row].bool()
        count = (labels != -100).sum()
        alone = model(source, decoder_input_ids=target, labels=labels[row : row + 1, real], num_items_in_batch=count)
        torch.testing.assert_close(out.logits[row, real], alone.logits[0], **TIGHT)
        alone.loss.backward()  # adds up over the rows
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "textbook"])
def test_nan_in_padded_decoder_vectors_goes_nowhere(structure: str) -> None:
    model = tiny_model(structure)
    source, mask = random_ids(4, 5), padding_mask("interior", [3, 5, 1, 4], 5)
    labels = random_ids(4, 5, seed=4).masked_fill(mask == 0, -100)
    clean = torch.randn(4, 5, 6, dtype=torch.float64)
    results = []
    for filling in (0.0, float("nan")):
        vectors = clean.masked_fill(mask[..., None] == 0, filling).requires_grad_()
        out = model(source, decoder_inputs_embeds=vectors, decoder_attention_mask=mask, labels=labels)
        out.loss.backward()
        results.append((out.loss, out.logits[mask.bool()], vectors.grad, *gradients(model).values()))
    for clean_result, poisoned_result in zip(*results, strict=True):
        torch.testing.assert_close(poisoned_result, clean_result, **TIGHT)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("beams", [1, 3])
def test_source_padding_changes_no_generated_symbol(structure: str, kind: str, beams: int) -> None:
    model, batch = tiny_model(structure), padded_batch(kind, LENGTHS, WIDTH)
    options = {"num_beams": beams, "max_new_tokens": 8, **LIVELY}
    together = model.generate(batch.input_ids, attention_mask=batch.attention_mask, **options)
    for row, source in enumerate(batch.rows):
        alone = model.generate(source, **options)
        assert trim(together[row]) == trim(alone[0])


def prompts(kind: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Prompts that begin with the start symbol (2), padded; the first is as wide as the batch."""
    batch = padded_batch(kind, [4, 2, 3, 1], 4, seed=5)
    ids = batch.input_ids.clone()
    for row, real in zip(ids, batch.attention_mask, strict=True):
        row[int(real.argmax())] = 2
    return (
        ids,
        batch.attention_mask,
        [row[real.bool()][None] for row, real in zip(ids, batch.attention_mask, strict=True)],
    )


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("beams", [1, 3])
def test_prompt_padding_changes_no_generated_symbol(structure: str, kind: str, beams: int) -> None:
    model, batch = tiny_model(structure), padded_batch("left", LENGTHS, WIDTH)
    ids, mask, rows = prompts(kind)
    # Not LIVELY: a bigram in the padding must not count, and the processor that forbids it cannot know.
    options = {"num_beams": beams, "do_sample": False, "suppress_tokens": [0, 1, 2], "max_new_tokens": 6}
    together = model.generate(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=ids,
        decoder_attention_mask=mask,
        **options,
    )
    for row, (source, prompt) in enumerate(zip(batch.rows, rows, strict=True)):
        alone = model.generate(source, decoder_input_ids=prompt, **options)
        assert trim(together[row, ids.shape[1] :]) == trim(alone[0, prompt.shape[1] :])


@pytest.mark.parametrize("structure", ALL)
def test_without_a_mask_padding_symbols_are_padding(structure: str) -> None:
    model, batch = tiny_model(structure), padded_batch("left", LENGTHS, WIDTH)
    padded = batch.input_ids.masked_fill(batch.attention_mask == 0, model.config.pad_token_id)
    target = random_ids(4, STEPS)
    wanted = model(batch.input_ids, batch.attention_mask, decoder_input_ids=target).logits
    torch.testing.assert_close(model(padded, decoder_input_ids=target).logits, wanted, **TIGHT)


def test_without_a_padding_symbol_every_symbol_is_read() -> None:
    source, target = torch.tensor([[4, 1, 5]]), random_ids(1, 3)
    logits = []
    for pad in (1, None):
        model = tiny_model("luong", pad_token_id=pad)
        logits.append(model(source, decoder_input_ids=target).logits)
        full = model(source, torch.ones_like(source), decoder_input_ids=target).logits
        assert torch.allclose(logits[-1], full) == (pad is None)
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("structure", ALL)
def test_a_source_of_padding_only_gives_finite_results(structure: str) -> None:
    model, batch, labels = tiny_model(structure), padded_batch("right", [3, 0], 3), random_ids(2, 3)
    out = model(batch.input_ids, batch.attention_mask, labels=labels)
    out.loss.backward()
    assert torch.isfinite(out.logits).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("structure", ATTENDING)
@pytest.mark.parametrize("kind", PADDINGS)
def test_no_attention_falls_on_padding(structure: str, kind: str) -> None:
    model, batch = tiny_model(structure), padded_batch(kind, LENGTHS, WIDTH)
    (weights,) = model(
        batch.input_ids, batch.attention_mask, decoder_input_ids=random_ids(4, 3), output_attentions=True
    ).cross_attentions
    assert weights.shape == (4, 1, 3, WIDTH)
    assert (weights.masked_select((batch.attention_mask == 0)[:, None, None]) == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
