"""Counting errors by source length: a file whose rates are known by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts/studies/error_by_length.py"))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.tsv"
    rows = [("ab", "1", "A B", "A B"), ("ab", "2", "A", "A B"), ("cd", "1", "C", "C D | C"), ("ef", "1", "E", "E F")]
    rows += [("abc", "1", "A", "A B C")]
    lines = [f"{source}\t{rank}\t-1.0\t{text}\t{references}\n" for source, rank, text, references in rows]
    path.write_text("source\trank\tscore\tprediction\treferences\n" + "".join(lines), encoding="utf-8")
    return path


def test_counts_the_best_hypothesis_against_every_reference(predictions: Path) -> None:
    rates = SCRIPT["error_by_length"](predictions, smallest=1)
    assert rates == {2: (pytest.approx(100 / 3), 3), 3: (100.0, 1)}
    assert list(SCRIPT["error_by_length"](predictions, smallest=2)) == [2]


def test_draws_a_picture(predictions: Path, tmp_path: Path) -> None:
    SCRIPT["main"]([str(tmp_path / "out.png"), f"run={predictions}", "--smallest", "1"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_refuses_a_run_without_a_name(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        SCRIPT["main"](["out.png", str(predictions)])
    assert "NAME=PREDICTIONS" in capsys.readouterr().err
