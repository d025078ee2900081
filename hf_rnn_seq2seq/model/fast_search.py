"""What a request to `generate()` asks of a search: when hypotheses end, and which symbols may come next.

N hypotheses, V vocabulary. This file travels to the Hub: it imports only the standard library, torch and transformers.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.generation import (
    EosTokenCriteria,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    StoppingCriteriaList,
    WatermarkLogitsProcessor,
)


# From how many candidates on the best ones are looked for in two stages.
_LARGE = 8192
_BLOCK = 64
# So many of the best symbols are looked at by transformers' "selfhash" watermark, whether or not there are so many.
_SELFHASH_SYMBOLS = 40


def watermark_target(processors: LogitsProcessorList, config: Any, vocab_size: int) -> LogitsProcessorList:
    """
    Let a watermark mark the symbols of the target, V of them.

    Args:
        processors: Those of a request. The watermark among them, which knows the source's vocabulary, is replaced.
        config: The request's `watermarking_config`.
        vocab_size: V.

    Raises:
        ValueError: The kind of watermark needs more symbols.
    """
    if getattr(config, "seeding_scheme", None) == "selfhash" and vocab_size < _SELFHASH_SYMBOLS:
        raise ValueError(
            f"watermarking_config has seeding_scheme='selfhash', which needs at least {_SELFHASH_SYMBOLS} target "
            f"symbols; got {vocab_size}: use 'lefthash'"
        )
    for i, processor in enumerate(processors):
        if isinstance(processor, WatermarkLogitsProcessor) and processor.vocab_size != vocab_size:
            processors[i] = config.construct_processor(vocab_size, processor.fixed_table.device)
    return processors


class Limits(NamedTuple):
    """
    The processors and criteria of a request, and of them apart those that nearly every request has: they only need
    the length and the last symbol. The others are called as in transformers, with whole sequences; and so is a list of
    another class, which may do more than to go through its members.
    """

    max_length: int | None
    ends: list[Tensor]  # ids of the end symbols, of each criterion
    criteria: StoppingCriteriaList | None  # the others
    forbidden: list[tuple[int, Tensor]]  # (length, ids): these ids may not come before that length
    processors: LogitsProcessorList | None  # all, or None if `forbidden` says all

    @classmethod
    def of(
        cls, processors: LogitsProcessorList, criteria: StoppingCriteriaList, vocab_size: int, device: torch.device
    ) -> "Limits":
        max_length: int | None = None
        ends, others, forbidden = [], StoppingCriteriaList(), []
        if type(criteria) is not StoppingCriteriaList:
            criteria, others = StoppingCriteriaList(), criteria
        for criterion in criteria:
            if type(criterion) is MaxLengthCriteria and criterion.max_position_embeddings is None:
                max_length = criterion.max_length if max_length is None else min(max_length, criterion.max_length)
            elif type(criterion) is EosTokenCriteria:
                ends.append(criterion.eos_token_id.to(device))
            else:
                others.append(criterion)
        rest: StoppingCriteriaList | None = others if others or type(others) is not StoppingCriteriaList else None
        if type(processors) is not LogitsProcessorList:
            return cls(max_length, ends, rest, [], processors)
        for processor in processors:
            if type(processor) is MinLengthLogitsProcessor:
                shortest, symbols = processor.min_length, processor.eos_token_id
            elif type(processor) is MinNewTokensLengthLogitsProcessor:
                shortest, symbols = processor.prompt_length_to_skip + processor.min_new_tokens, processor.eos_token_id
            else:
                return cls(max_length, ends, rest, [], processors)
            forbidden.append((shortest, symbols[symbols < vocab_size].to(device)))
        return cls(max_length, ends, rest, forbidden, None)

    @property
    def may_end(self) -> bool:
        """Whether a symbol can end a sequence."""
        return bool(self.ends) or any(hasattr(criterion, "eos_token_id") for criterion in self.criteria or ())

    @property
    def needs_sequences(self) -> bool:
        return self.processors is not None or self.criteria is not None

    def process(self, ids: Any, length: int, scores: Tensor, in_place: bool) -> Tensor:
        """Scores (N, V) of the next symbols of hypotheses of this length; `ids` if sequences are needed."""
        for shortest, symbols in self.forbidden:
            if length < shortest:
                scores = (scores if in_place else scores.clone()).index_fill_(1, symbols, -torch.inf)
                in_place = True
        return scores if self.processors is None else self.processors(ids, scores)

    def stopped(self, ids: Any, length: int, last: Tensor, scores: tuple[Tensor, ...] | None) -> Tensor:
        """Of hypotheses that have `last`, of any shape, as the last of `length` symbols: which are at their end."""
        found = [last == symbols if len(symbols) == 1 else torch.isin(last, symbols) for symbols in self.ends]
        if self.criteria is not None:
            found.append(self.criteria(ids, scores).view_as(last))
        if self.max_length is not None and length >= self.max_length:
            return torch.ones_like(last, dtype=torch.bool)
        return functools.reduce(torch.logical_or, found) if found else torch.zeros_like(last, dtype=torch.bool)


def best_extensions(scores: Tensor, running: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """
    The best `count` of all extensions of a source's hypotheses, best first.

    Of a large vocabulary only those blocks of symbols are sorted whose best symbol is among the best count + 1 of all
    blocks: that finds what sorting all finds if the best count + 1 extensions differ, which is looked at.

    Args:
        scores: (B, K, V), log-probabilities of the next symbols.
        running: (B, K), the hypotheses' own scores.

    Returns:
        Scores (B, count), and beam * V + symbol, (B, count).
    """
    batch, beams, vocab = scores.shape
    blocks = vocab // _BLOCK
    if beams * vocab > _LARGE and beams * blocks > count:
        whole = blocks * _BLOCK
        # Rounding is monotonic: the sum's maximum is the sum with the maximum.
        maxima = scores[..., :whole].unflatten(-1, (blocks, _BLOCK)).amax(-1) + running.unsqueeze(-1)
        block = maxima.flatten(1).topk(count + 1).indices
        beam, block = block // blocks, block % blocks
        first = (beam * vocab + block * _BLOCK).unsqueeze(-1)
        place = (first + torch.arange(_BLOCK, device=scores.device)).flatten(1)
        rest = torch.arange(whole, vocab, device=scores.device)
        rest = (torch.arange(beams, device=scores.device).unsqueeze(1) * vocab + rest).flatten()
        place = torch.cat([place, rest.expand(batch, -1)], dim=1)
        values = scores.flatten(1).gather(1, place) + running.gather(1, place // vocab)
        top, index = values.topk(count + 1)
        if not bool((top[:, 1:] == top[:, :-1]).any()):
            return top[:, :-1], place.gather(1, index[:, :-1])
    total = scores + running.unsqueeze(-1)
    top, index = total.flatten(1).topk(count)
    return top, index


def follow_back(history: list[Tensor], best: Tensor, vocab: int, fill: Any) -> tuple[Tensor, Tensor]:
    """
    The hypotheses whose last extensions are `best` (B, M), -1 for none; T is the length of the longest.

    Returns:
        Symbols (B, M, T) with `fill` behind them, and of each the beam that it extended, with -1 behind.
    """
    size = history[0].shape[1] * vocab
    last = torch.div(best, size, rounding_mode="floor")  # the step of the last extension
    longest = int(last.max()) + 1
    symbols = torch.empty(*best.shape, longest, dtype=torch.long, device=best.device)
    symbols[:] = fill
    beams = torch.full_like(symbols, -1)
    beam = torch.zeros_like(best)
    for t in range(longest - 1, -1, -1):
        extension = torch.where(last == t, best % size, history[t].gather(1, beam))
        reached = last >= t
        beam = torch.where(reached, extension // vocab, 0)
        symbols[..., t] = torch.where(reached, extension % vocab, symbols[..., t])
        beams[..., t] = torch.where(reached, beam, -1)
    return symbols, beams
