"""The encoder: embeds and reads the source, in one direction or both.

Its top states are the memory that attention reads (the annotations of Bahdanau 2015, section 3.2), its last states
what the bridge takes (Sutskever 2014; Cho 2014). B batch, S source length, E embedding, D hidden, L layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from .checks import check_source, checked_inputs
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .embedding import CharacterEncoder, known_symbols
from .fast import lookup
from .padding import padding_of
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .recurrence import LayerState, RecurrentStack
from .special_ids import as_list
from .subsampling import reduced_mask, reduction_plan
from .values import ValueScale


@dataclass
class RnnEncoderOutput(BaseModelOutput):
    """
    Output of the encoder. Every tensor is batch-first, so that `generate()` can repeat it for its beams.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, source_length, encoder_hidden_size)`):
            The memory: states of the top layer, zero at padding. With `time_reduction` it is that much shorter.
        final_hidden (`torch.FloatTensor` of shape `(batch_size, encoder_layers, encoder_hidden_size)`):
            Last state h of each layer, [last forward ; last backward].
        final_cell (`torch.FloatTensor` of the same shape, *optional*): Last cell state c of each layer (LSTM).
        mask (`torch.BoolTensor` of shape `(batch_size, source_length)`, *optional*): True at real positions; None if
            nothing says that there is padding. `generate()` asks no encoder-decoder for a mask that it was not given.
            With `time_reduction` it is that of the memory, not of the input.
        source_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): The source itself, where
            the decoder copies from it (`use_copy`).
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): Embeddings and each layer's outputs.
    """

    final_hidden: Tensor | None = None
    final_cell: Tensor | None = None
    mask: Tensor | None = None
    source_ids: Tensor | None = None

    @classmethod
    def from_tuple(cls, values: tuple) -> "RnnEncoderOutput":
        """Read what the encoder returns with `return_dict=False`: the fields that are not None, in order."""
        if not values:
            raise ValueError("encoder_outputs is (), wanted what model.get_encoder()(..., return_dict=False) returns")
        memory, *others = values
        hidden_states = others.pop(0) if others and isinstance(others[0], tuple) else None
        source_ids = others.pop() if others and others[-1].dtype == torch.long else None
        mask = others.pop() if others and others[-1].dtype == torch.bool else None
        final_hidden, final_cell = (*others, None, None)[:2]
        return cls(
            memory, hidden_states, final_hidden=final_hidden, final_cell=final_cell, mask=mask, source_ids=source_ids
        )

    @property
    def final_states(self) -> tuple[LayerState, ...]:
        """Return the last state of each layer, as tuples of (B, D)."""
        parts = [part for part in (self.final_hidden, self.final_cell) if part is not None]
        return tuple(zip(*(part.unbind(1) for part in parts)))


class RnnSeq2SeqEncoder(RnnSeq2SeqPreTrainedModel):
    """The encoder. `reads_memory`: whether anything reads the memory; if nothing does, it has no `layer_norm`."""

    def __init__(self, config: RnnSeq2SeqConfig, reads_memory: bool = True):
        super().__init__(config)
        input_size = config.input_feature_size
        if input_size is None:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
            input_size = config.embedding_size
        if config.standardise_features:
            self.input_scale = ValueScale(input_size)
        if config.character_vocab_size is not None:
            sizes = (config.character_vocab_size, config.character_embedding_size, config.character_hidden_size)
            self.character_encoder = CharacterEncoder(config.rnn_type, *sizes, config.pad_token_id)
            input_size += config.character_hidden_size
        self.rnn = RecurrentStack(
            config.rnn_type,
            input_size,
            config.encoder_hidden_size,
            config.encoder_layers,
            bidirectional=config.bidirectional_encoder,
            dropout=config.hidden_dropout,
            recurrent_dropout=config.recurrent_dropout,
            layer_norm=config.layer_norm,
            residual=config.residual,
            reductions=reduction_plan(config.time_reduction, config.encoder_layers),
            norm_top=reads_memory,
        )
        self.post_init()

    @can_return_tuple
    @checked_inputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        character_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        output_attentions: bool | None = None,
    ) -> RnnEncoderOutput:
        """
        Take the source as `RnnSeq2SeqModel.forward` does, one of `input_ids`, `inputs_embeds` and `input_features`.

        Args:
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
            output_attentions: `generate()` asks every encoder. This one has no attention to return.
        """
        check_source(self.config, input_ids, inputs_embeds, character_ids, input_features, attention_mask)
        mask = self.source_mask(input_ids, attention_mask)  # (B, S)
        table = None
        if input_features is not None:
            embedded = input_features  # (B, S, I)
            if self.config.standardise_features:
                scaled = self.input_scale.standardise(embedded)  # (B, S, I)
                embedded = scaled.masked_fill(scaled.isnan(), 0).to(self.dtype)  # a missing one is 0: the mean
        elif inputs_embeds is not None:
            embedded = inputs_embeds  # (B, S, E)
        else:
            ids = self._drop_tokens(known_symbols(input_ids, self.config, "input_ids"))  # (B, S)
            embedded = self.embed_tokens(ids)  # (B, S, E)
            table = lookup(self.rnn, self.embed_tokens, ids, self.config.embedding_dropout)
        if self.config.character_vocab_size is not None:  # Lample 2016, section 4.3: [word ; its characters]
            embedded = torch.cat([embedded, self.character_encoder(character_ids, mask)], dim=-1)  # (B, S, I)
        if input_features is None:
            embedded = F.dropout(embedded, self.config.embedding_dropout, self.training)
        elif self.training and _is_checkpointed(self.rnn) and not embedded.requires_grad:
            # Reentrant checkpointing gives no gradient to the weights of a layer whose inputs want none.
            embedded = embedded.detach().requires_grad_(torch.is_grad_enabled())
        stack = self.rnn(embedded, padding=padding_of(mask), lookup=table)
        memory = F.dropout(stack.output, self.config.hidden_dropout, self.training)  # (B, S, D)
        finals = [torch.stack(parts, dim=1) for parts in zip(*stack.states)]  # one or two of (B, L, D)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return RnnEncoderOutput(
            last_hidden_state=memory,
            hidden_states=(embedded, *stack.layer_outputs[:-1], memory) if output_hidden_states else None,
            final_hidden=finals[0],
            final_cell=finals[1] if len(finals) == 2 else None,
            mask=self.memory_mask(input_ids, attention_mask),
            source_ids=input_ids if self.config.use_copy else None,
        )

    def _drop_tokens(self, input_ids: Tensor) -> Tensor:
        """Replace each id by that of the unknown symbol with probability `token_dropout`, in training."""
        if not (self.training and self.config.token_dropout > 0):
            return input_ids
        dropped = torch.rand(input_ids.shape, device=input_ids.device) < self.config.token_dropout  # (B, S)
        return input_ids.masked_fill(dropped, self.config.unk_token_id)

    def source_mask(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        """Return (B, S) bool, True at real positions; None if nothing says that there is padding."""
        if attention_mask is not None:
            return attention_mask.bool()
        pad = self.config.pad_token_id
        if input_ids is None or pad is None or pad in as_list(self.config.eos_token_id):
            return None
        return input_ids != pad

    def memory_mask(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        """Return the memory's mask (B, ceil(S / time_reduction)): that of all that reads what the encoder gives."""
        mask, factor = self.source_mask(input_ids, attention_mask), self.config.time_reduction
        return mask if mask is None or factor == 1 else reduced_mask(mask, factor)


def _is_checkpointed(stack: nn.Module) -> bool:
    """Whether activation checkpointing is on, of a stack or of what is wrapped around one."""
    return any(getattr(part, "gradient_checkpointing", False) for part in stack.modules())
