"""An update of several small batches is that of a large one, whatever values of the future are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forecasters import WAYS, forecaster, futures, series
from transformers import Seq2SeqTrainingArguments

from hf_rnn_seq2seq.training import RecipeTrainer


@pytest.mark.parametrize("kind", ["none", "student_t"])
def test_accumulated_batches_make_the_update_of_one(kind: str, tmp_path: Path) -> None:
    """The first batch has a quarter of its values, so that a mean of means would be another update."""
    past, future = series(4, dtype=torch.float32)["past_values"], futures(4, dtype=torch.float32)
    observed = torch.ones_like(future)
    observed[:2, 2:] = observed[0, :, 1] = 0
    columns = {"past_values": past, "future_values": future, "future_observed_mask": observed}
    rows = [{name: values[row] for name, values in columns.items()} for row in range(4)]
    weights = []
    for size in (4, 2, 1):
        model = forecaster("luong", torch.float32, **WAYS["segments"], distribution_output=kind)
        arguments = Seq2SeqTrainingArguments(
            str(tmp_path / str(size)), per_device_train_batch_size=size, gradient_accumulation_steps=4 // size,
            max_steps=1, learning_rate=0.1, optim="sgd", max_grad_norm=0, lr_scheduler_type="constant",
            use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", data_seed=0,
        )  # fmt: skip
        trainer = RecipeTrainer(
            max_tokens=None, lengths=[], save_processors=lambda folder: None, model=model, args=arguments,
            train_dataset=rows,
        )  # fmt: skip
        trainer.train()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for other in weights[1:]:
        for name, wanted in weights[0].items():
            torch.testing.assert_close(other[name], wanted, atol=1e-6, rtol=1e-5)
