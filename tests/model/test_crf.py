"""The linear-chain CRF against the enumeration of all label sequences, and against padding."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny import PADDINGS, padding_mask, randomize
from torch import Tensor

from hf_rnn_seq2seq.model.crf import LinearChainCRF


LABELS = 3
LENGTHS, WIDTH = [4, 1, 5, 2], 6


def random_crf(num_labels: int = LABELS, dtype: torch.dtype = torch.float64) -> LinearChainCRF:
    crf = LinearChainCRF(num_labels).to(dtype)
    randomize(crf, scale=1.0)
    return crf


def random_emissions(rows: int, length: int, num_labels: int = LABELS, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, length, num_labels, dtype=torch.float64, generator=generator)


def all_sequences(length: int, num_labels: int = LABELS) -> list[tuple[int, ...]]:
    return list(itertools.product(range(num_labels), repeat=length))


def score(crf: LinearChainCRF, emissions: Tensor, labels: tuple[int, ...]) -> Tensor:
    """Of one sequence (S, C), by the definition."""
    total = crf.start_transitions[labels[0]] + crf.end_transitions[labels[-1]]
    for t, label in enumerate(labels):
        total = total + emissions[t, label]
        if t > 0:
            total = total + crf.transitions[labels[t - 1], label]
    return total


def log_probabilities(crf: LinearChainCRF, emissions: Tensor) -> Tensor:
    """log p of each of `all_sequences`."""
    return torch.stack([score(crf, emissions, labels) for labels in all_sequences(len(emissions))]).log_softmax(0)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_partition_is_the_sum_over_all_sequences(length: int) -> None:
    crf, emissions = random_crf(), random_emissions(2, length)
    for row in range(2):
        wanted = torch.stack([score(crf, emissions[row], labels) for labels in all_sequences(length)]).logsumexp(0)
        torch.testing.assert_close(crf.log_partition(emissions)[row], wanted)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_likelihood_of_each_sequence_and_their_sum_is_one(length: int) -> None:
    crf, emissions = random_crf(), random_emissions(1, length)
    sequences = all_sequences(length)
    got = crf.log_likelihood(emissions.expand(len(sequences), -1, -1), torch.tensor(sequences))
    torch.testing.assert_close(got, log_probabilities(crf, emissions[0]))
    assert got.exp().sum().item() == pytest.approx(1)


def test_the_likelihood_of_unknown_labels_is_summed_over_what_they_could_be() -> None:
    crf, emissions = random_crf(), random_emissions(1, 4)
    log_p, sequences = log_probabilities(crf, emissions[0]), all_sequences(4)
    for known in ((1, -100, 0, 2), (-100, 2, -100, -100), (0, 1, 1, -100), (-100, -100, 2, 0)):
        fits = [all(k in (-100, y) for k, y in zip(known, labels, strict=True)) for labels in sequences]
        got = crf.log_likelihood(emissions, torch.tensor([known]))
        torch.testing.assert_close(got[0], log_p[torch.tensor(fits)].logsumexp(0))
    assert crf.log_likelihood(emissions, torch.full((1, 4), -100)).item() == 0


def test_a_known_sequence_scores_the_same_in_a_batch_with_unknown_labels() -> None:
    # Alone it is scored directly, beside an unknown label through a lattice: values and gradients agree.
    crf, emissions = random_crf(), random_emissions(4, WIDTH).requires_grad_()
    mask, labels = padding_mask("left", LENGTHS, WIDTH), torch.ones(4, WIDTH, dtype=torch.long)
    beside = torch.cat([labels, torch.full((1, WIDTH), -100)])
    direct = crf.log_likelihood(emissions, labels, mask)
    lattice = crf.log_likelihood(
        torch.cat([emissions, emissions[:1]]), beside, torch.cat([mask, torch.ones(1, WIDTH, dtype=torch.long)])
    )
    torch.testing.assert_close(lattice[:4], direct)
    parameters = [emissions, *crf.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(lattice[:4].sum(), parameters), torch.autograd.grad(direct.sum(), parameters)
    )


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_viterbi_finds_the_best_of_all_sequences(length: int, seed: int) -> None:
    crf, emissions = random_crf(), random_emissions(3, length, seed=seed)
    for row, path in enumerate(crf.decode(emissions).tolist()):
        assert tuple(path) == all_sequences(length)[int(log_probabilities(crf, emissions[row]).argmax())]


def test_viterbi_is_not_the_best_label_of_each_position() -> None:
    # Otherwise the tests above could pass without transitions.
    crf, emissions = random_crf(), random_emissions(20, 5)
    assert (crf.decode(emissions) != emissions.argmax(-1)).any()
    assert (crf.decode(emissions) != crf.log_marginals(emissions).argmax(-1)).any()


def test_where_two_sequences_tie_viterbi_gives_one_of_them() -> None:
    crf = LinearChainCRF(2)
    with torch.no_grad():
        crf.transitions.copy_(torch.tensor([[0.0, 9.0], [9.0, 0.0]]))  # 0101 and 1010, equally good
    assert crf.decode(torch.zeros(1, 4, 2)).tolist() in ([[0, 1, 0, 1]], [[1, 0, 1, 0]])


def test_marginals_are_sums_and_max_marginals_maxima_over_the_sequences_through_a_label() -> None:
    crf, emissions = random_crf(), random_emissions(1, 4)
    log_p, sequences = log_probabilities(crf, emissions[0]), torch.tensor(all_sequences(4))
    marginals, best = crf.log_marginals(emissions)[0], crf.log_max_marginals(emissions)[0]
    for t, label in itertools.product(range(4), range(LABELS)):
        through = log_p[sequences[:, t] == label]
        torch.testing.assert_close(marginals[t, label], through.logsumexp(0))
        torch.testing.assert_close(best[t, label], through.max())


def test_the_argmax_of_the_max_marginals_is_viterbis_path() -> None:
    crf = random_crf(5, torch.float32)
    emissions, mask = random_emissions(50, 12, 5).float(), padding_mask("interior", [*range(1, 11)] * 5, 12)
    path = crf.decode(emissions, mask)
    best = crf.log_max_marginals(emissions, mask)
    assert torch.equal(best.argmax(-1)[mask.bool()], path[mask.bool()])
    assert torch.equal(path == -100, mask == 0)


def test_the_gradient_of_the_partition_is_the_marginals() -> None:
    crf, emissions = random_crf(), random_emissions(2, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(crf.log_partition(emissions).sum(), emissions)
    torch.testing.assert_close(gradient, crf.log_marginals(emissions).exp())


def test_gradients_are_those_of_finite_differences() -> None:
    crf = random_crf()
    labels = torch.tensor([[0, 2, -100, 1], [1, 1, 0, 0], [2, -100, 0, 1]])
    mask = padding_mask("interior", [4, 2, 3], 4)
    # gradcheck shakes its inputs in place, so that the parameters reach the chain through the module.
    inputs = (random_emissions(3, 4).requires_grad_(), *crf.parameters())
    assert torch.autograd.gradcheck(lambda emissions, *_: crf.log_likelihood(emissions, labels, mask), inputs)


@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_changes_nothing_wherever_it_is_and_whatever_is_in_it(kind: str) -> None:
    crf, emissions = random_crf(), random_emissions(4, WIDTH)
    mask = padding_mask(kind, LENGTHS, WIDTH).bool()
    labels = torch.randint(0, LABELS, (4, WIDTH), generator=torch.Generator().manual_seed(2))
    emissions[~mask], labels[~mask] = float("nan"), 77
    likelihood, log_z = crf.log_likelihood(emissions, labels, mask), crf.log_partition(emissions, mask)
    path, marginals, best = (f(emissions, mask) for f in (crf.decode, crf.log_marginals, crf.log_max_marginals))
    for row, real in enumerate(mask):
        alone = emissions[row, real][None]
        torch.testing.assert_close(likelihood[row], crf.log_likelihood(alone, labels[row, real][None])[0])
        torch.testing.assert_close(log_z[row], crf.log_partition(alone)[0])
        assert torch.equal(path[row, real], crf.decode(alone)[0])
        torch.testing.assert_close(marginals[row, real], crf.log_marginals(alone)[0])
        torch.testing.assert_close(best[row, real], crf.log_max_marginals(alone)[0])
    assert (path[~mask] == -100).all()
    assert (marginals[~mask] == 0).all() and (best[~mask] == 0).all()


@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_changes_no_gradient(kind: str) -> None:
    crf, emissions = random_crf(), random_emissions(4, WIDTH)
    mask, labels = padding_mask(kind, LENGTHS, WIDTH).bool(), torch.zeros(4, WIDTH, dtype=torch.long)
    emissions[~mask] = float("nan")
    emissions.requires_grad_()
    parameters = [emissions, *crf.parameters()]
    got = torch.autograd.grad(crf.log_likelihood(emissions, labels, mask).sum(), parameters)
    alone = [crf.log_likelihood(emissions[r, real][None], labels[r, real][None]).sum() for r, real in enumerate(mask)]
    wanted = torch.autograd.grad(torch.stack(alone).sum(), parameters)
    assert (got[0][~mask] == 0).all()
    torch.testing.assert_close(got, wanted)


def test_a_row_without_real_positions_counts_for_nothing() -> None:
    crf, emissions = random_crf(), random_emissions(2, 3)
    mask = torch.tensor([[0, 0, 0], [1, 1, 1]])
    likelihood = crf.log_likelihood(emissions, torch.zeros(2, 3, dtype=torch.long), mask)
    gradients = torch.autograd.grad(likelihood[0], list(crf.parameters()), retain_graph=True)
    assert likelihood[0] == 0 and likelihood[1] < 0
    assert all((gradient == 0).all() for gradient in gradients)
    assert (crf.decode(emissions, mask)[0] == -100).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_single_precision_for_half_precision_emissions(dtype: torch.dtype) -> None:
    crf = random_crf(dtype=torch.float32)
    emissions, labels = random_emissions(2, 300).to(dtype), torch.ones(2, 300, dtype=torch.long)
    wanted = crf.log_likelihood(emissions.double(), labels)
    with torch.autocast("cpu", dtype=dtype):
        got = crf.log_likelihood(emissions, labels)
        assert crf.log_max_marginals(emissions).dtype == torch.float32
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted.float(), rtol=1e-5, atol=0)


def test_extreme_scores_give_no_nan() -> None:
    crf = random_crf(dtype=torch.float32)
    emissions = (random_emissions(2, 4) * 1e4).float().requires_grad_()
    labels = torch.tensor([[0, 1, 2, 0], [2, -100, 1, 0]])
    likelihood = crf.log_likelihood(emissions, labels)
    likelihood.sum().backward()
    assert torch.isfinite(likelihood).all() and torch.isfinite(emissions.grad).all()
