"""Classifiers on the encoder: one label per input vector, and one label for the whole sequence.

Tagging by a bidirectional RNN with a softmax or a CRF: Huang et al. 2015. The encoder has the parameter names that it
has in the whole model, so one that was trained there loads here. B batch, S source length, D encoder hidden, C labels.
This file travels to the Hub: it imports only the standard library, torch, transformers and the flat files beside it.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from .attention import Attention
from .bridge import context_vector, last_output
from .checks import check_tensor, only_known_keywords
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .crf import LinearChainCRF
from .encoder import RnnEncoderOutput, RnnSeq2SeqEncoder
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple


class AttentionPooling(nn.Module):
    """
    The memory mixed by attention of one learned query (Raffel & Ellis 2015). The query starts at zero: as the mean.

    Args:
        memory_size (`int`): D.
    """

    def __init__(self, memory_size: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(memory_size))
        self.attention = Attention("dot", memory_size, memory_size, memory_size)

    def forward(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D) of the memory (B, S, D), zero at padding, and the mask (B, S), True at real positions, or None."""
        query = self.query.expand(memory.shape[0], 1, -1)
        context, _ = self.attention(query, self.attention.keys(memory), memory, mask)
        return context.squeeze(1)


class RnnSeq2SeqEncoderModel(RnnSeq2SeqPreTrainedModel):
    """The encoder alone, under the parameter names that it has in `RnnSeq2SeqModel`."""

    # What a whole model has beside the encoder. The classifiers inherit this from their part.
    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?(bridge|decoder)\.", r"^(lm|ctc)_head\."]

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.encoder = RnnSeq2SeqEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's table; `NotImplementedError` if there is none, since the input is vectors."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.encoder.embed_tokens = value

    def forward(self, *args: Any, **kwargs: Any) -> RnnEncoderOutput:
        """Takes and returns what `RnnSeq2SeqEncoder.forward` does."""
        return self.encoder(*args, **kwargs)


class RnnSeq2SeqClassifier(RnnSeq2SeqPreTrainedModel):
    """What the two classifiers share: the encoder and the output layer."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = RnnSeq2SeqEncoderModel(config)
        self.classifier = nn.Linear(config.encoder_hidden_size, config.num_labels)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LinearChainCRF | AttentionPooling):
            for parameter in module.parameters():
                init.zeros_(parameter)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in transformers, but the configuration names no class of the model that the encoder came from."""
        auto_map = getattr(self.config, "auto_map", None)
        if auto_map:
            # Their code would not lie beside the weights. The entry of this class is written anew.
            self.config.auto_map = {name: at for name, at in auto_map.items() if not name.startswith("AutoModel")}
        super().save_pretrained(save_directory, *args, **kwargs)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short sources, for tools that only need some input."""
        return {name: value for name, value in super().dummy_inputs.items() if not name.startswith("decoder")}

    def _scores(self, vectors: Tensor) -> Tensor:
        """Of (..., D), a score for each label (..., C)."""
        return self.classifier(F.dropout(vectors, self.config.classifier_dropout, self.training))

    def _check_classes(self, labels: Tensor) -> None:
        # Looked up only where looking is free: elsewhere it would wait for the device.
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = labels[((labels < 0) | (labels >= self.num_labels)) & (labels != -100)]
            if len(wrong):
                raise ValueError(
                    f"labels holds {int(wrong[0])}, wanted 0 to {self.num_labels - 1} (num_labels={self.num_labels}), "
                    "or -100 for no label"
                )

    def _cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Summed over the labels that are not -100; smoothed in training only."""
        return F.cross_entropy(
            scores.flatten(0, -2).to(torch.promote_types(scores.dtype, torch.float32)),
            labels.flatten(),
            reduction="sum",
            label_smoothing=float(self.config.label_smoothing) if self.training else 0.0,
        )


class RnnSeq2SeqForTokenClassification(RnnSeq2SeqClassifier):
    """
    One label per input vector, by a softmax at each position or, with `use_crf`, by a linear-chain CRF.

    With a CRF the `logits` of training are the scores that go into it. Those of evaluation are, for each position and
    label, log p of the best label sequence that has this label there (max-marginals): their argmax is Viterbi's path,
    so whatever takes the argmax (`pipeline("token-classification")`, the metrics of a Trainer) decodes exactly. Their
    softmax compares best sequences; the probability of a label is what `probabilities` gives.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        if config.time_reduction > 1:
            raise ValueError(
                f"one label per input vector needs as many states as vectors, got time_reduction="
                f"{config.time_reduction}: set time_reduction=1"
            )
        self._check_problem_type()
        if config.use_crf:
            self.crf = LinearChainCRF(config.num_labels)
        self.post_init()

    def _check_problem_type(self) -> None:
        problem = self.config.problem_type
        if problem not in (None, "single_label_classification"):
            raise ValueError(
                f"problem_type={problem!r} is not for token classification, which gives each position one of "
                "num_labels classes: leave problem_type out"
            )

    def _loss_beyond_logits(self) -> str | None:
        return "use_crf=True: the CRF would never be trained" if self.config.use_crf else None

    @can_return_tuple
    @only_known_keywords
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        character_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at padding, which may
                be anywhere and never changes a result.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, source_length, embedding_size)`, *optional*):
                Embedded source in place of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): 0 to `num_labels - 1`; -100
                is ignored (a CRF sums over the labels that it could be), and so is any label at padding.
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch.
            character_ids (`torch.LongTensor` of shape `(batch_size, source_length, word_length)`, *optional*): With
                `character_vocab_size`: the characters of each word, then `pad_token_id`.
            input_features (`torch.FloatTensor` of shape `(batch_size, source_length, input_feature_size)`,
                *optional*): Source vectors in place of ids, of a model with `input_feature_size`.

        Returns:
            `logits` (B, S, C); `loss`, in nats a label, if there are labels.
        """
        self.check_labels_are_left(labels, num_items_in_batch)
        outputs = self.model(
            input_ids,
            attention_mask,
            inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            character_ids=character_ids,
            input_features=input_features,
            return_dict=True,
        )
        scores, mask = self._scores(outputs.last_hidden_state), outputs.mask
        loss = None if labels is None else self._loss(scores, labels, mask, num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss,
            logits=self.crf.log_max_marginals(scores, mask) if self.config.use_crf and not self.training else scores,
            hidden_states=outputs.hidden_states,
        )

    def _loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        self._check_problem_type()
        check_tensor("labels", labels)
        if labels.shape != scores.shape[:2]:
            raise ValueError(
                f"labels has shape {tuple(labels.shape)}, wanted {tuple(scores.shape[:2])}: one for each input vector"
            )
        if labels.is_floating_point():
            raise ValueError(f"labels has type {labels.dtype}, wanted integers: the class of each input vector")
        if mask is not None:
            labels = labels.masked_fill(~mask, -100)
        self._check_classes(labels)
        if self.config.use_crf:
            total = -self.crf.log_likelihood(scores, labels, mask).sum()
        else:
            total = self._cross_entropy(scores, labels)
        count = (labels != -100).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return total / count

    @torch.no_grad()
    def decode(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **model_inputs: Any
    ) -> Tensor:
        """
        The most probable labels: with a CRF the best sequence as a whole (Viterbi), else the best at each position.

        Returns:
            `torch.LongTensor` of shape `(batch_size, source_length)`, -100 at padding.
        """
        outputs = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(outputs.last_hidden_state), outputs.mask
        if self.config.use_crf:
            return self.crf.decode(scores, mask)
        labels = scores.argmax(-1)
        return labels if mask is None else labels.masked_fill(~mask, -100)

    @torch.no_grad()
    def probabilities(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **model_inputs: Any
    ) -> Tensor:
        """
        The probability of each label at each position: the softmax, or the marginals of the CRF.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, source_length, num_labels)`, zero at padding.
        """
        outputs = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(outputs.last_hidden_state), outputs.mask
        log_p = self.crf.log_marginals(scores, mask) if self.config.use_crf else scores.log_softmax(-1)
        return log_p.exp() if mask is None else log_p.exp().masked_fill(~mask.unsqueeze(-1), 0)


class RnnSeq2SeqForSequenceClassification(RnnSeq2SeqClassifier):
    """
    One label for the whole sequence, several, or a number (regression), from the pooled states of the encoder.

    The kind of problem is `config.problem_type`, as everywhere in transformers. Where it is not given, the first
    labels tell, and it is written into the configuration: one output is a regression, integers are classes, and
    floats, 0 or 1 for each label, are several labels a sequence.
    """

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        if config.classifier_pooling == "attention":
            self.pooling = AttentionPooling(config.encoder_hidden_size)
        self.post_init()

    def _loss_beyond_logits(self) -> str | None:
        problem = "regression" if self.num_labels == 1 else self.config.problem_type
        if problem in (None, "single_label_classification"):
            return None
        return f"problem_type={problem!r}: there are no classes to smooth over"

    @can_return_tuple
    @only_known_keywords
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        character_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at padding, which may
                be anywhere and never changes a result.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, source_length, embedding_size)`, *optional*):
                Embedded source in place of `input_ids`.
            labels (*optional*): Classes, integers of shape `(batch_size,)`, -100 is ignored; or, for several labels a
                sequence and for regression, numbers of shape `(batch_size, num_labels)`.
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch.
            character_ids (`torch.LongTensor` of shape `(batch_size, source_length, word_length)`, *optional*): With
                `character_vocab_size`: the characters of each word, then `pad_token_id`.
            input_features (`torch.FloatTensor` of shape `(batch_size, source_length, input_feature_size)`,
                *optional*): Source vectors in place of ids, of a model with `input_feature_size`.

        Returns:
            `logits` (B, C); `loss`, if there are labels: cross entropy in nats, binary cross entropy in nats, or
            squared error, each the mean over the labels.
        """
        self.check_labels_are_left(labels, num_items_in_batch)
        outputs = self.model(
            input_ids,
            attention_mask,
            inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            character_ids=character_ids,
            input_features=input_features,
            return_dict=True,
        )
        memory, mask = outputs.last_hidden_state, outputs.mask
        if self.config.classifier_pooling == "attention":
            pooled = self.pooling(memory, mask)
        else:
            last = outputs.final_hidden[:, -1]
            if self.config.last_is_output:
                last = last_output(memory, mask, self.config.bidirectional_encoder)
            pooled = context_vector(self.config.classifier_pooling, memory, mask, last)
        logits = self._scores(pooled)
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        config = self.config
        check_tensor("labels", labels)
        if config.problem_type is None:
            if self.num_labels == 1:
                config.problem_type = "regression"
            elif labels.is_floating_point():
                config.problem_type = "multi_label_classification"
            else:
                config.problem_type = "single_label_classification"
        classes = config.problem_type == "single_label_classification"
        if not classes and self.num_labels == 1:
            labels = labels.reshape(-1, 1)
        wanted = logits.shape[:1] if classes else logits.shape
        if labels.shape != wanted or (classes and labels.is_floating_point()):
            raise ValueError(
                f"labels has shape {tuple(labels.shape)} and type {labels.dtype}, wanted "
                f"{'integers' if classes else 'numbers'} of shape {tuple(wanted)} for problem_type="
                f"{config.problem_type!r}"
            )
        if classes:
            self._check_classes(labels)
            total = self._cross_entropy(logits, labels)
        else:
            numbers = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = F.mse_loss if config.problem_type == "regression" else F.binary_cross_entropy_with_logits
            total = loss(numbers, labels.to(numbers.dtype), reduction="sum")
        if num_items_in_batch is None:
            num_items_in_batch = (labels != -100).sum().clamp(min=1) if classes else labels.numel()
        return total / num_items_in_batch


__all__ = ["RnnSeq2SeqForSequenceClassification", "RnnSeq2SeqForTokenClassification"]
