"""The forecaster: the past of one or several series in, values or their distributions at the next steps out.

Encoder, C, bridge, attention and decoder are the family's own. The decoder reads the values before, in training the
true ones (recurrent multi-step forecasting; DeepAR, Salinas 2020), or makes all segments at once from C and their
positions (SegRNN, Lin 2023). Shapes: B batch, P steps of the past, T steps ahead, C channels, k steps of a segment, S
segments of the past, N of the future, R rows: B, or with channel independence B * C; c channels of a row, E embedding,
F features of a segment, A arguments of a distribution. This file travels to the Hub: it imports only the standard
library, torch, transformers and the flat files beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from transformers.modeling_outputs import SampleTSPredictionOutput, Seq2SeqTSPredictionOutput
from transformers.time_series_utils import DistributionOutput, NegativeBinomialOutput, NormalOutput, StudentTOutput

from .checks import check_option, only_known_keywords
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .decoder import RnnDecoderOutput
from .encoder import RnnEncoderOutput
from .loss import number_of_items
from .modeling_rnn_seq2seq import RnnSeq2SeqModel
from .padding import looking_is_free
from .pretrained import RnnSeq2SeqPreTrainedModel, can_return_tuple
from .scheduled_sampling import check_teacher_forcing
from .series import check_series, leading_padding, segments, window_statistics
from .state import DecoderState, SourceMemory
from .values import REGRESSION_LOSSES, ValueScale, observed_loss


DISTRIBUTIONS: dict[str, type[DistributionOutput]] = {
    "normal": NormalOutput,
    "student_t": StudentTOutput,
    "negative_binomial": NegativeBinomialOutput,
}


@dataclass
class RnnSeq2SeqTSPredictionOutput(Seq2SeqTSPredictionOutput):
    """
    Output of `RnnSeq2SeqForTimeSeriesPrediction`, as of transformers' time series models, and the forecast.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): With `future_values`: the mean over the observed ones.
        params (`tuple(torch.FloatTensor)` of shape `(batch_size, prediction_length[, channels])`, *optional*): Those
            of the distribution; `loc` and `scale`, `(batch_size, 1[, channels])`, shift and stretch it.
        prediction_outputs (`torch.FloatTensor` of shape `(batch_size, prediction_length[, channels])`): The forecast;
            of a distribution the mean. With `future_values` it is that of each step from the true values before it.
    """

    prediction_outputs: Tensor | None = None


class Window(NamedTuple):
    """The past as the network reads it, and what it takes to put the forecast back."""

    values: Tensor  # (R, S, k * c) normalised segments
    mask: Tensor | None  # (R, S) bool, False at padding before a short past
    loc: Tensor  # (R, 1, c) what was subtracted
    scale: Tensor  # (R, 1, c) what was divided by
    past_features: Tensor | None  # (R, S, F)
    future_features: Tensor | None  # (R, N, F)
    static: Tensor | None  # (B, *) features of the series

    def repeated(self, times: int) -> "Window":
        """Return each row so many times, side by side."""
        parts: Any = (None if part is None else part.repeat_interleave(times, 0) for part in self)
        return Window(*parts)


def network_config(config: RnnSeq2SeqConfig) -> RnnSeq2SeqConfig:
    """Return the configuration of encoder, bridge and decoder, which read embedded segments (R, S, E), (R, N, E)."""
    network: RnnSeq2SeqConfig = config.plain_copy()
    network.input_feature_size = config.embedding_size
    network.vocab_size = -(-config.prediction_length // config.segment_length)  # positions
    for name in ("unk", "pad", "bos", "eos", "decoder_start"):
        setattr(network, f"{name}_token_id", None)
    return network


class RnnSeq2SeqForTimeSeriesPrediction(RnnSeq2SeqPreTrainedModel):
    """
    Forecasts the next `prediction_length` steps of series of `input_feature_size` channels.

    `forward` without `future_values` and `forecast` return one value a step, `generate` draws futures. All values go
    in and come out in the user's units, which `value_scale.fit(training_rows)` learns; it is saved with the model.
    `teacher_forcing_ratio` is the probability that a training step reads the true values before it and not the
    model's own (scheduled sampling, Bengio 2015), `teacher_forcing_unit` whether that is decided for each "step" or
    "sequence". Its own are a forecast, through which the gradient goes, or a draw from the distribution.
    """

    main_input_name = "past_values"
    _needs = ("prediction_length", "a forecaster must know how far", "the number of steps")

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.main_input_name = "past_values"
        self.channels = config.input_feature_size or 1
        self.steps = -(-config.prediction_length // config.segment_length)  # N
        self.row_channels = 1 if config.channel_independence else self.channels  # c
        kind = DISTRIBUTIONS.get(config.distribution_output)
        self.distribution_output = None if kind is None else kind()
        self.parameters_each = 1 if kind is None else len(self.distribution_output.args_dim)  # A
        self.value_scale = ValueScale(self.channels)
        width = config.segment_length * self.row_channels  # k * c
        features = config.segment_length * config.num_time_features + config.num_static_real_features
        features += sum(config.embedding_dimension or ())  # F
        self.static_embeddings = nn.ModuleList(
            nn.Embedding(*sizes) for sizes in zip(config.cardinality or (), config.embedding_dimension or ())
        )
        if config.num_static_real_features:
            self.static_scale = ValueScale(config.num_static_real_features)
        self.segment_embedding = nn.Linear(width + features, config.embedding_size)
        self.model = RnnSeq2SeqModel(network_config(config))
        if not config.decode_at_once:  # it reads segments, not their positions
            self.model.decoder.embed_tokens = nn.Linear(width + features, config.embedding_size)
        else:
            if config.channel_independence:
                self.channel_embedding = nn.Embedding(self.channels, config.embedding_size)
            if features:
                self.feature_embedding = nn.Linear(features, config.embedding_size, bias=False)
        self.value_head = nn.Linear(config.output_size, width * self.parameters_each)
        self.teacher_forcing_ratio, self.teacher_forcing_unit = 1.0, "step"
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short pasts, for tools that only need some input."""
        config = self.config

        def zeros(*shape: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((2, *shape), dtype=dtype, device=self.device)

        inputs = {"past_values": zeros(config.context_length, self.channels)}
        if config.num_time_features:
            inputs["past_time_features"] = zeros(config.context_length, config.num_time_features)
            inputs["future_time_features"] = zeros(config.prediction_length, config.num_time_features)
        if config.num_static_categorical_features:
            inputs["static_categorical_features"] = zeros(config.num_static_categorical_features, dtype=torch.long)
        if config.num_static_real_features:
            inputs["static_real_features"] = zeros(config.num_static_real_features)
        return inputs

    @can_return_tuple
    @only_known_keywords
    def forward(
        self,
        past_values: Tensor | None = None,
        past_time_features: Tensor | None = None,
        past_observed_mask: Tensor | None = None,
        static_categorical_features: Tensor | None = None,
        static_real_features: Tensor | None = None,
        future_values: Tensor | None = None,
        future_time_features: Tensor | None = None,
        future_observed_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> RnnSeq2SeqTSPredictionOutput:
        """
        Args:
            past_values (`torch.FloatTensor` of shape `(batch_size, past_length, channels)`): Up to `context_length`
                steps; the last one is that before the forecast. Without the last axis for one channel.
            past_time_features (`torch.FloatTensor` `(batch_size, past_length, num_time_features)`, *optional*): What
                is known of each step.
            past_observed_mask (`torch.Tensor` of the shape of `past_values`, *optional*): 0 where a value is missing;
                what stands there, NaN or a number, changes nothing. Steps without any value before the first observed
                one are padding, and change nothing either.
            static_categorical_features (`torch.LongTensor` `(batch_size, num_static_categorical_features)`): Classes
                of the series, *optional*.
            static_real_features (`torch.FloatTensor` of shape `(batch_size, num_static_real_features)`, *optional*):
                Numbers of the series, in the user's units: `static_scale.fit(numbers of the training series)`.
            future_values (`torch.FloatTensor` of shape `(batch_size, prediction_length, channels)`, *optional*): What
                came, for the loss; each step then reads the true values before it.
            future_time_features, future_observed_mask (*optional*): As those of the past.
            num_items_in_batch (`int`, *optional*): What the summed loss is divided by; default: the observed values in
                this batch.
            return_loss (`bool`, defaults to `True`): Whether `future_values` are for a loss; that it is here tells
                Trainer that there is one without `labels`.

        Returns:
            The forecast, and with `future_values` its loss: of standardised values, the negative log-likelihood or
            what `regression_loss` says.
        """
        past = {"past_values": past_values, "past_time_features": past_time_features}
        future = {"future_values": future_values, "future_time_features": future_time_features}
        masks = {"past_observed_mask": past_observed_mask, "future_observed_mask": future_observed_mask}
        static = {"static_categorical_features": static_categorical_features}
        inputs = {**past, **future, **masks, **static, "static_real_features": static_real_features}
        window = self._window(inputs)
        target, observed = self._target(inputs)
        encoded, state, source = self._read(window, output_hidden_states)
        reference = None if target is None else (self._rows(target) - window.loc) / window.scale  # (R, T, c)
        decoded = self._decode(window, state, source, reference, None, output_attentions, output_hidden_states)
        raw = self._numbers(decoded.last_hidden_state)  # (R, T, c, A)
        values, params = self._mean_and_params(raw, window.loc, window.scale)  # (R, T, c) each
        loss = None
        if target is not None and return_loss:
            total, count = self._loss(values, params, self._rows(target), self._rows(observed), window)
            loss = total / number_of_items(count, num_items_in_batch)
        flat = past_values.dim() == 2
        std = self.value_scale.std
        return RnnSeq2SeqTSPredictionOutput(
            loss=loss,
            params=None if params is None else tuple(self._joined(part, flat) for part in params),
            loc=self._joined(window.loc, flat, self.value_scale.to_units),
            scale=self._joined(window.scale, flat, lambda x: x * std),
            static_features=window.static,
            prediction_outputs=self._joined(values, flat, self.value_scale.to_units),
            decoder_hidden_states=decoded.hidden_states,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
        )

    @torch.no_grad()
    def forecast(self, past_values: Tensor, **inputs: Tensor | None) -> Tensor:
        """
        Return one value for each step ahead, (B, T, C), or (B, T) for values without channels: the forecast, of a
        distribution its mean. The inputs are those of `forward`, without a future but its time features.
        """
        return self(past_values, **inputs, return_dict=True).prediction_outputs

    @torch.no_grad()
    def generate(
        self, past_values: Tensor, *, num_parallel_samples: int | None = None, **inputs: Tensor | None
    ) -> SampleTSPredictionOutput:
        """
        Draw futures; each step reads the values drawn before it, unless all are decoded at once.

        Args:
            past_values: (B, P, C), and in `inputs` what else `forward` takes of the past and of the future's features.
            num_parallel_samples: How many; default: that of the configuration. A model without a distribution gives
                its forecast, one "sample".

        Returns:
            `sequences` (B, samples, T, C), or (B, samples, T) for values without channels.
        """
        samples = self.config.num_parallel_samples if num_parallel_samples is None else num_parallel_samples
        words = "at least 1"
        check_option("num_parallel_samples", samples, "whole number", lambda n: n >= 1, words)
        if self.distribution_output is None:
            return SampleTSPredictionOutput(sequences=self.forecast(past_values, **inputs).unsqueeze(1))
        names = ("past_time_features", "past_observed_mask", "static_categorical_features", "static_real_features",
                 "future_values", "future_time_features", "future_observed_mask")  # fmt: skip
        unknown = inputs.keys() - {*names}
        if unknown:
            raise TypeError(f"{type(self).__name__}.generate has no argument {', '.join(sorted(unknown))}")
        if inputs.get("future_values") is not None:
            raise ValueError("future_values was given: generate() draws them")
        window = self._window({"past_values": past_values, **dict.fromkeys(names), **inputs})
        _, state, source = self._read(window)
        if self.config.decode_at_once:
            raw = self._numbers(self._decode(window, state, source).last_hidden_state)  # (R, T, c, A)
            raw = raw.repeat_interleave(samples, 0)
            drawn = self._draw(raw, window.repeated(samples))  # (R * samples, T, c)
        else:
            window, state, source = window.repeated(samples), _repeated(state, samples), _repeated(source, samples)
            segments_drawn: list[Tensor] = []
            decoded = self._decode(window, state, source, None, segments_drawn)
            last = self._own(decoded.last_hidden_state[:, -1:], window)  # (R * samples, k, c)
            drawn = torch.cat([*segments_drawn, last], 1)[:, : self.config.prediction_length]
            drawn = drawn * window.scale + window.loc
        rows = drawn.unflatten(0, (-1, samples)).transpose(0, 1)  # (samples, R, T, c)
        flat = past_values.dim() == 2
        sequences = torch.stack([self._joined(row, flat, self.value_scale.to_units) for row in rows], 1)
        return SampleTSPredictionOutput(sequences=sequences)

    def output_distribution(
        self, params: tuple[Tensor, ...], loc: Tensor | None = None, scale: Tensor | None = None
    ) -> Distribution:
        """Return the distribution of what `forward` gave: its `params`, `loc` and `scale`, all in the user's units."""
        if self.distribution_output is None:
            raise ValueError("the model forecasts values, not their distribution: it has distribution_output='none'")
        params = tuple(part.clone() for part in params)  # the negative binomial scales its logits in place
        return self.distribution_output.distribution(params, loc=loc, scale=scale)

    def _window(self, inputs: dict[str, Tensor | None]) -> Window:
        """Check the inputs; standardise and normalise the past, and cut all into segments."""
        check_series(self.config, inputs)
        config, past = self.config, inputs["past_values"]
        assert past is not None
        past = past.unsqueeze(-1) if past.dim() == 2 else past  # (B, P, C)
        observed = inputs["past_observed_mask"]
        mask = None
        if observed is None:
            observed = torch.ones_like(past, dtype=torch.bool)
        else:
            observed = observed.view_as(past).bool()
            mask = leading_padding(self._rows(observed), config.segment_length)  # (R, S)
        values = self._rows(self.value_scale.standardise(past).masked_fill(~observed, 0))  # (R, P, c)
        observed = self._rows(observed)
        loc, scale = window_statistics(config.window_normalization, values, observed)
        values = ((values - loc) / scale).masked_fill(~observed, 0).to(self.dtype)
        static = self._static_features(inputs)  # (B, *)
        segmented = segments(values, config.segment_length)  # (R, S, k * c)
        return Window(
            *(segmented, mask, loc, scale),
            self._features(inputs["past_time_features"], static, segmented.shape[1], at_end=True),
            self._features(inputs["future_time_features"], static, self.steps, at_end=False),
            static,
        )

    def _static_features(self, inputs: dict[str, Tensor | None]) -> Tensor | None:
        """Return what is known of the series, classes embedded, (B, *); or None."""
        parts = []
        classes, numbers = inputs["static_categorical_features"], inputs["static_real_features"]
        if classes is not None:
            parts += [table(classes[:, i]) for i, table in enumerate(self.static_embeddings)]
        if numbers is not None:
            parts.append(self.static_scale.standardise(numbers).to(self.dtype))
        return torch.cat(parts, dim=-1) if parts else None

    def _features(self, times: Tensor | None, static: Tensor | None, count: int, at_end: bool) -> Tensor | None:
        """Return the features of each segment, (R, S, F): those of its steps (B, P, *), and those of the series."""
        parts = []
        if times is not None:
            parts.append(segments(times.to(self.dtype), self.config.segment_length, at_end))
        if static is not None:
            parts.append(static.unsqueeze(1).expand(-1, count, -1))
        if not parts:
            return None
        features = torch.cat(parts, dim=-1)  # (B, S, F)
        return features.repeat_interleave(self.channels // self.row_channels, 0)

    def _target(self, inputs: dict[str, Tensor | None]) -> tuple[Tensor | None, Any]:
        """Return the standardised future, zero where not observed, and what is observed, (B, T, C) each; or None."""
        future, observed = inputs["future_values"], inputs["future_observed_mask"]
        if future is None:
            return None, None
        future = future.unsqueeze(-1) if future.dim() == 2 else future  # (B, T, C)
        observed = torch.ones_like(future) if observed is None else observed.view_as(future)
        return self.value_scale.standardise(future).masked_fill(~observed.bool(), 0), observed.bool()

    def _rows(self, x: Tensor) -> Tensor:
        """(B, P, C) -> (R, P, c)."""
        return x.transpose(1, 2).flatten(0, 1).unsqueeze(-1) if self.config.channel_independence else x

    def _joined(self, x: Tensor, flat: bool, units: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """(R, T, c) -> (B, T, C), or (B, T) where the values came `flat`; in other units."""
        if self.config.channel_independence:
            x = x.squeeze(-1).unflatten(0, (-1, self.channels)).transpose(1, 2)
        x = x if units is None else units(x)
        return x.squeeze(-1) if flat else x

    def _read(
        self, window: Window, output_hidden_states: bool | None = None
    ) -> tuple[RnnEncoderOutput, DecoderState, SourceMemory]:
        """Run the encoder; return its outputs, the decoder's first state, and what its steps read of the source."""
        embedded = self._embed(self.segment_embedding, window.values, window.past_features)  # (R, S, E)
        encoded = self.model.encoder(
            input_features=embedded,
            attention_mask=window.mask,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        state, source = self.model._read_source(encoded, encoded.mask, None, needs_state=True)
        assert state is not None
        return encoded, state, source

    def _embed(self, layer: nn.Module, values: Tensor, features: Tensor | None) -> Tensor:
        """Embed segments (R, S, k * c) and their features (R, S, F), (R, S, E) (Lin 2023, eq. 4)."""
        embedded: Tensor = layer(values if features is None else torch.cat([values, features], dim=-1)).relu()
        return embedded

    def _decode(
        self,
        window: Window,
        state: DecoderState,
        source: SourceMemory,
        reference: Tensor | None = None,
        drawn: list[Tensor] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> RnnDecoderOutput:
        """
        Run the decoder over all segments: `last_hidden_state` is (R, N, .).

        Args:
            reference: (R, T, c) the true future, normalised, which steps read; None: they read the model's own.
            drawn: Takes what the steps before the last drew, (R, k, c) each; None: a step's own value is the mean.
        """
        wanted = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if self.config.decode_at_once:
            return self._decode_at_once(window, state, source, wanted)
        first = window.values[:, -1:]  # (R, 1, k * c)
        features, layer = window.future_features, self.model.decoder.embed_tokens  # (R, N, F)
        if reference is None:
            before = first.expand(-1, self.steps, -1)  # (R, N, k * c), of which only the first is read
        else:
            future = segments(reference.to(first.dtype), self.config.segment_length, at_end=False)  # (R, N, k * c)
            before = torch.cat([first, future[:, :-1]], dim=1)
        forced = None if reference is None else self._forced(before)  # (R, N)

        def choose(t: int, readout: Tensor, pointer: None) -> Tensor:
            own = self._own(readout.unsqueeze(1), window, draw=drawn is not None or self.training)  # (R, k, c)
            if drawn is not None:
                drawn.append(own)
            own = own.flatten(1).to(before.dtype)  # (R, k * c)
            if forced is not None:
                own = torch.where(forced[:, t, None], before[:, t], own)
            return self._embed(layer, own, None if features is None else features[:, t])

        embedded = self._embed(layer, before, features)  # (R, N, E)
        teaches = forced is not None and looking_is_free(forced) and bool(forced.all())
        chooses = None if teaches else choose
        return self.model.decoder(
            None, state, source, inputs_embeds=embedded, choose_input=chooses, return_dict=True, **wanted
        )

    def _forced(self, before: Tensor) -> Tensor:
        """Return where a step reads the reference, (R, N) bool: at first, and in training where the coins say so."""
        check_teacher_forcing(self)
        ratio, unit = (self.teacher_forcing_ratio if self.training else 1.0), self.teacher_forcing_unit
        rows, steps = before.shape[:2]
        coins = torch.rand((rows, steps if unit == "step" else 1), device=before.device)
        forced = (coins < ratio).expand(rows, steps).clone()
        forced[:, 0] = True
        return forced

    def _decode_at_once(
        self, window: Window, state: DecoderState, source: SourceMemory, wanted: dict[str, bool | None]
    ) -> RnnDecoderOutput:
        """Make one step from C for each segment, told by its position and channel (Lin 2023, section 3.3)."""
        rows, count = window.values.shape[0], self.steps
        decoder = self.model.decoder
        embedded = decoder.embed_tokens(torch.arange(count, device=window.values.device))  # (N, E)
        if self.config.channel_independence:
            embedded = embedded + self.channel_embedding.weight.unsqueeze(1)  # (C, N, E)
            embedded = embedded.repeat(rows // self.channels, 1, 1)  # (R, N, E)
        embedded = embedded.expand(rows, -1, -1)  # (R, N, E)
        if hasattr(self, "feature_embedding"):
            embedded = embedded + self.feature_embedding(window.future_features)
        embedded = embedded.reshape(rows * count, 1, -1)
        state, source = _repeated(state, count), _repeated(source, count)
        decoded = decoder(None, state, source, inputs_embeds=embedded, return_dict=True, **wanted)
        decoded.last_hidden_state = decoded.last_hidden_state.reshape(rows, count, -1)
        return decoded

    def _numbers(self, readout: Tensor) -> Tensor:
        """Return what the output layer makes of readouts (R, N, .), step by step: (R, T, c, A)."""
        steps = readout.shape[1] * self.config.segment_length
        shape = (-1, steps, self.row_channels, self.parameters_each)
        numbers = self.value_head(readout).reshape(shape)  # (R, N * k, c, A)
        return numbers[:, : self.config.prediction_length].to(torch.promote_types(numbers.dtype, torch.float32))

    def _mean_and_params(self, raw: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Return the forecast of standardised values (R, T, c), and the arguments of its distribution, or None."""
        if self.distribution_output is None:
            return raw.squeeze(-1) * scale + loc, None
        params = tuple(self.distribution_output.domain_map(*raw.split(1, dim=-1)))  # (R, T, c) each
        return self.output_distribution(params, loc, scale).mean, params

    def _loss(
        self, values: Tensor, params: Any, target: Tensor, observed: Tensor, window: Window
    ) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the observed standardised values (R, T, c), and their number."""
        if params is None:
            return observed_loss(REGRESSION_LOSSES[self.config.regression_loss], values, target, observed)
        unlikely = -self.output_distribution(params, window.loc, window.scale).log_prob(target)  # (R, T, c)
        return unlikely.where(observed, 0).sum(), observed.sum()

    def _own(self, readout: Tensor, window: Window, draw: bool = True) -> Tensor:
        """Return the normalised values that one segment's readout (R, 1, .) says, (R, k, c)."""
        raw = self._numbers(readout)
        if self.distribution_output is not None and draw:
            own = self._draw(raw.detach(), window)
        else:
            own, _ = self._mean_and_params(raw, window.loc, window.scale)
        return (own - window.loc) / window.scale

    def _draw(self, raw: Tensor, window: Window) -> Tensor:
        """Draw standardised values (R, T, c) from what the output layer gave, (R, T, c, A)."""
        _, params = self._mean_and_params(raw, window.loc, window.scale)
        assert params is not None
        return self.output_distribution(params, window.loc, window.scale).sample()


def _repeated(parts: Any, times: int) -> Any:
    """Return a state, or what is read of the source, with each row so many times, side by side."""
    if isinstance(parts, tuple):
        repeated = [_repeated(part, times) for part in parts]
        return type(parts)(*repeated) if hasattr(parts, "_fields") else tuple(repeated)
    return None if parts is None else parts.repeat_interleave(times, dim=0)


__all__ = ["RnnSeq2SeqForTimeSeriesPrediction"]
