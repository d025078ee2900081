"""CTC against the sum over all paths, which needs no recursion, and against torch's own loss."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_rnn_seq2seq.model.ctc import CTCPrefixLogitsProcessor, CTCPrefixScorer, ctc_loss, greedy_ctc


TIGHT = {"atol": 1e-10, "rtol": 1e-10}
BLANK, START, END, SYMBOLS, LENGTHS = 1, 2, 3, 5, [5, 3, 1]
TEXTS = [text for n in range(4) for text in itertools.product([0, 4], repeat=n)]


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """Repetitions are one symbol, blanks are none."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK)


def all_texts(logits: Tensor) -> dict[tuple[int, ...], float]:
    """p of each text, from the p of each path over logits (S, V)."""
    probabilities = logits.softmax(-1).tolist()
    texts: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        p = 1.0
        for position, symbol in zip(probabilities, path, strict=True):
            p *= position[symbol]
        texts[collapse(path)] += p
    return texts


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(len(LENGTHS), max(LENGTHS), SYMBOLS, dtype=torch.float64)


def scorer_of(logits: Tensor) -> CTCPrefixScorer:
    return CTCPrefixScorer(logits, torch.tensor(LENGTHS), BLANK)


def test_prefix_scores_are_sums_over_all_paths(logits: Tensor) -> None:
    scorer = scorer_of(logits)
    state = scorer.start(len(TEXTS))
    for position in range(3):
        # Texts of less than three symbols go on with a symbol, and are cut out again behind the step.
        symbols = torch.tensor([text[position] if len(text) > position else 0 for text in TEXTS]).expand(3, -1)
        longer = scorer.extend(state, symbols)
        there = torch.tensor([len(text) > position for text in TEXTS])
        state = type(state)(
            *(torch.where(there.view(1, -1, *[1] * (old.dim() - 2)), new, old) for new, old in zip(longer, state))
        )
    following, complete = scorer.next_log_p(state).exp(), scorer.complete_log_p(state).exp()
    for row, length in enumerate(LENGTHS):
        texts = all_texts(logits[row, :length])
        for column, text in enumerate(TEXTS):
            beginning = sum((p for other, p in texts.items() if other[: len(text)] == text), 0.0)
            torch.testing.assert_close(state.log_p[row, column].exp().item(), beginning, **TIGHT)
            torch.testing.assert_close(complete[row, column].item(), texts[text], **TIGHT)
            for symbol in range(SYMBOLS):
                longer_text = (*text, symbol)
                wanted = sum((p for other, p in texts.items() if other[: len(longer_text)] == longer_text), 0.0)
                torch.testing.assert_close(following[row, column, symbol].item(), wanted, **TIGHT)


def test_long_sharp_sources_lose_no_precision() -> None:
    logits, text = 15 * torch.randn(1, 600, 7, dtype=torch.float64), torch.randint(2, 7, (1, 80))
    scorer = CTCPrefixScorer(logits, torch.tensor([600]), BLANK)
    state = scorer.start(1)
    for position in range(80):
        following = scorer.next_log_p(state)
        state = scorer.extend(state, text[:, position : position + 1])
        torch.testing.assert_close(state.log_p, following[..., text[0, position]], atol=1e-8, rtol=1e-10)
    loss = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), text, [600], [80], blank=BLANK, reduction="sum")
    assert loss > 1000
    torch.testing.assert_close(-scorer.complete_log_p(state).squeeze(), loss, atol=1e-8, rtol=1e-10)


def test_the_loss_is_that_of_all_paths(logits: Tensor) -> None:
    # The end symbol, padding and -100 are no part of the text, wherever they are.
    labels = torch.tensor([[0, 4, 4, 3], [-100, 4, 3, -100], [3, 1, -100, 0]])
    texts = [(0, 4, 4), (4,), (0,)]
    loss = ctc_loss(logits, torch.tensor(LENGTHS), labels, BLANK, (-100, BLANK, END))
    wanted = [all_texts(logits[row, :n])[text] for row, (n, text) in enumerate(zip(LENGTHS, texts, strict=True))]
    torch.testing.assert_close(loss, -torch.tensor(wanted, dtype=torch.float64).log().sum(), **TIGHT)
    alone = [
        F.ctc_loss(logits[row, :n].log_softmax(-1), torch.tensor(text), [n], [len(text)], BLANK, reduction="sum")
        for row, (n, text) in enumerate(zip(LENGTHS, texts, strict=True))
    ]
    torch.testing.assert_close(loss, torch.stack(alone).sum(), **TIGHT)


def test_a_text_that_is_too_long_for_its_source_teaches_nothing(logits: Tensor) -> None:
    # "4 4" needs three positions, since a blank must stand between; the third source has one.
    logits.requires_grad_()
    loss = ctc_loss(logits, torch.tensor([0, 3, 1]), torch.tensor([[4, 0], [4, 4], [4, 4]]), BLANK, (-100,))
    torch.testing.assert_close(loss.item(), -torch.tensor(all_texts(logits[1, :3].detach())[4, 4]).log().item())
    loss.backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[1, :3] != 0).all()
    assert (logits.grad[[0, 2]] == 0).all() and (logits.grad[1, 3:] == 0).all()


def test_the_greedy_text_is_that_of_the_best_path(logits: Tensor) -> None:
    logits = torch.randn(20, 12, SYMBOLS)
    lengths = torch.randint(0, 13, (20,))
    texts = [collapse(tuple(row[:n].argmax(-1).tolist())) for row, n in zip(logits, lengths, strict=True)]
    got = greedy_ctc(logits, lengths, BLANK)
    assert got.shape == (20, max(map(len, texts)))
    for row, text in zip(got.tolist(), texts, strict=True):
        assert row == [*text, *[BLANK] * (len(row) - len(text))]


def joint(scorer: CTCPrefixScorer, weight: float = 0.3) -> CTCPrefixLogitsProcessor:
    return CTCPrefixLogitsProcessor(scorer, weight, START, [END])


def test_states_are_found_again_after_beams_were_reordered(logits: Tensor) -> None:
    scorer = scorer_of(logits)
    processor = joint(scorer)
    ids = torch.full((6, 1), START)
    for _ in range(4):
        scores = torch.randn(6, SYMBOLS, dtype=torch.float64)
        got = processor(ids, scores)
        # One that begins anew at each step: from the whole prefix.
        torch.testing.assert_close(got, joint(scorer)(ids, scores), **TIGHT)
        parents = torch.randint(0, 2, (3, 2)) + torch.arange(0, 6, 2)[:, None]
        ids = torch.cat([ids[parents.flatten()], torch.randint(0, SYMBOLS, (6, 1))], dim=1)


def test_start_and_padding_of_a_prompt_are_no_text(logits: Tensor) -> None:
    scores = torch.randn(3, SYMBOLS, dtype=torch.float64)
    plain = joint(scorer_of(logits))(torch.tensor([[START, 4]] * 3), scores)
    padded = joint(scorer_of(logits))(torch.tensor([[BLANK, START, BLANK, 4]] * 3), scores)
    torch.testing.assert_close(padded, plain, **TIGHT)


def test_joint_scores_add_up_to_those_of_the_whole_text(logits: Tensor) -> None:
    text, total = [4, 0, END], torch.zeros(3, dtype=torch.float64)
    processor, ids = joint(scorer_of(logits), 0.4), torch.full((3, 1), START)
    attention = torch.zeros(3, dtype=torch.float64)
    for symbol in text:
        scores = torch.randn(3, SYMBOLS, dtype=torch.float64)
        got = processor(ids, scores)
        assert (got[:, BLANK] == -torch.inf).all()
        total = total + got[:, symbol]
        attention = attention + scores.log_softmax(-1)[:, symbol]
        ids = torch.cat([ids, torch.full((3, 1), symbol)], dim=1)
    p = torch.tensor([all_texts(logits[row, :n])[4, 0] for row, n in enumerate(LENGTHS)], dtype=torch.float64)
    assert p[2] == 0  # a source of one position has no room for two symbols: finite, and far below all others
    torch.testing.assert_close(total[:2], (0.6 * attention + 0.4 * p.log())[:2], **TIGHT)
    assert torch.isfinite(total[2]) and total[2] < -1000


def test_a_text_that_has_ended_keeps_the_attentions_scores(logits: Tensor) -> None:
    scores = torch.randn(3, SYMBOLS, dtype=torch.float64)
    got = joint(scorer_of(logits))(
        torch.tensor([[START, 4, END, BLANK], [START, 4, 0, 4], [START, 4, 0, END]]), scores
    )
    torch.testing.assert_close(got[[0, 2]], scores.log_softmax(-1)[[0, 2]])
    assert not torch.isclose(got[1], scores.log_softmax(-1)[1]).any()
