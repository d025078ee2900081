"""Several trained models as one at evaluation.

At each step an ensemble takes the mean of its members' distributions (Sutskever 2014, section 3.6), and works behind
the stock `generate()`; `classifier_ensemble.py` and `speech_ensemble.py` have the other kinds. Needs torch and
transformers.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from ..model.checks import check_inputs
from ..model.modeling_rnn_seq2seq import RnnEncoderOutput, RnnSeq2SeqForConditionalGeneration
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
                past_key_values=own,
                use_cache=own is not None,
                logits_to_keep=logits_to_keep,
                return_dict=True,
                **kwargs,
            ).logits.log_softmax(-1, dtype=torch.promote_types(member.dtype, torch.float32))
            for number, (member, own) in enumerate(zip(self.members, self._member_caches(past_key_values)))
        )  # each (B, T, V)
        count = len(self.members)
        if self.average == "probability":
            mean = functools.reduce(torch.logaddexp, log_probabilities) - math.log(count)
        else:
            mean = (functools.reduce(torch.add, log_probabilities) / count).log_softmax(-1)
        loss = None
        if labels is not None:
            items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = F.nll_loss(mean.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / items
        return Seq2SeqLMOutput(loss=loss, logits=mean, **named(past_key_values))

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


__all__ = ["EnsembleModel", "RnnSeq2SeqEnsemble", "member_output"]
