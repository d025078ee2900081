"""The RNN encoder-decoders: encoder, decoder, the bare model and the model that generates.

Structure 1 (Sutskever 2014): C only sets the decoder's first state. Structure 2 (Cho 2014): C is an input of every
decoder step. Attention (Bahdanau 2015; Luong 2015): C becomes c_t, a different mix of the encoder's states at each step.
Shapes: B batch, S source length, T target length, E embedding, D encoder hidden, H decoder hidden, R readout, V vocabulary.
This file travels to the Hub: it imports only the standard library, torch, transformers and the flat files beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils import can_return_tuple

from .attention import Attention
from .bridge import Bridge, context_vector
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .recurrence import LayerState, Padding, RecurrentStack, padding_of
from .state import (
    DecoderState,
    SourceMemory,
    is_recording,
    load_source,
    load_state,
    new_cache,
    save_source,
    save_states,
)


# Which input a decoder step reads in place of the reference: (reference ids (B,), previous readout (B, R)) -> ids (B,)
ChooseInput = Callable[[Tensor, Tensor], Tensor]


@dataclass
class RnnEncoderOutput(BaseModelOutput):
    """
    Output of the encoder. Every tensor is batch-first, so that `generate()` can repeat it for its beams.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, source_length, encoder_hidden_size)`):
            The memory: states of the top layer, zero at padding.
        final_hidden (`torch.FloatTensor` of shape `(batch_size, encoder_layers, encoder_hidden_size)`):
            Last state h of each layer, [last forward ; last backward].
        final_cell (`torch.FloatTensor` of the same shape, *optional*): Last cell state c of each layer (LSTM).
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): Embeddings and each layer's outputs.
    """

    final_hidden: torch.FloatTensor | None = None
    final_cell: torch.FloatTensor | None = None

    @property
    def final_states(self) -> tuple[LayerState, ...]:
        """The last state of each layer, as tuples of (B, D)."""
        parts = [part for part in (self.final_hidden, self.final_cell) if part is not None]
        return tuple(zip(*(part.unbind(1) for part in parts)))


def shift_tokens_right(labels: Tensor, pad_token_id: int | None, decoder_start_token_id: int) -> Tensor:
    """Decoder inputs (B, T) of labels (B, T): the start symbol, then all labels but the last; -100 becomes padding."""
    if decoder_start_token_id is None:
        raise ValueError("decoder_start_token_id is None in the configuration: labels cannot become decoder inputs")
    start = labels.new_full((labels.shape[0], 1), decoder_start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, pad_token_id if pad_token_id is not None else 0)


class RnnSeq2SeqPreTrainedModel(PreTrainedModel):
    """Initialisation, tying and what transformers has to know, for all models of the family."""

    config_class = RnnSeq2SeqConfig
    config: RnnSeq2SeqConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RecurrentStack", "Attention", "Bridge"]
    _skip_keys_device_placement = ["past_key_values"]
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, RecurrentStack):
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self._std(module.embedding_dim**-0.5))
        elif isinstance(module, nn.Linear):
            if self.config.init_std is None:
                init.xavier_uniform_(module.weight)
            else:
                init.normal_(module.weight, std=self.config.init_std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def _std(self, default: float) -> float:
        return default if self.config.init_std is None else self.config.init_std

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        """Tied parameters, target -> source. Not a class attribute, because it depends on the configuration."""
        return {}

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Unlike the base class, sharing embeddings does not need a tied output."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return self._tied_weights_keys

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short sources, for tools that only need some input."""
        input_ids = torch.tensor([[0, 2, 3], [2, 0, 3]], device=self.device)
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "decoder_input_ids": input_ids}


class RnnSeq2SeqEncoder(RnnSeq2SeqPreTrainedModel):
    """Embeds and reads the source; its top states are the memory, its last states what the bridge takes."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.rnn = RecurrentStack(
            config.rnn_type,
            config.embedding_size,
            config.encoder_hidden_size,
            config.encoder_layers,
            bidirectional=config.bidirectional_encoder,
            dropout=config.hidden_dropout,
            recurrent_dropout=config.recurrent_dropout,
            layer_norm=config.layer_norm,
            residual=config.residual,
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> RnnEncoderOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 1 at real positions, 0 at
                padding, which may be anywhere and never changes a result. Absent: ids equal to `pad_token_id` are padding.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, source_length, embedding_size)`, *optional*):
                Embedded source in place of `input_ids`.
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds to the encoder")
        mask = self.source_mask(input_ids, attention_mask)
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if embedded.shape[1] == 0:
            raise ValueError(f"the source is empty: got input of shape {tuple(embedded.shape[:2])}, wanted (batch, length)")
        if mask is not None and mask.shape != embedded.shape[:2]:
            raise ValueError(f"attention_mask has shape {tuple(mask.shape)}, wanted {tuple(embedded.shape[:2])} as the input")
        embedded = F.dropout(embedded, self.config.embedding_dropout, self.training)
        stack = self.rnn(embedded, padding=padding_of(mask))
        memory = F.dropout(stack.output, self.config.hidden_dropout, self.training)
        finals = [torch.stack(parts, dim=1) for parts in zip(*stack.states)]  # one or two of (B, L, D)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return RnnEncoderOutput(
            last_hidden_state=memory,
            hidden_states=(embedded, *stack.layer_outputs[:-1], memory) if output_hidden_states else None,
            final_hidden=finals[0],
            final_cell=finals[1] if len(finals) == 2 else None,
        )

    def source_mask(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        """(B, S) bool, True at real positions; None if nothing says that there is padding."""
        if attention_mask is not None:
            return attention_mask.bool()
        pad, eos = self.config.pad_token_id, self.config.eos_token_id
        if input_ids is None or pad is None or pad in (eos if isinstance(eos, list) else [eos]):
            return None
        return input_ids != pad


class RnnSeq2SeqDecoder(RnnSeq2SeqPreTrainedModel):
    """
    The decoder: h_t = RNN([embedding of y_{t-1} ; C ; c_t ; feed], h_{t-1}), each part where the configuration has it.

    All steps run at once where none needs the result of the one before (teacher forcing without input feeding);
    otherwise one after the other. Both paths share parameters and give the same values.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.attends = config.attention_type != "none"
        self.attends_before_step = self.attends and config.attention_query == "previous_state"
        self.has_cell = config.rnn_type == "lstm"
        if config.feed_previous_token:
            self.embed_tokens = nn.Embedding(config.target_vocab_size, config.embedding_size)
        embedding_size = config.embedding_size if config.feed_previous_token else 0
        context_size = config.encoder_hidden_size
        self.rnn = RecurrentStack(
            config.rnn_type,
            embedding_size
            + context_size * (config.feeds_context + self.attends_before_step)
            + config.output_size * config.input_feeding,
            config.decoder_hidden_size,
            config.decoder_layers,
            dropout=config.hidden_dropout,
            recurrent_dropout=config.recurrent_dropout,
            layer_norm=config.layer_norm,
            residual=config.residual,
        )
        if self.attends:
            self.attention = Attention(
                config.attention_type,
                config.decoder_hidden_size,
                config.encoder_hidden_size,
                config.attention_size or config.decoder_hidden_size,
            )
        readout_input = config.decoder_hidden_size + context_size * (self.attends or config.feeds_context)
        if config.readout_type == "tanh":
            self.readout = nn.Linear(readout_input, config.readout_size, bias=False)
        elif config.readout_type == "maxout":
            self.readout = nn.Linear(readout_input + embedding_size, 2 * config.readout_size)
        self.post_init()

    def source_memory(self, encoder_output: BaseModelOutput, mask: Tensor | None, context: Tensor | None) -> SourceMemory:
        """What the steps read of the source: made once, so that no step projects the keys again."""
        if not self.attends:
            return SourceMemory(None, None, None, context)
        memory = encoder_output.last_hidden_state
        return SourceMemory(self.attention.keys(memory), memory, mask, context)

    @can_return_tuple
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
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, target_length)`): y_{t-1} for each step t.
            state: The state before the first of these steps.
            source: Of `source_memory()`.
            attention_mask (`torch.Tensor` of shape `(batch_size, target_length)`, *optional*): 0 where a step is to be
                passed over (padded prompts).
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, target_length, embedding_size)`, *optional*).
            past_key_values: Cache that takes the state after these steps.
            choose_input: Scheduled sampling: replaces the input of each step but the first.

        Returns:
            `last_hidden_state` (B, T, R), what the output layer reads; `cross_attentions`, one (B, 1, T, S) tensor.
        """
        embedded = self.embed(input_ids, inputs_embeds)
        mask = None if attention_mask is None else attention_mask[:, -embedded.shape[1] :].bool()
        if mask is not None:
            embedded = embedded.masked_fill(~mask.unsqueeze(-1), 0)  # a NaN in the padding goes nowhere
        one_by_one = (
            self.config.input_feeding
            or self.attends_before_step
            or choose_input is not None
            or embedded.shape[1] == 1
            or (self.training and self.config.recurrent_dropout > 0)
            or (past_key_values is not None and is_recording(past_key_values))
        )
        if one_by_one:
            output, weights, layer_outputs, states = self._run_steps(
                embedded, state, source, mask, input_ids if choose_input else None, choose_input
            )
        else:
            output, weights, layer_outputs, states = self._run_at_once(embedded, state, source, mask)
        if mask is not None:
            # A step that is passed over gives what the last real one gave: generate() continues from the last position,
            # whether or not a prompt is padded there.
            last_real = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), 0).cummax(dim=1).values
            rows = torch.arange(mask.shape[0], device=mask.device)[:, None]
            output, weights = output[rows, last_real], None if weights is None else weights[rows, last_real]
        if past_key_values is not None:
            save_states(past_key_values, states, steps=embedded.shape[1])
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=output,
            past_key_values=past_key_values,
            hidden_states=(embedded, *layer_outputs[:-1], output) if output_hidden_states else None,
            cross_attentions=(weights.unsqueeze(1),) if output_attentions and weights is not None else None,
        )

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Tensor:
        """Embedded previous symbols (B, T, E), or (B, T, 0) for a decoder that does not read them."""
        if not self.config.feed_previous_token:
            like = input_ids if inputs_embeds is None else inputs_embeds
            return torch.zeros(*like.shape[:2], 0, dtype=self.rnn.weight_hh_l0.dtype, device=like.device)
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return F.dropout(embedded, self.config.embedding_dropout, self.training)

    def step(
        self,
        embedded: Tensor,
        state: DecoderState,
        source: SourceMemory,
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...], DecoderState]:
        """One step: embedded y_{t-1} (B, E) -> readout (B, R), attention weights (B, S), layers' outputs, new state."""
        inputs = [embedded]
        attended, weights = None, None
        if self.config.feeds_context:
            inputs.append(source.context)
        if self.attends_before_step:
            attended, weights = self._attend(state.layers[-1][0].unsqueeze(1), source)
            inputs.append(attended.squeeze(1))
        if self.config.input_feeding:
            inputs.append(state.feed)
        stack = self.rnn.step(torch.cat(inputs, dim=-1), state.layers, recurrent_masks)
        top = stack.output.unsqueeze(1)  # (B, 1, H)
        if self.attends and not self.attends_before_step:
            attended, weights = self._attend(top, source)
        output = self._read_out(top, attended, embedded.unsqueeze(1), source).squeeze(1)
        new_state = DecoderState(stack.states, output if self.config.input_feeding else None)
        return output, None if weights is None else weights.squeeze(1), stack.layer_outputs, new_state

    def _run_at_once(self, embedded: Tensor, state: DecoderState, source: SourceMemory, mask: Tensor | None):
        inputs = embedded
        if self.config.feeds_context:
            inputs = torch.cat([embedded, source.context.unsqueeze(1).expand(-1, embedded.shape[1], -1)], dim=-1)
        stack = self.rnn(inputs, state.layers, padding_of(mask))
        attended, weights = self._attend(stack.output, source) if self.attends else (None, None)
        output = self._read_out(stack.output, attended, embedded, source)
        return output, weights, stack.layer_outputs, [DecoderState(stack.states, None)]

    def _run_steps(
        self,
        embedded: Tensor,
        state: DecoderState,
        source: SourceMemory,
        mask: Tensor | None,
        input_ids: Tensor | None,
        choose_input: ChooseInput | None,
    ):
        recurrent_masks = self.rnn.draw_recurrent_masks(embedded)
        outputs, all_weights, all_layer_outputs, states = [], [], [], []
        for t in range(embedded.shape[1]):
            step_input = embedded[:, t]
            if choose_input is not None and t > 0:
                step_input = self.embed(choose_input(input_ids[:, t], outputs[-1])[:, None]).squeeze(1)
            output, weights, layer_outputs, new_state = self.step(step_input, state, source, recurrent_masks)
            state = new_state if mask is None else _where(mask[:, t], new_state, state)
            outputs.append(output)
            all_weights.append(weights)
            all_layer_outputs.append(layer_outputs)
            states.append(state)
        weights = torch.stack(all_weights, dim=1) if self.attends else None
        return torch.stack(outputs, 1), weights, tuple(torch.stack(o, 1) for o in zip(*all_layer_outputs)), states

    def _attend(self, query: Tensor, source: SourceMemory) -> tuple[Tensor, Tensor]:
        return self.attention(query, source.keys, source.memory, source.mask)

    def _read_out(self, top: Tensor, attended: Tensor | None, embedded: Tensor, source: SourceMemory) -> Tensor:
        """What the output layer reads, (B, T, R), from h_t (B, T, H), c_t (B, T, D) and y_{t-1} (B, T, E)."""
        if attended is None and self.config.feeds_context and self.config.readout_type != "none":
            attended = source.context.unsqueeze(1).expand(-1, top.shape[1], -1)
        context = [] if attended is None else [attended]
        if self.config.readout_type == "tanh":
            output = self.readout(torch.cat([*context, top], dim=-1)).tanh()
        elif self.config.readout_type == "maxout":
            pairs = self.readout(torch.cat([top, *context, embedded], dim=-1))
            output = pairs.unflatten(-1, (-1, 2)).amax(-1)
        else:
            output = top
        return F.dropout(output, self.config.hidden_dropout, self.training)


def _where(real: Tensor, new: DecoderState, old: DecoderState) -> DecoderState:
    """The new state in the rows of `real` (B,), the old one elsewhere."""
    rows = real[:, None]
    layers = tuple(
        tuple(torch.where(rows, n, o) for n, o in zip(new_layer, old_layer))
        for new_layer, old_layer in zip(new.layers, old.layers)
    )
    return DecoderState(layers, None if new.feed is None else torch.where(rows, new.feed, old.feed))


class RnnSeq2SeqModel(RnnSeq2SeqPreTrainedModel):
    """Encoder, bridge and decoder without an output layer."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.encoder = RnnSeq2SeqEncoder(config)
        self.bridge = Bridge(
            config.bridge_type,
            config.context_vector,
            config.encoder_hidden_size,
            config.decoder_hidden_size,
            config.encoder_layers,
            config.decoder_layers,
            has_cell=config.rnn_type == "lstm",
        )
        self.decoder = RnnSeq2SeqDecoder(config)
        self.post_init()

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        return {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"} if self.config.share_embeddings else {}

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embed_tokens = value

    def get_encoder(self, modality: str | None = None) -> RnnSeq2SeqEncoder:
        return self.encoder

    def get_decoder(self) -> RnnSeq2SeqDecoder:
        return self.decoder

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        choose_input: ChooseInput | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at source padding.
            decoder_input_ids (`torch.LongTensor` of shape `(batch_size, target_length)`): y_{t-1} for each step; with a
                filled cache, of the new steps only.
            decoder_attention_mask (`torch.Tensor` of shape `(batch_size, target_length)`, *optional*): 0 where a decoder
                position is to be passed over.
            encoder_outputs (`RnnEncoderOutput`, *optional*): In place of the source.
            past_key_values (`EncoderDecoderCache`, *optional*): State after earlier steps.
            inputs_embeds, decoder_inputs_embeds (*optional*): Embedded inputs in place of ids.
            use_cache (`bool`, *optional*): Return the state in `past_key_values`.
            choose_input: Scheduled sampling; see `RnnSeq2SeqForConditionalGeneration`.
        """
        config = self.config
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give exactly one of decoder_input_ids and decoder_inputs_embeds (or labels) to the model")
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if past_key_values is None and (config.use_cache if use_cache is None else use_cache) and not self.training:
            past_key_values = new_cache(config)

        state = None if past_key_values is None else load_state(
            past_key_values, config.rnn_type == "lstm", config.decoder_hidden_size
        )  # fmt: skip
        mask = self.encoder.source_mask(input_ids, attention_mask)
        source = load_source(past_key_values, mask)
        if encoder_outputs is None and (state is None or (source is None and self._reads_source_at_each_step)):
            encoder_outputs = self.encoder(
                input_ids,
                attention_mask,
                inputs_embeds,
                output_hidden_states=output_hidden_states,
                return_dict=True,
            )
        elif encoder_outputs is not None and not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = RnnEncoderOutput(*encoder_outputs)
        if source is None or state is None:
            first_state, source = self._read_source(encoder_outputs, mask, needs_state=state is None)
            state = first_state if state is None else state
            save_source(past_key_values, source)

        decoder_outputs = self.decoder(
            decoder_input_ids,
            state,
            source,
            attention_mask=decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            choose_input=choose_input,
            return_dict=True,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=None if encoder_outputs is None else encoder_outputs.last_hidden_state,
            encoder_hidden_states=None if encoder_outputs is None else encoder_outputs.hidden_states,
        )

    @property
    def _reads_source_at_each_step(self) -> bool:
        return self.decoder.attends or self.config.feeds_context

    def _read_source(
        self, encoder_outputs: BaseModelOutput | None, mask: Tensor | None, needs_state: bool
    ) -> tuple[DecoderState | None, SourceMemory]:
        """The decoder's first state, and what its steps read of the source."""
        config = self.config
        if encoder_outputs is None:
            return None, SourceMemory(None, None, None, None)
        needs_context = config.feeds_context or (needs_state and config.bridge_type != "zeros")
        finals, context = None, None
        if needs_context:
            if config.context_vector == "last":
                finals = self._final_states(encoder_outputs, mask)
            last = finals[-1][0] if finals is not None else encoder_outputs.last_hidden_state[:, 0]
            context = context_vector(config.context_vector, encoder_outputs.last_hidden_state, mask, last)
        source = self.decoder.source_memory(encoder_outputs, mask, context if config.feeds_context else None)
        if not needs_state:
            return None, source
        like = encoder_outputs.last_hidden_state[:, 0] if context is None else context
        feed = like.new_zeros(like.shape[0], config.output_size) if config.input_feeding else None
        return DecoderState(self.bridge(like, finals), feed), source

    def _final_states(self, encoder_outputs: BaseModelOutput, mask: Tensor | None) -> tuple[LayerState, ...]:
        """Final states of the encoder's layers; of a plain `BaseModelOutput` as far as its memory tells them."""
        if getattr(encoder_outputs, "final_hidden", None) is not None:
            return encoder_outputs.final_states
        config = self.config
        if config.rnn_type == "lstm" or config.encoder_layers > 1 or config.layer_norm:
            raise ValueError(
                "encoder_outputs has no final_hidden (and final_cell), which the decoder's first state is made of: pass "
                "what model.get_encoder()(...) returns, got " + type(encoder_outputs).__name__
            )
        memory = encoder_outputs.last_hidden_state
        directions = memory.chunk(2, -1) if config.bidirectional_encoder else (memory,)
        if mask is None:
            return ((torch.cat([d[:, -1 if i == 0 else 0] for i, d in enumerate(directions)], -1),),)
        padding = Padding.from_mask(mask)
        compact = [padding.compact(d) for d in directions]
        zero = torch.zeros_like(compact[0][:, 0])
        return ((torch.cat([padding.last(c, zero) if i == 0 else c[:, 0] for i, c in enumerate(compact)], -1),),)


class RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqPreTrainedModel, GenerationMixin):
    """
    The model with an output layer: a sequence whose length the model decides.

    `teacher_forcing_ratio` is the probability, step by step and sequence by sequence, that a training step reads the
    reference symbol and not one drawn from the model's own distribution (scheduled sampling, Bengio 2015). It is a
    plain attribute, 1.0 by default, for a callback to change while training.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.model = RnnSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.output_size, config.target_vocab_size)
        self.teacher_forcing_ratio = 1.0
        self.post_init()

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        if not self.config.tie_word_embeddings:
            return {}
        side = "encoder" if self.config.share_embeddings else "decoder"
        return {"lm_head.weight": f"model.{side}.embed_tokens.weight"}

    def get_encoder(self, modality: str | None = None) -> RnnSeq2SeqEncoder:
        return self.model.encoder

    def get_decoder(self) -> RnnSeq2SeqDecoder:
        return self.model.decoder

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **kwargs) -> Tensor | None:
        """A recurrence reads its mask as it is, (B, T); there is no causal mask to make."""
        return attention_mask

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """
        Arguments as in `RnnSeq2SeqModel`, and:

        Args:
            labels (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*): The target, not shifted; -100
                is ignored. Decoder inputs are made of it if none are given.
            logits_to_keep (`int` or tensor): Compute logits only of the last so many positions (0: of all), or of
                these positions.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch. Trainer gives the count over all accumulated batches and processes.

        Returns:
            `logits` (B, T, V); `loss`, the cross entropy in nats a symbol, if there are labels.
        """
        choose_input = None
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if self.training and self.teacher_forcing_ratio < 1 and decoder_input_ids is not None:
                choose_input = self._scheduled_sampling
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            choose_input=choose_input,
            return_dict=True,
            **kwargs,
        )
        positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, positions])
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
        )

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Cross entropy over the labels that are not -100, smoothed in training only."""
        if logits.shape[:2] != labels.shape:
            raise ValueError(f"labels has shape {tuple(labels.shape)}, but the decoder ran over {tuple(logits.shape[:2])}")
        total = F.cross_entropy(
            logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)),
            labels.flatten(),
            reduction="sum",
            label_smoothing=float(self.config.label_smoothing) if self.training else 0.0,
        )
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return total / count

    def _scheduled_sampling(self, reference: Tensor, previous_output: Tensor) -> Tensor:
        """A coin a step and sequence: the reference symbol, or one drawn from the model's distribution of that step."""
        with torch.no_grad():
            drawn = self.lm_head(previous_output).float().softmax(-1).multinomial(1).squeeze(1)
        keep = torch.rand(reference.shape, device=reference.device) < self.teacher_forcing_ratio
        return torch.where(keep, reference, drawn)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, T) shifted to the right behind the start symbol; `DataCollatorForSeq2Seq` calls this."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.decoder_start_token_id)

    @torch.no_grad()
    def alignments(self, sequences: Tensor, input_ids: Tensor | None = None, **model_inputs) -> Tensor:
        """
        Attention of given target sequences to their sources: of hypotheses as `generate()` returns them (greedy, beam,
        n-best, sampled), or of references.

        Args:
            sequences (`torch.LongTensor` of shape `(num_sequences, target_length + 1)`): Targets with their start symbol.
                `num_sequences` is the batch size, or a multiple of it: n-best lists, in the order of `generate()`.
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`): The source, and in `model_inputs`
                its `attention_mask`, or `encoder_outputs`.

        Returns:
            Weights of shape `(num_sequences, target_length, source_length)`. Row t belongs to the symbol
            `sequences[:, t + 1]`; rows of padding are zero.

        Raises:
            ValueError: If the model has no attention, or `num_sequences` is not a multiple of the batch size.
        """
        if not self.model.decoder.attends:
            raise ValueError("alignments needs an attention; this model has attention_type='none'")
        encoder_outputs = model_inputs.pop("encoder_outputs", None)
        attention_mask = self.get_encoder().source_mask(input_ids, model_inputs.pop("attention_mask", None))
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(input_ids, attention_mask, return_dict=True, **model_inputs)
        batch = encoder_outputs.last_hidden_state.shape[0]
        if sequences.shape[0] % batch:
            raise ValueError(f"sequences has {sequences.shape[0]} rows, wanted a multiple of the {batch} sources")
        _, inputs = self._expand_inputs_for_generation(
            expand_size=sequences.shape[0] // batch,
            is_encoder_decoder=True,
            encoder_outputs=encoder_outputs,
            attention_mask=attention_mask,
        )
        outputs = self.model(
            decoder_input_ids=sequences[:, :-1], output_attentions=True, use_cache=False, return_dict=True, **inputs
        )
        weights = outputs.cross_attentions[0][:, 0]
        if self.config.pad_token_id is None:
            return weights
        return weights.masked_fill((sequences[:, 1:] == self.config.pad_token_id).unsqueeze(-1), 0)


__all__ = [
    "RnnEncoderOutput",
    "RnnSeq2SeqDecoder",
    "RnnSeq2SeqEncoder",
    "RnnSeq2SeqForConditionalGeneration",
    "RnnSeq2SeqModel",
    "RnnSeq2SeqPreTrainedModel",
]
