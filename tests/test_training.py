"""What is added to the Trainer: schedules as in the paper, averages, kept checkpoints, batches, the clock."""

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainingArguments, TrainerControl, TrainerState

from hf_rnn_seq2seq.recipe import TeacherForcingOptions
from hf_rnn_seq2seq.tokenization import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.training import (
    KeepBestCheckpoints,
    RecipeTrainer,
    ScheduledSamplingCallback,
    TrainingClock,
    average_checkpoints,
    checkpoints_of,
    rank_checkpoints,
    teacher_forcing_ratio,
)


steps = st.integers(0, 10_000)


@given(step=steps, ratio=st.floats(0, 1))
def test_constant_schedule(step: int, ratio: float) -> None:
    assert teacher_forcing_ratio(TeacherForcingOptions("constant", ratio=ratio), step) == ratio


@given(step=steps, k=st.floats(0, 1), c=st.floats(0, 0.1), floor=st.floats(0, 1))
def test_linear_schedule_is_that_of_the_paper(step: int, k: float, c: float, floor: float) -> None:
    options = TeacherForcingOptions("linear", start=k, slope=c, minimum=floor)
    assert teacher_forcing_ratio(options, step) == max(floor, k - c * step)


@given(step=steps, k=st.floats(50, 5000))
def test_inverse_sigmoid_schedule_is_that_of_the_paper(step: int, k: float) -> None:
    found = teacher_forcing_ratio(TeacherForcingOptions("inverse_sigmoid", k=k), step)
    assert found == pytest.approx(k / (k + math.exp(step / k)))


def test_inverse_sigmoid_schedule_ends_at_zero_without_overflow() -> None:
    options = TeacherForcingOptions("inverse_sigmoid", k=1)
    assert teacher_forcing_ratio(options, 10**6) == 0.0
    assert teacher_forcing_ratio(options, 0) == 0.5


def test_the_callback_sets_the_ratio_of_the_update_to_come() -> None:
    model, state = SimpleNamespace(teacher_forcing_ratio=1.0), TrainerState()
    callback = ScheduledSamplingCallback(TeacherForcingOptions("linear", slope=0.1))
    seen = []
    for state.global_step in range(3):
        callback.on_step_begin(Any, state, TrainerControl(), model=model)  # type: ignore[arg-type]
        seen.append(model.teacher_forcing_ratio)
    assert seen == pytest.approx([1.0, 0.9, 0.8])
    callback.on_train_end(Any, state, TrainerControl(), model=model)  # type: ignore[arg-type]
    assert model.teacher_forcing_ratio == 1.0


def checkpoint(folder: Path, step: int, **tensors: torch.Tensor) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors")
    return path


def test_the_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    weights = [torch.randn(3, 4) for _ in range(5)]
    paths = [checkpoint(tmp_path, step, w=w, b=w[0].clone()) for step, w in enumerate(weights)]
    mean = average_checkpoints(paths)
    assert set(mean) == {"w", "b"} and mean["w"].dtype == torch.float32
    torch.testing.assert_close(mean["w"], torch.stack(weights).mean(0))
    torch.testing.assert_close(mean["b"], torch.stack(weights).mean(0)[0])
    assert torch.equal(average_checkpoints(paths[:1])["w"], weights[0])


def test_checkpoints_of_other_models_are_not_averaged(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path, 1, w=torch.zeros(2)), checkpoint(tmp_path, 2, w=torch.zeros(3))
    three = checkpoint(tmp_path, 3, w=torch.zeros(2), b=torch.zeros(1))
    for other in (two, three):
        with pytest.raises(ValueError, match=f"checkpoints: .*{other.name} has other parameters than .*checkpoint-1"):
            average_checkpoints([one, other])
    with pytest.raises(ValueError, match="checkpoints: got none"):
        average_checkpoints([])


def state_with(values: dict[int, float]) -> TrainerState:
    state = TrainerState()
    state.log_history = [{"step": step, "eval_per": value} for step, value in values.items()]
    state.log_history.insert(1, {"step": 10, "loss": 0.0})
    return state


@pytest.mark.parametrize(("greater", "order"), [(False, [30, 10, 20]), (True, [20, 10, 30])])
def test_checkpoints_are_ranked_by_the_metric(greater: bool, order: list[int], tmp_path: Path) -> None:
    for step in (5, 10, 20, 30):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in checkpoints_of(tmp_path)] == [f"checkpoint-{step}" for step in (5, 10, 20, 30)]
    # 5 was never evaluated; 40 was, but is gone.
    state = state_with({10: 2.0, 20: 3.0, 30: 1.0, 40: 0.0})
    found = rank_checkpoints(tmp_path, state, "eval_per", greater)
    assert [path.name for path in found] == [f"checkpoint-{step}" for step in order]


def test_equal_checkpoints_are_ranked_by_age(tmp_path: Path) -> None:
    for step in (9, 10):
        checkpoint(tmp_path, step)
    found = rank_checkpoints(tmp_path, state_with({9: 1.0, 10: 1.0}), "eval_per", False)
    assert [path.name for path in found] == ["checkpoint-9", "checkpoint-10"]


def test_the_best_checkpoints_and_the_newest_are_kept(tmp_path: Path) -> None:
    arguments = SimpleNamespace(
        output_dir=str(tmp_path), metric_for_best_model="per", greater_is_better=False, should_save=True
    )
    values = {1: 5.0, 2: 1.0, 3: 2.0, 4: 9.0, 5: 8.0}
    callback, kept = KeepBestCheckpoints(2), []
    for step in values:
        checkpoint(tmp_path, step)
        state = state_with({s: v for s, v in values.items() if s <= step})
        state.global_step = step
        callback.on_save(arguments, state, TrainerControl())  # type: ignore[arg-type]
        kept.append([int(path.name.split("-")[1]) for path in checkpoints_of(tmp_path)])
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 3, 5]]


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
