"""The RNN encoder-decoders: the bare model, and the model that generates.

Encoder -> context vector C -> bridge -> decoder. Shapes: B batch, S source length, T target length, E embedding, D
encoder hidden, H decoder hidden, R readout, V vocabulary.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .bridge import Bridge, context_vector, final_states, last_output
from .checks import check_numbers, check_positions, check_sequences, check_target, checked_inputs
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .copying import Pointer, check_labels, log_mixture
from .decoder import ChooseInput, RnnSeq2SeqDecoder, RnnSeq2SeqModelOutput
from .encoder import RnnEncoderOutput, RnnSeq2SeqEncoder
from .fast import chunked_loss, logits_wait, replaceable, steps_that_count, with_later_logits
from .generation_rnn_seq2seq import RnnSeq2SeqGenerationMixin
from .hard_monotonic import Marginal, first_alignment
from .loss import cross_entropy, number_of_items, shift_tokens_right
from .modeling_encoder import ENCODER_OF_FOLDER, MayBeEncoder
from .padding import looking_is_free
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .registration import pipelines_of_folder
from .scheduled_sampling import ScheduledSampling, check_teacher_forcing, check_that_it_may_sample
from .state import (
    DecoderState,
    SourceMemory,
    check_cache_layers,
    keep_origin,
    load_source,
    load_state,
    new_cache,
    save_source,
)
from .transformers_names import CACHE_NAME, named, one_cache


# What the model with an output layer returns of the bare model's outputs.
_HANDED_ON = (
    *(CACHE_NAME, "decoder_hidden_states", "decoder_attentions", "cross_attentions"),
    *("encoder_last_hidden_state", "encoder_hidden_states"),
)


@replaceable()
class RnnSeq2SeqModel(MayBeEncoder, RnnSeq2SeqPreTrainedModel):
    """Encoder, bridge and decoder without an output layer."""

    _also_loads = ENCODER_OF_FOLDER

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        if config.share_embeddings:
            self._tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
        self.encoder = RnnSeq2SeqEncoder(config, reads_memory=config.reads_memory)
        if not config.reads_memory:  # models of earlier versions have a norm that nothing read
            self._keys_to_ignore_on_load_unexpected = [rf"encoder\.rnn\.norms\.{config.encoder_layers - 1}\."]
        sizes = (config.encoder_hidden_size, config.decoder_hidden_size, config.encoder_layers, config.decoder_layers)
        self.bridge = Bridge(config.bridge_type, config.context_vector, *sizes, has_cell=config.rnn_type == "lstm")
        self.decoder = RnnSeq2SeqDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's table; of a model that reads vectors the decoder's, as in transformers' speech models."""
        side = self.encoder if self.config.input_feature_size is None else self.decoder
        return side.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        """Set the source's table, and the target's where it is the same or the only one."""
        if self.config.input_feature_size is None:
            self.encoder.embed_tokens = value
        if self.config.share_embeddings or self.config.input_feature_size is not None:
            self.decoder.embed_tokens = value

    @can_return_tuple
    @checked_inputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        choose_input: ChooseInput | None = None,
        character_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        cache: Cache | None = None,
        output_layer: Callable[[Tensor], Tensor] | None = None,
    ) -> RnnSeq2SeqModelOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at padding, which may
                be anywhere and never changes a result. Absent: ids equal to `pad_token_id` are padding.
            decoder_input_ids (`torch.LongTensor` of shape `(batch_size, target_length)`): y_{t-1} for each step; with
                a filled cache, of the new steps only.
            decoder_attention_mask (`torch.Tensor` of shape `(batch_size, target_length)`, *optional*): 0 at decoder
                positions to pass over.
            encoder_outputs (`RnnEncoderOutput`, *optional*): In place of the source.
            past_key_values, cache (`EncoderDecoderCache`, *optional*): State after earlier steps, under either name:
                `cache` is that of transformers from 5.24 on.
            inputs_embeds, decoder_inputs_embeds (*optional*): Embedded inputs in place of ids.
            use_cache (`bool`, *optional*): Return the state, under the name that transformers has for it.
            choose_input: Scheduled sampling; see `RnnSeq2SeqForConditionalGeneration`.
            character_ids (`torch.LongTensor` of shape `(batch_size, source_length, word_length)`, *optional*): With
                `character_vocab_size`: the characters of each word, then `pad_token_id`.
            input_features (`torch.FloatTensor` of shape `(batch_size, source_length, feature_size)`, *optional*):
                Source vectors in place of ids, of a model with `input_feature_size`.
            output_layer: What `attention_type="hard_monotonic"` asks at every position of the source.

        Returns:
            What the decoder gives; without any of its inputs, what the encoder does: features of the source.
        """
        config = self.config
        past_key_values = one_cache(past_key_values, cache)
        if isinstance(encoder_outputs, tuple):  # with return_dict=False
            encoder_outputs = RnnEncoderOutput.from_tuple(encoder_outputs)
        if past_key_values is not None:
            check_cache_layers(past_key_values, config.decoder_layers)
        target = (decoder_input_ids, decoder_inputs_embeds, decoder_attention_mask)
        if all(given is None for given in (*target, choose_input, encoder_outputs, past_key_values)):
            return self.encoder(
                input_ids, attention_mask, inputs_embeds, input_features=input_features, character_ids=character_ids,
                output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
        check_target(config, past_key_values, *target, attention_mask)
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if past_key_values is None and (config.use_cache if use_cache is None else use_cache) and not self.training:
            past_key_values = new_cache(config)

        state = None if past_key_values is None else load_state(past_key_values, config)
        mask = self.encoder.memory_mask(input_ids, attention_mask)  # (B, S)
        if mask is None:
            mask = getattr(encoder_outputs, "mask", None)
        memory = getattr(encoder_outputs, "last_hidden_state", None)
        vectors = next((x for x in (inputs_embeds, input_features, character_ids) if x is not None), None)
        is_known = keep_origin(past_key_values, input_ids, vectors, memory)
        source = load_source(past_key_values, mask)
        reads_source = state is None or (source is None and (self.decoder.attends or config.feeds_context))
        if reads_source:
            check_numbers("encoder_outputs.last_hidden_state", memory, mask)
        if encoder_outputs is None and (reads_source or not is_known):
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, input_features=input_features, character_ids=character_ids,
                output_hidden_states=output_hidden_states, return_dict=True,
            )  # fmt: skip
            keep_origin(past_key_values, input_ids, vectors, encoder_outputs.last_hidden_state)
        if source is None or state is None:
            if input_ids is None:
                input_ids = getattr(encoder_outputs, "source_ids", None)
            first_state, source = self._read_source(encoder_outputs, mask, input_ids, needs_state=state is None)
            state = first_state if state is None else state
            save_source(past_key_values, source)

        decoder_outputs = self.decoder(
            decoder_input_ids,
            state,
            source,
            attention_mask=decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            **named(past_key_values),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            choose_input=choose_input,
            output_layer=output_layer,
            return_dict=True,
        )
        return RnnSeq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            **named(past_key_values),
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=None if encoder_outputs is None else encoder_outputs.last_hidden_state,
            encoder_hidden_states=None if encoder_outputs is None else encoder_outputs.hidden_states,
            pointer=decoder_outputs.pointer,
            coverage_loss=decoder_outputs.coverage_loss,
            encoder_mask=None if mask is None else mask.long(),
        )

    def _read_source(
        self,
        encoder_outputs: BaseModelOutput | None,
        mask: Tensor | None,
        source_ids: Tensor | None,
        needs_state: bool,
    ) -> tuple[DecoderState | None, SourceMemory]:
        """Return the decoder's first state, and what its steps read of the source."""
        config = self.config
        if encoder_outputs is None:
            return None, SourceMemory()
        memory = encoder_outputs.last_hidden_state  # (B, S, D)
        finals, context = None, memory[:, 0]  # (B, D), of which zeros only need the shape
        if config.feeds_context or (needs_state and config.bridge_type != "zeros"):
            last = context  # (B, D)
            if config.context_vector == "last" and not (config.last_is_output and config.bridge_type == "zeros"):
                finals = final_states(config, encoder_outputs, mask)
                last = finals[-1][0]  # (B, D)
            if config.last_is_output:
                last = last_output(memory, mask, config.bidirectional_encoder)  # (B, D)
            context = context_vector(config.context_vector, memory, mask, last)  # (B, D)
        source = self.decoder.source_memory(
            encoder_outputs, mask, context if config.feeds_context else None, source_ids
        )
        if not needs_state:
            return None, source
        feed = context.new_zeros(context.shape[0], config.feed_size) if config.feed_size else None  # (B, R or H)
        coverage = first_alignment(memory, mask) if config.aligns else None  # (B, S)
        if config.coverage:
            coverage = memory.new_zeros(memory.shape[:2], dtype=torch.promote_types(memory.dtype, torch.float32))
        return DecoderState(self.bridge(context, finals), feed, coverage), source


@replaceable("_logits")
class RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqPreTrainedModel, RnnSeq2SeqGenerationMixin, GenerationMixin):
    """
    The model with an output layer: a sequence whose length the model decides.

    With `share_embeddings` the two tables of embeddings are one, with `tie_word_embeddings` the output matrix is the
    decoder's table (Press & Wolf 2017).

    `teacher_forcing_ratio` is the probability that a training step reads the reference symbol and not the model's own
    (scheduled sampling, Bengio 2015), `teacher_forcing_unit` whether that is decided for each "step" or "sequence".
    They are plain attributes, 1.0 and "step" by default, for a callback to change while training: `ScheduledSampling`.
    """

    use_fast_generation = True
    _also_loads = {"AutoModel": "modeling_rnn_seq2seq.RnnSeq2SeqModel", **ENCODER_OF_FOLDER}
    _ships_pipelines = pipelines_of_folder()

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        if config.tie_word_embeddings:
            side = "encoder" if config.share_embeddings else "decoder"
            self._tied_weights_keys = {"lm_head.weight": f"model.{side}.embed_tokens.weight"}
        self.model = RnnSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.output_size, config.target_vocab_size)
        self.teacher_forcing_ratio, self.teacher_forcing_unit = 1.0, "step"
        self.post_init()

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """With `tie_word_embeddings` its weight becomes that of the tables too."""
        self.lm_head = value
        if self.config.tie_word_embeddings:
            _take_weight(self.model.decoder.embed_tokens, value)
            if self.config.share_embeddings:
                _take_weight(self.model.encoder.embed_tokens, value)

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        """Set the inner model's table; with `tie_word_embeddings` the output layer follows the decoder's."""
        self.model.set_input_embeddings(value)
        if self.config.tie_word_embeddings and self.model.decoder.embed_tokens is value:
            _take_weight(self.lm_head, value)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Pass on only those of all symbols that the state has not read, where `generate()` goes on from one."""
        past_key_values = one_cache(past_key_values, cache)
        for name in ("tokenizer", "assistant_tokenizer"):  # of stop strings and drafts: `generate()` hands them on
            kwargs.pop(name, None)
        if next_sequence_length is None and past_key_values is not None:
            read = int(past_key_values.get_seq_length())
            if 0 < read < input_ids.shape[1]:
                next_sequence_length = input_ids.shape[1] - read
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, next_sequence_length=next_sequence_length, **named(past_key_values), **kwargs
        )
        return inputs

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
        """A recurrence reads its mask as it is, (B, T); there is no causal mask to make."""
        return attention_mask

    @can_return_tuple
    @checked_inputs
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
        skip_logits: bool | None = None,
        character_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """
        Args:
            input_ids and others: As in `RnnSeq2SeqModel.forward`.
            labels (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*): The target, not shifted;
                -100 is ignored. Decoder inputs are computed from it if none are given.
            logits_to_keep (`int` or tensor): Compute logits only of the last so many positions (0: of all), or of
                these positions.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch. Trainer gives the count over all accumulated batches and processes. Without any label the loss
                is 0.
            skip_logits (`bool`, *optional*): Return no `logits` beside the loss, only compute a few rows at a time:
                less memory, and no work for padding. `False`: compute all. Default: in training with labels they are
                computed when the output's `logits` are read, otherwise at once.

        Returns:
            `logits` (B, T, V), or None where they are skipped, with `use_copy` the logarithms of the mixed
            distribution (B, T, V + `copy_slots`); `loss`, the cross entropy in nats a symbol, if there are labels; in
            training with `coverage` plus the weighted coverage loss.
        """
        self.check_labels_are_left(labels, num_items_in_batch, decoder_input_ids, decoder_inputs_embeds)
        check_positions(logits_to_keep)
        if skip_logits and labels is None:
            raise ValueError("skip_logits=True leaves nothing to return without labels: give labels, or leave it out")
        later = skip_logits is None and logits_wait(self, labels)
        sampling = None
        if labels is not None:
            use_cache = False
            made = decoder_input_ids is None and decoder_inputs_embeds is None
            if made:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            sampling = self._scheduled_sampling(decoder_input_ids)
            if made and (skip_logits or later) and decoder_attention_mask is None and sampling is None:
                decoder_attention_mask = steps_that_count(self.model, labels)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise ValueError("give exactly one of decoder_input_ids (or labels) and decoder_inputs_embeds")
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            **named(one_cache(past_key_values, cache)),
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            choose_input=sampling,
            character_ids=character_ids,
            input_features=input_features,
            output_layer=self.lm_head.__call__,
            return_dict=True,
        )
        positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep

        def make_logits() -> Tensor:
            pointer = None if outputs.pointer is None else outputs.pointer.at(positions)
            return self._logits(outputs.last_hidden_state[:, positions], pointer)

        logits = None if skip_logits or later else make_logits()
        if labels is not None and sampling is not None:
            labels = sampling.learnt(labels)
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch, outputs)
        output = Seq2SeqLMOutput(loss=loss, logits=logits, **{name: getattr(outputs, name) for name in _HANDED_ON})
        return with_later_logits(output, make_logits, outputs.last_hidden_state, self.lm_head) if later else output

    def _loss_beyond_logits(self) -> str | None:
        config, ratio = self.config, self.teacher_forcing_ratio
        if config.copy_slots > 0:
            return f"copy_slots={config.copy_slots}: words that are not in a source have no probability to smooth"
        if config.coverage and config.coverage_loss_weight > 0:
            return "coverage=True: the coverage loss would be left out"
        if self.training and ratio < 1:
            return f"teacher_forcing_ratio={ratio}: every step would read the reference"
        return None

    def _scheduled_sampling(self, reference: Tensor | None) -> ScheduledSampling | None:
        """Return what chooses the decoder's inputs in place of the reference (B, T); None if all are the reference."""
        if self.training:
            check_teacher_forcing(self)
        if not self.training or self.teacher_forcing_ratio == 1 or reference is None:
            return None
        ratio, unit = self.teacher_forcing_ratio, self.teacher_forcing_unit
        check_that_it_may_sample(self.config, ratio)
        sampling = ScheduledSampling(self._logits, reference, ratio, unit, self.config.eos_token_id)
        return None if looking_is_free(reference) and bool(sampling.forced.all()) else sampling

    def _logits(self, readout: Tensor, pointer: Pointer | Marginal | None) -> Tensor:
        """Readouts (B, T, R) -> (B, T, V). Log-probabilities are logits too: their softmax is the mixture itself."""
        if isinstance(pointer, Marginal):
            return pointer.log_probabilities
        logits = self.lm_head(readout)
        return logits if pointer is None else log_mixture(logits, pointer, self.config.copy_slots)

    def _loss(
        self,
        logits: Tensor | None,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        outputs: RnnSeq2SeqModelOutput,
    ) -> Tensor:
        """
        Return the cross entropy over the labels that are not -100, smoothed in training only, and in training the
        weighted coverage loss (B, T) of the same positions (See 2017, eq. 13), of the bare model's outputs.
        """
        steps = (outputs.last_hidden_state if logits is None else logits).shape[:2]
        if steps != labels.shape:
            raise ValueError(f"labels has shape {tuple(labels.shape)}, but the decoder ran over {tuple(steps)}")
        check_labels(labels, outputs.pointer, self.config)
        smoothing = float(self.config.label_smoothing) if self.training else 0.0
        size = self.config.target_vocab_size

        def loss_of(readout: Tensor, labels: Tensor, pointer: Any, logits: Tensor | None = None) -> Tensor:
            logits = self._logits(readout, pointer) if logits is None else logits  # (n, t, V)
            return cross_entropy(logits.flatten(0, 1), labels.flatten(), smoothing, pointer is not None, size)

        inputs, total = (outputs.last_hidden_state, labels, outputs.pointer), None
        if logits is None:
            total = chunked_loss(self, *inputs, smoothing, loss_of)
        if total is None:
            total = loss_of(*inputs, logits)
        if outputs.coverage_loss is not None:
            again = outputs.coverage_loss.masked_fill(labels == -100, 0)
            total = total + self.config.coverage_loss_weight * again.sum()
        return total / number_of_items((labels != -100).sum(), num_items_in_batch)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, T) shifted to the right behind the start symbol; `DataCollatorForSeq2Seq` calls this."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.decoder_start_token_id)

    def compute_transition_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """Score by the target's number of symbols: `GenerationMixin` takes it from `vocab_size`, the source's."""
        target_side = SimpleNamespace(config=self.config.get_text_config(decoder=True))
        return GenerationMixin.compute_transition_scores(target_side, *args, **kwargs)  # type: ignore[arg-type]

    @torch.no_grad()
    def alignments(self, sequences: Tensor, input_ids: Tensor | None = None, **model_inputs: Any) -> Tensor:
        """
        Return the attention of given target sequences to their sources: of hypotheses as `generate()` returns them
        (greedy, beam, n-best, sampled), or of references.

        Args:
            sequences (`torch.LongTensor` of shape `(num_sequences, target_length + 1)`): Targets with their start
                symbol. `num_sequences` is the batch size, or a multiple of it: n-best lists, in `generate()`'s order.
            input_ids, model_inputs: The source and its `attention_mask`, or `encoder_outputs`.

        Returns:
            Weights of shape `(num_sequences, target_length, source_length)`. Row t belongs to the symbol
            `sequences[:, t + 1]`; rows of padding are zero.
        """
        if not self.model.decoder.attends:
            raise ValueError("alignments needs an attention; this model has attention_type='none'")
        check_sequences(self.config, sequences)
        encoder_outputs = model_inputs.pop("encoder_outputs", None)
        attention_mask = self.get_encoder().source_mask(input_ids, model_inputs.pop("attention_mask", None))
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(input_ids, attention_mask, return_dict=True, **model_inputs)
        batch = encoder_outputs.last_hidden_state.shape[0]
        if sequences.shape[0] % batch:
            raise ValueError(f"sequences has {sequences.shape[0]} rows, wanted a multiple of the {batch} sources")
        _, inputs = self._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=sequences.shape[0] // batch,
            is_encoder_decoder=True,
            encoder_outputs=type(encoder_outputs)(**encoder_outputs),  # a copy: it is expanded in place
            attention_mask=attention_mask,
        )
        inputs |= {"output_attentions": True, "use_cache": False, "return_dict": True}
        outputs = self.model(decoder_input_ids=sequences[:, :-1], output_layer=self.lm_head.__call__, **inputs)
        weights, pad = outputs.cross_attentions[0][:, 0], self.config.pad_token_id  # (N, T, S)
        return weights if pad is None else weights.masked_fill((sequences[:, 1:] == pad).unsqueeze(-1), 0)


def _take_weight(module: nn.Module, other: nn.Module) -> None:
    """Share the weight of another table or output layer; not while a vocabulary is being resized, part by part."""
    plain = isinstance(module, nn.Embedding | nn.Linear) and isinstance(other, nn.Embedding | nn.Linear)
    if plain and module.weight.shape == other.weight.shape:
        module.weight = other.weight


__all__ = [
    "RnnEncoderOutput",
    "RnnSeq2SeqDecoder",
    "RnnSeq2SeqEncoder",
    "RnnSeq2SeqForConditionalGeneration",
    "RnnSeq2SeqModel",
    "RnnSeq2SeqPreTrainedModel",
]
