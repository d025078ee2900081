"""Several trained classifiers as one at evaluation.

Without a CRF the members' probabilities are averaged, of a regression their values. With a CRF, their emissions and
transition scores are, which is again a CRF: its probability of a label sequence is the normalised geometric mean of
the members', and Viterbi stays exact. Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from ..model.crf import LinearChainCRF
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .ensemble import EnsembleModel


# What members must have in common: what they read, and the labels by their numbers.
_SHARED = (
    *("input_feature_size", "vocab_size", "character_vocab_size", "pad_token_id"),
    *("id2label", "use_crf", "problem_type"),
)


def _mean_values(members: Sequence[Any], *args: Any, **model_inputs: Any) -> Tensor:
    """Return the mean of the members' values, each in the user's units by the member's own scale."""
    if model_inputs.get("labels") is not None:
        raise TypeError("labels: an ensemble of classifiers has no loss, wanted the inputs alone")
    return torch.stack([member(*args, **{**model_inputs, "return_dict": True}).logits for member in members]).mean(0)


class RnnSeq2SeqTokenClassificationEnsemble(EnsembleModel):
    """Several taggers of the same vocabulary and labels, whatever their sizes and cells; or that give values.

    Args:
        models: the members, at least one; with a CRF all or none.

    Raises:
        ValueError: no models, or two of them differ in vocabulary, labels or the use of a CRF.
    """

    member_class = RnnSeq2SeqForTokenClassification
    shared = _SHARED

    def __init__(self, models: Sequence[RnnSeq2SeqForTokenClassification]) -> None:
        super().__init__(models)
        if self.config.problem_type == "multi_label_classification":
            raise ValueError(
                "an ensemble gives each vector one label or values, got models of several labels a vector"
            )

    @torch.no_grad()
    def forward(self, *args: Any, **model_inputs: Any) -> TokenClassifierOutput:
        """Return the mean values as `logits` (B, S, C); arguments as of a member, without labels.

        Raises:
            ValueError: the members give labels: use `decode` and `probabilities`.
        """
        if self.config.problem_type != "regression":
            raise ValueError("forward is for members that give values, use decode() or probabilities()")
        return TokenClassifierOutput(logits=_mean_values(self.members, *args, **model_inputs))

    @torch.no_grad()
    def decode(self, *args: Any, **model_inputs: Any) -> Tensor:
        """Return the labels (B, S) of the members together; arguments as of a member's `decode`."""
        if self.config.use_crf:
            crf, emissions, mask = self._mean_crf(*args, **model_inputs)
            return crf.decode(emissions, mask)
        mask = self._scores(0, *args, **model_inputs)[1]
        labels = self.probabilities(*args, **model_inputs).argmax(-1)
        return labels if mask is None else labels.masked_fill(~mask, -100)

    @torch.no_grad()
    def probabilities(self, *args: Any, **model_inputs: Any) -> Tensor:
        """Return the probability of each label at each position, (B, S, C), zero at padding."""
        if self.config.use_crf:
            crf, emissions, mask = self._mean_crf(*args, **model_inputs)
            p = crf.log_marginals(emissions, mask).exp()
            return p if mask is None else p.masked_fill(~mask.unsqueeze(-1), 0)
        return torch.stack([member.probabilities(*args, **model_inputs) for member in self.members]).mean(0)

    def _scores(self, number: int, *args: Any, **model_inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Return a member's scores (B, S, C) of its labels, and the mask (B, S) or None."""
        member = self.members[number]
        outputs = member.model(*args, **model_inputs, return_dict=True)
        return member.classifier(outputs.last_hidden_state), outputs.mask

    def _mean_crf(self, *args: Any, **model_inputs: Any) -> tuple[LinearChainCRF, Tensor, Tensor | None]:
        """Return the CRF of the mean scores, the mean emissions (B, S, C), and the mask (B, S) or None."""
        scored = [self._scores(number, *args, **model_inputs) for number in range(len(self.members))]
        emissions = torch.stack([scores for scores, _ in scored]).mean(0)
        crf = LinearChainCRF(emissions.shape[-1]).to(emissions)
        for name, parameter in crf.named_parameters():
            parameter.copy_(torch.stack([member.crf.get_parameter(name) for member in self.members]).mean(0))
        return crf, emissions, scored[0][1]


class RnnSeq2SeqSequenceClassificationEnsemble(EnsembleModel):
    """Several classifiers of whole sequences, with the same vocabulary and labels.

    Args:
        models: the members, at least one; one label a sequence, not several, or values.

    Raises:
        ValueError: no models, two of them differ in vocabulary or labels, or they are of another kind.
    """

    member_class = RnnSeq2SeqForSequenceClassification
    shared = _SHARED

    def __init__(self, models: Sequence[RnnSeq2SeqForSequenceClassification]) -> None:
        super().__init__(models)
        if self.config.problem_type == "multi_label_classification":
            raise ValueError(
                "an ensemble gives one label a sequence or values, got models of several labels a sequence"
            )

    @torch.no_grad()
    def forward(self, *args: Any, **model_inputs: Any) -> SequenceClassifierOutput:
        """Return the log of the mean probabilities as `logits` (B, C), or the mean values.

        Arguments are as of a member, without labels.
        """
        config = self.config
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            return SequenceClassifierOutput(logits=_mean_values(self.members, *args, **model_inputs))
        if model_inputs.get("labels") is not None:
            raise TypeError("labels: an ensemble of classifiers has no loss, wanted the inputs alone")
        logits = [member(*args, **{**model_inputs, "return_dict": True}).logits for member in self.members]
        return SequenceClassifierOutput(logits=torch.stack([x.softmax(-1) for x in logits]).mean(0).log())


__all__ = ["RnnSeq2SeqSequenceClassificationEnsemble", "RnnSeq2SeqTokenClassificationEnsemble"]
