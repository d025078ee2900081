"""The Trainer of recipes: batches by token budget, logged scores, saved tokenizers, the clock."""

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import tiny_model
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainingArguments, TrainerControl, TrainerState

from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.training.trainer import RecipeTrainer, TrainingClock


def test_the_clock_goes_on_where_it_was() -> None:
    clock = TrainingClock()
    clock.on_train_begin(Any, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    time.sleep(0.01)
    kept = clock.state()
    # This is what the Trainer does with a checkpoint's states.
    again = TrainingClock(**kept["args"])
    for name, value in kept["attributes"].items():
        setattr(again, name, value)
    again.on_train_begin(Any, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    time.sleep(0.01)
    assert again.seconds > clock.state()["attributes"]["seconds_before"] - 0.005 > 0.005
    assert 0.02 <= again.seconds < 5


def trainer(folder: Path, **options: Any) -> RecipeTrainer:
    source = train_tokenizer(["a b c d e f g h"], TokenizerOptions("word"))
    rows = [list(range(4, 5 + number % 7)) for number in range(40)]
    data = Dataset.from_dict(
        {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows], "labels": [[*row, 3] for row in rows]}
    )
    model = tiny_model(dtype=torch.float32)
    lengths = [(len(row), len(row) + 1) for row in rows]
    settings = {"max_tokens": 20, "lengths": lengths, "save_processors": source.save_pretrained, **options}
    arguments = Seq2SeqTrainingArguments(
        str(folder), num_train_epochs=2, report_to="none", seed=3, use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    return RecipeTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForSeq2Seq(source, model=model),
        **settings,
    )


def test_training_sees_every_sample_once_an_epoch_in_batches_within_the_budget(tmp_path: Path) -> None:
    found = trainer(tmp_path)
    loader = found.get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)  # type: ignore[attr-defined]  # accelerate's loader
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(batch["labels"].numel() <= 20 for batch in batches)
        rows = [tuple(row[row != -100].tolist()) for batch in batches for row in batch["labels"]]
        assert sorted(rows) == sorted(tuple(row) for row in found.train_dataset["labels"])  # type: ignore[index]
        epochs.append(rows)
    assert epochs[0] != epochs[1]


def test_without_a_budget_the_batches_are_the_trainers_own(tmp_path: Path) -> None:
    assert {len(batch["labels"]) for batch in trainer(tmp_path, max_tokens=None).get_train_dataloader()} == {8}


def test_scores_are_logged_beside_the_loss(tmp_path: Path) -> None:
    found = trainer(tmp_path, score_validation=lambda: {"per": 12.5})
    metrics = found.evaluate()
    assert metrics["eval_per"] == 12.5 and metrics["eval_loss"] > 0
    assert found.state.log_history[-1]["eval_per"] == 12.5


def test_what_reads_raw_input_is_saved_with_the_model(tmp_path: Path) -> None:
    found = trainer(tmp_path)
    found.save_model(str(tmp_path / "model"))
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    assert load_file(tmp_path / "model" / "model.safetensors")
