"""The checkpoints of a run: damage of any kind is noticed, a resume passes it over; ranking, averaging, keeping."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState

from hf_rnn_seq2seq.training.checkpoints import (
    SEAL_FILE,
    KeepBestCheckpoints,
    average_checkpoints,
    checkpoints_of,
    damage_of,
    last_whole_checkpoint,
    rank_checkpoints,
    seal,
)


def checkpoint(folder: Path, step: int, **tensors: torch.Tensor) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors")
    return path


def sealed(folder: Path, step: int, best: int | None = None) -> Path:
    path = checkpoint(folder, step, w=torch.full((4,), float(step)))
    best_name = None if best is None else f"elsewhere/checkpoint-{best}"
    (path / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best_name}))
    (path / "optimizer.pt").write_bytes(bytes(range(256)))
    seal(path)
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit": (lambda path: flip_a_bit(path / "optimizer.pt"), "optimizer.pt is not what was saved"),
    "weights": (lambda path: flip_a_bit(path / "model.safetensors"), "model.safetensors is not what was saved"),
    "a file": (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "an end": (lambda path: (path / "optimizer.pt").write_bytes(b""), "optimizer.pt is not what was saved"),
    "no seal": (lambda path: (path / SEAL_FILE).unlink(), "never finished"),
    "half a seal": (lambda path: (path / SEAL_FILE).write_text('{"optimizer.pt": "5'), f"{SEAL_FILE} cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_resume_passes_over_damage(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = sealed(tmp_path, 9, best=9), sealed(tmp_path, 10, best=9)
    assert damage_of(newer) is None and last_whole_checkpoint(tmp_path) == newer
    do, said = DAMAGES[kind]
    do(newer)
    assert said in str(damage_of(newer))
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(tmp_path) == older
    assert "skipping" in caplog.text and said in caplog.text and newer.name in caplog.text
    do(older)
    with pytest.raises(FileNotFoundError, match="none of the checkpoints checkpoint-9, checkpoint-10 is whole"):
        last_whole_checkpoint(tmp_path)


def test_a_resume_needs_the_best_checkpoint_too(tmp_path: Path) -> None:
    first, best, last = sealed(tmp_path, 1, best=1), sealed(tmp_path, 2, best=2), sealed(tmp_path, 3, best=2)
    assert last_whole_checkpoint(tmp_path) == last
    flip_a_bit(best / "model.safetensors")
    assert last_whole_checkpoint(tmp_path) == first


def test_a_run_without_checkpoints_begins_anew(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path) is None and last_whole_checkpoint(tmp_path / "nowhere") is None


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
