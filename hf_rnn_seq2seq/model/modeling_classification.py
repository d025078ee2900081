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
from .encoder import RnnEncoderOutput
from .modeling_encoder import ENCODER_OF_FOLDER, RnnSeq2SeqEncoderModel
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple


class AttentionPooling(nn.Module):
    """
    Mix the memory by attention of one learned query (Raffel & Ellis 2015). The query starts at zero: as the mean.

    Args:
        memory_size (`int`): D.
    """

    def __init__(self, memory_size: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(memory_size))
        self.attention = Attention("dot", memory_size, memory_size, memory_size)

    def forward(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Pool the memory (B, S, D), zero at padding, to (B, D), under a mask (B, S), True at real positions."""
        query = self.query.expand(memory.shape[0], 1, -1)  # (B, 1, D)
        context, _ = self.attention(query, self.attention.keys(memory), memory, mask)
        return context.squeeze(1)


class RnnSeq2SeqClassifier(RnnSeq2SeqPreTrainedModel):
    """What the two classifiers share: the encoder, the output layer, and a forward around their scores and loss."""

    output_class: type[TokenClassifierOutput | SequenceClassifierOutput]
    _also_loads = {"AutoModel": "modeling_encoder.RnnSeq2SeqEncoderModel", **ENCODER_OF_FOLDER}

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
        """Save the model; its configuration names no class of the whole model that the encoder came from."""
        auto_map = getattr(self.config, "auto_map", None)
        if auto_map:
            # Their code would not lie beside the weights. The entry of this class is written anew.
            self.config.auto_map = {name: at for name, at in auto_map.items() if not name.startswith("AutoModel")}
        super().save_pretrained(save_directory, *args, **kwargs)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short sources, for tools that only need some input."""
        return {name: value for name, value in super().dummy_inputs.items() if not name.startswith("decoder")}

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
    ) -> TokenClassifierOutput | SequenceClassifierOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*): Source ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at padding, which may
                be anywhere and never changes a result.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, source_length, embedding_size)`, *optional*):
                Embedded source in place of `input_ids`.
            labels (*optional*): For tokens, integers of shape `(batch_size, source_length)` from 0 to
                `num_labels - 1`; -100 is ignored (a CRF sums over the labels that it could be), and so is any label at
                padding. For sequences, classes, integers of shape `(batch_size,)`, -100 is ignored; or, for several
                labels a sequence and for regression, numbers of shape `(batch_size, num_labels)`.
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch.
            character_ids (`torch.LongTensor` of shape `(batch_size, source_length, word_length)`, *optional*): With
                `character_vocab_size`: the characters of each word, then `pad_token_id`.
            input_features (`torch.FloatTensor` of shape `(batch_size, source_length, input_feature_size)`,
                *optional*): Source vectors in place of ids, of a model with `input_feature_size`.

        Returns:
            `logits`, (B, S, C) for tokens, (B, C) for sequences; `loss`, the mean over the labels, if there are some:
            in nats, or squared errors.
        """
        self.check_labels_are_left(labels, num_items_in_batch)
        if labels is not None:
            check_tensor("labels", labels)
        encoded = self.model(
            input_ids,
            attention_mask,
            inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            character_ids=character_ids,
            input_features=input_features,
            return_dict=True,
        )
        scores = self._scores(encoded)
        return self.output_class(
            loss=None if labels is None else self._loss(scores, labels, encoded.mask, num_items_in_batch),
            logits=self._logits(scores, encoded.mask),
            hidden_states=encoded.hidden_states,
        )

    def _scores(self, encoded: RnnEncoderOutput) -> Tensor:
        """Return what the output layer makes of the encoder's outputs: a score for each label."""
        raise NotImplementedError

    def _loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        """Return the loss of these scores; the mask (B, S) is True at real positions, or None: everywhere."""
        raise NotImplementedError

    def _logits(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Return what a user gets to see of the scores."""
        return scores

    def _classify(self, vectors: Tensor) -> Tensor:
        """Return a score for each label (..., C) of vectors (..., D)."""
        return self.classifier(F.dropout(vectors, self.config.classifier_dropout, self.training))

    def _check_labels(self, labels: Tensor, wanted: torch.Size, are_classes: bool) -> None:
        """Refuse labels of another shape, and those that are no classes where these are wanted."""
        if labels.shape != wanted or (are_classes and labels.is_floating_point()):
            raise ValueError(
                f"labels has shape {tuple(labels.shape)} and type {labels.dtype}, wanted "
                f"{'integers' if are_classes else 'numbers'} of shape {tuple(wanted)} for problem_type="
                f"{self.config.problem_type!r}"
            )
        # Looked up only where looking is free: elsewhere it would wait for the device.
        if are_classes and labels.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = labels[((labels < 0) | (labels >= self.num_labels)) & (labels != -100)]
            if len(wrong):
                raise ValueError(
                    f"labels holds {int(wrong[0])}, wanted 0 to {self.num_labels - 1} (num_labels={self.num_labels}), "
                    "or -100 for no label"
                )

    def _cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy, summed over the labels that are not -100; smoothed in training only."""
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

    output_class = TokenClassifierOutput

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

    def _scores(self, encoded: RnnEncoderOutput) -> Tensor:
        return self._classify(encoded.last_hidden_state)  # (B, S, C)

    def _logits(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return self.crf.log_max_marginals(scores, mask) if self.config.use_crf and not self.training else scores

    def _loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        self._check_problem_type()
        labels = labels if mask is None or labels.shape != mask.shape else labels.masked_fill(~mask, -100)
        self._check_labels(labels, scores.shape[:2], are_classes=True)
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
        Return the best labels: with a CRF of the sequence as a whole (Viterbi), else of each position.

        Returns:
            `torch.LongTensor` of shape `(batch_size, source_length)`, -100 at padding.
        """
        encoded = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(encoded), encoded.mask
        if self.config.use_crf:
            return self.crf.decode(scores, mask)
        labels = scores.argmax(-1)
        return labels if mask is None else labels.masked_fill(~mask, -100)

    @torch.no_grad()
    def probabilities(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **model_inputs: Any
    ) -> Tensor:
        """
        Return the probability of each label at each position: the softmax, or the marginals of the CRF.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, source_length, num_labels)`, zero at padding.
        """
        encoded = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(encoded), encoded.mask
        log_p = self.crf.log_marginals(scores, mask) if self.config.use_crf else scores.log_softmax(-1)
        return log_p.exp() if mask is None else log_p.exp().masked_fill(~mask.unsqueeze(-1), 0)


class RnnSeq2SeqForSequenceClassification(RnnSeq2SeqClassifier):
    """
    One label for the whole sequence, several, or a number (regression), from the pooled states of the encoder.

    The kind of problem is `config.problem_type`, as everywhere in transformers. Where it is not given, the first
    labels tell, and it is written into the configuration: one output is a regression, integers are classes, and
    floats, 0 or 1 for each label, are several labels a sequence.
    """

    output_class = SequenceClassifierOutput

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

    def _scores(self, encoded: RnnEncoderOutput) -> Tensor:
        config, memory = self.config, encoded.last_hidden_state  # (B, S, D)
        if config.classifier_pooling == "attention":
            return self._classify(self.pooling(memory, encoded.mask))
        last = encoded.final_hidden[:, -1]  # (B, D)
        if config.last_is_output:
            last = last_output(memory, encoded.mask, config.bidirectional_encoder)
        return self._classify(context_vector(config.classifier_pooling, memory, encoded.mask, last))  # (B, C)

    def _loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        config = self.config
        if labels is not None:
            check_tensor("labels", labels)
        if config.problem_type is None:
            if self.num_labels == 1:
                config.problem_type = "regression"
            else:
                several = labels.is_floating_point()
                config.problem_type = "multi_label_classification" if several else "single_label_classification"
        classes = config.problem_type == "single_label_classification"
        if not classes and self.num_labels == 1:
            labels = labels.reshape(-1, 1)
        self._check_labels(labels, scores.shape[:1] if classes else scores.shape, classes)
        if classes:
            total = self._cross_entropy(scores, labels)
        else:
            numbers = scores.to(torch.promote_types(scores.dtype, torch.float32))
            loss = F.mse_loss if config.problem_type == "regression" else F.binary_cross_entropy_with_logits
            total = loss(numbers, labels.to(numbers.dtype), reduction="sum")
        if num_items_in_batch is None:
            num_items_in_batch = (labels != -100).sum().clamp(min=1) if classes else labels.numel()
        return total / num_items_in_batch


__all__ = ["RnnSeq2SeqForSequenceClassification", "RnnSeq2SeqForTokenClassification"]
