"""The speech model: vectors in, text out, by attention and CTC together.

Encoder: Listen, Attend and Spell (Chan 2016). CTC beside the attention, in training and in decoding: Watanabe 2017,
"Hybrid CTC/Attention Architecture for End-to-End Speech Recognition". B batch, S source length, S' of the memory, V
vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.generation import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

from .checks import Sizes, check_encoder_outputs
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .ctc import CTCPrefixLogitsProcessor, CTCPrefixScorer, ctc_loss, greedy_ctc, to_the_left
from .decoder import RnnSeq2SeqModelOutput
from .fast import replaceable
from .generation_rules import check_rules
from .loss import number_of_items
from .modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from .special_ids import as_list


# What `forward` takes: Trainer and `generate()` ask for it. `input_features` stands in the place of other sources, and
# what comes behind `past_key_values`, where `inputs_embeds` would stand, goes by its name.
_PARAMETERS = [
    p.replace(name="input_features")
    if p.name == "input_ids"
    else p
    if n < 7 or p.kind is p.VAR_KEYWORD
    else p.replace(kind=p.KEYWORD_ONLY)
    for n, p in enumerate(inspect.signature(RnnSeq2SeqForConditionalGeneration.forward).parameters.values())
    if p.name not in ("input_features", "inputs_embeds", "character_ids")
]


@replaceable()
class RnnSeq2SeqForSpeechSeq2Seq(RnnSeq2SeqForConditionalGeneration, GenerationMixin):
    """
    From `input_features` (B, S, F) to text. With `config.ctc_weight` above 0 a CTC output layer stands on the encoder.

    The training loss is (1 - w) attention + w CTC, in nats a label, w being `ctc_weight`. `generate()` then ranks
    hypotheses by (1 - w) log p_attention + w log p_CTC, in greedy search, beam search and sampling. Another weight is
    `generate(..., ctc_weight=0.4)`, or an attribute of the generation configuration; 0: attention alone, 1: CTC alone.
    In beam search mind `length_penalty`: its default of 1 divides the score by the length, 0 does not.
    """

    main_input_name = "input_features"
    _needs = ("input_feature_size", "a speech model reads vectors", "the size of one")

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        if config.ctc_weight > 0:
            self.ctc_head = nn.Linear(config.encoder_hidden_size, config.target_vocab_size)
        # As Seq2SeqTrainer does: else `generation_config.ctc_weight` would be saved, and dropped when it is loaded.
        self.generation_config._from_model_config = False
        self.post_init()

    def forward(self, input_features: Tensor | None = None, *args: Any, **kwargs: Any) -> Seq2SeqLMOutput:
        """Take and return what `RnnSeq2SeqForConditionalGeneration` does, `input_features` in place of `input_ids`."""
        return super().forward(kwargs.pop("input_ids", None), *args, input_features=input_features, **kwargs)

    forward.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]

    def freeze_feature_encoder(self) -> None:
        """Do nothing: features are computed before the model, without weights. Scripts for wav2vec2 call it."""

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is in training, as Whisper's."""
        self.get_encoder().requires_grad_(False)

    def _loss_beyond_logits(self) -> str | None:
        if self.config.ctc_weight > 0:
            return f"ctc_weight={self.config.ctc_weight}: the CTC branch would never be trained"
        return super()._loss_beyond_logits()

    @torch.no_grad()
    def ctc_decode(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
    ) -> Tensor:
        """
        Return the text of CTC's most probable path, without the decoder: `torch.LongTensor` of shape `(batch_size,
        longest text)`, `pad_token_id` behind each text. `encoder_outputs`: of `get_encoder()`, in place of the source.
        """
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(
                input_features=input_features, attention_mask=attention_mask, return_dict=True
            )
        return greedy_ctc(*self._ctc_logits(encoder_outputs, attention_mask), self.config.pad_token_id)

    def _ctc_logits(self, encoder_outputs: BaseModelOutput, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return CTC's logits (B, S', V), the real positions to the left, and how many these are, (B,)."""
        if self.config.ctc_weight == 0:
            raise ValueError("the model has no CTC branch: it was made with ctc_weight=0")
        check_encoder_outputs(Sizes(self.config), encoder_outputs, attention_mask)
        mask = self.get_encoder().memory_mask(None, attention_mask)
        mask = getattr(encoder_outputs, "mask", None) if mask is None else mask
        return self._ctc_of_memory(encoder_outputs.last_hidden_state, mask)

    def _ctc_of_memory(self, memory: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self.ctc_head(memory)  # (B, S', V)
        return to_the_left(logits, torch.ones_like(logits[..., 0], dtype=torch.bool) if mask is None else mask)

    def _loss(
        self,
        logits: Tensor | None,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        outputs: RnnSeq2SeqModelOutput,
    ) -> Tensor:
        """Compute (1 - w) attention + w CTC, divided by the same number of labels (Watanabe 2017)."""
        loss = super()._loss(logits, labels, num_items_in_batch, outputs)
        weight = self.config.ctc_weight
        if weight == 0:
            return loss
        blank = self.config.pad_token_id
        mask = None if outputs.encoder_mask is None else outputs.encoder_mask.bool()  # (B, S')
        ctc_logits, lengths = self._ctc_of_memory(outputs.encoder_last_hidden_state, mask)
        total = ctc_loss(ctc_logits, lengths, labels, blank, (-100, blank, *as_list(self.config.eos_token_id)))
        return (1 - weight) * loss + weight * total / number_of_items((labels != -100).sum(), num_items_in_batch)

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize the CTC output layer too: it has the same vocabulary."""
        table = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if self.config.ctc_weight > 0:
            self.ctc_head = self._get_resized_lm_head(self.ctc_head, table.num_embeddings, mean_resizing=mean_resizing)
        return table

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Take `ctc_weight` as one more option: of the call, else of its configuration, else of the model."""
        weight = kwargs.pop("ctc_weight", None)
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        given = (weight, getattr(generation_config, "ctc_weight", None), self.config.ctc_weight)
        weight = next(value for value in given if value is not None)
        check_rules({"ctc_weight": weight})
        generation_config.ctc_weight = weight  # type: ignore[attr-defined]
        return generation_config, model_kwargs

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """Put CTC first: what forbids or forces symbols acts on the joint score."""
        processors: LogitsProcessorList = super()._get_logits_processor(generation_config, *args, **kwargs)
        weight: float = generation_config.ctc_weight  # type: ignore[attr-defined]
        if weight > 0:
            inputs = kwargs["model_kwargs"]
            logits, lengths = self._ctc_logits(inputs["encoder_outputs"], inputs.get("attention_mask"))
            # By now every source is repeated for its beams; CTC needs it once.
            repeats = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
            scorer = CTCPrefixScorer(logits[::repeats], lengths[::repeats], self.config.pad_token_id)
            start, ends = generation_config.decoder_start_token_id, as_list(generation_config.eos_token_id)
            processors.insert(0, CTCPrefixLogitsProcessor(scorer, weight, start, ends))
        return processors


# The pipeline "automatic-speech-recognition" tells by the name of the class that a model generates its text. Here,
# since this file is all that a process without the package loads.
MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES[RnnSeq2SeqConfig.model_type] = RnnSeq2SeqForSpeechSeq2Seq.__name__

__all__ = ["RnnSeq2SeqForSpeechSeq2Seq"]
