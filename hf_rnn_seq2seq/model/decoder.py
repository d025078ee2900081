"""The decoder: one recurrence for structure 1, structure 2, input feeding and both orders of attention.

Structure 1 (Sutskever 2014): C only sets the first state. Structure 2 (Cho 2014): C is an input of every step.
Attention (Bahdanau 2015; Luong 2015): C becomes c_t. Copying and coverage: See 2017. B batch, S source length, T
target length, E embedding, H hidden, R readout, D memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqModelOutput,
)

from .attention import Attention
from .checks import check_decoder_state, checked_inputs
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .copying import Pointer, source_symbols
from .embedding import known_symbols
from .fast import is_own, is_traced, replaceable, run_decoder, training_products
from .hard_monotonic import HardMonotonicAttention, Marginal
from .padding import padding_of
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .recurrence import RecurrentStack, draw_recurrent_masks
from .state import DecoderState, SourceMemory, is_recording, save_states
from .transformers_names import named, one_cache


# What step t reads in place of the reference: (t, previous readout (B, R), the Pointer of that step) -> ids (B,), or
# embedded inputs (B, E)
ChooseInput = Callable[..., Tensor]
# Far beyond where a sigmoid saturates to exactly one.
_SATURATION = 1e4


@dataclass
class RnnDecoderOutput(BaseModelOutputWithPastAndCrossAttentions):
    """
    Output of the decoder.

    Args:
        pointer (`Pointer` or `Marginal`, *optional*): What copying needs of each step, with `use_copy`; what summing
            over alignments gives, with `attention_type="hard_monotonic"`.
        coverage_loss (`torch.FloatTensor` of shape `(batch_size, target_length)`, *optional*): What each step attended
            to again (See 2017, eq. 12); in training, with `coverage`.
    """

    pointer: Pointer | Marginal | None = None
    coverage_loss: Tensor | None = None


@dataclass
class RnnSeq2SeqModelOutput(Seq2SeqModelOutput):
    """
    Output of `RnnSeq2SeqModel`: as every `Seq2SeqModelOutput`, what `RnnDecoderOutput` adds, and `encoder_mask`, the
    `mask` of `RnnEncoderOutput` as 1 and 0.
    """

    pointer: Pointer | Marginal | None = None
    coverage_loss: Tensor | None = None
    encoder_mask: Tensor | None = None


class StepResults(NamedTuple):
    """The results of T steps with the axes shown, or of one step without T."""

    output: Tensor  # (B, T, R) readouts
    weights: Tensor | None  # (B, T, S) attention
    gate: Tensor | None  # (B, T, 1) logit of p_gen; of hard alignments (B, T, V) log p(y_t | y_<t)
    layer_outputs: tuple[Tensor, ...]  # (B, T, H) tensors
    states: list[DecoderState]  # after each step, or only after the last
    coverage_loss: Tensor | None = None  # (B, T)


@replaceable(
    *("embed", "step", "_attend", "_read_out", "_generation_gate", "_with_context", "_run_at_once", "_run_steps"),
    *("_all_steps", "known_ids"),
)
class RnnSeq2SeqDecoder(RnnSeq2SeqPreTrainedModel):
    """
    The decoder: h_t = RNN([embedding of y_{t-1} ; C ; c_t ; feed], h_{t-1}), each part where the configuration has it.

    All steps run at once where none needs the result of the one before (teacher forcing without input feeding and
    coverage), otherwise one after the other. Both share parameters and give the same values.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.attends = config.attention_type != "none"
        self.attends_before_step = self.attends and config.attention_query == "previous_state"
        self.attends_after_step = self.attends and not (self.attends_before_step or config.aligns)
        self.output_dropout = config.hidden_dropout if config.output_dropout is None else config.output_dropout
        hidden_size, context_size, embedding_size = config.decoder_hidden_size, config.encoder_hidden_size, 0
        if config.feed_previous_token:
            embedding_size = config.embedding_size
            if config.num_mel_bins is None:
                self.embed_tokens = nn.Embedding(config.target_vocab_size, embedding_size)
        contexts = context_size * (config.feeds_context + self.attends_before_step)
        self.rnn = RecurrentStack(
            config.rnn_type,
            embedding_size + contexts + config.output_size * config.input_feeding,
            hidden_size,
            config.decoder_layers,
            dropout=config.hidden_dropout,
            recurrent_dropout=config.recurrent_dropout,
            layer_norm=config.layer_norm,
            residual=config.residual,
        )
        self.readout_type = "none" if config.aligns else config.readout_type
        self.attention: Any
        if config.aligns:
            sizes = (hidden_size, context_size, config.output_size)
            self.attention = HardMonotonicAttention(*sizes, config.alignment_order, config.use_copy)
        elif self.attends:
            attention_size = config.attention_size or hidden_size
            self.attention = Attention(
                config.attention_type,
                hidden_size,
                context_size,
                attention_size,
                coverage=config.coverage,
                location_filters=config.location_filters,
                location_width=config.location_width,
            )
        readout_input = hidden_size + context_size * (self.attends or config.feeds_context)
        if self.readout_type == "tanh":
            self.readout = nn.Linear(readout_input, config.readout_size, bias=False)
        elif self.readout_type == "maxout":
            self.readout = nn.Linear(readout_input + embedding_size, 2 * config.readout_size)
        if config.use_copy and not config.aligns:
            self.generation_gate = nn.Linear(context_size + hidden_size + embedding_size, 1)
        self.post_init()

    def source_memory(
        self,
        encoder_output: BaseModelOutput,
        mask: Tensor | None,
        context: Tensor | None,
        source_ids: Tensor | None = None,
    ) -> SourceMemory:
        """Return what the steps read of the source: once, so that no step projects the keys again."""
        if not self.attends:
            return SourceMemory(context=context)
        symbols = None
        if self.config.use_copy:
            if source_ids is None:
                raise ValueError(
                    "use_copy=True copies symbols of the source, but got only vectors: give input_ids, not "
                    "inputs_embeds; or encoder_outputs with source_ids, as model.get_encoder()(input_ids) returns them"
                )
            if self.config.copy_slots and mask is not None:
                source_ids = source_ids.masked_fill(~mask, self.config.unk_token_id)  # no slot occurs in the padding
            symbols = source_symbols(source_ids)  # (B, 2, S)
        memory = encoder_output.last_hidden_state  # (B, S, D)
        with training_products(self):
            keys = self.attention.keys(memory)  # (B, S, K)
        return SourceMemory(keys, memory, mask, context, symbols)

    @can_return_tuple
    @checked_inputs
    def forward(
        self,
        input_ids: Tensor | None,
        state: DecoderState,
        source: SourceMemory,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        choose_input: ChooseInput | None = None,
        cache: Cache | None = None,
        output_layer: Callable[[Tensor], Tensor] | None = None,
    ) -> RnnDecoderOutput:
        """
        Args:
            input_ids, attention_mask, inputs_embeds: `decoder_input_ids` and so on of `RnnSeq2SeqModel`.
            state: The state before the first of these steps.
            source: Of `source_memory()`.
            past_key_values, cache: Cache that takes the state after these steps, under either name.
            choose_input: Scheduled sampling: gives the ids (B,), or the embedded inputs (B, E), that each step but the
                first reads instead.
            output_layer: Readouts (..., R) -> logits (..., V), by which hard alignments are summed over.

        Returns:
            `last_hidden_state` (B, T, R), what the output layer reads. Where attentions are asked for,
            `cross_attentions`, one (B, 1, T, S) tensor or none, and empty `attentions`: it has no self-attention, but
            `generate()` wants to go through them. `pointer` and `coverage_loss` as in `RnnDecoderOutput`.
        """
        past_key_values = one_cache(past_key_values, cache)
        embedded = self.embed(input_ids, inputs_embeds)  # (B, T, E)
        check_decoder_state(self.config, embedded.shape[0], state, source)
        mask = None if attention_mask is None else attention_mask[:, -embedded.shape[1] :].bool()  # (B, T)
        if mask is not None:
            embedded = embedded.masked_fill(~mask.unsqueeze(-1), 0)  # (B, T, E): a NaN in the padding goes nowhere
        recording = past_key_values is not None and is_recording(past_key_values)
        one_by_one = recording or choose_input is not None or self._needs_steps(embedded)
        ids, keeps_state = input_ids if inputs_embeds is None else None, past_key_values is not None
        steps = run_decoder(self, embedded, state, source, mask, one_by_one, choose_input, ids, keeps_state)
        if steps is None:
            steps = (
                self._run_steps(embedded, state, source, mask, choose_input)
                if one_by_one
                else self._run_at_once(embedded, state, source, mask)
            )
        if self.config.aligns:
            steps = self._align(steps, ids, state, source, mask, output_layer)
        if mask is not None:
            steps = _passed_over(steps, mask)
        if past_key_values is not None:
            save_states(past_key_values, steps.states, steps=embedded.shape[1])
        weights = steps.weights  # (B, T, S)
        pointer: Pointer | Marginal | None = None
        if self.config.aligns and output_layer is not None:
            pointer = Marginal(steps.gate)
        elif self.config.use_copy:
            pointer = Pointer(steps.gate, weights, source.symbols)
        return RnnDecoderOutput(
            last_hidden_state=steps.output,
            **named(past_key_values),
            hidden_states=(embedded, *steps.layer_outputs[:-1], steps.output) if output_hidden_states else None,
            attentions=() if output_attentions else None,
            cross_attentions=(() if weights is None else (weights.unsqueeze(1),)) if output_attentions else None,
            pointer=pointer,
            coverage_loss=steps.coverage_loss,
        )

    def _needs_steps(self, embedded: Tensor) -> bool:
        """Whether a step needs the result of the one before, or is a user's own."""
        return (
            self.config.input_feeding
            or self.config.coverage
            or self.attends_before_step
            or embedded.shape[1] == 1
            or (self.training and self.config.recurrent_dropout > 0)
            or not (is_traced() or is_own(self, "step"))
        )

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Tensor:
        """Embed previous symbols, (B, T, E); or (B, T, 0) for a decoder that does not read them."""
        like = input_ids if inputs_embeds is None else inputs_embeds
        if like is None:
            raise ValueError("give one of input_ids and inputs_embeds")
        if not self.config.feed_previous_token:
            return torch.zeros(*like.shape[:2], 0, dtype=self.dtype, device=like.device)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(self.known_ids(input_ids))  # (B, T, E)
        return F.dropout(inputs_embeds, self.config.embedding_dropout, self.training)

    def known_ids(self, input_ids: Tensor) -> Tensor:
        """Return ids (B, T) as the embedding table has them: slots are read as the unknown symbol."""
        return known_symbols(input_ids, self.config, "decoder_input_ids (or labels)")

    def step(
        self,
        embedded: Tensor,
        state: DecoderState,
        source: SourceMemory,
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> StepResults:
        """Make one step: embedded y_{t-1} (B, E) -> readout (B, R), attention (B, S), layers' outputs, new state."""
        context = [source.context] if self.config.feeds_context else []  # (B, D)
        attended, weights, fed = None, None, []
        if self.attends_before_step:  # Bahdanau 2015, eq. 6: a(s_{t-1}, h_j)
            attended, weights = self._attend(state.layers[-1][0].unsqueeze(1), source, state.coverage)
            fed.append(attended.squeeze(1))  # (B, D)
        if self.config.input_feeding:  # Luong 2015, section 3.3
            fed.append(state.feed)  # (B, R)
        x = torch.cat([embedded, *context, *fed], dim=-1)  # (B, I)
        stack = self.rnn(x, state.layers, recurrent_masks=recurrent_masks)
        top, embedded = stack.output.unsqueeze(1), embedded.unsqueeze(1)  # (B, 1, H), (B, 1, E)
        if self.attends_after_step:  # Luong 2015, eq. 7: score(h_t, h_j)
            attended, weights = self._attend(top, source, state.coverage)  # (B, 1, D), (B, 1, S)
        output = self._read_out(top, attended, embedded, source).squeeze(1)  # (B, R)
        gate = self._generation_gate(top, attended, embedded, source)  # (B, 1, 1)
        weights = None if weights is None else weights.squeeze(1)  # (B, S)
        coverage = state.coverage + weights if self.config.coverage else None  # (B, S)
        new_state = DecoderState(stack.states, output if self.config.input_feeding else None, coverage)
        gate = None if gate is None else gate.squeeze(1)  # (B, 1)
        return StepResults(output, weights, gate, stack.layer_outputs, [new_state])

    def _run_at_once(
        self, embedded: Tensor, state: DecoderState, source: SourceMemory, mask: Tensor | None, lookup: object = None
    ) -> StepResults:
        """Make all steps (B, T, E) at once; `lookup` as in `RecurrentStack`."""
        stack = self.rnn(self._with_context(embedded, source), state.layers, padding_of(mask), lookup)
        attended, weights = self._attend(stack.output, source) if self.attends_after_step else (None, None)
        output = self._read_out(stack.output, attended, embedded, source)  # (B, T, R)
        gate = self._generation_gate(stack.output, attended, embedded, source)  # (B, T, 1)
        return StepResults(output, weights, gate, stack.layer_outputs, [DecoderState(stack.states, None)])

    def _with_context(self, embedded: Tensor, source: SourceMemory) -> Tensor:
        """Return [embedded ; C] of all steps, (B, T, E + D); without C (B, T, E)."""
        if not self.config.feeds_context:
            return embedded
        return torch.cat([embedded, source.context.unsqueeze(1).expand(-1, embedded.shape[1], -1)], dim=-1)

    def _run_steps(
        self,
        embedded: Tensor,
        state: DecoderState,
        source: SourceMemory,
        mask: Tensor | None = None,
        choose_input: ChooseInput | None = None,
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> StepResults:
        """Make the steps (B, T, E) one after the other."""
        if recurrent_masks is None:
            recurrent_masks = self._draw_recurrent_masks(embedded)
        results: list[StepResults] = []
        states = [state]
        for t, step_input in enumerate(embedded.unbind(1)):  # (B, E)
            if choose_input is not None and t > 0:
                last, pointer = results[-1], None
                if self.config.use_copy:
                    pointer = Pointer(last.gate.unsqueeze(1), last.weights.unsqueeze(1), source.symbols)
                chosen = choose_input(t, last.output, pointer).unsqueeze(1)  # (B, 1) ids, or (B, 1, E) embedded
                ids, vectors = (None, chosen) if chosen.is_floating_point() else (chosen, None)
                step_input = self.embed(ids, vectors).squeeze(1)  # (B, E)
            step = self.step(step_input, state, source, recurrent_masks)
            state = step.states[0] if mask is None else _where(mask[:, t], step.states[0], state)
            results.append(step)
            states.append(state)
        return self._all_steps(results, states)

    def _all_steps(self, results: list[StepResults], states: list[DecoderState]) -> StepResults:
        """Return T steps as one result; `states` are those before the first and after each."""
        outputs, all_weights, gates, layer_outputs, *_ = zip(*results)
        weights = None if all_weights[0] is None else torch.stack(all_weights, dim=1)  # (B, T, S)
        coverage_loss = None
        if self.config.coverage and self.training and self.config.num_mel_bins is None:  # See 2017, eq. 12
            before = torch.stack([state.coverage for state in states[:-1]], dim=1)  # (B, T, S)
            coverage_loss = torch.minimum(weights, before).sum(-1)  # (B, T)
        output = torch.stack(outputs, dim=1)  # (B, T, R)
        gate = None if gates[0] is None else torch.stack(gates, dim=1)  # (B, T, 1)
        layers = tuple(torch.stack(layer, dim=1) for layer in zip(*layer_outputs))  # (B, T, H) each
        return StepResults(output, weights, gate, layers, states[1:], coverage_loss)

    def _align(
        self,
        steps: StepResults,
        ids: Tensor | None,
        state: DecoderState,
        source: SourceMemory,
        mask: Tensor | None,
        output_layer: Callable[[Tensor], Tensor] | None,
    ) -> StepResults:
        """
        Sum over the alignments of steps that have been made: the recurrence reads none (see `hard_monotonic`). Without
        an output layer, of the bare model, nothing is summed.
        """
        if output_layer is None:
            states = [one._replace(feed=state.feed, coverage=state.coverage) for one in steps.states]
            return steps._replace(states=states)
        if ids is None:
            raise ValueError(
                "attention_type='hard_monotonic' sums over where the symbols so far were written: give "
                "decoder_input_ids (or labels), not decoder_inputs_embeds"
            )
        scores, alignments, last = self.attention(
            steps.output, ids, (state.feed, state.coverage), source, mask, output_layer
        )  # (B, T, V), (B, T, S), (B, H)
        after = zip(steps.states, steps.output.unbind(1), alignments.unbind(1))
        states = [one._replace(feed=feed, coverage=aligned) for one, feed, aligned in after]
        if states:  # of all steps, or of the last
            states[-1] = states[-1]._replace(feed=last, coverage=alignments[:, -1])
        return steps._replace(weights=alignments.exp(), gate=scores, states=states)

    def _draw_recurrent_masks(self, like: Tensor) -> tuple[Tensor, ...] | None:
        dropout = self.config.recurrent_dropout if self.training else 0.0
        return draw_recurrent_masks(like, self.config.decoder_hidden_size, self.config.decoder_layers, dropout)

    def _attend(self, query: Tensor, source: SourceMemory, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.attention(query, source.keys, source.memory, source.mask, coverage)

    def _generation_gate(
        self, top: Tensor, attended: Tensor | None, embedded: Tensor, source: SourceMemory
    ) -> Tensor | None:
        """Return the logit of p_gen (B, T, 1) from c_t, h_t and y_{t-1} (See 2017, eq. 8), or None."""
        if not self.config.use_copy or self.config.aligns:
            return None
        gate = self.generation_gate(torch.cat([attended, top, embedded], dim=-1))  # (B, T, 1)
        if source.mask is not None:
            # From a source that is all padding there is nothing to copy.
            gate = gate.masked_fill(~source.mask.any(1)[:, None, None], _SATURATION)
        return gate

    def _read_out(self, top: Tensor, attended: Tensor | None, embedded: Tensor, source: SourceMemory) -> Tensor:
        """Return what the output layer reads, (B, T, R), from h_t (B, T, H), c_t (B, T, D) and y_{t-1} (B, T, E)."""
        if attended is None and self.config.feeds_context:
            attended = source.context.unsqueeze(1).expand(-1, top.shape[1], -1)  # (B, T, D)
        context = [] if attended is None else [attended]
        output = top
        if self.readout_type == "tanh":  # Luong 2015, eq. 5
            output = self.readout(torch.cat([*context, top], dim=-1)).tanh()  # (B, T, R)
        elif self.readout_type == "maxout":  # Bahdanau 2015, appendix A.2.2
            pairs = self.readout(torch.cat([top, *context, embedded], dim=-1))  # (B, T, 2 R)
            output = pairs.unflatten(-1, (-1, 2)).amax(-1)  # (B, T, R)
        return F.dropout(output, self.output_dropout, self.training)


def _where(real: Tensor, new: DecoderState, old: DecoderState) -> DecoderState:
    """The new state in the rows of `real` (B,), the old one elsewhere."""
    rows = real[:, None]  # (B, 1)
    layers = tuple(tuple(torch.where(rows, *parts) for parts in zip(*both)) for both in zip(new.layers, old.layers))
    feed, coverage = (None if n is None else torch.where(rows, n, o) for n, o in zip(new[1:], old[1:]))
    return DecoderState(layers, feed, coverage)


def _passed_over(steps: StepResults, mask: Tensor) -> StepResults:
    """
    Give each step that the mask (B, T) passes over the results of the last real one: `generate()` continues from the
    last position, whether or not a prompt is padded there.
    """
    last_real = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), 0).cummax(dim=1).values  # (B, T)
    rows = torch.arange(mask.shape[0], device=mask.device)[:, None]  # (B, 1)
    parts = {name: getattr(steps, name) for name in ("output", "weights", "gate", "coverage_loss")}
    return steps._replace(**{name: part[rows, last_real] for name, part in parts.items() if part is not None})
