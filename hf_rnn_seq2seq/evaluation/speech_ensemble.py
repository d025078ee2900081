"""Several trained speech models as one at evaluation: their attention decoders and their CTC branches.

The decoders' distributions are averaged as in `ensemble.py`, and so are the log-probabilities that CTC gives each next
symbol (Watanabe 2017), so that members may reduce time by different factors. Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.generation import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ..model.ctc import CTCPrefixLogitsProcessor, CTCPrefixScorer
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from .ensemble import RnnSeq2SeqEnsemble, member_output


class RnnSeq2SeqSpeechEnsemble(RnnSeq2SeqEnsemble):
    """Several speech models of the same vocabulary and features, with a CTC branch all or none.

    `generate()` takes `ctc_weight` as `RnnSeq2SeqForSpeechSeq2Seq` does; the default is the first member's.

    Args:
        models, average: as in `RnnSeq2SeqEnsemble`.

    Raises:
        ValueError: as there; or only some of the members have a CTC branch.
    """

    main_input_name = "input_features"
    member_class = RnnSeq2SeqForSpeechSeq2Seq

    def __init__(
        self,
        models: Sequence[RnnSeq2SeqForSpeechSeq2Seq],
        average: Literal["probability", "log_probability"] = "probability",
    ) -> None:
        super().__init__(models, average)
        if len({model.config.ctc_weight > 0 for model in models}) > 1:
            weights = [model.config.ctc_weight for model in models]
            raise ValueError(f"members of an ensemble have a CTC branch all or none, got ctc_weight {weights}")

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Let a member find the weight of CTC, and refuse one out of range."""
        return self.members[0]._prepare_generation_config(generation_config or self.generation_config, **kwargs)

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """Return the processors with the members' CTC scores first, as in a member."""
        processors: LogitsProcessorList = super()._get_logits_processor(  # type: ignore[misc]
            generation_config, *args, **kwargs
        )
        weight: float = generation_config.ctc_weight  # type: ignore[attr-defined]
        if weight == 0:
            return processors
        inputs = kwargs["model_kwargs"]
        repeats = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        end = generation_config.eos_token_id
        eos_ids = end if isinstance(end, list) else [] if end is None else [end]
        blank = self.config.pad_token_id
        assert blank is not None
        branches = []
        for number, member in enumerate(self.members):
            outputs = member_output(inputs["encoder_outputs"], number)
            assert outputs is not None
            logits, lengths = member._ctc_logits(outputs, inputs.get("attention_mask"))
            scorer = CTCPrefixScorer(logits[::repeats], lengths[::repeats], blank)
            branches.append(CTCPrefixLogitsProcessor(scorer, 1.0, generation_config.decoder_start_token_id, eos_ids))
        processors.insert(0, _MeanCTCLogitsProcessor(branches, weight))
        return processors


class _MeanCTCLogitsProcessor(LogitsProcessor):
    """The sum of (1 - w) log p of the attention and w times the mean score of processors of CTC alone."""

    def __init__(self, branches: Sequence[CTCPrefixLogitsProcessor], weight: float) -> None:
        self.branches, self.weight = branches, weight

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores (B * G, V) of hypotheses (B * G, T)."""
        ctc = torch.stack([branch(input_ids, scores) for branch in self.branches]).mean(0)
        if self.weight == 1:
            return ctc
        return self.weight * ctc + (1 - self.weight) * scores.log_softmax(-1)


__all__ = ["RnnSeq2SeqSpeechEnsemble"]
