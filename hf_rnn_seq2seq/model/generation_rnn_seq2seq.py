"""Greedy and beam search of `generate()` without what a recurrent decoder does not need.

The loops of transformers call the whole model once a symbol, repeat the source for every beam, and copy all sequences
at every step. These call `DecoderStep`, whose hypotheses share one memory, and keep back-pointers in place of
sequences. What is returned is the same. B sources, K beams of each, N = B * K, V vocabulary. This file travels to the
Hub: it imports only the standard library, torch, transformers and its flat siblings.
"""

import copy
import functools
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation import (
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.utils import ModelOutput

from .checks import check_request
from .fast import is_own, may_look, replaceable
from .fast_search import Limits, best_extensions, follow_back, watermark_target
from .fast_step import DecoderStep, select_state
from .state import (
    DecoderState,
    RecurrentStateLayer,
    SourceMemory,
    is_recording,
    load_state,
    new_cache,
    save_source,
    save_states,
)
from .transformers_names import CACHE_NAME, named, one_cache, search_is_known


# What `generate()` may hand to the loops. With anything else that is not None the request is not one of theirs.
_KNOWN_INPUTS = {
    *("encoder_outputs", "attention_mask", CACHE_NAME, "use_cache", "logits_to_keep"),
    *("character_ids", "inputs_embeds"),  # of the encoder, which has been called by then
}
# So many steps' symbols are put together, so that a long sequence is not as many tensors.
_COLUMNS = 256
# Finished sequences leave the batch when so much of it is left.
_LEFT_OVER = 0.75


# What the loops of transformers call at each step, and these do not, or with other arguments.
_REPLACED = (
    *("prepare_inputs_for_generation", "create_masks_for_generate", "_prefill", "_reorder_cache"),
    *("_update_model_kwargs_for_generation", "_has_unfinished_sequences", "_optimize_model_for_decode"),
    *("_valid_auto_compile_criteria", "get_compiled_call", "_flatten_beam_dim", "_unflatten_beam_dim"),
    *("_gather_beams", "_get_top_k_continuations", "_get_running_beams_for_next_iteration"),
    *("_update_finished_beams", "_check_early_stop_heuristic", "_beam_search_has_unfinished_sequences"),
)


def checked_generate(stock: Any) -> Any:
    """`generate()` of `GenerationMixin`, which looks at shapes first, and knows the cache's newer name too."""

    @functools.wraps(stock)
    def generate(self: Any, inputs: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any) -> Any:
        if "past_key_values" in kwargs or "cache" in kwargs:  # under either name
            kwargs |= named(one_cache(kwargs.pop("past_key_values", None), kwargs.pop("cache", None)))
        check_request(self.config, kwargs.get(self.main_input_name) if inputs is None else inputs, kwargs)
        return stock(self, inputs, generation_config, *args, **kwargs)

    return generate


class RnnSeq2SeqGenerationMixin(GenerationMixin):
    """
    The `generate()` of a model with an RNN decoder: `GenerationMixin` with its own greedy and beam search.

    They take a request, and give what transformers' own ones would, if it is greedy search (`num_beams=1`) or beam
    search without sampling; with the dynamic cache, which `generate()` makes by itself; without attentions or hidden
    states in the output and without gradients; of a model in evaluation mode that is not compiled, traced or under
    autocast; and of a model whose methods, decoder, bridge and output layer nothing replaces, wraps or watches (see
    `fast`). Any logits processors, stopping criteria, streamer or prompts will do, but no mask for the prompts. Any
    other request is left to transformers.

    `use_fast_generation` is a class attribute that can be set on a model too; False: leave all to transformers. A
    class that overrides a method which the search replaces, such as `forward`, has to set it to True again if its
    decoding is still that of this class.
    """

    use_fast_generation = True
    model: Any
    lm_head: Any
    config: Any
    device: Any
    main_input_name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if vars(cls).get("use_fast_generation"):
            replaceable(*_REPLACED)(cls)

    generate = checked_generate(GenerationMixin.generate)
    # `model.generate.__wrapped__` is, as in transformers, the one whose scores have gradients.
    generate.__wrapped__ = checked_generate(GenerationMixin.generate.__wrapped__)  # type: ignore[attr-defined]

    def _sample(
        self,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Greedy search, and through `GenerationMixin` sampling."""
        fits = not synced_gpus and self._fits_fast_generation(input_ids, generation_config, model_kwargs)
        if not fits:
            stock: Any = super()
            return stock._sample(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, streamer,
                **model_kwargs,
            )  # fmt: skip
        limits = Limits.of(logits_processor, stopping_criteria, self.config.target_vocab_size, input_ids.device)
        return self._greedy(input_ids, limits, generation_config, model_kwargs, streamer)

    def _greedy(
        self,
        input_ids: Tensor,
        limits: Limits,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        streamer: Any = None,
    ) -> Any:
        with_dict = generation_config.return_dict_in_generate
        all_scores: Any = () if with_dict and generation_config.output_scores else None
        all_logits: Any = () if with_dict and generation_config.output_logits else None
        ends = limits.may_end
        pad = generation_config._pad_token_tensor
        # Nobody else sees a tensor of the search: not the caller, not a processor. Nobody then asks for what finished
        # sequences would still give either.
        unseen = not (with_dict or limits.needs_sequences or streamer is not None)
        may_drop = ends and unseen

        tokens, length = input_ids[:, -1], input_ids.shape[1]
        ids = input_ids if limits.needs_sequences else None
        blocks: list[Tensor] = []  # (B, _COLUMNS) symbols each
        columns: list[Tensor] = []  # (B,), of the steps since then
        rows: Tensor | None = None  # which sequences are left, None: all
        finished = torch.zeros_like(tokens, dtype=torch.bool)
        any_finished = False
        with torch.inference_mode() if unseen else nullcontext():
            step, state = self._start(input_ids, model_kwargs, beams=1)
            while True:
                logits, state = step(tokens, state)
                logits = logits.float()
                scores = limits.process(ids, length, logits, in_place=all_logits is None)
                all_scores = None if all_scores is None else (*all_scores, scores)
                all_logits = None if all_logits is None else (*all_logits, logits)
                tokens = scores.argmax(dim=-1)
                if ends and any_finished:
                    tokens = torch.where(finished, pad.to(tokens.device), tokens)
                length += 1
                columns.append(tokens if rows is None else pad.expand(len(input_ids)).index_copy(0, rows, tokens))
                if len(columns) == _COLUMNS:
                    blocks.append(torch.stack(columns, dim=1))
                    columns.clear()
                if ids is not None:
                    ids = torch.cat([ids, tokens[:, None]], dim=-1)
                if streamer is not None:
                    streamer.put(tokens.cpu())
                finished = finished | limits.stopped(ids, length, tokens, all_scores)
                left = len(finished) - int(finished.sum())
                if left == 0:
                    break
                any_finished = left < len(finished)
                if may_drop and left <= _LEFT_OVER * len(finished):
                    kept = (~finished).nonzero().squeeze(1)
                    step.select(kept)
                    state, tokens, finished = select_state(state, kept), tokens[kept], finished[kept]
                    rows = kept if rows is None else rows[kept]
                    any_finished = False
        if streamer is not None:
            streamer.end()
        blocks += [torch.stack(columns, dim=1)] if columns else []
        sequences: Any = torch.cat([input_ids, *blocks], dim=1)
        if not with_dict:
            return sequences
        return GenerateEncoderDecoderOutput(
            sequences=sequences,
            scores=all_scores,
            logits=all_logits,
            **named(_fill_cache(model_kwargs[CACHE_NAME], state, step, length - 1)),
        )

    def _beam_search(
        self,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """Beam search."""
        fits = not synced_gpus and self._fits_fast_generation(input_ids, generation_config, model_kwargs)
        if not fits:
            stock: Any = super()
            return stock._beam_search(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
            )
        limits = Limits.of(logits_processor, stopping_criteria, self.config.target_vocab_size, input_ids.device)
        return self._beams(input_ids, limits, generation_config, model_kwargs)

    def _beams(
        self, input_ids: Tensor, limits: Limits, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Any:
        """
        Beam search. The rules by which beams end, are ranked and the search stops are the functions of
        `GenerationMixin` themselves; in place of each sequence they are given the number of its last symbol.
        """
        beams, returned = generation_config.num_beams, generation_config.num_return_sequences
        penalty, early_stopping = generation_config.length_penalty, generation_config.early_stopping
        pad, eos = generation_config._pad_token_tensor, generation_config._eos_token_tensor
        with_dict = generation_config.return_dict_in_generate
        all_scores: Any = () if with_dict and generation_config.output_scores else None
        all_logits: Any = () if with_dict and generation_config.output_logits else None
        batch, prompt_length = len(input_ids) // beams, input_ids.shape[1]
        device = input_ids.device
        count = max(2, 1 + (0 if eos is None else len(eos))) * beams  # enough if the best ones all end
        among_best = torch.arange(count, device=device) < beams
        offset = torch.arange(batch, device=device).unsqueeze(1) * beams

        tokens, length = input_ids[:, -1], prompt_length
        ids = input_ids if limits.needs_sequences else None
        # At first only the first beam counts, since all are the same.
        running = torch.zeros(batch, beams, device=device)
        running[:, 1:] = -1e9
        # An extension is numbered by beam * V + symbol, as in the last one's (B, K * V) scores; over all steps by
        # that + t * K * V. The first of them make up the running hypotheses, the second the finished ones.
        history: list[Tensor] = []  # (B, K), of each step
        best = torch.full((batch, beams), -1, device=device)
        best_scores = torch.full((batch, beams), -1e9, device=device)
        is_finished = torch.zeros(batch, beams, dtype=torch.bool, device=device)
        improvable = torch.ones(batch, 1, dtype=torch.bool, device=device)
        with nullcontext() if with_dict or limits.needs_sequences else torch.inference_mode():
            step, state = self._start(input_ids, model_kwargs, beams)
            while True:
                logits, state = step(tokens, state)
                logits = logits.float()
                scores = limits.process(ids, length, logits.log_softmax(-1), in_place=True)
                all_scores = None if all_scores is None else (*all_scores, scores.clone())
                all_logits = None if all_logits is None else (*all_logits, logits)
                vocab = scores.shape[-1]
                top_scores, extensions = best_extensions(scores.view(batch, beams, vocab), running, count)
                parents, symbols = extensions // vocab, extensions % vocab
                longer = None
                if ids is not None:
                    longer = torch.cat([ids[(parents + offset).flatten()], symbols.view(-1, 1)], dim=1)
                ended = limits.stopped(longer, length + 1, symbols, all_scores)
                number = len(history) * beams * vocab
                numbered = extensions + number
                chosen, running, _ = self._get_running_beams_for_next_iteration(
                    topk_log_probs=top_scores,
                    topk_running_sequences=extensions,
                    topk_running_beam_indices=extensions,
                    next_token_hits_stopping_criteria=ended,
                    num_beams=beams,
                )
                best, best_scores, _, is_finished = self._update_finished_beams(
                    sequences=best,
                    topk_running_sequences=numbered,
                    beam_scores=best_scores,
                    topk_log_probs=top_scores,
                    beam_indices=best,
                    topk_running_beam_indices=numbered,
                    is_early_stop_heuristic_unsatisfied=improvable,
                    is_sent_finished=is_finished,
                    next_token_hits_stopping_criteria=ended,
                    top_num_beam_mask=among_best,
                    num_beams=beams,
                    cur_len=length,
                    decoder_prompt_len=prompt_length,
                    length_penalty=penalty,
                    early_stopping=early_stopping,
                )
                history.append(chosen)
                length += 1
                improvable = self._check_early_stop_heuristic(
                    is_early_stop_heuristic_unsatisfied=improvable,
                    running_beam_scores=running,
                    beam_scores=best_scores,
                    is_sent_finished=is_finished,
                    cur_len=length,
                    max_length=generation_config.max_length,
                    decoder_prompt_len=prompt_length,
                    early_stopping=early_stopping,
                    length_penalty=penalty,
                )
                goes_on = bool(
                    self._beam_search_has_unfinished_sequences(improvable, is_finished, ended, early_stopping)
                )
                if not (goes_on or with_dict):
                    break
                parent_rows = (chosen // vocab + offset).flatten()
                state = select_state(state, parent_rows)
                if not goes_on:
                    break
                tokens = (chosen % vocab).flatten()
                if ids is not None:
                    ids = torch.cat([ids.index_select(0, parent_rows), tokens[:, None]], dim=1)

        fill = pad or eos[0] if eos is not None else -1  # as transformers has it
        sequences, beam_indices = follow_back(history, best[:, :returned], vocab, fill)
        among_all: Any = torch.where(beam_indices < 0, -1, beam_indices + offset.unsqueeze(-1)).flatten(0, 1).int()
        prompts = input_ids.view(batch, beams, -1)[:, :returned].flatten(0, 1)
        whole: Any = torch.cat([prompts, sequences.flatten(0, 1)], dim=1)
        if not with_dict:
            return whole
        return GenerateBeamEncoderDecoderOutput(
            sequences=whole,
            sequences_scores=best_scores[:, :returned].flatten() if generation_config.output_scores else None,
            scores=all_scores,
            logits=all_logits,
            beam_indices=among_all,
            **named(_fill_cache(model_kwargs[CACHE_NAME], state, step, length - 1)),
        )

    def _prefill(self, input_ids: Tensor, generation_config: GenerationConfig, *args: Any, **kwargs: Any) -> Any:
        """
        As in `GenerationMixin`, but a prompt is read as a whole: to read it in chunks (`prefill_chunk_size`) saves an
        RNN nothing, and splits the masks of the source and of the prompt as those of a decoder alone.
        """
        if generation_config.prefill_chunk_size is not None:
            generation_config = copy.copy(generation_config)
            generation_config.prefill_chunk_size = None
        stock: Any = super()
        return stock._prefill(input_ids, generation_config, *args, **kwargs)

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """As in `GenerationMixin`, which watermarks symbols up to `vocab_size`: here the source's."""
        stock: Any = super()
        processors: LogitsProcessorList = stock._get_logits_processor(generation_config, *args, **kwargs)
        watermarking, size = (
            generation_config.watermarking_config,
            self.config.get_text_config(decoder=True).vocab_size,
        )
        return processors if watermarking is None else watermark_target(processors, watermarking, size)

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """As in `GenerationMixin`, which takes the number of target symbols from `vocab_size`: here the source's."""
        stock: Any = super()
        generator = stock._get_candidate_generator(*args, **kwargs)
        if hasattr(generator, "vocab_size"):  # prompt lookup
            generator.vocab_size = self.config.get_text_config(decoder=True).vocab_size
        return generator

    @staticmethod
    def _gather_beams(tensor: Tensor, beam_indices: Tensor) -> Tensor:
        """As in `GenerationMixin`, by a cheaper operation where it does."""
        if tensor.dim() == 2:
            return tensor.gather(1, beam_indices)
        return GenerationMixin._gather_beams(tensor, beam_indices)

    def _fits_fast_generation(
        self, input_ids: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> bool:
        """Whether a request is one that the class's docstring names."""
        cache, options = model_kwargs.get(CACHE_NAME), generation_config
        return (
            self._decodes_by_step()
            and not (options.do_sample or options.low_memory or options.is_assistant)
            and not (options.output_attentions or options.output_hidden_states)
            and options.prefill_chunk_size is None
            and model_kwargs.get("use_cache") is True
            and model_kwargs.get("logits_to_keep") == 1
            and isinstance(model_kwargs.get("encoder_outputs"), ModelOutput)
            and all(value is None for name, value in model_kwargs.items() if name not in _KNOWN_INPUTS)
            and isinstance(cache, EncoderDecoderCache)
            and _is_own_and_empty(cache)
            and input_ids.device == self.device
        )

    def _decodes_by_step(self) -> bool:
        """Whether the model, as it is now, is one whose decoding `DecoderStep` is equal to."""
        model: Any = self
        return (
            model.use_fast_generation
            and search_is_known()
            and not model.training
            and not torch.is_grad_enabled()  # as in an undecorated generate(), whose scores have gradients
            and may_look(by="search")
            and is_own(model)
            and is_own(model.model)
            and may_look(model.model.bridge, model.model.decoder, model.lm_head)
            and isinstance(model.lm_head, torch.nn.Linear)
            and not torch.is_autocast_enabled(model.device.type)
        )

    def _start(self, input_ids: Tensor, model_kwargs: dict[str, Any], beams: int) -> tuple[DecoderStep, DecoderState]:
        """The step, and the state of all hypotheses before the last symbol of their prompts (N, prompt)."""
        outputs, attention_mask = copy.copy(model_kwargs["encoder_outputs"]), model_kwargs.get("attention_mask")
        if len(outputs[0]) == len(input_ids) and beams > 1:  # transformers has repeated all for the beams
            for name, value in outputs.items():
                if isinstance(value, Tensor):
                    outputs[name] = value[::beams]
            attention_mask = None if attention_mask is None else attention_mask[::beams]
        mask = self.model.encoder.memory_mask(None, attention_mask)
        mask = getattr(outputs, "mask", None) if mask is None else mask
        if mask is not None and bool(mask.all()):
            mask = None
        state, source = self.model._read_source(outputs, mask, getattr(outputs, "source_ids", None), needs_state=True)
        prompt = input_ids[::beams, :-1]
        decoder = self.model.decoder
        if prompt.shape[1] > 0:
            cache = new_cache(self.config)
            decoder(prompt, state, source, past_key_values=cache)
            feed_size = self.config.output_size * self.config.input_feeding
            state = load_state(
                cache, decoder.has_cell, self.config.decoder_hidden_size, feed_size if self.config.coverage else None
            )
        if beams > 1:
            rows = torch.arange(len(input_ids), device=input_ids.device) // beams
            state = select_state(state, rows)
        return DecoderStep(decoder, source, self.lm_head, beams, len(input_ids)), state


def _is_own_and_empty(cache: EncoderDecoderCache) -> bool:
    """Whether it is a cache as `generate()` makes it: dynamic, on the model's device, without a state."""
    halves = (cache.self_attention_cache, cache.cross_attention_cache)
    layers: list[Any] = [layer for half in halves for layer in half.layers]
    return (
        not getattr(cache, "_is_user_defined", False)
        and not any(half.offloading for half in halves)
        and all(type(layer).__name__ == RecurrentStateLayer.__name__ for layer in layers)  # of any copy of this code
        and not any(layer.is_initialized for layer in layers)
        and not is_recording(cache)
    )


def _fill_cache(cache: EncoderDecoderCache, state: DecoderState, step: DecoderStep, steps: int) -> EncoderDecoderCache:
    """The cache that `generate()` returns: after these steps, with the source for every hypothesis."""
    source = step.source
    if step.beams > 1:
        repeated = (None if part is None else part.repeat_interleave(step.beams, dim=0) for part in source)
        source = SourceMemory(*repeated)
    save_source(cache, source)
    save_states(cache, [state], steps=steps)
    return cache
