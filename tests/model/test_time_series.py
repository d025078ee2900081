"""The forecaster: compared with plain torch, with torch.distributions, and with itself step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forecasters import (
    AHEAD,
    CHANNELS,
    FEATURES,
    FORECASTING_STRUCTURES,
    PAST,
    WAYS,
    forecaster,
    forecaster_config,
    futures,
    series,
)
from tiny import gradients
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForTimeSeriesPrediction, Trainer, TrainingArguments

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForTimeSeriesPrediction
from hf_rnn_seq2seq.model.series import window_statistics


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
PLAIN = {"attention_type": "none", "bidirectional_encoder": False, "encoder_layers": 1, "decoder_layers": 1}
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


def torch_stack(model: Any, side: str) -> nn.Module:
    """One side's recurrence as torch's own module."""
    stack = getattr(model.model, side).rnn
    plain = TORCH[stack.rnn_type](stack.weight_ih_l0.shape[1], stack.hidden_size, batch_first=True).double()
    plain.load_state_dict({name: stack.state_dict()[name] for name in plain.state_dict()})
    return plain


def plain_forecast(model: Any, past: Tensor) -> Tensor:
    """The forecast of one series and a few of its channels, (P, c), by torch's modules and loops: structure 1."""
    config, k = model.config, model.config.segment_length
    last = past[-1] if config.window_normalization == "last" else torch.zeros_like(past[0])
    cut = [(past[i : i + k] - last).flatten() for i in range(0, len(past), k)]  # as long as it divides
    embedded = torch.stack([model.segment_embedding(segment).relu() for segment in cut])[None]
    _, state = torch_stack(model, "encoder")(embedded)
    decoder, values, before = torch_stack(model, "decoder"), [], cut[-1]
    for _ in range(-(-AHEAD // k)):
        step = model.model.decoder.embed_tokens(before).relu()[None, None]
        output, state = decoder(step, state)
        before = model.value_head(output[0, 0])
        values.append(before.view(k, -1) + last)
    return torch.cat(values)[:AHEAD]


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_segment_by_segment_is_the_loop_of_plain_torch(cell: str, by_channel: bool, k: int) -> None:
    options = {"rnn_type": cell, "channel_independence": by_channel, "segment_length": k}
    model, past = forecaster(**PLAIN, **options, window_normalization="last"), series()["past_values"]
    standard = (past - model.value_scale.mean) / model.value_scale.std
    wanted = [
        torch.cat([plain_forecast(model, row[:, [c]]) for c in range(CHANNELS)], 1)
        if by_channel
        else plain_forecast(model, row)
        for row in standard
    ]
    wanted = torch.stack(wanted) * model.value_scale.std + model.value_scale.mean
    torch.testing.assert_close(model.forecast(past), wanted, **TIGHT)


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("by_channel", [False, True])
def test_all_segments_at_once_are_one_step_of_plain_torch_each(cell: str, by_channel: bool) -> None:
    k, past = 4, series()["past_values"]
    options = {"rnn_type": cell, "channel_independence": by_channel, "segment_length": k, "decode_at_once": True}
    model = forecaster(**PLAIN, **options)
    standard = (past - model.value_scale.mean) / model.value_scale.std
    encoder, decoder = torch_stack(model, "encoder"), torch_stack(model, "decoder")
    wanted = torch.zeros(3, AHEAD, CHANNELS, dtype=torch.float64)
    for row in range(3):
        for group in [[c] for c in range(CHANNELS)] if by_channel else [list(range(CHANNELS))]:
            cut = standard[row][:, group].reshape(-1, k * len(group))
            _, state = encoder(model.segment_embedding(cut).relu()[None])
            for n in range(2):
                told = model.model.decoder.embed_tokens.weight[n]
                told = told + model.channel_embedding.weight[group[0]] if by_channel else told
                output, _ = decoder(told[None, None], state)
                values = model.value_head(output[0, 0]).view(k, -1)
                wanted[row, n * k : (n + 1) * k, group] = values[: AHEAD - n * k]
    wanted = wanted * model.value_scale.std + model.value_scale.mean
    torch.testing.assert_close(model.forecast(past), wanted, **TIGHT)


@pytest.mark.parametrize("structure", FORECASTING_STRUCTURES)
@pytest.mark.parametrize("way", WAYS)
def test_padding_before_a_short_past_changes_nothing(structure: str, way: str) -> None:
    """Wherever it is cut into segments, and whatever stands there."""
    model, future = forecaster(structure, **WAYS[way]), futures()
    short = series(past=5)["past_values"]
    shorter = short[:, 1:]
    results = []
    for filling in (None, 0.0, float("nan")):
        past, mask = shorter, torch.ones_like(shorter)
        if filling is not None:
            padding = torch.full((3, PAST - 4, CHANNELS), filling, dtype=torch.float64)
            past, mask = torch.cat([padding, shorter], 1), torch.cat([torch.zeros_like(padding), mask], 1)
        model.zero_grad()
        out = model(past, past_observed_mask=mask, future_values=future)
        out.loss.backward()
        results.append((out.loss, out.prediction_outputs, gradients(model)))
    for loss, forecast, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], **TIGHT)
        torch.testing.assert_close(forecast, results[0][1], **TIGHT)
        for name, wanted in results[0][2].items():
            torch.testing.assert_close(gradient[name], wanted, **TIGHT)


@pytest.mark.parametrize("structure", FORECASTING_STRUCTURES)
@pytest.mark.parametrize("way", WAYS)
def test_a_forecast_is_what_teacher_forcing_gives_on_it(structure: str, way: str) -> None:
    """Step by step from its own values, and all steps at once from the same values given, are one computation."""
    model = forecaster(structure, **WAYS[way], **FEATURES)
    inputs = series(features=True)
    own = model.forecast(**inputs)
    forced = model(**inputs, future_values=own)
    torch.testing.assert_close(forced.prediction_outputs, own, **TIGHT)
    assert forced.loss.item() < 1e-20
    assert not torch.allclose(own[0], own[1])  # it looks at its input


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_gives_what_its_rows_give(way: str) -> None:
    model, inputs = forecaster("luong", **WAYS[way], **FEATURES), series(features=True)
    together = model.forecast(**inputs)
    for row in range(3):
        alone = model.forecast(**{name: value[row : row + 1] for name, value in inputs.items()})
        torch.testing.assert_close(together[row : row + 1], alone, **TIGHT)


@pytest.mark.parametrize("way", WAYS)
def test_every_input_and_parameter_counts(way: str) -> None:
    model, inputs = forecaster("bahdanau", **WAYS[way], **FEATURES), series(features=True)
    moving = {name: value.requires_grad_() for name, value in inputs.items() if value.is_floating_point()}
    out = model(**inputs, future_values=futures())
    out.loss.backward()
    for name, tensor in [*moving.items(), *model.named_parameters()]:
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0, name


@pytest.mark.parametrize("way", WAYS)
def test_missing_values_change_no_forecast_loss_or_gradient(way: str) -> None:
    model, inputs, future = forecaster("luong", **WAYS[way]), series(), futures()
    mask, ahead = torch.ones(3, PAST, CHANNELS), torch.ones(3, AHEAD, CHANNELS)
    mask[0, 3, 1] = mask[1, 5:, 0] = ahead[0, 2] = ahead[2, 4:, 1] = 0
    results = []
    for filling in (0.0, 1e6, float("nan")):
        past = inputs["past_values"].masked_fill(mask == 0, filling)
        model.zero_grad()
        out = model(
            past, past_observed_mask=mask, future_values=future.masked_fill(ahead == 0, filling),
            future_observed_mask=ahead,
        )  # fmt: skip
        out.loss.backward()
        results.append((out.loss, gradients(model)))
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], **TIGHT)
        for name, wanted in results[0][1].items():
            torch.testing.assert_close(gradient[name], wanted, **TIGHT)


@pytest.mark.parametrize(
    "option, loss",
    [("squared", F.mse_loss), ("absolute", F.l1_loss), ("huber", F.huber_loss)],
    ids=["squared", "absolute", "huber"],
)
def test_losses_are_torchs_of_standardised_values(option: str, loss: Any) -> None:
    model, inputs, future = forecaster("cho", regression_loss=option), series(), futures()
    out = model(**inputs, future_values=future)
    standard = model.value_scale.standardise
    torch.testing.assert_close(out.loss, loss(standard(out.prediction_outputs), standard(future)), **TIGHT)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["normal", "student_t"])
def test_likelihoods_are_those_of_torchs_distributions(way: str, kind: str) -> None:
    model, inputs, future = forecaster("luong", **WAYS[way], distribution_output=kind), series(), futures()
    out = model(**inputs, future_values=future)
    if kind == "normal":
        mean, std = out.params
        wanted = torch.distributions.Normal(mean * out.scale + out.loc, std * out.scale)
    else:
        df, mean, std = out.params
        wanted = torch.distributions.StudentT(df, mean * out.scale + out.loc, std * out.scale)
    # The model's loss is of standardised values: their density is std times as high.
    nll = -(wanted.log_prob(future) + model.value_scale.std.log())
    torch.testing.assert_close(out.loss, nll.mean(), **TIGHT)
    torch.testing.assert_close(out.prediction_outputs, wanted.mean, **TIGHT)
    distribution = model.output_distribution(out.params, out.loc, out.scale)
    torch.testing.assert_close(distribution.log_prob(future), wanted.log_prob(future), **TIGHT)


@pytest.mark.parametrize("normalization", ["none", "mean"])
def test_counts_have_a_negative_binomial(normalization: str) -> None:
    options = {"distribution_output": "negative_binomial", "window_normalization": normalization}
    model, past = forecaster("cho", **options, segment_length=2), torch.randint(1, 30, (3, PAST, CHANNELS)).double()
    future = torch.randint(0, 30, (3, AHEAD, CHANNELS)).double()
    model.value_head.weight.data.mul_(0.1)  # rates that a Poisson distribution of torch can draw
    out = model(past, future_values=future)
    count, logits = out.params
    wanted = torch.distributions.NegativeBinomial(total_count=count, logits=logits + out.scale.log())
    torch.testing.assert_close(out.loss, -wanted.log_prob(future).mean(), **TIGHT)
    torch.testing.assert_close(out.prediction_outputs, wanted.mean, **TIGHT)
    drawn = model.generate(past, num_parallel_samples=6).sequences
    assert drawn.shape == (3, 6, AHEAD, CHANNELS) and bool((drawn >= 0).all())
    torch.testing.assert_close(drawn, drawn.round(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_draws_have_the_moments_of_the_distribution(way: str) -> None:
    """Of the first segment, which follows nothing drawn; of all, where they are decoded at once."""
    model, inputs = forecaster("luong", **WAYS[way], distribution_output="normal"), series()
    torch.manual_seed(0)
    drawn = model.generate(**inputs, num_parallel_samples=4000).sequences
    assert drawn.shape == (3, 4000, AHEAD, CHANNELS)
    out = model(**inputs)
    steps = AHEAD if model.config.decode_at_once else model.config.segment_length
    mean, std = (out.params[0] * out.scale + out.loc)[:, :steps], (out.params[1] * out.scale)[:, :steps]
    assert ((drawn[:, :, :steps].mean(1) - mean).abs() < 5 * std / 4000**0.5).all()
    torch.testing.assert_close(drawn[:, :, :steps].std(1), std, rtol=0.1, atol=0)


@pytest.mark.parametrize("way", ["stepwise", "segments", "segments_by_channel"])
def test_a_draw_reads_what_it_drew_before(way: str) -> None:
    """Its density, step by step, is that of teacher forcing on it: no draw is of other values than it goes on from."""
    model, inputs = forecaster("luong", **WAYS[way], distribution_output="normal"), series(rows=1)
    with torch.no_grad():  # next to no spread: a draw is the mean, given the values before
        k, width = model.config.segment_length, model.value_head.out_features // 2
        assert width == k * model.row_channels
        model.value_head.bias.view(k, -1, 2)[..., 1] = -1e5
        model.value_head.weight.view(k, -1, 2, model.value_head.in_features)[:, :, 1] = 0
    drawn = model.generate(**inputs, num_parallel_samples=2).sequences
    for sample in range(2):
        forced = model(**inputs, future_values=drawn[:, sample]).prediction_outputs
        torch.testing.assert_close(forced, drawn[:, sample], atol=2e-3, rtol=0)


def test_a_model_without_a_distribution_has_one_sample() -> None:
    model, inputs = forecaster("cho"), series()
    torch.testing.assert_close(model.generate(**inputs).sequences[:, 0], model.forecast(**inputs), **TIGHT)


@pytest.mark.parametrize(
    "kind, shifts, stretches", [("last", True, False), ("instance", True, True), ("mean", False, True)]
)
@pytest.mark.parametrize("way", ["segments", "at_once_by_channel"])
def test_what_is_taken_out_of_a_window_is_put_back(way: str, kind: str, shifts: bool, stretches: bool) -> None:
    model = forecaster("luong", **{**WAYS[way], "window_normalization": kind})
    model.value_scale.mean.zero_()  # else a stretch is also a shift
    past = series()["past_values"]
    forecast = model.forecast(past)
    assert torch.allclose(model.forecast(past + 5), forecast + 5) == shifts
    # instance: but for the least variance, which a window of variance 1 hardly sees
    assert torch.allclose(model.forecast(past * 3), forecast * 3, rtol=1e-3, atol=1e-3) == stretches


def test_window_statistics_are_those_of_observed_values() -> None:
    values = torch.tensor([[[1.0, 0], [4, 0], [0, 0], [7, 0]]])
    observed = torch.tensor([[[True, False], [True, False], [False, False], [True, False]]])
    known = np.array([1.0, 4, 7])
    wanted = {"none": (0, 1), "last": (7, 1), "mean": (0, 4), "instance": (4, np.sqrt(known.var() + 1e-5))}
    for kind, (loc, scale) in wanted.items():
        got = window_statistics(kind, values, observed)
        torch.testing.assert_close(got[0], torch.tensor([[[float(loc), 0]]]))
        torch.testing.assert_close(got[1], torch.tensor([[[float(scale), 1]]]))


def test_one_channel_needs_no_axis() -> None:
    model = forecaster("luong", input_feature_size=1, distribution_output="student_t")
    past, future = series()["past_values"][..., :1], futures()[..., :1]
    flat, full = model(past[..., 0], future_values=future[..., 0]), model(past, future_values=future)
    torch.testing.assert_close(flat.loss, full.loss, **TIGHT)
    for name in ("prediction_outputs", "loc", "scale"):
        torch.testing.assert_close(getattr(flat, name), getattr(full, name)[..., 0], **TIGHT)
    assert model.generate(past[..., 0], num_parallel_samples=4).sequences.shape == (3, 4, AHEAD)


@pytest.mark.parametrize("way", ["stepwise", "segments_by_channel"])
@pytest.mark.parametrize("unit", ["step", "sequence"])
def test_scheduled_sampling_without_the_reference_is_the_forecast(way: str, unit: str) -> None:
    model, inputs, future = forecaster("luong", **WAYS[way]), series(), futures()
    wanted, forced = model.forecast(**inputs), model(**inputs, future_values=future).prediction_outputs
    model.train()
    model.teacher_forcing_unit = unit
    torch.testing.assert_close(model(**inputs, future_values=future).prediction_outputs, forced, **TIGHT)
    model.teacher_forcing_ratio = 0.0
    out = model(**inputs, future_values=future)
    torch.testing.assert_close(out.prediction_outputs, wanted, **TIGHT)
    assert not torch.allclose(forced, wanted)
    out.prediction_outputs[:, -1].sum().backward()  # through the values fed back, to the first step
    assert all(p.grad is not None for p in model.parameters())
    model.teacher_forcing_unit = "word"
    with pytest.raises(ValueError, match="teacher_forcing_unit must be one of step, sequence; got 'word'"):
        model(**inputs, future_values=future)


@pytest.mark.parametrize("kind", ["none", "normal"])
def test_accumulated_batches_are_one_batch(kind: str) -> None:
    model, inputs, future = forecaster("luong", **WAYS["segments"], distribution_output=kind), series(), futures()
    observed = torch.ones_like(future)
    observed[0, 2:] = observed[1, :, 0] = 0
    model(**inputs, future_values=future, future_observed_mask=observed).loss.backward()
    whole = gradients(model)
    model.zero_grad()
    for row in range(3):
        part = {name: value[row : row + 1] for name, value in inputs.items()}
        seen = observed[row : row + 1]
        out = model(
            **part, future_values=future[row : row + 1], future_observed_mask=seen, num_items_in_batch=observed.sum()
        )
        out.loss.backward()
    summed = gradients(model)
    for name, wanted in whole.items():
        torch.testing.assert_close(summed[name], wanted, **TIGHT)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_saved_and_loaded_with_its_scale(way: str, tmp_path: Path) -> None:
    model = forecaster("luong", torch.float32, **WAYS[way], **FEATURES, distribution_output="student_t")
    inputs = series(features=True, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTimeSeriesPrediction.from_pretrained(tmp_path)
    assert type(loaded) is RnnSeq2SeqForTimeSeriesPrediction
    torch.testing.assert_close(loaded.value_scale.mean, model.value_scale.mean)
    torch.testing.assert_close(loaded.forecast(**inputs), model.forecast(**inputs))


def test_half_precision_keeps_the_scale() -> None:
    model = forecaster("cho", torch.bfloat16, window_normalization="last")
    model.value_scale.mean.fill_(1000.5)
    inputs = {"past_values": series(dtype=torch.float32)["past_values"] + 1000}
    out = model(**inputs, future_values=futures(dtype=torch.float32) + 1000)
    out.loss.backward()
    assert model.value_scale.mean.dtype == torch.float32 and out.prediction_outputs.dtype == torch.float32


class _Windows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        wave = torch.sin(torch.arange(PAST + AHEAD) * 0.7 + index)[:, None].repeat(1, CHANNELS) * 4 + 10
        return {"past_values": wave[:PAST], "future_values": wave[PAST:]}


@pytest.mark.parametrize("way", WAYS)
def test_the_stock_trainer_trains_and_evaluates_it(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = RnnSeq2SeqForTimeSeriesPrediction(forecaster_config(**WAYS[way], encoder_layers=1, decoder_layers=1))
    model.value_scale.fit(_Windows()[0]["past_values"])
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=12, per_device_train_batch_size=8, learning_rate=0.02, report_to="none",
        disable_tqdm=True, use_cpu=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=_Windows(), eval_dataset=_Windows())
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.2 * before


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another horizon": (
        {"future_values": torch.zeros(3, AHEAD + 2, CHANNELS)},
        r"future_values has shape \(3, 9, 2\), wanted \(3, 7, 2\): the model was trained for prediction_length=7",
    ),
    "a longer past": (
        {"past_values": torch.zeros(3, PAST + 1, CHANNELS)},
        r"past_values has 9 steps, wanted 1 to 8 \(context_length\)",
    ),
    "no past": ({"past_values": None}, "past_values is missing"),
    "other channels": ({"past_values": torch.zeros(3, PAST, 5)}, r"past_values has shape \(3, 8, 5\), wanted"),
    "NaN without a mask": (
        {"past_values": torch.zeros(3, PAST, CHANNELS).index_fill(1, torch.tensor([4]), torch.nan)},
        r"past_values\[0, 4, 0\] is NaN, but nothing says that it is missing: give past_observed_mask",
    ),
    "NaN that is called observed": (
        {"future_values": torch.full((3, AHEAD, CHANNELS), torch.nan),
         "future_observed_mask": torch.ones(3, AHEAD, CHANNELS)},
        r"future_values\[0, 0, 0\] is NaN",
    ),
    "a mask of another shape": ({"past_observed_mask": torch.ones(3, PAST)}, "past_observed_mask has shape"),
    "a mask of nothing": (
        {"future_observed_mask": torch.ones(3, AHEAD, CHANNELS)},
        "future_observed_mask was given without future_values",
    ),
    "no features": (
        {"past_time_features": None}, "past_time_features is missing, but the model has num_time_features=2"
    ),
    "features of another horizon": (
        {"future_time_features": torch.zeros(3, AHEAD + 1, 2)}, "future_time_features has shape .*prediction_length=7"
    ),
    "an unknown class": (
        {"static_categorical_features": torch.tensor([[0], [3], [1]])},
        r"static_categorical_features\[1, 0\] is 3, wanted 0 to 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_is_refused_by_name(wrong: str) -> None:
    changes, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        forecaster("luong", torch.float32, **FEATURES)(**{**series(features=True, dtype=torch.float32), **changes})


def test_features_that_the_model_does_not_know_are_refused() -> None:
    model = forecaster("luong")
    with pytest.raises(ValueError, match="past_time_features was given, but the model has num_time_features=0"):
        model(**series(), past_time_features=torch.zeros(3, PAST, 2))
    with pytest.raises(TypeError, match="did you mean 'past_values'"):
        model(past_value=series()["past_values"])
    random = forecaster("luong", distribution_output="normal")
    with pytest.raises(TypeError, match="generate has no argument past_mask"):
        random.generate(**series(), past_mask=None)
    with pytest.raises(ValueError, match="future_values was given"):
        random.generate(**series(), future_values=futures())
    with pytest.raises(ValueError, match="num_parallel_samples must be at least 1; got 0"):
        random.generate(**series(), num_parallel_samples=0)
    with pytest.raises(ValueError, match="distribution_output='none'"):
        model.output_distribution((torch.zeros(1),))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"input_feature_size": None}, "give input_feature_size, the number of channels"),
        ({"segment_length": 0}, "segment_length must be at least 1; got 0"),
        ({"coverage": True}, "a forecaster has no such thing: leave coverage out"),
        ({"feed_previous_token": False}, "leave feed_previous_token out"),
        ({"cardinality": [2]}, "num_static_categorical_features=0, cardinality"),
        ({"num_static_categorical_features": 1}, "give cardinality a number"),
        ({"distribution_output": "negative_binomial", "window_normalization": "last"}, "counts stay counts"),
        ({"prediction_length": None, "context_length": None, "decode_at_once": True}, "only a forecaster has this"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_the_configuration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forecaster_config(**options)


def test_a_model_must_know_how_far() -> None:
    with pytest.raises(ValueError, match="got prediction_length=None"):
        RnnSeq2SeqForTimeSeriesPrediction(RnnSeq2SeqConfig(input_feature_size=2))
