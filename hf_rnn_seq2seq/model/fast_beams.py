"""The rules of beam search: which hypotheses go on, which end, when all is over, and what was found.

Plain twins: `_get_top_k_continuations` of `GenerationMixin` for `best_extensions`; for the rest, the other rules of
its beam search, which `Beams` calls. `FewBeams` computes them without tensors. B sources, K beams of each, N = B * K,
T symbols, V vocabulary. This file travels to the Hub: it imports only the standard library, torch and transformers.
"""

from ctypes import c_float
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers.generation import GenerationConfig, GenerationMixin


# From how many candidates on the best ones are looked for in two stages.
_LARGE = 8192
_BLOCK = 64
# What no hypothesis has for a score: the rules add -1e9 to that of one which is out.
_OUT = -1e8


class Beams(GenerationMixin):
    """
    The hypotheses of a beam search, by the rules of transformers: which go on and which end, and when all is over.

    The rules of `GenerationMixin` are called themselves; in place of each sequence they are given the number of its
    last extension: beam * V + symbol, as in the step's (B, K * V) scores, and over all steps that + t * K * V.

    Args:
        options: Of the search.
        sources: B.
        prompt_length: Of all prompts.
        vocab: V.
        device: Of the search.
    """

    def __init__(self, options: GenerationConfig, sources: int, prompt_length: int, vocab: int, device: torch.device):
        beams, eos = options.num_beams, options._eos_token_tensor
        self.options, self.prompt_length, self.vocab, self.device = options, prompt_length, vocab, device
        self.history: list[Any] = []  # (B, K) extensions that went on, of each step: a tensor, or lists
        self.count = max(2, 1 + (0 if eos is None else len(eos))) * beams  # enough if the best ones all end
        self.among_best = torch.arange(self.count, device=device) < beams
        # At first only the first beam counts, since all are the same.
        self.running_scores = torch.zeros(sources, beams, device=device)
        self.running_scores[:, 1:] = -1e9
        self.best = torch.full((sources, beams), -1, device=device)  # numbers of the last extensions of what has ended
        self.best_scores = torch.full((sources, beams), -1e9, device=device)
        self.is_finished = torch.zeros(sources, beams, dtype=torch.bool, device=device)
        self.improvable = torch.ones(sources, 1, dtype=torch.bool, device=device)

    def advance(self, scores: Tensor, extensions: Tensor, ended: Tensor, length: int) -> bool:
        """
        Take one step, and say whether the search goes on.

        Args:
            scores, extensions, ended: (B, count) of the best extensions of hypotheses of this length.
        """
        rules: Any = self
        options: Any = self.options
        chosen, self.running_scores, _ = rules._get_running_beams_for_next_iteration(
            topk_log_probs=scores,
            topk_running_sequences=extensions,
            topk_running_beam_indices=extensions,
            next_token_hits_stopping_criteria=ended,
            num_beams=options.num_beams,
        )
        numbered = extensions + len(self.history) * options.num_beams * self.vocab
        self.best, self.best_scores, _, self.is_finished = rules._update_finished_beams(
            sequences=self.best,
            topk_running_sequences=numbered,
            beam_scores=self.best_scores,
            topk_log_probs=scores,
            beam_indices=self.best,
            topk_running_beam_indices=numbered,
            is_early_stop_heuristic_unsatisfied=self.improvable,
            is_sent_finished=self.is_finished,
            next_token_hits_stopping_criteria=ended,
            top_num_beam_mask=self.among_best,
            num_beams=options.num_beams,
            cur_len=length,
            decoder_prompt_len=self.prompt_length,
            length_penalty=options.length_penalty,
            early_stopping=options.early_stopping,
        )
        self.improvable = rules._check_early_stop_heuristic(
            is_early_stop_heuristic_unsatisfied=self.improvable,
            running_beam_scores=self.running_scores,
            beam_scores=self.best_scores,
            is_sent_finished=self.is_finished,
            cur_len=length + 1,
            max_length=options.max_length,
            decoder_prompt_len=self.prompt_length,
            early_stopping=options.early_stopping,
            length_penalty=options.length_penalty,
        )
        unfinished = rules._beam_search_has_unfinished_sequences(
            self.improvable, self.is_finished, ended, options.early_stopping
        )
        self.history.append(chosen)
        return bool(unfinished)

    def going_on(self) -> tuple[Tensor, Tensor | None]:
        """Return the symbols (N,) by which the last step extended what goes on, and the rows (N,) of what it extended;
        None: all rows as they are."""
        chosen = self.history[-1]
        first = torch.arange(len(chosen), device=self.device).unsqueeze(1) * self.options.num_beams
        return (chosen % self.vocab).flatten(), (chosen // self.vocab + first).flatten()

    def found(self, returned: int, fill: int) -> tuple[Tensor, Tensor]:
        """
        Return the best `returned` hypotheses of each source, M in all; T is the length of the longest.

        Returns:
            Symbols (M, T) with `fill` behind them, and of each the beam that it extended, with -1 behind.
        """
        history = [chosen.tolist() if isinstance(chosen, Tensor) else chosen for chosen in self.history]
        paths = []
        for source, numbers in enumerate(self.best[:, :returned].tolist()):
            for number in numbers:  # -1 for none
                step, extension = divmod(number, self.options.num_beams * self.vocab)
                path = [extension] if step >= 0 else []
                for chosen in reversed(history[: max(step, 0)]):
                    path.append(chosen[source][path[-1] // self.vocab])
                paths.append(path[::-1])
        longest = max(map(len, paths))
        symbols = [[e % self.vocab for e in path] + [fill] * (longest - len(path)) for path in paths]
        beams = [[e // self.vocab for e in path] + [-1] * (longest - len(path)) for path in paths]
        return tuple(torch.tensor(rows, dtype=torch.long, device=self.device) for rows in (symbols, beams))  # type: ignore[return-value]

    @staticmethod
    def _gather_beams(tensor: Tensor, beam_indices: Tensor) -> Tensor:
        """Select beams of (B, M) by a cheaper operation: five times a step, 8 in place of 24 microseconds each."""
        return tensor.gather(1, beam_indices)


class FewBeams(Beams):
    """
    The same of few sources on the CPU, whose hypotheses are counted in microseconds without a tensor: a step of the
    rules is 60 calls of torch.

    Where two scores are equal, or no symbol is possible, what `topk` of the rules picks is not said anywhere: from
    such a step on, they are called.

    Args:
        ends: The symbols that end a hypothesis.
        max_length: That ends all.
    """

    def __init__(self, *args: Any, ends: set[int], max_length: int | None):
        super().__init__(*args)
        self.ends, self.max_length = ends, max_length
        self.ranked: list[list[tuple[float, int]]] | None = [
            [] for _ in self.best
        ]  # ended, (score, number), best first
        self.improves = [True] * len(self.best)

    def advance(self, scores: Tensor, extensions: Tensor, ended: Tensor | None, length: int) -> bool:
        every, symbols = self.max_length is not None and length + 1 >= self.max_length, extensions.tolist()
        over = [[every or extension % self.vocab in self.ends for extension in row] for row in symbols]
        if self.ranked is not None:
            rows = [
                self._advance(*row, length) for row in zip(scores.tolist(), symbols, over, self.ranked, self.improves)
            ]
            if None not in rows:
                return self._take(rows, all(map(all, over)))
            self._as_tensors()
        return super().advance(scores, extensions, torch.tensor(over, device=self.device), length)

    def _advance(
        self,
        scores: list[float],
        extensions: list[int],
        over: list[bool],
        ranked: list[Any],
        improves: bool,
        length: int,
    ) -> tuple[Any, ...] | None:
        """Return of one source what goes on, its scores, what has ended, and if it can improve; None: not sure."""
        options, beams = self.options, self.options.num_beams
        if not (scores[-1] > _OUT and all(map(float.__gt__, scores, scores[1:]))):
            return None
        on = [place for place, ends in enumerate(over) if not ends][:beams]
        if len(on) < beams:
            if not all(over):
                return None
            on = list(range(beams))  # nothing goes on
        symbols = length + 1 - self.prompt_length
        penalty = _single(symbols**options.length_penalty)
        if any(over[:beams]) and improves and not (len(ranked) == beams and options.early_stopping is True):
            if penalty == 0:
                return None
            first = len(self.history) * beams * self.vocab
            new = [(_single(scores[k] / penalty), extensions[k] + first) for k in range(beams) if over[k]]
            ranked = sorted((*ranked, *new), reverse=True)
            if not new[-1][0] > _OUT or any(a[0] == b[0] for a, b in pairwise(ranked)):
                return None
            ranked = ranked[:beams]
        if len(ranked) == beams:
            if options.early_stopping == "never" and options.length_penalty > 0:
                penalty = _single((options.max_length - self.prompt_length) ** options.length_penalty)
            if penalty == 0:
                return None
            improves = improves and _single(scores[on[0]] / penalty) > ranked[-1][0]
        return [extensions[k] for k in on], [scores[k] for k in on], ranked, improves

    def _take(self, rows: list[Any], all_over: bool) -> bool:
        chosen, running, ranked, improves = zip(*rows)
        self.ranked, self.improves = list(ranked), list(improves)
        self.history.append(chosen)
        self.running_scores = torch.tensor(running, dtype=torch.float32)
        full = all(len(row) == self.options.num_beams for row in ranked)
        goes_on = any(improves) and not (full and self.options.early_stopping is True) and not all_over
        if not goes_on:
            self._as_tensors()
        return goes_on

    def _as_tensors(self) -> None:
        """Write down what has ended as the rules have it."""
        for row, (ranked, improves) in enumerate(zip(self.ranked or (), self.improves)):
            for k, (score, number) in enumerate(ranked):
                self.best[row, k], self.best_scores[row, k], self.is_finished[row, k] = number, score, True
            self.improvable[row] = improves
        self.ranked = None

    def going_on(self) -> tuple[Tensor, Tensor | None]:
        chosen = self.history[-1]
        if isinstance(chosen, Tensor):
            return super().going_on()
        beams, symbols, parents = self.options.num_beams, [], []
        for source, row in enumerate(chosen):
            symbols += [extension % self.vocab for extension in row]
            parents += [extension // self.vocab + source * beams for extension in row]
        return torch.tensor(symbols), None if parents == list(range(len(parents))) else torch.tensor(parents)


def _single(number: float) -> float:
    """Round to single precision, as the tensors of the rules are."""
    return c_float(number).value


def best_extensions(scores: Tensor, running: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """
    Return the best `count` of all extensions of a source's hypotheses, best first.

    Plain twin: `topk` of all, as `GenerationMixin._get_top_k_continuations` has it.

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
