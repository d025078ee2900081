"""Greedy and beam search of `generate()` without what a recurrent decoder does not need.

Plain twins: `_sample` and `_beam_search` of `GenerationMixin`, which call the whole model once a symbol, repeat the
source for every beam, and copy all sequences at every step. These call `DecoderStep`, whose hypotheses share one
memory, and keep back-pointers in place of sequences. What is returned is the same. B sources, K beams of each,
N = B * K, T symbols so far, V vocabulary. This file travels to the Hub: it imports only the standard library, torch,
transformers and its flat siblings.
"""

import copy
import functools
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation import (
    EosTokenCriteria,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    StoppingCriteriaList,
)
from transformers.utils import ModelOutput

from .fast import is_own
from .fast_step import DecoderStep, select_state
from .state import (
    DecoderState,
    RecurrentStateLayer,
    SourceMemory,
    is_recording,
    keep_origin,
    load_state,
    new_cache,
    save_source,
    save_states,
)
from .transformers_names import CACHE_NAME, named, search_is_known


# What `generate()` may hand to the loops. With anything else that is not None the request is not one of theirs.
_KNOWN_INPUTS = {
    *("encoder_outputs", "attention_mask", CACHE_NAME, "use_cache", "logits_to_keep"),
    *("character_ids", "inputs_embeds"),  # of the encoder, which has been called by then
}
# Finished sequences leave the batch when so much of it is left.
_LEFT_OVER = 0.75
# From how many candidates on the best ones are looked for in two stages.
_LARGE = 8192
_BLOCK = 64


def search(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    streamer: Any = None,
) -> Any:
    """
    Return what `GenerationMixin._sample` or `_beam_search` do, from prompts (N, T); None: the request is not for here.

    It is, if it is greedy or beam search without sampling, with the dynamic cache that `generate()` makes by itself,
    without attentions or hidden states in the output and without gradients; of a model in evaluation mode that is not
    compiled, traced or under autocast; and of a model whose methods, decoder, bridge and output layer nothing
    replaces, wraps or watches (see `fast`). Any logits processors, stopping criteria, streamer or prompts will do, but
    no mask for the prompts.
    """
    cache, options = model_kwargs.get(CACHE_NAME), generation_config
    fits = (
        model.use_fast_generation
        and search_is_known()
        and not model.training
        and not torch.is_grad_enabled()  # as in an undecorated generate(), whose scores have gradients
        and is_own(model)
        and is_own(model.model)
        and isinstance(model.lm_head, torch.nn.Linear)
        and not torch.is_autocast_enabled(model.device.type)
        and not (options.do_sample or options.low_memory or options.is_assistant)
        and not (options.output_attentions or options.output_hidden_states)
        and options.prefill_chunk_size is None
        and model_kwargs.get("use_cache") is True
        and model_kwargs.get("logits_to_keep") == 1
        and isinstance(model_kwargs.get("encoder_outputs"), ModelOutput)
        and all(value is None for name, value in model_kwargs.items() if name not in _KNOWN_INPUTS)
        and isinstance(cache, EncoderDecoderCache)
        and _is_own_and_empty(cache)
        and input_ids.device == model.device
    )
    if not fits:
        return None
    limits = Limits.of(logits_processor, stopping_criteria, model.config.target_vocab_size, input_ids.device)
    if options.num_beams > 1:
        return _beam_search(model, input_ids, limits, options, model_kwargs)
    return _greedy_search(model, input_ids, limits, options, model_kwargs, streamer)


def _is_own_and_empty(cache: EncoderDecoderCache) -> bool:
    """Return whether it is a cache as `generate()` makes it: dynamic, on the model's device, without a state."""
    halves = (cache.self_attention_cache, cache.cross_attention_cache)
    layers: list[Any] = [layer for half in halves for layer in half.layers]
    return (
        not getattr(cache, "_is_user_defined", False)
        and not any(half.offloading for half in halves)
        and all(type(layer).__name__ == RecurrentStateLayer.__name__ for layer in layers)  # of any copy of this code
        and not any(layer.is_initialized for layer in layers)
        and not is_recording(cache)
    )


def _greedy_search(
    model: Any,
    input_ids: Tensor,
    limits: "Limits",
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    streamer: Any,
) -> Any:
    """Return what `GenerationMixin._sample` does without sampling, from prompts (B, T)."""
    with_dict = generation_config.return_dict_in_generate
    all_scores: Any = () if with_dict and generation_config.output_scores else None
    all_logits: Any = () if with_dict and generation_config.output_logits else None
    pad = generation_config._pad_token_tensor
    # Nobody else sees a tensor of the search: not the caller, not a processor. Nobody then asks for what finished
    # sequences would still give either.
    unseen = not (with_dict or limits.needs_sequences or streamer is not None)
    may_end = limits.may_end

    tokens, length = input_ids[:, -1], input_ids.shape[1]
    ids = input_ids if limits.needs_sequences else None
    columns: list[Tensor] = []  # (B,), of each step
    rows: Tensor | None = None  # which sequences are left, None: all
    finished = torch.zeros_like(tokens, dtype=torch.bool)
    any_finished = False
    with torch.inference_mode() if unseen else nullcontext():
        step, state = start_search(model, input_ids, model_kwargs, beams=1)
        while True:
            logits, state = step(tokens, state)
            logits = logits.float()  # (B, V), or fewer rows where sequences have left
            scores = limits.process(ids, length, logits, in_place=all_logits is None)
            all_scores = None if all_scores is None else (*all_scores, scores)
            all_logits = None if all_logits is None else (*all_logits, logits)
            tokens = scores.argmax(dim=-1)
            if may_end and any_finished:
                tokens = torch.where(finished, pad.to(tokens.device), tokens)
            length += 1
            columns.append(tokens if rows is None else pad.expand(len(input_ids)).index_copy(0, rows, tokens))
            if ids is not None:
                ids = torch.cat([ids, tokens[:, None]], dim=-1)
            if streamer is not None:
                streamer.put(tokens.cpu())
            finished = finished | limits.stopped(ids, length, tokens, all_scores)
            left = len(finished) - int(finished.sum())
            if left == 0:
                break
            any_finished = left < len(finished)
            if may_end and unseen and left <= _LEFT_OVER * len(finished):
                kept = (~finished).nonzero().squeeze(1)
                step.select(kept)
                state, tokens, finished = select_state(state, kept), tokens[kept], finished[kept]
                rows = kept if rows is None else rows[kept]
                any_finished = False
    if streamer is not None:
        streamer.end()
    sequences: Any = torch.cat([input_ids, torch.stack(columns, dim=1)], dim=1)
    if not with_dict:
        return sequences
    return GenerateEncoderDecoderOutput(
        sequences=sequences,
        scores=all_scores,
        logits=all_logits,
        **named(_fill_cache(model_kwargs, state, step, length - 1)),
    )


class _Beams(GenerationMixin):
    """
    The hypotheses of a beam search, by the rules of transformers: which go on and which end, and when all is over.

    The rules of `GenerationMixin` are called themselves; in place of each sequence they are given the number of its
    last extension: beam * V + symbol, as in the step's (B, K * V) scores, and over all steps that + t * K * V.
    """

    def __init__(self, options: GenerationConfig, batch: int, prompt_length: int, device: torch.device):
        beams, eos = options.num_beams, options._eos_token_tensor
        self.options, self.prompt_length = options, prompt_length
        self.count = max(2, 1 + (0 if eos is None else len(eos))) * beams  # enough if the best ones all end
        self.among_best = torch.arange(self.count, device=device) < beams
        # At first only the first beam counts, since all are the same.
        self.running_scores = torch.zeros(batch, beams, device=device)
        self.running_scores[:, 1:] = -1e9
        self.best = torch.full((batch, beams), -1, device=device)  # numbers of the last extensions of what has ended
        self.best_scores = torch.full((batch, beams), -1e9, device=device)
        self.is_finished = torch.zeros(batch, beams, dtype=torch.bool, device=device)
        self.improvable = torch.ones(batch, 1, dtype=torch.bool, device=device)

    def advance(
        self, scores: Tensor, extensions: Tensor, ended: Tensor, first_number: int, length: int
    ) -> tuple[Tensor, bool]:
        """
        Take one step.

        Args:
            scores, extensions, ended: (B, count) of the best extensions of hypotheses of this length.
            first_number: The number of this step's extension 0.

        Returns:
            The extensions (B, K) that go on, and whether the search does.
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
        numbered = extensions + first_number
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
        return chosen, bool(unfinished)

    @staticmethod
    def _gather_beams(tensor: Tensor, beam_indices: Tensor) -> Tensor:
        """Select beams of (B, M) by a cheaper operation: five times a step, 8 in place of 24 microseconds each."""
        return tensor.gather(1, beam_indices)


def _beam_search(
    model: Any,
    input_ids: Tensor,
    limits: "Limits",
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
) -> Any:
    """Return what `GenerationMixin._beam_search` does without sampling, from prompts (N, T)."""
    beams, returned = generation_config.num_beams, generation_config.num_return_sequences
    pad, eos = generation_config._pad_token_tensor, generation_config._eos_token_tensor
    with_dict = generation_config.return_dict_in_generate
    all_scores: Any = () if with_dict and generation_config.output_scores else None
    all_logits: Any = () if with_dict and generation_config.output_logits else None
    batch, length = len(input_ids) // beams, input_ids.shape[1]
    offset = torch.arange(batch, device=input_ids.device).unsqueeze(1) * beams
    hypotheses = _Beams(generation_config, batch, length, input_ids.device)
    tokens = input_ids[:, -1]
    ids = input_ids if limits.needs_sequences else None
    history: list[Tensor] = []  # (B, K) extensions that went on, of each step
    with nullcontext() if with_dict or limits.needs_sequences else torch.inference_mode():
        step, state = start_search(model, input_ids, model_kwargs, beams)
        while True:
            logits, state = step(tokens, state)
            logits = logits.float()  # (N, V)
            scores = limits.process(ids, length, logits.log_softmax(-1), in_place=True)
            all_scores = None if all_scores is None else (*all_scores, scores.clone())
            all_logits = None if all_logits is None else (*all_logits, logits)
            vocab = scores.shape[-1]
            scores = scores.view(batch, beams, vocab)
            top_scores, extensions = best_extensions(scores, hypotheses.running_scores, hypotheses.count)
            parents, symbols = extensions // vocab, extensions % vocab  # (B, count)
            longer = None
            if ids is not None:
                longer = torch.cat([ids[(parents + offset).flatten()], symbols.view(-1, 1)], dim=1)
            ended = limits.stopped(longer, length + 1, symbols, all_scores)
            number = len(history) * beams * vocab
            chosen, goes_on = hypotheses.advance(top_scores, extensions, ended, number, length)
            history.append(chosen)
            length += 1
            if not (goes_on or with_dict):
                break
            parent_rows = (chosen // vocab + offset).flatten()  # (N,)
            state = select_state(state, parent_rows)
            if not goes_on:
                break
            tokens = (chosen % vocab).flatten()
            if ids is not None:
                ids = torch.cat([ids.index_select(0, parent_rows), tokens[:, None]], dim=1)

    fill = pad or eos[0] if eos is not None else -1  # as transformers has it
    sequences, beam_indices = follow_back(history, hypotheses.best[:, :returned], vocab, fill)
    prompts = input_ids.view(batch, beams, -1)[:, :returned].flatten(0, 1)
    whole: Any = torch.cat([prompts, sequences.flatten(0, 1)], dim=1)
    if not with_dict:
        return whole
    among_all: Any = torch.where(beam_indices < 0, -1, beam_indices + offset.unsqueeze(-1)).flatten(0, 1).int()
    best_scores = hypotheses.best_scores[:, :returned].flatten() if generation_config.output_scores else None
    return GenerateBeamEncoderDecoderOutput(
        sequences=whole,
        sequences_scores=best_scores,
        scores=all_scores,
        logits=all_logits,
        beam_indices=among_all,
        **named(_fill_cache(model_kwargs, state, step, length - 1)),
    )


def start_search(
    model: Any, input_ids: Tensor, model_kwargs: dict[str, Any], beams: int
) -> tuple[DecoderStep, DecoderState]:
    """Return the step, and the state of all hypotheses before the last symbol of their prompts (N, T)."""
    outputs, attention_mask = copy.copy(model_kwargs["encoder_outputs"]), model_kwargs.get("attention_mask")
    if len(outputs[0]) == len(input_ids) and beams > 1:  # transformers has repeated all for the beams
        for name, value in outputs.items():
            if isinstance(value, Tensor):
                outputs[name] = value[::beams]
        attention_mask = None if attention_mask is None else attention_mask[::beams]
    mask = model.model.encoder.memory_mask(None, attention_mask)
    mask = getattr(outputs, "mask", None) if mask is None else mask  # (B, S)
    if mask is not None and bool(mask.all()):
        mask = None
    state, source = model.model._read_source(outputs, mask, getattr(outputs, "source_ids", None), needs_state=True)
    prompt, config, decoder = input_ids[::beams, :-1], model.config, model.model.decoder
    if prompt.shape[1] > 0:
        cache = new_cache(config)
        decoder(prompt, state, source, **named(cache))
        state = load_state(cache, config)
    if beams > 1:
        state = select_state(state, torch.arange(len(input_ids), device=input_ids.device) // beams)
    return DecoderStep(decoder, source, model.lm_head, beams, len(input_ids)), state


def _fill_cache(
    model_kwargs: dict[str, Any], state: DecoderState, step: DecoderStep, steps: int
) -> EncoderDecoderCache:
    """Return the cache that `generate()` does: after these steps, with the source for every hypothesis."""
    cache, source, memory = model_kwargs[CACHE_NAME], step.source, model_kwargs["encoder_outputs"][0]
    if len(memory) < len(state.layers[0][0]):
        memory = memory.repeat_interleave(step.beams, dim=0)  # (N, S, D)
    keep_origin(cache, None, None, memory)
    if step.beams > 1:
        repeated = (None if part is None else part.repeat_interleave(step.beams, dim=0) for part in source)
        source = SourceMemory(*repeated)
    save_source(cache, source)
    save_states(cache, [state], steps=steps)
    return cache


class Limits(NamedTuple):
    """
    The processors and criteria of a request, and of them apart those that nearly every request has: they only need
    the length and the last symbol. The others are called as in transformers, with whole sequences; and so is a list of
    another class, which may do more than to go through its members.
    """

    max_length: int | None
    eos_ids: list[Tensor]  # of each criterion
    criteria: StoppingCriteriaList | None  # the others
    forbidden: list[tuple[int, Tensor]]  # (length, ids): these ids may not come before that length
    processors: LogitsProcessorList | None  # all, or None if `forbidden` says all

    @classmethod
    def of(
        cls, processors: LogitsProcessorList, criteria: StoppingCriteriaList, vocab_size: int, device: torch.device
    ) -> "Limits":
        max_length: int | None = None
        eos_ids, others, forbidden = [], StoppingCriteriaList(), []
        if type(criteria) is not StoppingCriteriaList:
            criteria, others = StoppingCriteriaList(), criteria
        for criterion in criteria:
            if type(criterion) is MaxLengthCriteria and criterion.max_position_embeddings is None:
                max_length = criterion.max_length if max_length is None else min(max_length, criterion.max_length)
            elif type(criterion) is EosTokenCriteria:
                eos_ids.append(criterion.eos_token_id.to(device))
            else:
                others.append(criterion)
        rest: StoppingCriteriaList | None = others if others or type(others) is not StoppingCriteriaList else None
        if type(processors) is not LogitsProcessorList:
            return cls(max_length, eos_ids, rest, [], processors)
        for processor in processors:
            if type(processor) is MinLengthLogitsProcessor:
                shortest, symbols = processor.min_length, processor.eos_token_id
            elif type(processor) is MinNewTokensLengthLogitsProcessor:
                shortest, symbols = processor.prompt_length_to_skip + processor.min_new_tokens, processor.eos_token_id
            else:
                return cls(max_length, eos_ids, rest, [], processors)
            forbidden.append((shortest, symbols[symbols < vocab_size].to(device)))
        return cls(max_length, eos_ids, rest, forbidden, None)

    @property
    def may_end(self) -> bool:
        """Whether a symbol can end a sequence."""
        return bool(self.eos_ids) or any(hasattr(criterion, "eos_token_id") for criterion in self.criteria or ())

    @property
    def needs_sequences(self) -> bool:
        return self.processors is not None or self.criteria is not None

    def process(self, ids: Any, length: int, scores: Tensor, in_place: bool) -> Tensor:
        """Return scores (N, V) of the next symbols of hypotheses of this length; `ids` if sequences are needed."""
        for shortest, symbols in self.forbidden:
            if length < shortest:
                scores = (scores if in_place else scores.clone()).index_fill_(1, symbols, -torch.inf)
                in_place = True
        return scores if self.processors is None else self.processors(ids, scores)

    def stopped(self, ids: Any, length: int, last: Tensor, scores: tuple[Tensor, ...] | None) -> Tensor:
        """Return which hypotheses are at their end: `last`, of any shape, is the last of their `length` symbols."""
        found = [last == symbols if len(symbols) == 1 else torch.isin(last, symbols) for symbols in self.eos_ids]
        if self.criteria is not None:
            found.append(self.criteria(ids, scores).view_as(last))
        if self.max_length is not None and length >= self.max_length:
            return torch.ones_like(last, dtype=torch.bool)
        return functools.reduce(torch.logical_or, found) if found else torch.zeros_like(last, dtype=torch.bool)


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


def follow_back(history: list[Tensor], best: Tensor, vocab: int, fill: Any) -> tuple[Tensor, Tensor]:
    """
    Return the hypotheses whose last extensions are `best` (B, M), -1 for none; T is the length of the longest.

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
