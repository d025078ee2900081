"""Classifiers on the encoder: one label per input vector, and one label for the whole sequence; or values.

Tagging by a bidirectional RNN with a softmax or a CRF: Huang et al. 2015. The encoder has the parameter names that it
has in the whole model, so one that was trained there loads here. B batch, S source length, D encoder hidden, C labels,
or values.
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
from .checks import check_numbers, check_tensor, only_known_keywords
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .crf import LinearChainCRF
from .encoder import RnnEncoderOutput
from .loss import number_of_items
from .modeling_encoder import ENCODER_OF_FOLDER, RnnSeq2SeqEncoderModel
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .values import REGRESSION_LOSSES, ValueScale, observed_loss, without_counts


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
    """
    What the two classifiers share: the encoder, the output layer, and a forward around their scores and loss.

    Of a regression (`config.problem_type`) the scores are standardised values, and `output_scale` leads to the user's
    units: fit it to training data, with `model.output_scale.fit(values)`.
    """

    output_class: type[TokenClassifierOutput | SequenceClassifierOutput]
    # A regression of before there was a scale begins with the identity.
    _keys_to_ignore_on_load_missing = [r"^output_scale\."]
    _also_loads = {"AutoModel": "modeling_encoder.RnnSeq2SeqEncoderModel", **ENCODER_OF_FOLDER}

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = RnnSeq2SeqEncoderModel(config)
        self.classifier = nn.Linear(config.encoder_hidden_size, config.num_labels)
        if self._gives_values:
            self.output_scale = ValueScale(config.num_labels)

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

    @property
    def _gives_values(self) -> bool:
        """Whether this is a regression, as far as is known before the first labels."""
        return self.config.problem_type == "regression"

    @can_return_tuple
    @without_counts
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
                padding. For sequences, classes, integers of shape `(batch_size,)`, -100 is ignored. For several labels
                and for regression (`problem_type`), numbers of shape `(batch_size, source_length, num_labels)` or
                `(batch_size, num_labels)`, without the last dimension where `num_labels` is 1; those of a regression
                are in the user's units, and NaN is not observed: ignored.
            output_hidden_states (`bool`, *optional*): Also return embeddings and each layer's outputs.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the labels in this
                batch. Trainer takes NaN for a label and counts it; where there is some, give the batch
                `shift_labels`, which it counts instead: integers, -100 where there is no label.
            character_ids (`torch.LongTensor` of shape `(batch_size, source_length, word_length)`, *optional*): With
                `character_vocab_size`: the characters of each word, then `pad_token_id`.
            input_features (`torch.FloatTensor` of shape `(batch_size, source_length, input_feature_size)`,
                *optional*): Source vectors in place of ids, of a model with `input_feature_size`.

        Returns:
            `logits`, (B, S, C) for tokens, (B, C) for sequences, values in the user's units; `loss`, the mean over the
            labels, if there are some: in nats, or of errors in standard deviations (`regression_loss`).
        """
        self._check_problem_type()
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

    def _check_problem_type(self) -> None:
        """Refuse a kind of problem that the model was not made for."""
        if self._gives_values and not hasattr(self, "output_scale"):
            raise ValueError(
                f"problem_type={self.config.problem_type!r} was set after the model was made: give it to the "
                "configuration that the model is made of"
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
        return self.output_scale.to_units(scores) if self._gives_values else scores

    def _classify(self, vectors: Tensor) -> Tensor:
        """Return a score for each label (..., C) of vectors (..., D)."""
        return self.classifier(F.dropout(vectors, self.config.classifier_dropout, self.training))

    def _numbers_loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        """Return the loss of scores (..., C) of values, or of several labels; a mask (...) as of `_loss`."""
        if self.num_labels == 1 and labels.shape == scores.shape[:-1]:
            labels = labels.unsqueeze(-1)  # (..., 1)
        self._check_labels(labels, scores.shape, are_classes=False)
        check_numbers("labels", labels, missing=True)
        loss = F.binary_cross_entropy_with_logits
        if self._gives_values:
            loss, labels = REGRESSION_LOSSES[self.config.regression_loss], self.output_scale.standardise(labels)
        observed = None if mask is None else mask.unsqueeze(-1)  # (..., 1)
        total, count = observed_loss(loss, scores, labels, observed)
        return total / number_of_items(count, num_items_in_batch)

    def _check_labels(self, labels: Tensor, wanted: torch.Size, are_classes: bool) -> None:
        """Refuse labels of another shape, and those that are no classes, or no numbers, where these are wanted."""
        integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.shape != wanted or integers != are_classes or labels.is_complex():
            kind = "integers" if are_classes else "floating-point numbers"
            raise ValueError(
                f"labels has shape {tuple(labels.shape)} and type {labels.dtype}, wanted {kind} of shape "
                f"{tuple(wanted)} for problem_type={self.config.problem_type!r}"
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

    With `problem_type="regression"` it gives each vector `num_labels` values instead, with
    `"multi_label_classification"` any number of the labels.

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
        problem, known = self.config.problem_type, ("regression", "multi_label_classification")
        if problem not in (None, "single_label_classification", *known):
            raise ValueError(f"problem_type={problem!r}: wanted 'single_label_classification', {known} or None")
        if self.config.use_crf and problem in known:
            raise ValueError(
                f"use_crf=True, problem_type={problem!r}: a CRF scores sequences of single labels: set use_crf=False, "
                "or leave problem_type out"
            )
        super()._check_problem_type()

    @property
    def _gives_classes(self) -> bool:
        return self.config.problem_type in (None, "single_label_classification")

    def _loss_beyond_logits(self) -> str | None:
        if not self._gives_classes:
            return f"problem_type={self.config.problem_type!r}: there are no classes to smooth over"
        return "use_crf=True: the CRF would never be trained" if self.config.use_crf else None

    def _scores(self, encoded: RnnEncoderOutput) -> Tensor:
        return self._classify(encoded.last_hidden_state)  # (B, S, C)

    def _logits(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        if self.config.use_crf and not self.training:
            return self.crf.log_max_marginals(scores, mask)
        return super()._logits(scores, mask)

    def _loss(
        self, scores: Tensor, labels: Tensor, mask: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        if not self._gives_classes:
            return self._numbers_loss(scores, labels, mask, num_items_in_batch)
        labels = labels if mask is None or labels.shape != mask.shape else labels.masked_fill(~mask, -100)
        self._check_labels(labels, scores.shape[:2], are_classes=True)
        if self.config.use_crf:
            total = -self.crf.log_likelihood(scores, labels, mask).sum()
        else:
            total = self._cross_entropy(scores, labels)
        return total / number_of_items((labels != -100).sum(), num_items_in_batch)

    @torch.no_grad()
    def decode(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **model_inputs: Any
    ) -> Tensor:
        """
        Return the best labels: with a CRF of the sequence as a whole (Viterbi), else of each position.

        Returns:
            `torch.LongTensor` of shape `(batch_size, source_length)`, -100 at padding. Of several labels a position
            `(batch_size, source_length, num_labels)`: 1 for those that are likelier than not.

        Raises:
            ValueError: The model gives values.
        """
        self._refuse_values("decode")
        encoded = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(encoded), encoded.mask
        if self.config.use_crf:
            return self.crf.decode(scores, mask)
        labels = scores.argmax(-1) if self._gives_classes else (scores > 0).long()
        return labels if mask is None else labels.masked_fill(~_beside(mask, labels), -100)

    def _refuse_values(self, method: str) -> None:
        if self._gives_values:
            raise ValueError(
                f"{method}() is for labels, and this model gives values (problem_type='regression'), which are the "
                "logits of a call"
            )

    @torch.no_grad()
    def probabilities(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **model_inputs: Any
    ) -> Tensor:
        """
        Return the probability of each label at each position: the softmax, the sigmoid, or the marginals of the CRF.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, source_length, num_labels)`, zero at padding.

        Raises:
            ValueError: The model gives values.
        """
        self._refuse_values("probabilities")
        encoded = self.model(input_ids, attention_mask, **model_inputs, return_dict=True)
        scores, mask = self._scores(encoded), encoded.mask
        if self.config.use_crf:
            p = self.crf.log_marginals(scores, mask).exp()
        else:
            p = scores.softmax(-1) if self._gives_classes else scores.sigmoid()
        return p if mask is None else p.masked_fill(~_beside(mask, p), 0)


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """Return a mask (B, S) for values (B, S) or (B, S, C)."""
    return mask if values.dim() == mask.dim() else mask.unsqueeze(-1)


class RnnSeq2SeqForSequenceClassification(RnnSeq2SeqClassifier):
    """
    One label for the whole sequence, several, or values (regression), from the pooled states of the encoder.

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
        problem = "regression" if self._gives_values else self.config.problem_type
        if problem in (None, "single_label_classification"):
            return None
        return f"problem_type={problem!r}: there are no classes to smooth over"

    @property
    def _gives_values(self) -> bool:
        problem = self.config.problem_type
        return problem == "regression" or (problem is None and self.config.num_labels == 1)

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
        if config.problem_type != "single_label_classification":
            return self._numbers_loss(scores, labels, None, num_items_in_batch)
        self._check_labels(labels, scores.shape[:1], are_classes=True)
        return self._cross_entropy(scores, labels) / number_of_items((labels != -100).sum(), num_items_in_batch)


__all__ = ["RnnSeq2SeqForSequenceClassification", "RnnSeq2SeqForTokenClassification"]
