"""The checkpoints of a run: damage of any kind is noticed, a resume passes it over; ranking, averaging, keeping."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerState

from hf_rnn_seq2seq.training.checkpoints import (
    SEAL_FILE,
    KeptCheckpoints,
    average_checkpoints,
    checkpoints_of,
    clear_unfinished,
    damage_of,
    last_whole_checkpoint,
    planned_checkpoints,
    rank_checkpoints,
    saving_through_python,
    seal,
)


def checkpoint(folder: Path, step: int, **tensors: torch.Tensor) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors")
    return path


def sealed(folder: Path, step: int, best: int | None = None, **of: Any) -> Path:
    path = checkpoint(folder, step, w=torch.full((4,), float(step)))
    best_name = None if best is None else f"elsewhere/checkpoint-{best}"
    (path / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best_name}))
    (path / "optimizer.pt").write_bytes(bytes(range(256)))
    seal(path, **of)
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_seal(path: Path, **changes: Any) -> None:
    content = json.loads((path / SEAL_FILE).read_text())
    (path / SEAL_FILE).write_text(json.dumps(content | changes) + "\n")


def relink(path: Path) -> None:
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")


DAMAGES: dict[str, tuple[Any, str]] = {
    "a bit": (lambda path: flip_a_bit(path / "optimizer.pt"), "optimizer.pt is not what was saved"),
    "weights": (lambda path: flip_a_bit(path / "model.safetensors"), "model.safetensors is not what was saved"),
    "a file": (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "an end": (lambda path: (path / "optimizer.pt").write_bytes(b""), "optimizer.pt is not what was saved"),
    "no seal": (lambda path: (path / SEAL_FILE).unlink(), "never finished"),
    "an empty seal": (lambda path: (path / SEAL_FILE).write_text("{}"), f"{SEAL_FILE} cannot be read"),
    "a seal of nothing": (lambda path: change_seal(path, files={}), f"{SEAL_FILE} does not name trainer_state.json"),
    "a file that is not named": (lambda path: (path / "scaler.pt").touch(), f"{SEAL_FILE} does not name scaler.pt"),
    "a name outside": (lambda path: change_seal(path, files={"../recipe.yaml": ""}), "../recipe.yaml is missing"),
    "another run": (lambda path: change_seal(path, run="b"), "it is of another run"),
    "another recipe": (lambda path: change_seal(path, recipe="b"), "it is of another recipe"),
    "a link": (lambda path: relink(path / "optimizer.pt"), "optimizer.pt is no plain file"),
    "a pipe": (lambda path: ((path / SEAL_FILE).unlink(), os.mkfifo(path / SEAL_FILE)), f"{SEAL_FILE} is no plain"),
    "deep lists": (lambda path: (path / SEAL_FILE).write_text("[" * 10**5), f"{SEAL_FILE} cannot be read"),
    "half a seal": (lambda path: (path / SEAL_FILE).write_text('{"optimizer.pt": "5'), f"{SEAL_FILE} cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_resume_passes_over_damage(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of = {"run": "a", "recipe": "r"}
    older, newer = sealed(tmp_path, 9, best=9, **of), sealed(tmp_path, 10, best=9, **of)
    assert damage_of(newer, **of) is None and last_whole_checkpoint(tmp_path, **of) == newer
    do, said = DAMAGES[kind]
    do(newer)
    assert said in str(damage_of(newer, **of))
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(tmp_path, **of) == older
    assert "skipping" in caplog.text and said in caplog.text and newer.name in caplog.text
    do(older)
    with pytest.raises(FileNotFoundError, match="none of the checkpoints checkpoint-9, checkpoint-10 is whole"):
        last_whole_checkpoint(tmp_path, **of)


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


def kept_after_each(
    kept: KeptCheckpoints, values: dict[int, float], unplanned: tuple[int, ...] = ()
) -> list[list[int]]:
    """The steps that are there after each save, of a run whose lower value is better."""
    found = []
    for step in values:
        best = min((s for s in values if s <= step), key=lambda s: values[s])
        written = sealed(kept.folder / ".unfinished-saving", step, best)
        kept.finish(written, planned=step not in unplanned)
        kept.rotate(state_with({s: v for s, v in values.items() if s <= step}), "eval_per", greater_is_better=False)
        found.append([int(path.name.split("-")[1]) for path in checkpoints_of(kept.folder)])
    assert not (kept.folder / ".unfinished-saving").exists()
    return found


def test_the_newest_and_the_best_of_their_times_are_kept(tmp_path: Path) -> None:
    values = {2: 5.0, 8: 1.0, 9: 3.0, 10: 4.0, 11: 0.0}
    kept = [[2], [2, 8], [8, 9], [8, 9, 10], [8, 10, 11]]
    assert kept_after_each(KeptCheckpoints(tmp_path, "r"), values) == kept


def test_the_best_checkpoints_are_kept_besides(tmp_path: Path) -> None:
    values = {1: 5.0, 2: 1.0, 3: 2.0, 4: 9.0, 5: 8.0, 6: 9.0}
    kept = [[1], [1, 2], [2, 3], [2, 3, 4], [2, 3, 4, 5], [2, 3, 5, 6]]
    assert kept_after_each(KeptCheckpoints(tmp_path, "r", best=2), values) == kept


def test_a_checkpoint_that_a_signal_asked_for_counts_only_until_the_next(tmp_path: Path) -> None:
    kept = kept_after_each(KeptCheckpoints(tmp_path, "r"), {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}, unplanned=(3,))
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 4, 5]]
    assert len(planned_checkpoints(tmp_path)) == 3


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    kept = KeptCheckpoints(tmp_path, "r")
    kept_after_each(kept, {1: 1.0, 2: 2.0, 3: 3.0})
    flip_a_bit(tmp_path / "checkpoint-3" / "optimizer.pt")
    (tmp_path / "checkpoint-9").mkdir()
    os.utime(tmp_path / "checkpoint-1")  # the times of change say nothing
    kept.finish(sealed(tmp_path / ".unfinished-saving", 4, best=1), planned=True)
    kept.rotate(state_with({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}), "eval_per", greater_is_better=False)
    assert [path.name for path in checkpoints_of(tmp_path)] == [f"checkpoint-{step}" for step in (1, 2, 4)]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    first, later = sealed(tmp_path, 1), sealed(tmp_path, 2)
    (tmp_path / ".unfinished-saving" / "checkpoint-3").mkdir(parents=True)
    clear_unfinished(tmp_path, first)
    assert first.is_dir() and not later.exists() and [path.name for path in tmp_path.iterdir()] == [first.name]


def test_torch_says_what_the_disk_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.pt")

    with saving_through_python():
        torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
        with pytest.raises(OSError, match="No space left") as said:
            monkeypatch.setattr("builtins.open", full)
            torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    monkeypatch.undo()
    assert said.value.errno == errno.ENOSPC and torch.load(tmp_path / "x.pt")["a"].sum() == 3
