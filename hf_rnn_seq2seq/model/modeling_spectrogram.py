"""The model that speaks: symbols in, a spectrogram out, whose length the model decides.

The decoder emits r vectors a step, and of each the probability that it is the last one. It reads the vector before,
through a pre-net (Tacotron, Wang 2017; Tacotron 2, Shen 2018). Encoder, bridge, attention and decoder are the
family's. B batch, S source length, T vectors, U = T / r decoder steps, M numbers a vector, E embedding, R readout.
This file travels to the Hub: it imports only the standard library, torch, transformers and the flat files beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqSpectrogramOutput

from .checks import check_numbers, check_option, check_shape, check_tensor, only_known_keywords
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .decoder import RnnSeq2SeqDecoder, RnnSeq2SeqModelOutput
from .fast import is_traced
from .generation_rules import ENDING_RULES, check_rules
from .loss import number_of_items
from .modeling_rnn_seq2seq import RnnSeq2SeqModel
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .state import new_cache
from .transformers_names import CACHE_NAME, named, one_cache
from .values import REGRESSION_LOSSES, ValueScale, observed_loss


# What transformers' speech models pad labels with, and Trainer does not count.
IGNORED = -100.0
# How `generate_speech()` ends, where neither the call nor the generation configuration says: SpeechT5's defaults.
_ENDING = {"threshold": 0.5, "minlenratio": 0.0, "maxlenratio": 20.0}
_LOSSES = "those of vectors and of stopping, of labels that are numbers"


@dataclass
class RnnSeq2SeqSpectrogramOutput(Seq2SeqSpectrogramOutput):
    """
    Output of `RnnSeq2SeqForTextToSpectrogram`: as every `Seq2SeqSpectrogramOutput`, and when it stops.

    Args:
        stop_logits (`torch.FloatTensor` of shape `(batch_size, sequence_length)`): Logit of the probability that a
            vector is the last one.
    """

    stop_logits: Tensor | None = None


class SpectrogramPrenet(nn.Module):
    """Two or so layers of ReLU and dropout before the decoder (Tacotron 2, section 2.2): (B, U, M) -> (B, U, E)."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        sizes = [config.num_mel_bins, *[config.embedding_size] * config.speech_decoder_prenet_layers]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.dropout = config.speech_decoder_prenet_dropout

    def forward(self, values: Tensor, drops: bool) -> Tensor:
        """Embed standardised vectors; `drops`: with dropout."""
        for layer in self.layers:
            values = F.dropout(F.relu(layer(values)), self.dropout, drops)
        return values


class SpectrogramPostnet(nn.Module):
    """Convolutions that say what emitted vectors lack (Tacotron 2, section 2.2, without batch normalisation)."""

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__()
        units, count = config.speech_decoder_postnet_units, config.speech_decoder_postnet_layers
        sizes = [config.num_mel_bins, *[units] * (count - 1), config.num_mel_bins]
        width = config.speech_decoder_postnet_kernel
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, width, padding=width // 2) for before, after in pairwise(sizes)
        )
        self.dropout = config.speech_decoder_postnet_dropout

    def forward(self, vectors: Tensor, real: Tensor | None) -> Tensor:
        """Return the difference (B, T, M) to emitted vectors (B, T, M), of which `real` (B, T) are no padding."""
        x = vectors.transpose(1, 2)  # (B, M, T)
        for number, layer in enumerate(self.layers, start=1):
            if real is not None:  # beyond the end of a sequence there is nothing, as there is beyond that of the batch
                x = x.masked_fill(~real.unsqueeze(1), 0)
            x = layer(x)
            x = F.dropout(x if number == len(self.layers) else x.tanh(), self.dropout, self.training)
        return x.transpose(1, 2)


class RnnSeq2SeqForTextToSpectrogram(RnnSeq2SeqPreTrainedModel):
    """
    From `input_ids` (B, S) to a spectrogram (B, T, M): vectors of `config.num_mel_bins` numbers, in the user's units.

    Inside, numbers are standardised by the buffers of `scale`: `model.scale.fit(vectors)` takes their mean and
    standard deviation from training data. The loss is the mean over all observed numbers of `config.regression_loss`,
    with a post-net once before and once after it, plus the mean over all vectors of the cross entropy of stopping.
    """

    _needs = ("num_mel_bins", "a model that speaks emits vectors", "the size of one")

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.model = RnnSeq2SeqModel(config)
        self.scale = ValueScale(config.num_mel_bins)
        if config.feed_previous_token:
            self.prenet = SpectrogramPrenet(config)
        self.feat_out = nn.Linear(config.output_size, config.num_mel_bins * config.reduction_factor)
        self.prob_out = nn.Linear(config.output_size, config.reduction_factor)
        if config.speech_decoder_postnet_layers > 0:
            self.postnet = SpectrogramPostnet(config)
        # As Seq2SeqTrainer does: else `generation_config.maxlenratio` would be saved, and dropped when it is loaded.
        self.generation_config._from_model_config = False
        self.post_init()

    @classmethod
    def can_generate(cls) -> bool:
        """It does not by `GenerationMixin`, but has a generation configuration, as SpeechT5."""
        return True

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Load the generation configuration that lies beside the weights, as a `GenerationMixin` does."""
        GenerationMixin.adjust_generation_fn(self, *args, **kwargs)  # type: ignore[arg-type]

    def get_decoder(self) -> RnnSeq2SeqDecoder:
        return self.model.decoder

    @can_return_tuple
    @only_known_keywords
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_values: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        stop_labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> RnnSeq2SeqSpectrogramOutput:
        """
        Args:
            decoder_input_values (`torch.FloatTensor` of shape `(batch_size, steps, num_mel_bins)`, *optional*): The
                vector before each step, of the first one zeros; default: made of `labels`.
            decoder_attention_mask (`torch.Tensor` of shape `(batch_size, steps)`, *optional*): 0 where a step is to be
                passed over; default: where `labels` are all padding.
            labels (`torch.FloatTensor` of shape `(batch_size, sequence_length, num_mel_bins)`, *optional*): The
                spectrogram; -100 or NaN where there is none. For Trainer pad with -100, which it does not count.
            stop_labels (`torch.FloatTensor` of shape `(batch_size, sequence_length)`, *optional*): 1 where it ends,
                else 0; default: 1 at the last vector of `labels` that is not padding. Trainer computes an evaluation
                loss if both labels are given, or with its argument `label_names=["labels"]`.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by, a number of observed numbers;
                default: those of this batch.

        All others are as in `RnnSeq2SeqModel`.

        Returns:
            `spectrogram` (B, T, M) in the user's units, with labels as long as these; `stop_logits` (B, T).
        """
        self.check_labels_are_left(labels, num_items_in_batch)
        real = None
        if labels is not None:
            check_spectrogram(self.config, labels, stop_labels, input_ids)
            use_cache = False
            labels = labels.masked_fill(labels == IGNORED, torch.nan)
            real = ~labels.isnan().all(-1)  # (B, T)
            if decoder_input_values is None:
                decoder_input_values = self._vectors_before(labels)
            if decoder_attention_mask is None:
                decoder_attention_mask = self._by_step(real, False).any(-1).long()
        if decoder_input_values is None:
            raise ValueError("give decoder_input_values or labels: the decoder reads the vector before each step")
        guides = labels is not None and self.training and self.config.guided_attention_loss_scale > 0
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_inputs_embeds=self._embed(decoder_input_values, drops=self.training),
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            **named(one_cache(past_key_values, cache)),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions or guides,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        emitted, stop_logits = self._emit(outputs.last_hidden_state)  # (B, T, M), (B, T)
        if labels is not None:
            emitted, stop_logits = emitted[:, : labels.shape[1]], stop_logits[:, : labels.shape[1]]
        finished = self._finish(emitted, real)  # (B, T, M)
        loss = None
        if labels is not None:
            passes = [emitted] if finished is emitted else [emitted, finished]
            weights = outputs.cross_attentions[0][:, 0] if guides else None  # (B, U, S)
            loss = self._loss(passes, stop_logits, labels, stop_labels, num_items_in_batch, weights, outputs)
        return RnnSeq2SeqSpectrogramOutput(
            loss=loss,
            spectrogram=self.scale.to_units(finished),
            **named(getattr(outputs, CACHE_NAME)),
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            stop_logits=stop_logits,
        )

    def _loss_beyond_logits(self) -> str | None:
        return _LOSSES

    def _by_step(self, values: Tensor, missing: float) -> Tensor:
        """Return values (B, T, ...) by decoder steps, (B, U, r, ...), what is missing in the last filled in."""
        r = self.config.reduction_factor
        short = -values.shape[1] % r
        if short:
            values = torch.cat([values, values.new_full((values.shape[0], short, *values.shape[2:]), missing)], dim=1)
        return values.unflatten(1, (-1, r))

    def _vectors_before(self, labels: Tensor) -> Tensor:
        """Return what each step reads, (B, U, M): zeros, then the last vector of each step of labels (B, T, M)."""
        last = self._by_step(labels, torch.nan)[:, :-1, -1]  # (B, U - 1, M)
        return F.pad(last, (0, 0, 1, 0)).nan_to_num(0.0)

    def _embed(self, values: Tensor, drops: bool) -> Tensor:
        """Return what the decoder reads, (B, U, E), of vectors (B, U, M) in the user's units."""
        if not is_traced():
            check_shape("decoder_input_values", values, ("batch", "steps", self.config.num_mel_bins))
            check_numbers("decoder_input_values", values)
        standardised = self.scale.standardise(values).to(self.dtype)
        return self.prenet(standardised, drops) if self.config.feed_previous_token else standardised

    def _emit(self, readout: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised vectors (B, T, M) and the logits of stopping (B, T) of readouts (B, U, R)."""
        vectors = self.feat_out(readout).unflatten(-1, (-1, self.config.num_mel_bins)).flatten(1, 2)
        return vectors, self.prob_out(readout).flatten(1)

    def _finish(self, vectors: Tensor, real: Tensor | None) -> Tensor:
        """Return vectors (B, T, M), of which `real` (B, T) are no padding, after the post-net, if there is one."""
        if self.config.speech_decoder_postnet_layers == 0:
            return vectors
        return vectors + self.postnet(vectors, real)

    def _loss(
        self,
        passes: list[Tensor],
        stop_logits: Tensor,
        labels: Tensor,
        stop_labels: Tensor | None,
        num_items_in_batch: Tensor | int | None,
        weights: Tensor | None,
        outputs: RnnSeq2SeqModelOutput,
    ) -> Tensor:
        """
        Return the loss of vectors (B, T, M) before and after the post-net, of stopping, and of the attention.

        Each is a mean: that of vectors over observed numbers, the others over the vectors of which any is observed.
        """
        config = self.config
        wanted = self.scale.standardise(labels)
        sums = [observed_loss(REGRESSION_LOSSES[config.regression_loss], part, wanted) for part in passes]
        real = ~labels.isnan().all(-1)  # (B, T)
        stops = last_of(real) if stop_labels is None else stop_labels  # (B, T)
        told = real & (stops != IGNORED) & ~stops.isnan()  # (B, T)
        stop = F.binary_cross_entropy_with_logits(
            stop_logits[told], stops[told].to(stop_logits.dtype), reduction="sum"
        )
        of_vectors = config.stop_loss_weight * stop
        if weights is not None:
            far = guided_attention_loss(
                weights, outputs.encoder_mask, self._by_step(real, False), config.guided_attention_loss_sigma
            )
            of_vectors = of_vectors + config.guided_attention_loss_scale * far
        number_of_items(sums[0][1], num_items_in_batch)
        if num_items_in_batch is None:
            return sum(total for total, _ in sums) / sums[0][1] + of_vectors / real.sum()
        return (sum(total for total, _ in sums) + config.num_mel_bins * of_vectors) / num_items_in_batch

    @torch.no_grad()
    def generate_speech(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        threshold: float | None = None,
        minlenratio: float | None = None,
        maxlenratio: float | None = None,
        vocoder: Callable[[Tensor], Tensor] | None = None,
        output_cross_attentions: bool = False,
        return_output_lengths: bool = False,
    ) -> Any:
        """
        Speak: emit vectors until the model stops.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`): What to say.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*): 0 at padding.
            threshold (`float`, defaults to 0.5): A spectrogram ends as soon as the probability that it is over is at
                least this: 1 - prod (1 - p_t), p_t being that of a vector to be the last one. Where the end is sure,
                that is SpeechT5's p_t; where it could be any of many vectors, none of which is likely, it is the
                median. This default and the next two are those of `generation_config`, if it has an attribute of that
                name.
            minlenratio (`float`, defaults to 0.0): At least so many vectors for each source symbol, roughly: the
                number of steps is rounded down.
            maxlenratio (`float`, defaults to 20.0): Likewise at most.
            vocoder (`Callable`, *optional*): Makes a waveform (samples,) of a spectrogram (sequence_length,
                num_mel_bins); called for each sequence.
            output_cross_attentions (`bool`, *optional*): Return the attention, too.
            return_output_lengths (`bool`, *optional*): Always return a batch, and the length of each sequence.

        Returns:
            Spectrograms (batch_size, sequence_length, num_mel_bins), or waveforms (batch_size, samples), zero behind
            the end of each; of one source without the first axis, unless lengths are wanted. With lengths, a tuple:
            these, and a list of numbers of vectors or samples. Last, if wanted, the attention (batch_size, 1, 1,
            steps, source_length), likewise.

        Raises:
            ValueError: A number is out of range.
        """
        for name, flag in (
            ("output_cross_attentions", output_cross_attentions),
            ("return_output_lengths", return_output_lengths),
        ):
            check_option(name, flag, "bool", lambda _: True, "True or False")
        if vocoder is not None and not callable(vocoder):
            raise TypeError(f"vocoder is {vocoder!r}, wanted a function of a spectrogram")
        ending = self._ending(threshold=threshold, minlenratio=minlenratio, maxlenratio=maxlenratio)
        encoder_outputs = self.model.encoder(input_ids, attention_mask, return_dict=True)
        vectors, lengths, weights = self._emit_until_stopped(encoder_outputs, attention_mask, ending)
        real = torch.arange(vectors.shape[1], device=lengths.device) < lengths.unsqueeze(1)  # (B, T)
        spectrograms = self.scale.to_units(self._finish(vectors, real))  # (B, T, M)
        spoken = [rows[:length] for rows, length in zip(spectrograms, lengths.tolist())]
        if vocoder is not None:
            spoken = [vocoder(rows) for rows in spoken]
        alone = len(spoken) == 1 and not return_output_lengths
        outputs = spoken[0] if alone else pad_sequence(spoken, batch_first=True)
        lengths_too = ([len(rows) for rows in spoken],) if return_output_lengths else ()
        attention: tuple[Tensor, ...] = ()
        if output_cross_attentions:
            if weights is None:
                raise ValueError("output_cross_attentions: this model has no attention (attention_type='none')")
            attention = (weights[0] if alone else weights,)
        return (outputs, *lengths_too, *attention) if lengths_too or attention else outputs

    def generate(
        self,
        input_ids: Tensor,
        *args: Any,
        max_new_tokens: int | None = None,
        return_dict_in_generate: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Speak as `generate_speech()` does; what the pipeline "text-to-speech" adds is of no use here."""
        return self.generate_speech(input_ids, *args, **kwargs)

    def _ending(self, **given: float | None) -> dict[str, float]:
        """Return what says when to stop: of the call, else of the generation configuration, else SpeechT5's."""
        ending = {}
        for name, default in _ENDING.items():
            value = given[name]
            if value is None:
                value = getattr(self.generation_config, name, None)
            ending[name] = default if value is None else value
        check_rules(ending, ENDING_RULES)
        if ending["minlenratio"] > ending["maxlenratio"] or ending["maxlenratio"] == 0:
            low, high = ending["minlenratio"], ending["maxlenratio"]
            raise ValueError(f"minlenratio={low} must be from 0 to maxlenratio={high}, and that more than 0")
        return ending

    def _emit_until_stopped(
        self, encoder_outputs: BaseModelOutput, attention_mask: Tensor | None, ending: dict[str, float]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return standardised vectors (B, T, M), lengths (B,) in vectors, and attention (B, 1, 1, U, S) or None."""
        config, r = self.config, self.config.reduction_factor
        memory = encoder_outputs.last_hidden_state  # (B, S, D)
        mask = encoder_outputs.mask  # type: ignore[attr-defined]  # (B, S)
        symbols = memory.new_full((len(memory),), memory.shape[1]) if mask is None else mask.sum(1)  # (B,)
        least = (symbols * ending["minlenratio"] / r).long()
        most = (symbols * ending["maxlenratio"] / r).long().clamp(min=1)
        drops = config.prenet_dropout_in_generation or self.training
        cache = new_cache(config)
        before = memory.new_zeros(len(memory), 1, config.num_mel_bins)
        lengths = torch.zeros_like(most)
        goes_on = memory.new_ones(len(memory), 1)  # the probability that it is not over, (B, 1)
        going = torch.ones_like(most, dtype=torch.bool)
        emitted, attention = [], []
        for step in range(1, int(most.max()) + 1):
            outputs = self.model(
                decoder_inputs_embeds=self._embed(before, drops),
                encoder_outputs=encoder_outputs,
                attention_mask=attention_mask,
                use_cache=True,
                output_attentions=True,
                return_dict=True,
                **named(cache),
            )
            vectors, logits = self._emit(outputs.last_hidden_state)  # (B, r, M), (B, r)
            emitted.append(vectors)
            attention.extend(outputs.cross_attentions)
            left = goes_on * (-logits).sigmoid().cumprod(1)  # (B, r)
            goes_on = left[:, -1:]
            ends = (1 - left >= ending["threshold"]) & (step >= least).unsqueeze(1)  # (B, r)
            # The place of the first vector that is the last one; argmax gives the first of equals.
            made = torch.where(ends.any(1), ends.int().argmax(1) + 1, r)  # (B,)
            lengths = lengths + made * going
            going = going & ~ends.any(1) & (step < most)
            if not going.any():
                break
            before = self.scale.to_units(vectors[:, -1:])
        weights = torch.cat(attention, dim=2).unsqueeze(1) if attention else None
        return torch.cat(emitted, dim=1)[:, : int(lengths.max())], lengths, weights


def last_of(real: Tensor) -> Tensor:
    """Return 1 at the last True of each row of a mask (B, T), 0 elsewhere."""
    return (real & (real.flip(1).cumsum(1).flip(1) == 1)).float()


def guided_attention_loss(weights: Tensor, mask: Tensor | None, real: Tensor, sigma: float) -> Tensor:
    """
    Return how far from the diagonal attention is, summed over vectors (Tachibana 2017, eq. 6).

    Args:
        weights: (B, U, S) attention.
        mask: (B, S) 0 at padding, or None.
        real: (B, U, r) whether a vector is no padding: a step counts for each of its vectors.
        sigma: g of the paper.
    """
    if mask is None:
        mask = torch.ones_like(weights[:, 0])  # (B, S)
    counts = real.sum(-1)  # (B, U)
    mask, steps = mask.to(weights.dtype), (counts > 0).to(weights.dtype)
    symbol = (mask.cumsum(1) - 1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, S) n / N
    step = (steps.cumsum(1) - 1) / steps.sum(1, keepdim=True).clamp(min=1)  # (B, U) t / T
    distance = symbol.unsqueeze(1) - step.unsqueeze(2)  # (B, U, S)
    cost = 1 - torch.exp(-distance.square() / (2 * sigma**2))
    return ((weights * cost).sum(-1) * counts).sum()


def check_spectrogram(
    config: RnnSeq2SeqConfig, labels: Tensor, stop_labels: Tensor | None, input_ids: Tensor | None
) -> None:
    """Refuse labels that are no spectrograms of this model, one for each source, and ends that are not of these."""
    if is_traced():
        return
    if input_ids is not None:
        check_tensor("input_ids", input_ids)
        if not input_ids.dim():
            raise ValueError("input_ids has shape (), wanted (batch, length)")
    rows: int | str = "batch" if input_ids is None else input_ids.shape[0]
    check_shape("labels", labels, (rows, "length", config.num_mel_bins), "one for each source")
    check_shape("stop_labels", stop_labels, tuple(labels.shape[:2]), "as labels")
    if stop_labels is not None and stop_labels.is_complex():
        raise ValueError(f"stop_labels has type {stop_labels.dtype}, wanted numbers")
    if not labels.is_floating_point():
        raise ValueError(f"labels has type {labels.dtype}, wanted floating-point numbers")
    if labels.shape[1] == 0:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, wanted at least one vector")
    if labels.device.type == "cpu":
        wrong = labels.isinf().nonzero().tolist()
        if wrong:
            place = ", ".join(map(str, wrong[0]))
            raise ValueError(f"labels[{place}] is infinite, wanted a number, or -100 or NaN for none")
        empty = (labels.isnan() | (labels == IGNORED)).flatten(1).all(1).nonzero().tolist()
        if empty:
            raise ValueError(f"labels[{empty[0][0]}] is all padding, wanted at least one vector")
        if stop_labels is not None:
            known = (stop_labels == 0) | (stop_labels == 1) | (stop_labels == IGNORED) | stop_labels.isnan()
            wrong = (~known).nonzero().tolist()
            if wrong:
                row, step = wrong[0]
                got = stop_labels[row, step].item()
                raise ValueError(f"stop_labels[{row}, {step}] is {got}, wanted 0, 1, or -100 or NaN for neither")


__all__ = ["RnnSeq2SeqForTextToSpectrogram"]
