"""What makes a training step fast gives the values and gradients of the plain equations, in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import STRUCTURES, gradients, padded_batch, random_ids, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model import fast_loss
from hf_rnn_seq2seq.model.fast import plain
from hf_rnn_seq2seq.model.fast_loss import _print_of, _same, linear_cross_entropy
from hf_rnn_seq2seq.model.fast_products import matrix_product
from hf_rnn_seq2seq.model.fast_training import DeferredGradients


pytestmark = pytest.mark.fast_path


Model = RnnSeq2SeqForConditionalGeneration
TIGHT: dict[str, Any] = {"atol": 1e-11, "rtol": 1e-9}

LOOPS: dict[str, dict[str, Any]] = {
    "lstm_dot": {"attention_type": "dot", "input_feeding": True, "decoder_layers": 1},
    "lstm_general": {"input_feeding": True},
    "lstm_additive": {"attention_type": "additive", "input_feeding": True},
    "gru_general": {"rnn_type": "gru", "input_feeding": True},
    "gru_additive": {"rnn_type": "gru", "attention_type": "additive", "input_feeding": True, "decoder_layers": 1},
    "previous_state": {"attention_query": "previous_state"},
    "dropouts": {"input_feeding": True, "embedding_dropout": 0.2, "hidden_dropout": 0.3, "recurrent_dropout": 0.2},
    "coverage": {"coverage": True, "use_copy": True},
    "coverage_additive": {"coverage": True, "attention_type": "additive", "input_feeding": True},
}


def inputs_of(labels: Tensor) -> dict[str, Tensor]:
    batch = padded_batch("interior", [5, 2, 7], 7)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def labels_of() -> Tensor:
    labels = random_ids(3, 6)
    labels[0, 2:] = -100
    labels[1, 5:] = -100
    labels[2, 1] = -100  # in the middle too
    return labels


def trained(model: Model, **inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(3)
    result = model.train()(**inputs).loss
    result.backward()
    return result.detach(), gradients(model)


def assert_same(got: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(got[0], wanted[0], **TIGHT)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(got[1][name], gradient, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("options", [*LOOPS.values(), *STRUCTURES.values()], ids=[*LOOPS, *STRUCTURES])
def test_a_fast_step_equals_the_plain_one(options: dict[str, Any]) -> None:
    labels = labels_of()
    if "hidden_dropout" in options:
        labels[:, -1] = 5  # all steps count: where some are passed over, others are dropped
    model, inputs = tiny_model(**options), inputs_of(labels)
    fast = trained(model, **inputs)
    with plain():
        assert_same(fast, trained(model, **inputs))


@pytest.mark.parametrize("options", [{}, {"input_feeding": True}, *LOOPS.values()], ids=["at_once", "loop", *LOOPS])
def test_steps_that_no_label_needs_are_passed_over(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # One row has no label at all, one all of them; the embeddings of what comes behind the last label may be anything.
    labels = torch.full((3, 6), -100)
    labels[1], labels[2, :2] = 5, 6
    model, inputs = tiny_model(**{**options, "hidden_dropout": 0.0, "embedding_dropout": 0.0}), inputs_of(labels)
    if model.config.recurrent_dropout > 0:
        monkeypatch.setattr(F, "dropout", lambda x, p=0.5, training=True: x * 0.7 if training and p > 0 else x)
    counting = trained(model, **inputs)
    with plain("trimmed"):
        assert_same(counting, trained(model, **inputs))


@pytest.mark.parametrize("options", [{"input_feeding": True}, *LOOPS.values()], ids=["loop", *LOOPS])
def test_a_mask_that_trails_gives_the_same_in_a_shrinking_batch(
    options: dict[str, Any],
) -> None:
    model, inputs = tiny_model(**options).eval(), inputs_of(random_ids(3, 6))
    inputs["decoder_attention_mask"] = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]])
    asked = {"use_cache": False, "output_hidden_states": True, "output_attentions": True}
    shrinking = model(**inputs, **asked)
    with plain():
        wanted = model(**inputs, **asked)
    torch.testing.assert_close(shrinking.logits, wanted.logits, **TIGHT)
    torch.testing.assert_close(shrinking.cross_attentions[0], wanted.cross_attentions[0], **TIGHT)
    real = inputs["decoder_attention_mask"].bool()
    for got, want in zip(shrinking.decoder_hidden_states, wanted.decoder_hidden_states, strict=True):
        torch.testing.assert_close(got[real], want[real], **TIGHT)


def test_masked_decoder_steps_have_the_same_gradients() -> None:
    model, inputs = tiny_model("luong"), inputs_of(labels_of())
    inputs["decoder_attention_mask"] = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    fast = trained(model, **inputs)
    with plain():
        assert_same(fast, trained(model, **inputs))


def test_scheduled_sampling_has_the_same_gradients() -> None:
    model, inputs = tiny_model("luong"), inputs_of(labels_of())
    model.teacher_forcing_ratio = 0.5
    fast = trained(model, **inputs)
    with plain():
        assert_same(fast, trained(model, **inputs))


def test_a_second_backward_does_not_meet_what_a_partial_one_left() -> None:
    # The gradient of the embeddings alone never asks for the weights'; the rows it left must not count again.
    model, inputs = tiny_model("luong").train(), inputs_of(labels_of())
    wanted = trained(model, **inputs)
    result = model(**inputs).loss
    torch.autograd.grad(result, [model.model.decoder.embed_tokens.weight], retain_graph=True)
    result.backward(retain_graph=True)
    assert_same((result.detach(), gradients(model)), wanted)
    result.backward()
    assert_same((result.detach(), gradients(model)), wanted)


def test_frozen_weights_stay_without_gradient() -> None:
    model, inputs = tiny_model("luong"), inputs_of(labels_of())
    wanted = trained(model, **inputs)[1]
    frozen = {"model.decoder.readout.weight", "model.decoder.rnn.bias_ih_l1", "lm_head.weight"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], **TIGHT)


def test_bfloat16_autocast_gives_nearly_the_same_gradients() -> None:
    model, inputs = tiny_model("luong", torch.float32), inputs_of(labels_of())
    with torch.autocast("cpu", torch.bfloat16):
        fast = trained(model, **inputs)
        plain()
        slow = trained(model, **inputs, skip_logits=False)
    torch.testing.assert_close(fast[0], slow[0], atol=0, rtol=0.02)
    for name, gradient in slow[1].items():
        assert fast[1][name].dtype == torch.float32
        assert (fast[1][name] - gradient).norm() <= 0.05 * gradient.norm(), name


def test_a_linear_layer_in_the_context_has_the_gradients_of_autograd() -> None:
    torch.manual_seed(0)
    layer, steps = nn.Linear(5, 4).double(), torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(sum(layer(x).tanh().sum() for x in steps), [steps, *layer.parameters()])
    with DeferredGradients():
        total = sum(layer(x).tanh().sum() for x in steps)
    for got, want in zip(torch.autograd.grad(total, [steps, *layer.parameters()]), wanted, strict=True):
        torch.testing.assert_close(got, want, **TIGHT)


def test_a_weight_changed_before_the_way_back_is_an_error() -> None:
    layer = nn.Linear(5, 4)
    with DeferredGradients():
        total = sum(layer(x).tanh().sum() for x in torch.randn(6, 3, 5))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_the_chunked_loss_is_the_cross_entropy(
    smoothing: float, bias: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_loss, "_LOGITS_AT_ONCE", 9 * rows_at_once)
    torch.manual_seed(0)
    readout, weight = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (7, 9))
    offset = torch.randn(9, dtype=torch.float64, requires_grad=True) if bias else None
    labels = torch.randint(9, (7,))
    factors = [readout, weight, *([] if offset is None else [offset])]
    got = linear_cross_entropy(readout, weight, offset, labels, smoothing)
    wanted = F.cross_entropy(F.linear(readout, weight, offset), labels, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(got, wanted, **TIGHT)
    for mine, theirs in zip(torch.autograd.grad(3 * got, factors), torch.autograd.grad(3 * wanted, factors)):
        torch.testing.assert_close(mine, theirs, **TIGHT)


@pytest.mark.parametrize("options", [{}, {"use_copy": True}, {"use_copy": True, "label_smoothing": 0.2}], ids=str)
def test_the_loss_in_chunks_equals_the_loss_of_all_logits(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_loss, "_LOGITS_AT_ONCE", 12 * 2)  # two rows
    model, inputs = tiny_model(**options), inputs_of(labels_of())
    assert_same(trained(model, **inputs), trained(model, **inputs, skip_logits=False))


def test_an_output_layer_with_a_hook_is_called() -> None:
    model, inputs = tiny_model("luong"), inputs_of(labels_of())
    wanted, seen = trained(model, **inputs), []
    model.lm_head.register_forward_hook(lambda module, arguments, output: seen.append(output.shape[0]))
    assert_same(trained(model, **inputs), wanted)
    assert seen and set(seen) == {int((inputs["labels"] != -100).sum())}


def test_logits_wait_in_training_with_labels_only() -> None:
    model, inputs = tiny_model("luong"), inputs_of(labels_of())
    assert model(**inputs).logits.shape == (3, 6, 12)
    assert model(**inputs, skip_logits=True).logits is None
    model.train()
    assert not isinstance(dict.get(model(**inputs), "logits"), Tensor)  # until they are asked for
    assert model(**inputs).logits.shape == (3, 6, 12)
    assert model(**inputs, skip_logits=True).logits is None
    assert model(**inputs, skip_logits=False).logits.shape == (3, 6, 12)
    assert model(inputs["input_ids"], decoder_input_ids=random_ids(3, 2)).logits.shape == (3, 2, 12)
    with pytest.raises(ValueError, match=r"skip_logits=True .* labels"):
        model(inputs["input_ids"], decoder_input_ids=random_ids(3, 2), skip_logits=True)
    (first, *_) = model(**inputs, return_dict=False)
    assert first.shape == ()


def test_products_of_any_layout_are_those_of_torch() -> None:
    torch.manual_seed(0)
    a, wide = torch.randn(6, 5), torch.randn(5, 9)
    for left in (a, torch.randn(5, 6).t(), torch.randn(6, 12)[:, 3:8]):
        for right in (wide, torch.randn(9, 5).t(), torch.randn(5, 20)[:, 2:11]):
            for bias in (None, torch.randn(9)):
                wanted = left.double() @ right.double() + (0 if bias is None else bias.double())
                torch.testing.assert_close(matrix_product(left, right, bias).double(), wanted, atol=1e-5, rtol=1e-5)
    assert matrix_product(a[:, :0], wide[:0]).eq(0).all() and matrix_product(a[:0], wide).shape == (0, 9)


@pytest.mark.parametrize("column", [0, 2])
def test_changed_weights_are_noticed(column: int) -> None:
    """By their version; by their first column, where an optimizer changes them behind its back."""
    layer = torch.nn.Linear(3, 2)
    before = _print_of(layer)
    assert _same(before, _print_of(layer))
    with torch.no_grad():
        (layer.weight.data if column == 0 else layer.weight)[1, column] += 1
    assert not _same(before, _print_of(layer))
