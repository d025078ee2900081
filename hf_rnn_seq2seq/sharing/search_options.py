"""The options of an exported model's search, under the names of transformers' generation configuration.

An export puts this text into its copy of the runtime, where that imports it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .exported_folder import MOST, check_whole


# Options of transformers' generation without effect here: about caches, compiling, what is returned, and an assistant
# that proposes symbols; so are all with these beginnings ...
_WITHOUT_EFFECT = frozenset(
    "transformers_version bos_token_id use_cache max_cache_len low_memory prefill_chunk_size disable_compile "
    "compile_config return_dict_in_generate is_assistant target_lookbehind max_matching_ngram_size".split()
)
_BEGINNINGS = ("_", "output_", "assistant_", "num_assistant_", "cache_", "continuous_batching_")
# ... those that only sampling reads, and values of others that switch them off, as do None and what is empty.
_OF_SAMPLING = {"typical_p", "epsilon_cutoff", "eta_cutoff", "min_p", "top_h"}
_OFF = {
    "typical_p": 1.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "diversity_penalty": 0.0,
    "num_beam_groups": 1, "remove_invalid_values": False, "renormalize_logits": False, "guidance_scale": 1.0,
    "min_p": 0.0, "token_healing": False, "use_mtp": False,
}  # fmt: skip


# Whole numbers: the least and the most.
_WHOLE = (
    *(("num_beams", 1, 10_000), ("num_return_sequences", 1, 10_000), ("max_new_tokens", 1, MOST)),
    *(("max_length", 2, MOST), ("min_new_tokens", 0, MOST), ("min_length", 0, MOST), ("top_k", 0, 2**31)),
    *(("decoder_start_token_id", 0, MOST), ("pad_token_id", 0, MOST), ("seed", 0, 2**64)),
)


@dataclass(frozen=True)
class GenerationOptions:
    """The options of `generate()`, under the names of transformers' generation configuration.

    Args:
        num_beams: hypotheses kept at each step; 1: greedy, or sampling.
        num_return_sequences: hypotheses returned for a source; at most `num_beams`, unless sampled.
        max_new_tokens, min_new_tokens: symbols of a target, eos included; 20 if no maximum is set.
        max_length, min_length: these with the start symbol; `max_new_tokens` goes first.
        length_penalty: a hypothesis is ranked by log P / length ** length_penalty.
        early_stopping: when a beam search ends, once `num_beams` hypotheses have: at once (`True`), when the best
            running one would rank below them at its present length (`False`), or at any length (`"never"`).
        suppress_tokens: ids that are never chosen.
        do_sample: draw each symbol from the distribution; only with `num_beams=1`.
        temperature, top_k, top_p, seed: of that distribution; 0 and 1.0 switch top_k and top_p off.
        decoder_start_token_id, eos_token_id, pad_token_id: special symbols.
    """

    num_beams: int = 1
    num_return_sequences: int = 1
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    suppress_tokens: Sequence[int] | None = None
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None
    decoder_start_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None

    @classmethod
    def of(cls, *settings: Mapping[str, Any]) -> GenerationOptions:
        """Merge a saved generation config with a call's options; None leaves an option at its default.

        Raises:
            ValueError: an option is out of range, or is one that this runtime does not have.
        """
        known = {field.name for field in fields(cls)}
        merged = {name: value for setting in settings for name, value in setting.items()}
        options = cls(**{name: value for name, value in merged.items() if name in known and value is not None})
        read_or_not = known | _WITHOUT_EFFECT | (set() if options.do_sample else _OF_SAMPLING)
        for name, value in merged.items():
            if not (name in read_or_not or name.startswith(_BEGINNINGS) or value in (None, [], {}, _OFF.get(name))):
                raise ValueError(f"the runtime has no generation option {name!r}; got {name}={value!r}")
        return options

    def __post_init__(self) -> None:
        for name, least, most in _WHOLE:
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least, most)
        for name in ("length_penalty", "temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number; got {value!r}")
        for name in ("eos_token_id", "suppress_tokens"):
            value = getattr(self, name)
            if name == "suppress_tokens" and not isinstance(value, Sequence | None):
                raise ValueError(f"{name} must be a list of ids; got {value!r}")
            for token in ids_of(value):
                check_whole(f"{name}: an id", token, 0)
        if not isinstance(self.do_sample, bool):
            raise ValueError(f"do_sample must be True or False; got {self.do_sample!r}")
        if self.decoder_start_token_id is None:
            raise ValueError("decoder_start_token_id is None: a target needs a first input")
        if self.do_sample and self.num_beams > 1:
            raise ValueError(f"do_sample=True needs num_beams=1; got num_beams={self.num_beams}")
        if self.num_return_sequences > self.num_beams and not self.do_sample:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences} is more than num_beams={self.num_beams}: "
                "ask for more beams, or for fewer sequences, or set do_sample=True"
            )
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"early_stopping must be True, False or 'never'; got {self.early_stopping!r}")
        # 0 is what nothing reads where nothing is drawn, as in transformers.
        drawn = self.temperature > 0 and self.top_p > 0
        if self.temperature < 0 or not 0 <= self.top_p <= 1 or (self.do_sample and not drawn):
            raise ValueError(
                f"wanted temperature above 0 and top_p in (0, 1]; got temperature={self.temperature}, "
                f"top_p={self.top_p}"
            )

    @property
    def most(self) -> int:
        """Largest number of symbols of a target, eos included."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return 20 if self.max_length is None else self.max_length - 1

    @property
    def eos_ids(self) -> list[int]:
        """The symbols that end a target."""
        return ids_of(self.eos_token_id)

    @property
    def least(self) -> int:
        """Smallest number of symbols of a target, eos not included."""
        return max(self.min_new_tokens or 0, (self.min_length or 0) - 1)

    def forbidden(self, length: int) -> list[int]:
        """Return the symbols that may not follow `length` symbols."""
        return [*ids_of(self.suppress_tokens), *(self.eos_ids if length < self.least else ())]


def ids_of(value: Any) -> list[Any]:
    """Return what an option of one id, several or none holds."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def draw(scores: np.ndarray, search: GenerationOptions, rng: np.random.Generator) -> np.ndarray:
    """Draw one column a row (N,), from log P (N, K) after temperature, top-k and top-p, in this order."""
    scores = scores.astype(np.float64) / search.temperature
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, 1)
    if search.top_k:
        ranked[:, search.top_k :] = -np.inf
    probabilities = np.exp(ranked - ranked[:, :1])
    probabilities /= probabilities.sum(1, keepdims=True)
    before = probabilities.cumsum(1) - probabilities  # mass of all that is likelier
    probabilities[before >= search.top_p] = 0
    cumulative = probabilities.cumsum(1)
    drawn = (cumulative <= rng.random((len(scores), 1)) * cumulative[:, -1:]).sum(1, keepdims=True)
    return np.take_along_axis(order, drawn, 1)[:, 0]


class Beam:
    """The hypotheses of one source, by the rules of transformers' beam search."""

    def __init__(self, search: GenerationOptions):
        self.search, self.eos_ids = search, set(search.eos_ids)
        width = search.num_beams
        self.running: list[tuple[int, ...]] = [()] * width
        # All hypotheses are the same one at first: only the first of them counts.
        self.totals = [0.0] + [-1e9] * (width - 1)
        self.origins = [0] * width  # which hypothesis each running one continues
        self.finished: list[tuple[float, float, tuple[int, ...]]] = []  # score, log-probability, symbols; best first
        self.done = False

    def advance(self, totals: list[float], places: list[int], vocabulary: int) -> None:
        """Take the best continuations, best first: their log P, and running hypothesis * vocabulary + next symbol."""
        search, width, length = self.search, self.search.num_beams, len(self.running[0]) + 1
        unfinished: list[tuple[tuple[int, ...], float, int]] = []
        finished = len(self.finished)
        for rank, (place, total) in enumerate(zip(places, totals)):
            origin, token = divmod(place, vocabulary)
            if token in self.eos_ids or length == search.most:
                # Those behind the first `num_beams` only stand in for hypotheses that have ended.
                if rank < width:
                    tokens = (*self.running[origin], token)
                    self.finished.append((total / length**search.length_penalty, total, tokens))
            elif len(unfinished) < width:
                unfinished.append(((*self.running[origin], token), total, origin))
            elif rank >= width:
                break
        if len(self.finished) > finished:
            self.finished = sorted(self.finished, key=lambda entry: -entry[0])[:width]
        self.done = length == search.most
        if self.done:
            return
        self.running, self.totals, self.origins = (list(column) for column in zip(*unfinished))
        if len(self.finished) == width:
            longest = search.most if search.early_stopping == "never" and search.length_penalty > 0 else length
            reachable = self.totals[0] / longest**search.length_penalty
            self.done = search.early_stopping is True or reachable <= self.finished[-1][0]
