"""Where the symbols go wrong: a model whose mistakes are known, and a whole tiny run of the script."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from hf_rnn_seq2seq.sharing.results import read_results


ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/studies/weaknesses.py"))


class KnowsTheFirstSymbol(torch.nn.Module):
    """Right at the first output step only."""

    def forward(self, labels: torch.Tensor) -> SimpleNamespace:
        said = torch.where(torch.arange(labels.shape[1]) == 0, labels, 0)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(said, 10).float())


def task_of(rows: list[dict[str, Any]]) -> SimpleNamespace:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([[*row["labels"], *[9] * (5 - len(row["labels"]))] for row in rows])}

    return SimpleNamespace(model=KnowsTheFirstSymbol(), encode=lambda split, name: split, collate=collate)


def test_symbols_are_counted_by_length_and_step() -> None:
    rows = [{"labels": [5, 6, 3]}, {"labels": [5, 6, 7, 8, 3]}, {"labels": [6, 6, 6, 6, 3]}]
    rows = [{**row, "source": "any"} for row in rows]
    tally = SCRIPT["Tally"]()
    SCRIPT["count_steps"](task_of(rows), rows, 4, tally)
    assert tally.percent("length") == {2: 50.0, 4: 25.0}
    # The string of two symbols is too short to count by step.
    assert tally.percent("step") == {1: 100.0, 2: 0.0, 3: 0.0, 4: 0.0}


def test_one_letter_is_counted_by_how_many_come_after_it() -> None:
    rows = [
        {"source": "A" + "b" * later, "labels": [label, 3]}
        for later, label in [(0, 5), (9, 0), (10, 5), (29, 5), (30, 0)]
    ]
    tally = SCRIPT["Tally"]()
    SCRIPT["count_later"](task_of(rows), rows, 30, tally.later)
    assert tally.percent("later") == {0: 100.0, 10: 100.0, 20: 100.0}
    assert [len(tally.later[group]) for group in (0, 10, 20)] == [2, 1, 1]


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
