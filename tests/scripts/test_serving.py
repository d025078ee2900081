"""The load test of the server: its arithmetic, and a tiny load from start to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import serving
from serving import Load, bodies, table
from workload import SHAPES, Shape


def test_the_table_compares_with_one_client_and_with_one_request_at_a_time() -> None:
    def one(size: int, clients: int, rate: float, p50: float, p99: float) -> Load:
        return Load("B", "fp32", size, clients, 1.0, 10, 0, rate, p50, p99, p99, 0.5)

    loads = [one(64, 1, 100, 10, 12), one(64, 64, 500, 60, 90), one(1, 1, 110, 9, 11), one(1, 64, 125, 500, 600)]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(loads).splitlines()]
    assert rows[0][-3:] == ["/ alone", "/ one at a time", "p99 / p50 alone"]
    assert rows[3] == ["B fp32", "64", "64", "500.0", "60.0", "90.0", "0.50", "5.00", "4.00", "9.0"]
    assert rows[5][-3:] == ["1.14", "1.00", "66.7"]


def test_requests_are_whole_and_of_every_length() -> None:
    lengths = set()
    for request in bodies(SHAPES["B"]):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        content = json.loads(body)
        assert content["min_new_tokens"] == content["max_new_tokens"] == 30
        lengths.add(len(content["text"].split()))
    assert lengths == set(range(3, 13))


@pytest.mark.slow
def test_a_tiny_load_is_answered_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Shape("B", vocab_size=20, embedding_size=6, hidden_size=8, layers=1, train_batch=3, length=5)
    monkeypatch.setitem(SHAPES, "B", tiny)
    monkeypatch.setattr(serving, "FORMATS", {"fp32": None})
    monkeypatch.setattr(serving, "CLIENTS", (1, 3))
    file = tmp_path / "serving.json"
    found = serving.main(["--models", "B", "--seconds", "0.5", "--results", str(file), "--beside", "tests"])
    assert [(one.max_batch_size, one.clients) for one in found] == [(64, 1), (64, 3), (1, 1), (1, 3)]
    assert all(one.answered > one.clients and one.failed == 0 and one.p50 <= one.p99 <= one.largest for one in found)
    written = json.loads(file.read_text())
    assert written["beside"] == "tests" and len(written["loads"]) == 4 and written["hardware"]["cpu"]
    with pytest.raises(SystemExit):
        serving.main(["--results", str(file)])
