"""The stock Seq2SeqTrainer on these models: accumulation, generation while evaluating, precision, exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import gradients, random_ids, tiny_config, tiny_tokenizer
from transformers import (
    DataCollatorForSeq2Seq,
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration


Model = RnnSeq2SeqForConditionalGeneration


def examples(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Sources of 1 to 6 symbols and targets of 2 to 9: batches have much padding."""
    lengths = torch.randint(1, 9, (count, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    sources, targets = random_ids(count, 8, seed=seed + 1).tolist(), random_ids(count, 8, seed=seed + 2).tolist()
    return [
        {"input_ids": source[:s], "attention_mask": [1] * s, "labels": [*target[:t], 3]}
        for source, target, (s, t) in zip(sources, targets, lengths, strict=True)
    ]


def fresh_model(**options: Any) -> Model:
    torch.manual_seed(0)
    return Model(tiny_config("luong", **options))


def trainer_of(model: Model, folder: Path, arguments: dict[str, Any], **options: Any) -> Seq2SeqTrainer:
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    steady = {"use_cpu": True, "learning_rate": 0.1, "lr_scheduler_type": "constant"}
    args = Seq2SeqTrainingArguments(output_dir=str(folder), **{**quiet, **steady, **arguments})
    return Seq2SeqTrainer(model, args, DataCollatorForSeq2Seq(tiny_tokenizer(), model=model), **options)


def test_the_collator_asks_the_model_for_decoder_inputs() -> None:
    model = fresh_model()
    batch = DataCollatorForSeq2Seq(tiny_tokenizer(), model=model)(examples(5))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "decoder_input_ids"}
    assert torch.equal(batch["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(batch["labels"]))
    assert (batch["decoder_input_ids"][:, 0] == 2).all() and (batch["labels"] == -100).any()


def test_accumulating_four_batches_of_four_equals_one_batch_of_sixteen(tmp_path: Path) -> None:
    models = []
    for size, steps in ((16, 1), (4, 4)):
        model = fresh_model()
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 3,
                     "optim": "sgd", "seed": 1}  # fmt: skip
        trainer_of(model, tmp_path, arguments, train_dataset=examples(48)).train()
        models.append(model)
    start = fresh_model()
    for (name, first), second, before in zip(
        models[0].named_parameters(), models[1].parameters(), start.parameters(), strict=True
    ):
        torch.testing.assert_close(second, first, atol=2e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert not torch.equal(first, before), name


class Losses(TrainerCallback):
    """Keeps the logged training losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(logs["loss"])


@pytest.mark.parametrize(
    "arguments",
    [{}, {"activation_checkpointing": True}, {"bf16": True}, {"label_smoothing_factor": 0.1}, {"max_grad_norm": 0.5}],
    ids=["plain", "checkpointing", "bf16", "trainer_label_smoothing", "clipped"],
)
def test_training_lowers_the_loss(arguments: dict[str, Any], tmp_path: Path) -> None:
    losses = Losses()
    arguments = {"per_device_train_batch_size": 8, "num_train_epochs": 30, "logging_strategy": "epoch",
                 "optim": "adamw_torch", "learning_rate": 0.03, **arguments}  # fmt: skip
    trainer = trainer_of(fresh_model(), tmp_path, arguments, train_dataset=examples(8), callbacks=[losses])
    trainer.train()
    assert trainer.model.is_activation_checkpointing == ("activation_checkpointing" in arguments)
    assert len(losses.values) == 30
    assert losses.values[-1] < 0.6 * losses.values[0]


def test_label_smoothing_of_the_trainer_and_of_the_configuration_agree(tmp_path: Path) -> None:
    batch = DataCollatorForSeq2Seq(tiny_tokenizer(), model=fresh_model())(examples(6))
    model = fresh_model()
    trainer = trainer_of(model, tmp_path, {"label_smoothing_factor": 0.2})
    trainer.compute_loss(model.train(), dict(batch)).backward()
    wanted = gradients(model)
    model = fresh_model(label_smoothing=0.2).train()
    model(**batch).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


def test_evaluation_generates_and_predicts(tmp_path: Path) -> None:
    model, data, seen = fresh_model(), examples(10), []

    def count_exact(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"rows": float(len(prediction.predictions))}

    arguments = {"predict_with_generate": True, "generation_max_length": 7, "generation_num_beams": 2,
                 "per_device_eval_batch_size": 4}  # fmt: skip
    trainer = trainer_of(model, tmp_path, arguments, eval_dataset=data, compute_metrics=count_exact)
    metrics = trainer.evaluate()
    assert metrics["eval_rows"] == 10

    batch = DataCollatorForSeq2Seq(tiny_tokenizer(), model=model)(data)
    model.eval()
    # The mean of the batches' means, weighted by their rows: what Trainer reports.
    parts = [DataCollatorForSeq2Seq(tiny_tokenizer(), model=model)(data[i : i + 4]) for i in (0, 4, 8)]
    means = [model(**part).loss.item() * len(part["labels"]) for part in parts]
    assert metrics["eval_loss"] == pytest.approx(sum(means) / 10, rel=1e-4)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    wanted = model.generate(**source, num_beams=2, max_length=7)
    predictions = torch.from_numpy(trainer.predict(data).predictions)
    width = wanted.shape[1]
    assert torch.equal(predictions[:, :width].masked_fill(predictions[:, :width] < 0, 1), wanted)
    assert len(seen) == 2


@pytest.mark.parametrize("ratio", [1.0, 0.5], ids=["teacher_forcing", "scheduled_sampling"])
def test_a_resumed_run_is_the_unbroken_run_bit_by_bit(ratio: float, tmp_path: Path) -> None:
    options = {"embedding_dropout": 0.2, "hidden_dropout": 0.2, "recurrent_dropout": 0.1, "share_embeddings": True}
    arguments = {"per_device_train_batch_size": 4, "max_steps": 6, "optim": "adamw_torch", "seed": 3,
                 "save_strategy": "steps", "save_steps": 3}  # fmt: skip
    results = []
    for resume in (None, str(tmp_path / "checkpoint-3")):
        set_seed(5 if resume is None else 6)  # what the resumed process did before must not matter
        model = fresh_model(**options)
        model.teacher_forcing_ratio = ratio
        trainer = trainer_of(model, tmp_path, arguments, train_dataset=examples(16))
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 6
        results.append(model.state_dict())
    saved = Model.from_pretrained(tmp_path / "checkpoint-6").state_dict()
    for name, wanted in results[0].items():
        assert torch.equal(results[1][name], wanted), name
        assert torch.equal(saved[name], wanted), name
