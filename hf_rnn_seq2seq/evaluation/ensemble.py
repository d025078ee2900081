"""Several trained models as one at evaluation.

At each step an ensemble takes the mean of its members' distributions (Sutskever 2014, section 3.6), and works behind
the stock `generate()`. Of speech models also the log-probabilities that CTC gives each next symbol are averaged
(Watanabe 2017), so that members may reduce time by different factors. Of classifiers the probabilities are averaged;
with a CRF emissions and transition scores, which are again a CRF: its probability of a label sequence is the
normalised geometric mean of the members', and Viterbi stays exact. Forecasters and models of values give the mean of
their values, and draw futures each in turn. Needs torch and transformers.
"""

import copy
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation import GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import (
    ModelOutput,
    SampleTSPredictionOutput,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from ..model.checks import check_inputs
from ..model.crf import LinearChainCRF
from ..model.ctc import CTCPrefixLogitsProcessor, CTCPrefixScorer
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from ..model.modeling_rnn_seq2seq import RnnEncoderOutput, RnnSeq2SeqForConditionalGeneration
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction, RnnSeq2SeqTSPredictionOutput
from ..model.pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from ..model.state import check_cache_layers, new_cache
from ..model.transformers_names import named, one_cache


class EnsembleModel(RnnSeq2SeqPreTrainedModel):
    """The base of all ensembles: their members, in evaluation mode. `config` is a copy of the first member's.

    Raises:
        ValueError: no models, or two of them differ in an option of `shared`.
    """

    member_class: ClassVar[type[RnnSeq2SeqPreTrainedModel]]
    shared: ClassVar[tuple[str, ...]]  # what members must have in common: symbols that they read and write, labels

    def __init__(self, models: Sequence[RnnSeq2SeqPreTrainedModel]) -> None:
        if not models:
            raise ValueError("models: got none, wanted at least one")
        for number, model in enumerate(models[1:], start=1):
            for name in self.shared:
                wanted, got = getattr(models[0].config, name), getattr(model.config, name)
                if got != wanted:
                    raise ValueError(
                        f"members of an ensemble must agree on {name}: models[0]{_origin(models[0])} has {wanted}, "
                        f"models[{number}]{_origin(model)} has {got}"
                    )
        super().__init__(copy.deepcopy(models[0].config))
        self.members = cast("Sequence[Any]", nn.ModuleList(models))
        self.eval()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to save members as one model."""
        raise NotImplementedError("an ensemble is not saved: save its members, and give load_ensemble their folders")


def _origin(model: RnnSeq2SeqPreTrainedModel) -> str:
    return f" ({model.name_or_path})" if model.name_or_path else ""


class _EnsembleEncoder(nn.Module):
    """All members' encoders, with their outputs in one flat `ModelOutput` of batch-first tensors.

    `generate()` repeats the top-level tensors of it for its beams, whatever they are called: `0.last_hidden_state`,
    `0.final_hidden`, ..., `1.last_hidden_state`, ... by member and field of its `RnnEncoderOutput`.
    """

    def __init__(self, encoders: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """Encode with each member; arguments as for a member's encoder."""
        outputs = [encoder(*args, **{**kwargs, "return_dict": True}) for encoder in self.encoders]
        return ModelOutput(
            (f"{member}.{name}", tensor)
            for member, output in enumerate(outputs)
            for name, tensor in output.items()
            if isinstance(tensor, Tensor)
        )


class RnnSeq2SeqEnsemble(EnsembleModel, GenerationMixin):
    """Several models of the same vocabularies that decode together, whatever their sizes, cells and structures.

    For `generate()`, `decode()`, `target_log_probabilities()` and a call with labels it is a model like another. Its
    members stay what they are: it is not trained or saved itself (save the members), and gives no attentions or
    hidden states, which belong to the members. `config` and `generation_config` are copies of the first member's, but
    that `config.decoder_layers` counts the layers of all members: so `generate()` makes a cache that has room for
    them all, and what it does to the cache (reorder, repeat, crop) it does to every member.

    Args:
        models: the members, at least one.
        average: `"probability"`, the arithmetic mean of the members' next-symbol probabilities; or
            `"log_probability"`, the normalised geometric mean, in which each member can veto.

    Raises:
        ValueError: no models, or two of them have vocabularies of different size or different special ids.
    """

    member_class = RnnSeq2SeqForConditionalGeneration
    shared = (
        *("input_feature_size", "vocab_size", "target_vocab_size", "copy_slots"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
    )

    def __init__(
        self,
        models: Sequence[RnnSeq2SeqForConditionalGeneration],
        average: Literal["probability", "log_probability"] = "probability",
    ) -> None:
        if average not in ("probability", "log_probability"):
            raise ValueError(f"average must be 'probability' or 'log_probability'; got {average!r}")
        super().__init__(models)
        self.config.decoder_layers = sum(model.config.decoder_layers for model in models)
        self.average = average
        self.generation_config = copy.deepcopy(models[0].generation_config)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return what encodes a source for all members; the ensemble itself where a modality's encoder is wanted."""
        return self if modality else _EnsembleEncoder(member.get_encoder() for member in self.members)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Prepare a step as a member does."""
        return self.members[0].prepare_inputs_for_generation(*args, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift labels (B, T) to the right, behind the start symbol."""
        return self.members[0].prepare_decoder_input_ids_from_labels(labels)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        # A member's encoder says which inputs there are, beside those that `forward` names.
        self.members[0]._validate_model_kwargs(model_kwargs)

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Let a member refuse options out of range, and find the weight of CTC."""
        return self.members[0]._prepare_generation_config(generation_config or self.generation_config, **kwargs)

    def compute_transition_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the scores of what was generated, as a member does: only the vocabulary's size matters."""
        return self.members[0].compute_transition_scores(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: ModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return the log of the averaged probabilities as `logits` (B, T, V), and with labels the cross entropy.

        Arguments as in `RnnSeq2SeqForConditionalGeneration`; `encoder_outputs` are those of `get_encoder()`.
        """
        past_key_values = one_cache(past_key_values, cache)
        ids = {"input_ids": input_ids, "decoder_input_ids": decoder_input_ids, "labels": labels}
        check_inputs(self.config, {**kwargs, **ids, "encoder_outputs": member_output(encoder_outputs, 0)})
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = new_cache(self.config)
        log_probabilities = (
            member(
                input_ids,
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                encoder_outputs=member_output(encoder_outputs, number),
                **named(own),
                use_cache=own is not None,
                logits_to_keep=logits_to_keep,
                return_dict=True,
                **kwargs,
            ).logits.log_softmax(-1, dtype=torch.promote_types(member.dtype, torch.float32))
            for number, (member, own) in enumerate(zip(self.members, self._member_caches(past_key_values)))
        )  # each (B, T, V)
        mean = self._mean(log_probabilities)
        loss = None
        if labels is not None:
            items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = F.nll_loss(mean.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / items
        return Seq2SeqLMOutput(loss=loss, logits=mean, **named(past_key_values))

    def _mean(self, log_probabilities: Iterable[Tensor]) -> Tensor:
        """Return log P (B, T, V) of the average, which is normalised, of the members' log P (B, T, V)."""
        if self.average == "probability":
            return functools.reduce(torch.logaddexp, log_probabilities) - math.log(len(self.members))
        return (functools.reduce(torch.add, log_probabilities) / len(self.members)).log_softmax(-1)

    def _member_caches(self, cache: EncoderDecoderCache | None) -> list[EncoderDecoderCache | None]:
        """Return for each member a cache of its own layers, which are those of the whole cache and not copies."""
        if cache is None:
            return [None] * len(self.members)
        check_cache_layers(cache, self.config.decoder_layers)
        caches: list[EncoderDecoderCache | None] = []
        start = 0
        for member in self.members:
            own = slice(start, start + member.config.decoder_layers)
            state, source = cache.self_attention_cache.layers[own], cache.cross_attention_cache.layers[own]
            caches.append(EncoderDecoderCache(Cache(layers=state), Cache(layers=source)))
            start = own.stop
        return caches


def member_output(outputs: ModelOutput | None, member: int) -> RnnEncoderOutput | None:
    """Return one member's part of what `_EnsembleEncoder` returned."""
    if outputs is None:
        return None
    prefix = f"{member}."
    own = {name.removeprefix(prefix): tensor for name, tensor in outputs.items() if name.startswith(prefix)}
    return RnnEncoderOutput(**own)


class RnnSeq2SeqSpeechEnsemble(RnnSeq2SeqEnsemble):
    """Several speech models of the same vocabulary and features, with a CTC branch all or none (else a ValueError).

    `generate()` takes `ctc_weight` as `RnnSeq2SeqForSpeechSeq2Seq` does; the default is the first member's. Arguments
    as of `RnnSeq2SeqEnsemble`.
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
    """Several taggers of the same vocabulary and labels, with a CRF all or none; or several that give values."""

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

    They give one label a sequence, or values; of models of several labels it is a ValueError.
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
        """Return the log of the mean probabilities as `logits` (B, C), or the mean values; inputs alone."""
        config = self.config
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            return SequenceClassifierOutput(logits=_mean_values(self.members, *args, **model_inputs))
        if model_inputs.get("labels") is not None:
            raise TypeError("labels: an ensemble of classifiers has no loss, wanted the inputs alone")
        logits = [member(*args, **{**model_inputs, "return_dict": True}).logits for member in self.members]
        return SequenceClassifierOutput(logits=torch.stack([x.softmax(-1) for x in logits]).mean(0).log())


class RnnSeq2SeqTimeSeriesEnsemble(EnsembleModel):
    """Several forecasters of the same channels, look-back, horizon and features, with a distribution all or none.

    `generate` draws from the even mixture of their distributions. `value_scale` is the first member's.
    """

    main_input_name = "past_values"
    member_class = RnnSeq2SeqForTimeSeriesPrediction
    shared = (
        *("input_feature_size", "context_length", "prediction_length", "num_time_features"),
        *("num_static_real_features", "num_static_categorical_features", "cardinality"),
    )

    def __init__(self, models: Sequence[RnnSeq2SeqForTimeSeriesPrediction]) -> None:
        super().__init__(models)
        kinds = [model.config.distribution_output for model in models]
        if "none" in kinds and len(set(kinds)) > 1:
            raise ValueError(f"members of an ensemble have distribution_output='none' all or none, got {kinds}")
        self.value_scale = models[0].value_scale
        self.distribution_output = models[0].distribution_output

    @torch.no_grad()
    def forward(self, past_values: Tensor, **inputs: Tensor | None) -> RnnSeq2SeqTSPredictionOutput:
        """Return the mean forecast as `prediction_outputs` (B, T, C); arguments as of a member, without a future."""
        if inputs.get("future_values") is not None:
            raise TypeError("future_values: an ensemble of forecasters has no loss, wanted the past alone")
        forecasts = [member.forecast(past_values, **inputs) for member in self.members]
        return RnnSeq2SeqTSPredictionOutput(prediction_outputs=torch.stack(forecasts).mean(0))

    def forecast(self, past_values: Tensor, **inputs: Tensor | None) -> Tensor:
        """Return the mean forecast (B, T, C), or (B, T) for values without channels; arguments as of a member."""
        return cast(Tensor, self(past_values, **inputs).prediction_outputs)

    @torch.no_grad()
    def generate(
        self, past_values: Tensor, *, num_parallel_samples: int | None = None, **inputs: Tensor | None
    ) -> SampleTSPredictionOutput:
        """Draw futures, `sequences` (B, samples, T, C), as even a share from each member as the number allows."""
        samples = self.config.num_parallel_samples if num_parallel_samples is None else num_parallel_samples
        if self.distribution_output is None:
            return SampleTSPredictionOutput(sequences=self.forecast(past_values, **inputs).unsqueeze(1))
        least, more = divmod(samples, len(self.members))
        shares = [least + (number < more) for number in range(len(self.members))]
        drawn = [
            member.generate(past_values, num_parallel_samples=share, **inputs).sequences
            for member, share in zip(self.members, shares)
            if share or samples < 1  # a member says what is wrong with that
        ]
        return SampleTSPredictionOutput(sequences=torch.cat(drawn, 1))
