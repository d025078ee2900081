"""The study of accelerations: a tiny run, cut in two, and its table; every acceleration has a cell of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import workload
from workload import Shape, Work

from hf_rnn_seq2seq.model.fast import ACCELERATIONS


sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))
import accelerations


TINY = Shape("B", vocab_size=20, embedding_size=6, hidden_size=8, layers=2, train_batch=3, length=5)


def test_a_run_cut_in_two_is_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(workload.SHAPES, "B", TINY)
    file = tmp_path / "found.json"
    quick = ["--rounds", "2", "--seconds", "0.001", "--results", str(file)]
    accelerations.main(["--cells", "B/beam5x1", "--off", "search,lookup", *quick])
    found = accelerations.main(["--cells", "B/train_ragged/feeding", "--off", "lookup,shrinking,search", *quick])
    assert json.loads(file.read_text(encoding="utf-8")) == found
    assert {name: list(cell) for name, cell in found["cells"].items()} == {
        "B/train_ragged/feeding": ["on", "lookup", "shrinking", "all"],
        "B/beam5x1": ["on", "search", "all"],
    }
    assert all(value["rate"] > 0 and value["loss"] > 0 for cell in found["cells"].values() for value in cell.values())
    capsys.readouterr()
    accelerations.main(["--table-only", "--results", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| without | B/train_ragged/feeding | B/beam5x1 | most |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| lookup", "| shrinking", "| search", "| all"]


def test_each_acceleration_is_measured_somewhere() -> None:
    measured = {
        name
        for work in (Work("train"), Work("greedy", 1))
        for name in accelerations.variants_of(work, list(ACCELERATIONS))
    }
    assert set(ACCELERATIONS) - measured == {"words"}  # no model of the benchmark reads characters


def test_an_unknown_cell_or_acceleration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--cells", "C/train"], ["--off", "speed"]):
        with pytest.raises(SystemExit):
            accelerations.main(wrong)
        assert "wanted some of " in capsys.readouterr().err
