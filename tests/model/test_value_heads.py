"""Values of each vector and of the sequence: losses by plain torch, units, padding, what is not observed, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import PADDINGS, gradients, padding_mask, randomize, tiny_config
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForTokenClassification,
)
from hf_rnn_seq2seq.model.encoder import RnnSeq2SeqEncoder
from hf_rnn_seq2seq.training.batches import pad_value_rows


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
NAN = float("nan")
LENGTHS, WIDTH, FEATURES, VALUES = [5, 2, 7, 1], 7, 4, 2
CELLS = ("lstm", "gru", "rnn_tanh")
Each, Whole = RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification
HEADS = {"each": Each, "whole": Whole}
LOSSES: dict[str, Callable[..., Tensor]] = {
    "squared": F.mse_loss,
    "absolute": F.l1_loss,
    "huber": F.huber_loss,
}


def fresh_head(kind: str = "each", **options: Any) -> Any:
    defaults = {"num_labels": VALUES, "input_feature_size": FEATURES, "problem_type": "regression"}
    model = HEADS[kind](tiny_config(**{**defaults, **options}))
    randomize(model)
    if hasattr(model, "output_scale"):
        model.output_scale.fit(torch.tensor([[70.0, 40.0], [130.0, 140.0]])[:, : model.num_labels])
    if model.config.standardise_features:
        model.model.encoder.input_scale.fit(torch.arange(2.0 * FEATURES).reshape(2, FEATURES).square())
    return model


def head(kind: str = "each", **options: Any) -> Any:
    return fresh_head(kind, **options).double().eval()


def batch_of(kind: str, padding: str = "interior") -> tuple[dict[str, Tensor], Tensor]:
    """Inputs whose padding is anywhere, and labels of which one is not observed."""
    mask = padding_mask(padding, LENGTHS, WIDTH)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "input_features": torch.randn(4, WIDTH, FEATURES, dtype=torch.float64, generator=generator),
        "attention_mask": mask,
    }
    shape = (4, WIDTH, VALUES) if kind == "each" else (4, VALUES)
    labels = 40 * torch.randn(shape, dtype=torch.float64, generator=generator) + 90
    observed = (0, int(mask[0].nonzero()[1]), 1) if kind == "each" else (0, 1)
    labels[observed] = NAN
    return inputs, labels


# ---- Loss and units ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_is_torchs_mean_over_what_is_observed_in_standard_deviations(
    kind: str, loss: str, rnn_type: str
) -> None:
    model = head(kind, regression_loss=loss, rnn_type=rnn_type)
    inputs, labels = batch_of(kind)
    out = model(**inputs, labels=labels)
    there = ~labels.isnan() & (inputs["attention_mask"].bool()[..., None] if kind == "each" else True)
    scale = model.output_scale
    got, wanted = (((x - scale.mean) / scale.std)[there] for x in (out.logits, labels))
    torch.testing.assert_close(out.loss, LOSSES[loss](got, wanted), **TIGHT)
    scaled = model(**inputs, labels=labels, num_items_in_batch=5).loss
    torch.testing.assert_close(scaled, out.loss * there.sum() / 5, **TIGHT)


@pytest.mark.parametrize("kind", HEADS)
def test_logits_are_in_units_and_move_with_the_scale_of_the_labels(kind: str) -> None:
    model, (inputs, _) = head(kind), batch_of(kind)
    scores = (model(**inputs).logits - model.output_scale.mean) / model.output_scale.std
    model.output_scale.fit(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    torch.testing.assert_close(model(**inputs).logits, scores * torch.tensor([1.0, 1.0]) + torch.tensor([1.0, 5.0]))
    assert model.half().float()(**{**inputs, "input_features": inputs["input_features"].float()}).logits.dtype == (
        torch.float32
    )


@pytest.mark.parametrize("kind", HEADS)
def test_one_value_may_come_without_its_dimension(kind: str) -> None:
    model, (inputs, labels) = head(kind, num_labels=1), batch_of(kind)
    flat = labels[..., 0]
    assert torch.equal(model(**inputs, labels=flat).loss, model(**inputs, labels=flat[..., None]).loss)


def test_one_output_of_a_sequence_is_a_regression_by_itself() -> None:
    model, (inputs, _) = head("whole", num_labels=1, problem_type=None), batch_of("whole")
    before = model(**inputs).logits
    model(**inputs, labels=torch.randn(4, dtype=torch.float64))
    assert model.config.problem_type == "regression" and torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("kind", HEADS)
def test_several_labels_have_a_binary_cross_entropy_each(kind: str) -> None:
    model, (inputs, labels) = head(kind, problem_type="multi_label_classification"), batch_of(kind)
    labels = (labels > 90).double().where(~labels.isnan(), NAN)
    there = ~labels.isnan() & (inputs["attention_mask"].bool()[..., None] if kind == "each" else True)
    out = model(**inputs, labels=labels)
    wanted = F.binary_cross_entropy_with_logits(out.logits[there], labels[there])
    torch.testing.assert_close(out.loss, wanted, **TIGHT)
    if kind == "each":
        mask = inputs["attention_mask"].bool()
        probabilities, decoded = model.probabilities(**inputs), model.decode(**inputs)
        torch.testing.assert_close(probabilities[mask], out.logits[mask].sigmoid())
        assert torch.equal(decoded[mask], (out.logits[mask] > 0).long())
        assert (probabilities[~mask] == 0).all() and (decoded[~mask] == -100).all()


# ---- Padding and what is missing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", HEADS)
def test_padding_changes_no_value_loss_or_gradient(kind: str, padding: str, loss: str, scaled: bool) -> None:
    """A padded batch, with NaN at its padding, against its rows alone."""
    model = head(kind, regression_loss=loss, standardise_features=scaled)
    inputs, labels = batch_of(kind, padding)
    mask = inputs["attention_mask"].bool()
    poisoned = inputs["input_features"].masked_fill(~mask[..., None], NAN)
    out = model(input_features=poisoned, attention_mask=mask, labels=labels)
    out.loss.backward()
    got = gradients(model)
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for row, real in enumerate(mask):
        known = labels[row, real][None] if kind == "each" else labels[row][None]
        alone = model(input_features=inputs["input_features"][row, real][None], labels=known)
        there = out.logits[row, real] if kind == "each" else out.logits[row]
        torch.testing.assert_close(there, alone.logits[0], **TIGHT)
        total = total + alone.loss * (~known.isnan()).sum()
        count += int((~known.isnan()).sum())
    (total / count).backward()
    torch.testing.assert_close(out.loss, total / count, **TIGHT)
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", HEADS)
def test_nothing_observed_is_a_loss_of_zero(kind: str) -> None:
    model, (inputs, labels) = head(kind), batch_of(kind)
    loss = model(**inputs, labels=torch.full_like(labels, NAN)).loss
    loss.backward()
    assert loss == 0 and all((gradient == 0).all() for gradient in gradients(model).values())


def test_features_are_standardised_and_a_missing_one_is_its_mean() -> None:
    scaled, (inputs, _) = head(standardise_features=True), batch_of("each", "right")
    plain = head()
    plain.load_state_dict(scaled.state_dict(), strict=False)
    features, scale = inputs["input_features"], scaled.model.encoder.input_scale
    mask = inputs["attention_mask"]
    by_hand = plain(input_features=(features - scale.mean) / scale.std, attention_mask=mask)
    torch.testing.assert_close(scaled(**inputs).logits, by_hand.logits, **TIGHT)
    missing = features.clone()
    missing[1, 0, 2] = NAN
    filled = features.clone()
    filled[1, 0, 2] = scale.mean[2]
    out = [scaled(input_features=x, attention_mask=mask).logits for x in (missing, filled)]
    torch.testing.assert_close(out[0], out[1], **TIGHT)


# ---- Saved and loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
def test_a_saved_model_takes_and_gives_the_units(kind: str, tmp_path: Path) -> None:
    model, (inputs, _) = fresh_head(kind, standardise_features=True).eval(), batch_of(kind)
    inputs = {name: value.float() for name, value in inputs.items()}
    model.save_pretrained(tmp_path)
    loaded = HEADS[kind].from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    half = HEADS[kind].from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(half.output_scale.mean, model.output_scale.mean)
    assert torch.equal(half.model.encoder.input_scale.std, model.model.encoder.input_scale.std)
    assert half.classifier.weight.dtype == torch.bfloat16
    inputs["attention_mask"] = inputs["attention_mask"].long()
    torch.testing.assert_close(half(**inputs).logits, model(**inputs).logits, rtol=0.1, atol=2)


def test_a_regression_of_before_there_was_a_scale_loads_as_it_was(tmp_path: Path) -> None:
    model = fresh_head("whole", num_labels=1)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({n: v for n, v in load_file(file).items() if "output_scale" not in n}, file, {"format": "pt"})
    loaded, found = Whole.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.output_scale.mean.tolist() == [0] and loaded.output_scale.std.tolist() == [1]
    assert not found["missing_keys"]


# ---- Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (
            "each",
            torch.zeros(4, WIDTH, VALUES, dtype=torch.long),
            r"int64, wanted floating-point numbers of shape \(4",
        ),
        ("each", torch.zeros(4, WIDTH), r"labels has shape \(4, 7\).*numbers of shape \(4, 7, 2\).*'regression'"),
        ("each", torch.zeros(4, VALUES), r"labels has shape \(4, 2\).*numbers of shape \(4, 7, 2\)"),
        ("whole", torch.zeros(4, dtype=torch.long), r"int64, wanted floating-point numbers of shape \(4, 2\)"),
        ("whole", torch.zeros(4, WIDTH, VALUES), r"labels has shape \(4, 7, 2\).*numbers of shape \(4, 2\)"),
    ],
)
def test_labels_that_are_no_values_are_refused(kind: str, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(kind)(**batch_of(kind)[0], labels=labels)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_a_crf_has_single_labels(problem: str) -> None:
    with pytest.raises(ValueError, match=f"use_crf=True, problem_type='{problem}': a CRF scores"):
        fresh_head(problem_type=problem, use_crf=True)


@pytest.mark.parametrize("kind", HEADS)
def test_a_model_made_for_labels_does_not_become_one_of_values(kind: str) -> None:
    model = head(kind, problem_type="single_label_classification")
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="problem_type='regression' was set after the model was made"):
        model(**batch_of(kind)[0])


@pytest.mark.parametrize("method", ["decode", "probabilities"])
def test_values_have_neither_labels_nor_probabilities(method: str) -> None:
    with pytest.raises(ValueError, match=rf"{method}\(\) is for labels, and this model gives values"):
        getattr(head(), method)(**batch_of("each")[0])


def test_symbols_have_no_features_to_standardise() -> None:
    with pytest.raises(Exception, match="standardise_features=True, input_feature_size=None: there are no features"):
        RnnSeq2SeqConfig(standardise_features=True)


def test_a_loss_that_there_is_not_is_refused() -> None:
    with pytest.raises(Exception, match="regression_loss"):
        RnnSeq2SeqConfig(regression_loss="cubic")


# ---- Trainer ----------------------------------------------------------------------------------------------------


def rows_of(kind: str, count: int) -> list[dict[str, Any]]:
    """Sequences of very different length, a third of whose values were not observed."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in torch.randint(1, 12, (count,), generator=generator).tolist():
        labels = torch.randn((length, VALUES) if kind == "each" else (VALUES,), generator=generator) * 30 - 100
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = NAN
        features = torch.randn(length, FEATURES, generator=generator)
        rows.append({"input_features": features.numpy(), "labels": labels.numpy()})
    rows[0]["labels"].reshape(-1)[0] = -100.0  # a value like others
    return rows


@pytest.mark.parametrize("kind", HEADS)
def test_under_the_stock_trainer_accumulating_equals_one_batch(kind: str, tmp_path: Path) -> None:
    models = []
    for size, steps in ((16, 1), (4, 4), (1, 16)):
        model = fresh_head(kind)
        args = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=3,
            optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", seed=1, max_grad_norm=0.0, use_cpu=True,
            report_to="none", disable_tqdm=True, save_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model, args, pad_value_rows, train_dataset=rows_of(kind, 48)).train()  # type: ignore[arg-type]
        models.append(model)
    start = fresh_head(kind)
    for other in models[1:]:
        for (name, first), second in zip(models[0].named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(second, first, atol=2e-6, rtol=1e-5, msg=lambda t, name=name: f"{name}: {t}")
    assert not torch.equal(start.classifier.weight, models[0].classifier.weight)


@pytest.mark.parametrize("kind", HEADS)
def test_the_trainer_counts_what_is_observed(kind: str, tmp_path: Path) -> None:
    rows = rows_of(kind, 6)
    batch = pad_value_rows(rows)
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    trainer = Trainer(fresh_head(kind), args, pad_value_rows)  # type: ignore[arg-type]
    counted = trainer._get_num_items_in_batch([batch, batch], torch.device("cpu"))
    assert counted == 2 * sum(int((row["labels"] == row["labels"]).sum()) for row in rows)
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=counted)
    torch.testing.assert_close(loss, trainer.model(**batch).loss / 2)


def test_both_heads_learn() -> None:
    """The running sum of what is read, and the whole of it."""
    torch.manual_seed(0)
    features = torch.randn(64, 6, 1) * 10 + 2
    sums = features.cumsum(1)
    for kind in HEADS:
        model = HEADS[kind](
            tiny_config(
                num_labels=1, input_feature_size=1, problem_type="regression", bidirectional_encoder=False,
                encoder_hidden_size=16, encoder_layers=1, standardise_features=True,
            )
        )  # fmt: skip
        labels = sums if kind == "each" else sums[:, -1]
        model.model.encoder.input_scale.fit(features)
        model.output_scale.fit(labels)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            loss = model(input_features=features, labels=labels).loss
            loss.backward()
            optimizer.step()
        assert loss < 0.02, kind


def test_an_encoder_of_a_whole_model_brings_its_scale() -> None:
    config = tiny_config(input_feature_size=FEATURES, standardise_features=True)
    assert {"input_scale.mean", "input_scale.std"} <= RnnSeq2SeqEncoder(config).state_dict().keys()
