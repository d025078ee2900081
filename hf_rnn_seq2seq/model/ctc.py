"""Connectionist temporal classification on the encoder's memory: loss, greedy decoding, prefix scores.

Loss: Graves 2006. Prefix scores: Watanabe 2017, "Hybrid CTC/Attention Architecture", algorithm 2; here each recursion
over time is one cumulative sum, and all next symbols are scored by one product of matrices. B sources, G hypotheses of
each, S length of the memory, U of the labels, V vocabulary with the blank.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.generation import LogitsProcessor


# What stands for log 0 in a score: below any real one, and it leaves the attention's score beside it readable.
_LOG_ZERO = -1e4


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor, blank: int, ignored: tuple[int, ...]) -> Tensor:
    """
    Return the sum over the batch of -log p(labels), in nats (Graves 2006, eq. 3), of logits (B, S, V) whose `lengths`
    (B,) real positions are to the left. Labels (B, U) that are in `ignored` (-100, padding, the end symbol) are no
    part of the text.

    A text that no path can write, since it has more symbols (and blanks between equal ones) than there are positions,
    counts as zero and not as infinite: such a pair teaches the attention only.
    """
    text, text_lengths = to_the_left(labels, ~torch.isin(labels, labels.new_tensor(ignored)))  # (B, U), (B,)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probs = logits.log_softmax(-1, dtype=dtype).transpose(0, 1)  # (S, B, V)
    return F.ctc_loss(log_probs, text.clamp(min=0), lengths, text_lengths, blank, reduction="sum", zero_infinity=True)


def greedy_ctc(logits: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """
    Return the text of the most probable path, (B, longest text) with blanks behind it: repetitions are one symbol,
    then blanks go (Graves 2006, 3.2). Arguments as in `ctc_loss`.
    """
    path = logits.argmax(-1)  # (B, S)
    position = torch.arange(path.shape[1], device=path.device)  # (S,)
    path = path.masked_fill(position >= lengths[:, None], blank)  # (B, S)
    path = path.masked_fill(F.pad(path[:, 1:] == path[:, :-1], (1, 0)), blank)  # (B, S)
    text, text_lengths = to_the_left(path, path != blank)  # (B, S), (B,)
    return text[:, : int(text_lengths.max())]


def to_the_left(x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (B, S, ...) with what is kept (B, S) first, in its order, and how much that is, (B,)."""
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)  # (B, S)
    return x.gather(1, _like(order, x).expand_as(x)), kept.sum(1)


class PrefixState(NamedTuple):
    """What algorithm 2 keeps of a prefix g: log p that the first t positions write g, for t = 0 .. S, in two parts."""

    in_symbol: Tensor  # (B, G, S + 1) the path stands in the last symbol of g
    in_blank: Tensor  # (B, G, S + 1) it stands in a blank behind it
    last: Tensor  # (B, G) last symbol of g; -1: g is empty
    log_p: Tensor  # (B, G) log p(g ...): of all texts that begin with g


class CTCPrefixScorer:
    """Probability of all texts that begin with a prefix; arguments as in `ctc_loss`."""

    def __init__(self, logits: Tensor, lengths: Tensor, blank: int):
        self.blank, self.lengths = blank, lengths
        self.log_probs = logits.double().log_softmax(-1).transpose(1, 2)  # (B, V, S)
        self._probs = self.log_probs.exp().transpose(1, 2)  # (B, S, V)
        position = torch.arange(logits.shape[1], device=logits.device)  # (S,)
        self.padding = (position >= lengths[:, None]).unsqueeze(1)  # (B, 1, S)

    def start(self, hypotheses: int) -> PrefixState:
        """Return the state of the empty prefix, for G hypotheses of each source."""
        blanks = F.pad(self.log_probs[:, self.blank].cumsum(-1), (1, 0))  # (B, S + 1)
        in_blank = blanks[:, None].expand(-1, hypotheses, -1)  # (B, G, S + 1)
        last = torch.full(in_blank.shape[:2], -1, device=in_blank.device)  # (B, G)
        return PrefixState(torch.full_like(in_blank, -torch.inf), in_blank, last, torch.zeros_like(in_blank[..., 0]))

    def extend(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Return the states of g with one symbol (B, G) more."""
        symbol_probs, entering, log_p = self._enter(state, symbols)
        in_symbol = _stay_or_enter(symbol_probs, entering)  # (B, G, S + 1)
        in_blank = _stay_or_enter(self.log_probs[:, self.blank].unsqueeze(1), in_symbol[..., :-1])  # likewise
        return PrefixState(in_symbol, in_blank, symbols, log_p)

    def next_log_p(self, state: PrefixState) -> Tensor:
        """Return log p (B, G, V) of all texts that begin with g and this symbol. The blank is none: -inf."""
        entering = torch.logaddexp(state.in_symbol, state.in_blank)[..., :-1].masked_fill(self.padding, -torch.inf)
        peak = entering.amax(-1, keepdim=True).clamp(min=torch.finfo(entering.dtype).min)  # (B, G, 1)
        log_p = ((entering - peak).exp() @ self._probs).log() + peak  # (B, G, V)
        # The last symbol once more: only behind a blank is it a second one.
        last = state.last.clamp(min=0).unsqueeze(-1)  # (B, G, 1)
        again = self._enter(state, last.squeeze(-1))[-1].unsqueeze(-1)  # (B, G, 1)
        log_p = log_p.scatter(-1, last, torch.where(state.last.unsqueeze(-1) < 0, log_p.gather(-1, last), again))
        log_p[..., self.blank] = -torch.inf
        return log_p

    def complete_log_p(self, state: PrefixState) -> Tensor:
        """Return log p (B, G) of the text g itself, which the end symbol gets."""
        at = self.lengths[:, None, None].expand(-1, state.last.shape[1], 1)  # (B, G, 1)
        return torch.logaddexp(state.in_symbol, state.in_blank).gather(-1, at).squeeze(-1)

    def _enter(self, state: PrefixState, symbols: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Return for symbols (B, G) log p at each position, (B, G, S); phi of algorithm 2, log p of having written g when
        the symbol begins there, (B, G, S); and the sum over all beginnings, log p of the longer prefix, (B, G).
        """
        symbol_probs = self.log_probs.gather(1, symbols.unsqueeze(-1).expand(-1, -1, self.log_probs.shape[-1]))
        either = torch.logaddexp(state.in_symbol, state.in_blank)  # (B, G, S + 1)
        entering = torch.where((symbols == state.last).unsqueeze(-1), state.in_blank, either)[..., :-1]  # (B, G, S)
        log_p = (entering + symbol_probs).masked_fill(self.padding, -torch.inf).logsumexp(-1)  # (B, G)
        return symbol_probs, entering, log_p


def _stay_or_enter(log_probs: Tensor, entering: Tensor) -> Tensor:
    """
    Compute log r_t = log(r_{t-1} + entering_t) + log p_t from r_0 = 0, for t = 0 .. S, of (..., S) tensors.

    With P_t = sum of log p up to t it is log(r_t / e^P_t) = log(r_{t-1} / e^P_{t-1} + entering_t / e^P_{t-1}): a
    cumulative sum of positive terms, so that nothing cancels.
    """
    total = log_probs.cumsum(-1)  # (..., S)
    before = total - log_probs  # (..., S)
    return F.pad((entering - before).logcumsumexp(-1) + total, (1, 0), value=-torch.inf)


class CTCPrefixLogitsProcessor(LogitsProcessor):
    """
    Decode jointly: log p = (1 - weight) log p_attention + weight log p_CTC, symbol by symbol (Watanabe 2017, eq. 22).

    `generate()` reorders hypotheses between the steps and does not say how; the state of each is found again by the
    prefix that it was of.

    Args:
        scorer: Of the sources, not repeated for the beams.
        weight (`float`): Of CTC, 0 to 1.
        start (`int`): Id of the start symbol, which is no part of the text.
        ends (`list[int]`): Ids of the end symbols, which get the probability of the text as it stands.
    """

    def __init__(self, scorer: CTCPrefixScorer, weight: float, start: int | None, ends: list[int]):
        self.scorer, self.weight, self.start, self.ends = scorer, weight, start, ends
        self._last_call: tuple[Tensor, PrefixState] | None = None  # prefixes (B, G, length), their states

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """
        Return joint scores (B * G, V) of hypotheses with their start symbol (B * G, length) and the scores of the
        attention's decoder (B * G, V). A hypothesis that has ended keeps the attention's.
        """
        prefixes = input_ids.unflatten(0, (len(self.scorer.lengths), -1))  # (B, G, length)
        state = self._advance(prefixes)
        ctc = self.scorer.next_log_p(state)  # (B, G, V)
        ctc[..., self.ends] = self.scorer.complete_log_p(state).unsqueeze(-1)
        # Nothing can follow a prefix of probability zero: then every symbol is as bad, and the attention decides.
        ctc = (ctc - state.log_p.unsqueeze(-1)).nan_to_num(nan=_LOG_ZERO).clamp(min=_LOG_ZERO).flatten(0, 1)
        attention = scores.log_softmax(-1)  # (B * G, V)
        joint = (self.weight * ctc).to(scores.dtype)  # (B * G, V)
        if self.weight < 1:
            joint = joint + (1 - self.weight) * attention
        joint[:, self.scorer.blank] = -torch.inf
        ended = torch.isin(input_ids[:, 1:], input_ids.new_tensor(self.ends)).any(1, keepdim=True)  # (B * G, 1)
        return torch.where(ended, attention, joint)

    def _advance(self, prefixes: Tensor) -> PrefixState:
        """Return the states of the prefixes (B, G, length): the last call's with a symbol more, or from the start."""
        known, state = 0, self.scorer.start(prefixes.shape[1])
        if self._last_call is not None and self._last_call[0].shape[-1] == prefixes.shape[-1] - 1:
            shorter, states = self._last_call
            same = (prefixes[:, :, None, :-1] == shorter[:, None]).all(-1)  # (B, G, G of the last call)
            if bool(same.any(-1).all()):
                parents = same.to(torch.uint8).argmax(-1)
                chosen = (part.gather(1, _like(parents, part).expand(-1, -1, *part.shape[2:])) for part in states)
                known, state = shorter.shape[-1], PrefixState(*chosen)
        for symbols in prefixes[..., known:].unbind(-1):
            # Padding of a prompt and the start symbol before any text: not part of it.
            passed = (symbols == self.scorer.blank) | ((symbols == self.start) & (state.last < 0))
            longer = self.scorer.extend(state, symbols)
            state = PrefixState(*(torch.where(_like(passed, old), old, new) for old, new in zip(state, longer)))
        self._last_call = prefixes, state
        return state


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Return x (B, G) with as many axes as the other tensor."""
    return x[(...,) + (None,) * (other.dim() - 2)]
