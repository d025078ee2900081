"""Scales and losses of values, compared with plain torch; NaN has no part in either."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_rnn_seq2seq.model.values import REGRESSION_LOSSES, ValueScale, observed_loss


NAN = float("nan")


def fitted(values: torch.Tensor, observed: torch.Tensor | None = None) -> ValueScale:
    scale = ValueScale(values.shape[-1])
    scale.fit(values, observed)
    return scale


def test_a_new_scale_is_the_identity() -> None:
    values = torch.randn(2, 3, 4)
    assert torch.equal(ValueScale(4).standardise(values), values)
    assert torch.equal(ValueScale(4).to_units(values), values)


def test_a_fitted_scale_standardises_its_data_and_leads_back() -> None:
    values = torch.randn(5, 7, 3, dtype=torch.float64) * torch.tensor([1.0, 100.0, 1e-3]) + torch.tensor([0, 1000, 5])
    scale = fitted(values)
    torch.testing.assert_close(scale.mean, values.flatten(0, 1).mean(0).float())
    torch.testing.assert_close(scale.std, values.flatten(0, 1).std(0, correction=0).float())
    torch.testing.assert_close(scale.to_units(scale.standardise(values)), values)


def test_what_is_not_observed_has_no_part_in_a_scale() -> None:
    rows = torch.tensor([[1.0, 10.0], [3.0, NAN], [NAN, 30.0], [1e9, -1e9]])
    scale = fitted(rows, torch.tensor([True, True, True, False]))
    assert scale.mean.tolist() == [2, 20] and scale.std.tolist() == [1, 10]
    each = fitted(rows, torch.tensor([[True, False], [True, True], [True, True], [False, True]]))
    assert each.mean.tolist()[0] == 2 and each.mean[1] < -1e8


def test_a_value_that_never_changes_is_only_centred() -> None:
    values = torch.full((1000, 1), 518.67)
    assert fitted(values).std.item() == 1
    assert fitted(values).standardise(values).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("values", "observed", "message"),
    [
        (torch.zeros(4, 3), None, r"values has shape \(4, 3\), wanted \(..., 2\)"),
        (torch.zeros(4, 2), torch.ones(3, 2), r"observed has shape \(3, 2\), wanted \(4, 2\)"),
        (torch.tensor([[1.0, NAN], [2.0, NAN]]), None, r"values\[..., 1\] is never observed"),
        (torch.tensor([[float("inf"), 1.0]]), None, r"values\[..., 0\] is infinite"),
    ],
)
def test_a_scale_refuses_what_it_cannot_be_fitted_to(
    values: torch.Tensor, observed: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ValueScale(2).fit(values, observed)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_scale_keeps_its_precision_in_a_model_of_few_bits(kind: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(1, 1), ValueScale(1))
    scale: ValueScale = model[1]  # type: ignore[assignment]
    scale.fit(torch.tensor([[1001.0], [1003.0]]))
    model.to(kind)
    assert model[0].weight.dtype == kind
    assert scale.mean.tolist() == [1002] and scale.to_units(torch.tensor([[1.0]], dtype=kind)).tolist() == [[1003]]


PLAIN = {
    "squared": lambda x, y: (x - y).square(),
    "absolute": lambda x, y: (x - y).abs(),
    "huber": lambda x, y: torch.where((x - y).abs() < 1, (x - y).square() / 2, (x - y).abs() - 0.5),
}


def test_a_cross_entropy_of_nothing_is_zero() -> None:
    """Unlike that of zeros."""
    total, count = observed_loss(F.binary_cross_entropy_with_logits, torch.zeros(3), torch.full((3,), NAN))
    assert total == 0 and count == 0


@pytest.mark.parametrize("kind", PLAIN)
def test_losses_are_sums_over_what_is_observed(kind: str) -> None:
    scores, labels = 3 * torch.randn(4, 5, 2, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    labels[torch.rand(4, 5, 2) < 0.3] = NAN
    observed = (torch.rand(4, 5, 1) < 0.7).expand(4, 5, 2)
    total, count = observed_loss(REGRESSION_LOSSES[kind], scores, labels, observed)
    there = observed & ~labels.isnan()
    torch.testing.assert_close(total, PLAIN[kind](scores[there], labels[there]).sum())
    assert count == there.sum()


@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES.values(), F.binary_cross_entropy_with_logits])
@pytest.mark.parametrize("garbage", [NAN, float("inf"), -1e30])
def test_nothing_unobserved_reaches_a_gradient(loss: object, garbage: float) -> None:
    gradients = []
    for filling in (0.0, garbage):
        scores = torch.tensor([0.3, -0.2, 0.7, filling], requires_grad=True)
        labels = torch.tensor([1.0, NAN, 0.0, filling])
        total, count = observed_loss(loss, scores, labels, torch.tensor([True, True, True, False]))  # type: ignore[arg-type]
        total.backward()
        assert count == 2 and scores.grad is not None
        gradients.append((total.item(), scores.grad.tolist()))
    assert gradients[0] == gradients[1] and gradients[0][1][1] == 0
