"""Where the symbols go wrong: a model whose mistakes are known, and a whole tiny run of the script."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_rnn_seq2seq.results import read_results


ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts/weaknesses.py"))


class KnowsTheFirstSymbol(torch.nn.Module):
    """Right at the first output step only."""

    def forward(self, labels: torch.Tensor) -> SimpleNamespace:
        said = torch.where(torch.arange(labels.shape[1]) == 0, labels, 0)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(said, 10).float())


@pytest.mark.parametrize("reversing", [False, True])
def test_symbols_are_counted_by_length_step_and_position(reversing: bool) -> None:
    rows = [{"labels": [5, 6, 3]}, {"labels": [5, 6, 7, 8, 3]}, {"labels": [6, 6, 6, 6, 3]}]

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([[*row["labels"], *[9] * (5 - len(row["labels"]))] for row in rows])}

    task = SimpleNamespace(model=KnowsTheFirstSymbol(), encode=lambda split, name: split, collate=collate)
    tally = SCRIPT["Tally"]()
    SCRIPT["count"](task, rows, reversing, 4, tally)
    assert tally.percent("length") == {2: 50.0, 4: 25.0}
    # The string of two symbols is too short to count by place.
    assert tally.percent("step") == {1: 100.0, 2: 0.0, 3: 0.0, 4: 0.0}
    first, last = (0.0, 100.0) if reversing else (100.0, 0.0)
    assert tally.percent("position") == {-3: first, -2: 0.0, -1: 0.0, 0: last}


def test_a_tiny_run_writes_its_figures_and_its_picture(tmp_path: Path) -> None:
    sizes = ["symbols=4", "max_length=6", "train=40", "validation=8", "test=20"]
    changes = [f"data.toy.{size}" for size in sizes] + ["training.num_train_epochs=1", "training.report_to=none"]
    recipe = str(ROOT / "scripts/recipes/weaknesses.yaml")
    results, picture = tmp_path / "weaknesses.json", tmp_path / "weaknesses.png"
    arguments = [recipe, "--output_dir", str(tmp_path / "runs"), "--set", *changes]
    metrics = SCRIPT["main"]([*arguments, "--results", str(results), "--picture", str(picture)])
    assert {name.split("_")[0] for name in metrics} == {"structure1", "structure2", "attention"}
    assert all(0 <= value <= 100 for value in metrics.values())
    assert read_results(results).metrics == metrics
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The models are there: nothing is trained again, and the figures are the same.
    assert SCRIPT["main"](arguments) == metrics
