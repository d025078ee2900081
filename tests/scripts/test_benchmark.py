"""The benchmark: its arithmetic against torch's own count, its clockwork on clocks that are known, and a tiny run."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import latency
import pytest
import rounds as benchmark
import speed
import torch
import workload
from results_table import SPEED_FILE, results_table
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging as transformers_logging
from workload import WORKS, Shape


ROOT = Path(__file__).parents[2]
TINY = Shape("B", vocab_size=20, embedding_size=6, hidden_size=8, layers=2, train_batch=3, length=5)


@pytest.fixture(autouse=True)
def _verbosity_as_before() -> Iterator[None]:
    """The program silences transformers, for good; other tests in this process read what it says."""
    before = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(before)


@pytest.mark.parametrize("input_feeding", [False, True])
def test_operations_are_those_that_torch_counts(input_feeding: bool) -> None:
    # In double precision the layers are made of matrix products, which torch can count.
    model = TINY.model(input_feeding).double()
    sources, targets = workload.random_ids(TINY, 3, 5), workload.random_ids(TINY, 3, 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=sources, decoder_input_ids=targets)
    expected = 3 * (5 * workload.source_flops(TINY) + 7 * workload.target_flops(TINY, 5, input_feeding))
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("input_feeding", [False, True])
def test_weights_of_a_step_are_those_of_the_decoder(input_feeding: bool) -> None:
    model = TINY.model(input_feeding)
    decoder = model.get_decoder()
    matrices = [p for name, p in decoder.named_parameters() if p.dim() == 2 and name != "embed_tokens.weight"]
    keys = decoder.attention.key_projection.weight  # of the source, not of the step
    weights = sum(p.numel() for p in matrices) - keys.numel() + model.get_output_embeddings().weight.numel()
    assert workload.step_weights(TINY, input_feeding) == weights


def test_the_floor_is_arithmetic_in_training_and_memory_for_one_source() -> None:
    flops, bytes_read = 1e9, 1e6
    forward = 15 * (workload.source_flops(TINY) + workload.target_flops(TINY, 5, False))
    rate = workload.floor_rate(TINY, WORKS["train"], False, flops, bytes_read)
    assert rate == pytest.approx(15 / (3 * forward / flops))
    encoder = 5 * workload.source_flops(TINY) / flops
    reading = 30 * 4 * workload.step_weights(TINY, False) / bytes_read
    rate = workload.floor_rate(TINY, WORKS["greedy1"], False, flops, bytes_read)
    assert rate == pytest.approx(30 / (encoder + reading))
    # Many hypotheses share what is read.
    many = workload.floor_rate(TINY, WORKS["greedy64"], False, flops, bytes_read)
    assert many > 10 * rate


class Hand:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_measurements_take_turns() -> None:
    clock, log = Hand(), []

    def run(name: str, seconds: float, tokens: int) -> Callable[[], float]:
        def work() -> float:
            log.append(name)
            clock.time += seconds
            return tokens

        return work

    runs = {"a": run("a", 1.0, 10), "b": run("b", 0.25, 5), "c": run("c", 3.0, 6)}
    rates = benchmark.measure_in_turn(runs, rounds=4, seconds=0.5, clock=clock)
    assert rates == {"a": [10.0] * 4, "b": [20.0] * 4, "c": [2.0] * 4}
    # Two runs to warm up, of the slow one only one; b is repeated to take half a second; the rounds start differently.
    assert "".join(log) == "aabbc" + "abbc" + "bbca" + "cabb" + "abbc"


def test_time_by_position_compares_within_the_moment() -> None:
    clock, fresh_searches = Hand(), []

    def search(steps: int, tick: Callable[[], None]) -> None:
        long = steps > 100
        slow_spell = clock.time > 100  # of the machine: it meets both searches
        fresh_searches.append(not long)
        for step in range(steps):
            clock.time += (1.0 if step < 150 or not long else 1.5) * (2 if slow_spell else 1)
            tick()

    found = latency.time_by_position(search, (20, 100, 200), clock, window=10)
    assert [at.position for at in found] == [20, 100, 200]
    assert [at.ratio for at in found] == pytest.approx([1, 0.5, 1.5 / 2])
    assert fresh_searches == [True, False, True, True, True]


def test_requests_are_of_all_lengths() -> None:
    sources = list(latency.requests(replace(TINY, length=6), 100))
    assert {source.shape[1] for source in sources} == {3, 4, 5, 6}
    assert {source.shape[1] for source in latency.requests(TINY, 50, lengths=[2, 9])} == {2, 9}
    assert latency.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5


def peers_file(path: Path, ragged: bool = False) -> Path:
    """Rates by round of ours and of two toolkits, of which `slow` has input feeding too."""
    tokens = {"ours-noif": [30, 60, 45], "fast-noif": [10, 30, 15], "slow-noif": [9, 9, 9], "ours-if": [8, 8, 8],
              "slow-if": [4, 8, 16], "other": [99, 99, 99]}  # fmt: skip
    measured = [
        {"config": "B", "task": "train", "name": name, "round": number, "tokens": count, "cpu": 2.0, "wall": 9.0}
        for name, counts in tokens.items()
        for number, count in enumerate(counts)
    ]
    broken = [{"config": "B", "task": "setup", "name": "slow-if"}, {"config": "B", "task": "train", "error": "no"}]
    path.write_text(json.dumps({"meta": {"basis": "cpu", "ragged": ragged}, "results": broken + measured}))
    return path


def test_the_fastest_toolkit_of_the_same_kind_is_compared_round_by_round(tmp_path: Path) -> None:
    assert speed.read_peers(peers_file(tmp_path / "p.json")) == [
        speed.Peer("B", "train", False, "fast-noif", [3.0, 2.0, 3.0]),
        speed.Peer("B", "train", True, "slow-if", [2.0, 1.0, 0.5]),
    ]
    (ragged, _) = speed.read_peers(peers_file(tmp_path / "p.json", ragged=True))
    assert ragged.work == "train_ragged"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"p\.json, line 1: not JSON"),
        ("[]", r"p\.json: not the results of a benchmark of several toolkits"),
        ('{"meta": {"basis": "cpu", "ragged": false}, "results": []}', r"p\.json: holds no work that both"),
    ],
)
def test_a_file_without_peers_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        speed.read_peers(tmp_path / "p.json")


def measured() -> speed.Speed:
    """Figures that can be checked in the head."""
    return speed.Speed(
        command="python scripts/benchmark/run.py",
        hardware={"cpu": "abacus", "cores": 1, "gpu": None},
        versions={"torch": "9.9"},
        date="2030-01-02T03:04:05+00:00",
        basis="cpu",
        threads=1,
        dtype="float32",
        quick=True,
        rates=[
            speed.Rate("B", "greedy1", "model", False, [1000.0, 2000.0, 3000.0], 8000.0),
            speed.Rate("B", "greedy1", "stock", False, [500.0, 500.0, 2000.0]),
            speed.Rate("B", "greedy1", "onnx int8", False, [5000.0, 10000.0, 12000.0]),
            speed.Rate("A", "train", "model", True, [1234.0], 2468.0),
            speed.Rate("A", "train", "gemm", False, [1e11, 3e11]),
            speed.Rate("A", "train_bfloat16", "gemm", False, [5e11]),
        ],
        latencies=[speed.Latency("B", "onnx int8", 1, 50, 0.5, 1.25)],
        starts=[speed.Start("B", "onnx int8", 3, 0.3, 0.25, 71.4)],
        memory=[speed.Memory("A", "train", False, 150.4)],
        positions=[
            speed.Position("B", "model", 100, 0.2, 1.0, 0.0),
            speed.Position("B", "model", 1000, 0.3, 1.02, 1.4),
        ],
        peers=[speed.Peer("B", "greedy1", False, "fast-noif", [1.5, 2.0, 2.5])],
    )


def test_tables_say_what_was_measured() -> None:
    caption, rates, rest = speed.tables(measured()).split("\n\n")
    assert "one thread, abacus, float32, torch 9.9, 2030-01-02" in caption and "quick run" in caption
    assert caption.endswith("The other toolkits: fast-noif.")
    assert "One large matrix product: 200 GFLOP/s in float32, 500 GFLOP/s in bfloat16." in caption
    assert rates.splitlines() == [
        "|  | A | of the floor | B | of the floor | / stock | / other |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| training step, input feeding | 1,234 | 50% |  |  |  |  |",
        "| greedy, 1 source |  |  | 2,000 | 25% | 2.00 | 2.00 |",
        # To the toolkit: five times our generate(), which is twice as fast.
        "| runtime, 8 bits: greedy, 1 source |  |  | 10,000 |  | 10.00 | 10.00 |",
    ]
    assert "| 0.50, 1.25 ms |" in rest and "| 0.30, 0.25 s; 71 MB |" in rest and "| 150 MB |" in rest
    assert "time of symbol 1,000 / symbol 100; memory since |  | 1.02; +1 MB |" in rest
    greedy = "| 2,000 [1,500-2,500] | 25% | 2.00 | 2.00 [1.75-2.25] |"
    assert greedy in speed.tables(measured(), with_quartiles=True)
    assert "quick run" not in speed.tables(replace(measured(), quick=False))


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / SPEED_FILE
    measured().write(path)
    again = speed.Speed.read(path)
    assert again == measured()
    assert results_table(path.parent) == "*No results yet.*"  # it is no recipe
    path.write_text('{"command": ""}')
    with pytest.raises(ValueError, match=rf"{SPEED_FILE}: must hold an object with the keys"):
        speed.Speed.read(path)


def test_the_command_line_writes_the_tables_and_takes_other_toolkits(tmp_path: Path) -> None:
    file, document = tmp_path / SPEED_FILE, tmp_path / "README.md"
    replace(measured(), peers=[]).write(file)
    document.write_text("<!-- speed:begin -->\n<!-- speed:end -->\n")
    with pytest.raises(SystemExit) as stale:
        speed.main([str(document), str(file), "--check"])
    assert stale.value.code == 1
    peers = peers_file(tmp_path / "p.json")
    speed.main([str(document), str(file), "--peers", str(peers)])
    speed.main([str(document), str(file), "--check"])
    assert speed.tables(speed.Speed.read(file)) in document.read_text()
    assert [peer.peer for peer in speed.Speed.read(file).peers] == ["fast-noif", "slow-if"]


def test_the_speed_page_shows_the_tables_of_the_results_file() -> None:
    speed.main([str(ROOT / "docs/speed.md"), str(ROOT / "scripts/results" / SPEED_FILE), "--check"])


def test_a_tiny_run_measures_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workload.SHAPES, "B", TINY)
    monkeypatch.setattr(benchmark, "_QUICK_POSITIONS", (60, 200))
    monkeypatch.setattr(benchmark, "_MOST_REPEATS", 1)
    script = runpy.run_path(str(ROOT / "scripts/benchmark/run.py"))
    parts = [part for part in benchmark.PARTS if part != "memory"]  # the next test
    results, picture = tmp_path / SPEED_FILE, tmp_path / "speed.png"
    options = ["--quick", "--models", "B", "--only", ",".join(parts)]
    found = script["main"]([*options, "--results", str(results), "--picture", str(picture)])
    assert speed.Speed.read(results) == found
    assert picture.read_bytes().startswith(b"\x89PNG")
    cells = {(rate.work, rate.engine, rate.input_feeding) for rate in found.rates}
    assert {(work, "model", feeding) for work in WORKS for feeding in (False, True)} < cells
    assert {("greedy1", engine, False) for engine in ("stock", "onnx", "onnx int8", "gemm", "weights")} < cells
    assert all(rate.floor for rate in found.rates if rate.engine == "model")
    assert {(entry.engine, entry.beams) for entry in found.latencies} == {
        (engine, beams) for engine in speed.ENGINES for beams in (1, 5)
    }
    assert all(entry.p50 <= entry.p99 for entry in found.latencies)
    assert [start.engine for start in found.starts] == ["onnx", "onnx int8"]
    assert {entry.position for entry in found.positions} == {60, 200}
    assert [entry.size for entry in found.batches] == [1, 8, 64]


@pytest.mark.slow  # two processes that load all from the start
def test_memory_of_a_piece_of_work_counts_what_it_makes() -> None:
    def taken(batch: int) -> Any:
        return latency.work_memory(replace(TINY, vocab_size=4000, train_batch=batch), WORKS["train"], False)

    few, many = taken(4), taken(4000)
    if few is None:  # only Linux tells
        assert many is None
    else:
        # The hidden states of 20,000 symbols, at the very least.
        assert many > few + 4000 * 5 * 8 * 4 / 2**20


@pytest.mark.parametrize("options", [["--only", "speed"], ["--models", "C"]])
def test_unknown_choices_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(ROOT / "scripts/benchmark/run.py"))
    with pytest.raises(SystemExit):
        script["main"](options)
    assert f"got '{options[1]}', wanted some of" in capsys.readouterr().err
