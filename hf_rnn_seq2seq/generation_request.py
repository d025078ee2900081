"""What a request to `generate()` asks for, and requests like an earlier one, which need not be prepared anew.

To prepare a request (its configuration, processors, criteria, cache) takes transformers several times as long as a
small model takes for the answer. Where a request is as simple as most are, nothing of that depends on the source.
N hypotheses, V vocabulary. This file travels to the Hub: it imports only the standard library, torch and transformers.
"""

import copy
import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.generation import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    StoppingCriteriaList,
)


# So many kinds of requests a model remembers.
_REMEMBERED = 16
_PLAIN = (bool, int, float, str, type(None))
# Where a search says what became of the request that is being prepared, if somebody wants to know.
_told: ContextVar["list[Prepared] | None"] = ContextVar("told", default=None)


class Limits(NamedTuple):
    """
    The processors and criteria of a request, and of them apart those that nearly every request has: they only need
    the length and the last symbol. The others are called as in transformers, with whole sequences.
    """

    max_length: int | None
    ends: list[Tensor]  # ids of the end symbols, of each criterion
    criteria: StoppingCriteriaList  # the others
    forbidden: list[tuple[int, Tensor]]  # (length, ids): these ids may not come before that length
    processors: LogitsProcessorList  # all, or none if `forbidden` says all

    @classmethod
    def of(
        cls, processors: LogitsProcessorList, criteria: StoppingCriteriaList, vocab_size: int, device: torch.device
    ) -> "Limits":
        max_length: int | None = None
        ends, others, forbidden = [], StoppingCriteriaList(), []
        for criterion in criteria:
            if type(criterion) is MaxLengthCriteria and criterion.max_position_embeddings is None:
                max_length = criterion.max_length if max_length is None else min(max_length, criterion.max_length)
            elif type(criterion) is EosTokenCriteria:
                ends.append(criterion.eos_token_id.to(device))
            else:
                others.append(criterion)
        for processor in processors:
            if type(processor) is MinLengthLogitsProcessor:
                shortest, symbols = processor.min_length, processor.eos_token_id
            elif type(processor) is MinNewTokensLengthLogitsProcessor:
                shortest, symbols = processor.prompt_length_to_skip + processor.min_new_tokens, processor.eos_token_id
            else:
                return cls(max_length, ends, others, [], processors)
            forbidden.append((shortest, symbols[symbols < vocab_size].to(device)))
        return cls(max_length, ends, others, forbidden, LogitsProcessorList())

    @property
    def may_end(self) -> bool:
        """Whether a symbol can end a sequence."""
        return bool(self.ends) or any(hasattr(criterion, "eos_token_id") for criterion in self.criteria)

    @property
    def needs_sequences(self) -> bool:
        return bool(self.processors or self.criteria)

    def process(self, ids: Any, length: int, scores: Tensor, in_place: bool) -> Tensor:
        """Scores (N, V) of the next symbols of hypotheses of this length; `ids` if sequences are needed."""
        for shortest, symbols in self.forbidden:
            if length < shortest:
                scores = (scores if in_place else scores.clone()).index_fill_(1, symbols, -torch.inf)
                in_place = True
        return self.processors(ids, scores) if self.processors else scores

    def stopped(self, ids: Any, length: int, last: Tensor, scores: tuple[Tensor, ...] | None) -> Tensor:
        """Of hypotheses that have `last`, of any shape, as the last of `length` symbols: which are at their end."""
        found = [last == symbols if len(symbols) == 1 else torch.isin(last, symbols) for symbols in self.ends]
        if self.criteria:
            found.append(self.criteria(ids, scores).view_as(last))
        if self.max_length is not None and length >= self.max_length:
            return torch.ones_like(last, dtype=torch.bool)
        return functools.reduce(torch.logical_or, found) if found else torch.zeros_like(last, dtype=torch.bool)


class Prepared(NamedTuple):
    """A request as `generate()` hands it to a search."""

    config: GenerationConfig
    limits: Limits
    start: int  # the prompt, the same for all sources


class RequestMemory:
    """
    The requests that a model has prepared, by what they asked for.

    Only requests of one tensor of sources, perhaps their mask, and plain values (`max_new_tokens=20`) are remembered,
    perhaps with a generation configuration; and what they got is only used again while the model's configurations are
    as they were.
    """

    def __init__(self) -> None:
        self.requests: dict[Any, tuple[Prepared, list[dict[str, Any]]]] = {}

    def __deepcopy__(self, memo: Any) -> "RequestMemory":
        return RequestMemory()  # a copy of the model begins anew

    def __reduce__(self) -> Any:
        return RequestMemory, ()

    @staticmethod
    def key(sources: Any, mask: Any, options: dict[str, Any], device: torch.device) -> Any:
        """What is the same for all requests that are prepared alike; None for a request that is not that simple."""
        if not (type(sources) is Tensor and sources.dim() > 1 and len(sources) and sources.device == device):
            return None
        if mask is not None and not (type(mask) is Tensor and mask.shape == sources.shape[:2]):
            return None
        if any(type(value) not in _PLAIN for value in options.values()):
            return None
        return mask is None, device, tuple((name, type(value), value) for name, value in sorted(options.items()))

    def find(self, key: Any, configs: list[Any]) -> Prepared | None:
        """What an equal request got, if the configurations are those of then."""
        prepared, then = self.requests.get(key, (None, []))
        try:
            return prepared if then == [vars(config) for config in configs] else None
        except (RuntimeError, ValueError):  # there are tensors or arrays among their values
            return None

    def learn(self, key: Any, configs: list[Any], generate: Callable[[], Any]) -> Any:
        """What `generate` gives. Remembers what the request got, and forgets the oldest if they are many."""
        found: list[Prepared] = []
        token = _told.set(found)
        try:
            output = generate()
        finally:
            _told.reset(token)
        if len(found) == 1:
            if key not in self.requests and len(self.requests) >= _REMEMBERED:
                self.requests.pop(next(iter(self.requests)), None)
            self.requests[key] = found[0], [copy.deepcopy(vars(config)) for config in configs]
        return output


def tell(input_ids: Tensor, limits: Limits, config: GenerationConfig) -> None:
    """By a search, of prompts (N, prompt): what became of a request, if the same becomes of all like it."""
    found, start = _told.get(), config.decoder_start_token_id
    if found is None or config.return_dict_in_generate or limits.needs_sequences:
        return
    if isinstance(start, int) and input_ids.shape[1] == 1 and bool((input_ids == start).all()):
        found.append(Prepared(config, limits, start))
