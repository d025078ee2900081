"""Several trained models as one at evaluation: an ensemble, or the mean of their weights.

An ensemble takes at each step the mean of its members' distributions (Sutskever 2014, section 3.6) and works behind
the stock `generate()`; `classifier_ensemble.py` and `speech_ensemble.py` have the other kinds. The mean of the weights
of several checkpoints of one run (Junczys-Dowmunt 2016) is one model.
Needs torch and transformers, for the mean of weights also the extra `train`; must not be imported by the model files.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import read_json
from ..data.preprocessing import Preprocessing
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER, load_tokenizers, save_tokenizers
from ..model.checks import check_labels_shape
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.modeling_rnn_seq2seq import RnnEncoderOutput, RnnSeq2SeqForConditionalGeneration
from ..model.pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from ..model.state import check_cache_layers, new_cache
from ..model.transformers_names import named, one_cache
from .saved_model import load_model


# What members must have in common: the symbols that they read and write, and what the special ones are.
_SHARED = (
    *("input_feature_size", "vocab_size", "target_vocab_size", "copy_slots"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
)
# Options that the computation at evaluation does not see: checkpoints of one model may differ in them.
_TRAINING_ONLY = {
    *("token_dropout", "embedding_dropout", "hidden_dropout", "output_dropout", "recurrent_dropout"),
    *("classifier_dropout", "label_smoothing", "coverage_loss_weight", "init_scheme", "init_std", "use_cache"),
}


class _EnsembleEncoder(nn.Module):
    """All members' encoders, with their outputs in one flat `ModelOutput` of batch-first tensors.

    `generate()` repeats the top-level tensors of it for its beams, whatever they are called: `0.last_hidden_state`,
    `0.final_hidden`, ..., `1.last_hidden_state`, ... by member and field of its `RnnEncoderOutput`.
    """

    def __init__(self, encoders: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """Arguments as for a member's encoder."""
        outputs = [encoder(*args, **{**kwargs, "return_dict": True}) for encoder in self.encoders]
        return ModelOutput(
            (f"{member}.{name}", tensor)
            for member, output in enumerate(outputs)
            for name, tensor in output.items()
            if isinstance(tensor, Tensor)
        )


class EnsembleModel(RnnSeq2SeqPreTrainedModel):
    """What ensembles of all kinds share: they are never saved as one model."""

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refused: save the members."""
        raise NotImplementedError("an ensemble is not saved: save its members, and give load_ensemble their folders")


class RnnSeq2SeqEnsemble(EnsembleModel, GenerationMixin):
    """
    Several models of the same vocabularies that decode together, whatever their sizes, cells and structures.

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

    member_class: ClassVar[type[RnnSeq2SeqForConditionalGeneration]] = RnnSeq2SeqForConditionalGeneration

    def __init__(
        self,
        models: Sequence[RnnSeq2SeqForConditionalGeneration],
        average: Literal["probability", "log_probability"] = "probability",
    ) -> None:
        check_members(models, _SHARED)
        if average not in ("probability", "log_probability"):
            raise ValueError(f"average must be 'probability' or 'log_probability'; got {average!r}")
        config = copy.deepcopy(models[0].config)
        config.decoder_layers = sum(model.config.decoder_layers for model in models)
        super().__init__(config)
        self.members = cast("Sequence[RnnSeq2SeqForConditionalGeneration]", nn.ModuleList(models))
        self.average = average
        self.generation_config = copy.deepcopy(models[0].generation_config)
        self.eval()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """What encodes a source for all members; the ensemble itself where an image's or a sound's is asked for."""
        return self if modality else _EnsembleEncoder(member.get_encoder() for member in self.members)

    def prepare_inputs_for_generation(self, input_ids: torch.LongTensor, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As a member does it."""
        return self.members[0].prepare_inputs_for_generation(input_ids, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, T) shifted to the right behind the start symbol, as a member does it."""
        return self.members[0].prepare_decoder_input_ids_from_labels(labels)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        # A member's encoder says which inputs there are, beside those that `forward` names.
        self.members[0]._validate_model_kwargs(model_kwargs)  # type: ignore[misc]  # annotated for a protocol

    def compute_transition_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """As a member does it: of what `generate()` returned only the vocabulary's size matters."""
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
        """
        Arguments as in `RnnSeq2SeqForConditionalGeneration`; `encoder_outputs` are those of `get_encoder()`.

        Returns:
            `logits` (B, T, V): the log of the averaged probabilities, which sum to 1; `loss`, the cross entropy in
            nats a symbol, if there are labels.
        """
        past_key_values = one_cache(past_key_values, cache)
        sources = (input_ids, kwargs.get("inputs_embeds"), kwargs.get("input_features"), encoder_outputs)
        check_labels_shape(labels, sources, (decoder_input_ids, kwargs.get("decoder_inputs_embeds")), self.config)
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = new_cache(self.config)
        total: Tensor | None = None
        for number, (member, own) in enumerate(zip(self.members, self._member_caches(past_key_values))):
            logits = member(
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
            ).logits
            log_probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            if total is None:
                total = log_probabilities
            elif self.average == "probability":
                total = torch.logaddexp(total, log_probabilities)
            else:
                total = total + log_probabilities
        assert total is not None  # there is a member
        count = len(self.members)
        mean = total - math.log(count) if self.average == "probability" else (total / count).log_softmax(-1)
        loss = None
        if labels is not None:
            items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = F.nll_loss(mean.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / items
        return Seq2SeqLMOutput(loss=loss, logits=mean, **named(past_key_values))

    def _member_caches(self, cache: EncoderDecoderCache | None) -> list[EncoderDecoderCache | None]:
        """For each member a cache of its own layers, which are those of the whole cache and not copies."""
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


def check_members(models: Sequence[RnnSeq2SeqPreTrainedModel], shared: Sequence[str]) -> None:
    """Refuse no models, and such as differ in options that an ensemble's members must share."""
    if not models:
        raise ValueError("models: got none, wanted at least one")
    for number, model in enumerate(models[1:], start=1):
        for name in shared:
            wanted, got = getattr(models[0].config, name), getattr(model.config, name)
            if got != wanted:
                raise ValueError(
                    f"members of an ensemble must agree on {name}: models[0]{_origin(models[0])} has {wanted}, "
                    f"models[{number}]{_origin(model)} has {got}"
                )


def _origin(model: RnnSeq2SeqPreTrainedModel) -> str:
    return f" ({model.name_or_path})" if model.name_or_path else ""


def member_output(outputs: ModelOutput | None, member: int) -> RnnEncoderOutput | None:
    """One member's part of what `_EnsembleEncoder` returned."""
    if outputs is None:
        return None
    prefix = f"{member}."
    own = {name.removeprefix(prefix): tensor for name, tensor in outputs.items() if name.startswith(prefix)}
    return RnnEncoderOutput(**own)


Ensemble = TypeVar("Ensemble", bound=RnnSeq2SeqPreTrainedModel)


def load_ensemble(
    directories: Sequence[str | Path],
    kind: type[Ensemble] = RnnSeq2SeqEnsemble,  # type: ignore[assignment]  # mypy knows no defaults of type variables
    **options: Any,
) -> Ensemble:
    """An ensemble of saved models.

    Args:
        directories: their folders; checkpoints will do. The tokenizers, the feature extractors and the preprocessing
            beside the models must be the same.
        kind: the ensemble's class, which names that of its members.
        **options: of the ensemble, such as `average`.

    Raises:
        FileNotFoundError: a folder holds no model.
        ValueError: no directories, a model of another kind, or models of different vocabularies, special ids, labels,
            tokenizers, features or preprocessing.
    """
    check_folders(directories)
    member_class: type[RnnSeq2SeqPreTrainedModel] = kind.member_class  # type: ignore[attr-defined]
    members: Any = [load_model(member_class, directory) for directory in directories]
    ensemble = kind(members, **options)
    # After the numbers, which say more where they differ.
    _check_inputs(directories)
    return ensemble


def average_models(
    directories: Sequence[str | Path],
    output_dir: str | Path,
    model_class: type[RnnSeq2SeqPreTrainedModel] = RnnSeq2SeqForConditionalGeneration,
) -> RnnSeq2SeqPreTrainedModel:
    """Save the mean of the weights of several checkpoints of one model, as a model.

    Models trained from different seeds have no useful mean, although they have the same parameters: make them an
    ensemble.

    Args:
        directories: the checkpoints' folders.
        output_dir: the model goes here, with configuration, generation configuration, tokenizers and preprocessing of
            the first.
        model_class: the class of the checkpoints.

    Returns:
        The model that was saved.

    Raises:
        FileNotFoundError: a folder holds no model, or the first no tokenizer.
        ValueError: no directories, they are not checkpoints of one model, or `output_dir` is one of them.
    """
    # Here, because the rest of this file does without what training needs.
    from ..training.checkpoints import average_checkpoints

    check_folders(directories)
    if Path(output_dir).resolve() in {Path(directory).resolve() for directory in directories}:
        raise ValueError(f"output_dir: {output_dir} is one of the models to average, wanted another folder")
    first = RnnSeq2SeqConfig.from_pretrained(str(directories[0]))
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    options = {field.name for field in dataclasses.fields(RnnSeq2SeqConfig)} - inherited - _TRAINING_ONLY | {
        "id2label"
    }
    for directory in directories[1:]:
        other = RnnSeq2SeqConfig.from_pretrained(str(directory))
        for name in sorted(options):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"directories: {directory} has {name}={getattr(other, name)!r}, {directories[0]} has "
                    f"{getattr(first, name)!r}; only checkpoints of one model have a mean"
                )
    _check_inputs(directories)
    tokenizers = load_tokenizers(directories[0])
    preprocessing = Preprocessing.load(directories[0])
    model: RnnSeq2SeqPreTrainedModel = load_model(model_class, directories[0])
    weights = average_checkpoints(directories)
    # strict=False: tied weights are in a checkpoint once.
    model.load_state_dict(weights, strict=False)
    model.save_pretrained(str(output_dir))
    save_tokenizers(output_dir, *tokenizers)
    if preprocessing is not None:
        preprocessing.save(output_dir)
    return model


def check_folders(directories: Sequence[str | Path]) -> None:
    """Refuse no folders, and such as hold no model."""
    if not directories:
        raise ValueError("directories: got none, wanted at least one")
    for directory in directories:
        if not (Path(directory) / "config.json").is_file():
            raise FileNotFoundError(f"directories: {directory} holds no config.json, wanted the folder of a model")


def _check_inputs(directories: Sequence[str | Path]) -> None:
    """Refuse models that read the same source in different ways."""
    check_features(directories)
    first = Preprocessing.load(directories[0]) or Preprocessing()
    for directory in directories[1:]:
        differing = first.differences(Preprocessing.load(directory) or Preprocessing())
        if differing:
            raise ValueError(
                f"directories: {directory} reads its sources otherwise than {directories[0]}: they differ in "
                f"{', '.join(differing)}"
            )
    _check_tokenizers(directories)


def check_features(directories: Sequence[str | Path]) -> None:
    """Refuse models that read other features than the first does, by the feature extractors in their folders."""
    first = _saved_options(Path(directories[0]) / FEATURE_EXTRACTOR_NAME)
    for directory in directories[1:]:
        other = _saved_options(Path(directory) / FEATURE_EXTRACTOR_NAME)
        differing = sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
        if differing:
            raise ValueError(
                f"directories: {directory} reads other features than {directories[0]}: they differ in "
                f"{', '.join(differing)}"
            )


def _saved_options(path: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing if there is none."""
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    return content


def _check_tokenizers(directories: Sequence[str | Path]) -> None:
    """Refuse models of which an id means different symbols: vocabularies of equal size do not show it."""
    for side in ("", TARGET_TOKENIZER_FOLDER):
        name = str(Path(side) / "tokenizer.json")
        first = _tokenizer_rules(Path(directories[0]) / name)
        for directory in directories[1:]:
            other = _tokenizer_rules(Path(directory) / name)
            differing = sorted(part for part in first.keys() | other.keys() if first.get(part) != other.get(part))
            if differing:
                raise ValueError(
                    f"directories: {name} of {directory} is not that of {directories[0]}: they differ in "
                    f"{', '.join(differing)}"
                )


def _tokenizer_rules(path: Path) -> dict[str, Any]:
    """The parts of a saved tokenizer, without what the last call left in it; none if there is no such file."""
    if not path.is_file():
        return {}
    parts: dict[str, Any] = read_json(path)
    settings = path.with_name("tokenizer_config.json")
    if settings.is_file():
        # Of words with their characters, the alphabet.
        parts["character_vocab"] = read_json(settings).get("character_vocab")
    return {name: part for name, part in parts.items() if name not in ("padding", "truncation")}


__all__ = ["RnnSeq2SeqEnsemble", "average_models", "check_folders", "check_members", "load_ensemble", "member_output"]
