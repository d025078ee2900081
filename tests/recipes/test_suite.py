"""Suites: every combination is a run of its own, finished runs are not done again, and the sums are right."""

import copy
import statistics
from pathlib import Path
from typing import Any

import pytest

from hf_rnn_seq2seq.recipes.options import OptionsError
from hf_rnn_seq2seq.recipes.suite import Run, expand, run_suite
from hf_rnn_seq2seq.sharing.results import read_results, write_results


CONTENT: dict[str, Any] = {
    "data": {"train": "{language}.tsv", "test": {"a": ["{language}_test.tsv", "x"]}, "header": None},
    "model": {"encoder_layers": "{layers}"},
    "training": {"learning_rate": 0.1},
    "runs": {"seeds": [3, 4], "for": {"language": ["bul", "dut"], "layers": [1]}},
}


def content(**runs: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONTENT), "runs": runs}


def test_every_combination_is_a_run() -> None:
    before = copy.deepcopy(CONTENT)
    runs = expand(CONTENT)
    assert before == CONTENT
    names = ["bul_layers1_seed3", "bul_layers1_seed4", "dut_layers1_seed3", "dut_layers1_seed4"]
    assert [run.name for run in runs] == names
    assert runs[3] == Run(
        "dut_layers1_seed4",
        {"language": "dut", "layers": 1, "seed": 4},
        {
            "data": {"train": "dut.tsv", "test": {"a": ["dut_test.tsv", "x"]}, "header": None},
            # The text was nothing but the placeholder, so the number stays one.
            "model": {"encoder_layers": 1},
            "training": {"learning_rate": 0.1, "seed": 4},
        },
    )


def test_a_value_may_need_other_settings() -> None:
    particular = {
        "dut": {"training": {"max_steps": 9}, "data": {"header": "{language}"}},
        "seed4": {"model": {"size": 1}},
    }
    runs = expand({**CONTENT, "runs": {**CONTENT["runs"], "with": particular}})
    plain = expand(CONTENT)
    assert runs[0] == plain[0]
    assert runs[1].content == {**plain[1].content, "model": {"encoder_layers": 1, "size": 1}}
    assert runs[2].content["training"] == {"learning_rate": 0.1, "max_steps": 9, "seed": 3}
    assert runs[2].content["data"] == {**plain[2].content["data"], "header": "dut"}


def test_seeds_alone_need_no_section_training() -> None:
    runs = expand({"data": {}, "runs": {"seeds": [1, 2]}})
    assert [run.name for run in runs] == ["seed1", "seed2"]
    assert [run.content for run in runs] == [
        {"data": {}, "training": {"seed": 1}},
        {"data": {}, "training": {"seed": 2}},
    ]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, r"runs: wanted seeds: \[1, 2\] or for: "),
        ({"seeds": []}, r"runs: wanted seeds: "),
        ({"for": {"language": []}}, r"runs\.for\.language: got \[\], wanted one or more different values"),
        ({"seeds": [1, 1]}, r"runs\.seeds: got \[1, 1\], wanted one or more different values"),
        ({"seed": [1], "seeds": [1]}, r"runs\.seed: unknown key; did you mean 'seeds'\?"),
        ({"seeds": ["a"]}, r"runs\.seeds: wanted a list, each a whole number"),
        ({"for": {"seed": [1]}}, r"runs\.for: got the variable 'seed'"),
        ({"for": {"a b": [1]}}, r"runs\.for: got the variable 'a b'"),
        ({"for": {"country": ["x"]}}, r"runs\.for\.country: no text of the recipe mentions \{country\}"),
        ({"for": {"language": ["../x"]}}, r"runs\.for\.language: got '\.\./x', wanted a number or a name"),
        ({"seeds": [1], "with": {"sed1": {}}}, r"runs\.with\.sed1: no run has this value; did you mean 'seed1'\?"),
        ({"seeds": [1], "with": {"seed1": {"training": 3}}}, r"runs\.with: wanted a mapping"),
        ({"for": {"language": [["x"]]}}, r"runs\.for\.language: got \['x'\], wanted a number or a name"),
    ],
)
def test_bad_sections_are_refused(runs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=f"^{message}"):
        expand(content(**runs))


def test_a_seed_beside_seeds_is_refused() -> None:
    recipe = content(seeds=[1])
    recipe["training"]["seed"] = 5
    with pytest.raises(OptionsError, match=r"^training\.seed: leave it out, runs\.seeds gives"):
        expand(recipe)


class Runner:
    """Pretends to train: a run's numbers follow from its values. Fails at the run called `fails_at`."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.done: list[str] = []
        self.fails_at = fails_at

    def __call__(self, run: Run, folder: Path, results: Path) -> None:
        assert folder.is_dir() and results.parent == folder and not results.exists()
        if run.name == self.fails_at:
            raise KeyboardInterrupt
        self.done.append(run.name)
        write_results(
            results,
            recipe="x",
            command=["python"],
            seeds=[run.content["training"].get("seed", 42)],
            metrics=wer(run) | ({"only_bul": 1.0} if run.values["language"] == "bul" else {}),
            parameters=100 + len(self.done),
            training_seconds=10.0,
            details={"signature": "v1", "weights": run.name},
        )


def wer(run: Run) -> dict[str, float]:
    value = {"bul": 10.0, "dut": 20.0}[str(run.values["language"])] + int(run.values.get("seed", 0)) ** 2
    return {"wer": value, "validation_wer": value + 1}


def test_the_sums_are_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = Runner()
    recipe = content(seeds=[1, 2, 3], **{"for": {"language": ["bul", "dut"]}})
    with caplog.at_level("INFO"):
        metrics = run_suite(recipe, "x", runner, tmp_path, results=tmp_path / "x.json", command=["python", "x"])
    assert runner.done == ["bul_seed1", "bul_seed2", "bul_seed3", "dut_seed1", "dut_seed2", "dut_seed3"]
    assert "run 2 of 6: language=bul, seed=2" in caplog.text
    squares = statistics.fmean([1, 4, 9])
    assert metrics == pytest.approx(
        {
            "wer": 15 + squares,
            "wer_std": statistics.stdev([16, 19, 24]),
            "validation_wer": 16 + squares,
            "validation_wer_std": statistics.stdev([16, 19, 24]),
            "bul_wer": 10 + squares,
            "dut_wer": 20 + squares,
        }
    )
    results = read_results(tmp_path / "x.json")
    assert (results.recipe, results.seeds, results.parameters, results.training_seconds) == ("x", [1, 2, 3], 106, 60.0)
    assert results.metrics == metrics
    assert results.details["signature"] == "v1" and "weights" not in results.details
    assert results.details["bul_seed2"] == "wer 14.00, validation_wer 15.00, only_bul 1.00"


def test_without_seeds_there_is_no_spread(tmp_path: Path) -> None:
    recipe = content(**{"for": {"language": ["bul", "dut"]}})
    metrics = run_suite(recipe, "x", Runner(), tmp_path)
    assert metrics == {"wer": 15.0, "validation_wer": 16.0, "bul_wer": 10.0, "dut_wer": 20.0}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["bul", "dut"]


def test_finished_runs_are_not_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = content(seeds=[1, 2], **{"for": {"language": ["bul", "dut"]}})
    wanted = run_suite(recipe, "x", Runner(), tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run_suite(recipe, "x", Runner(fails_at="dut_seed1"), broken)
    with pytest.raises(FileExistsError, match=r"bul_seed1 holds an earlier run: give --resume to go on"):
        run_suite(recipe, "x", Runner(), broken)
    second = Runner()
    with caplog.at_level("INFO"):
        assert run_suite(recipe, "x", second, broken, resume=True) == wanted
    assert second.done == ["dut_seed1", "dut_seed2"]
    assert "run 1 of 4: language=bul, seed=1 was finished before" in caplog.text
    # Another recipe's runs are not taken for this one's.
    recipe["training"]["learning_rate"] = 0.2
    with pytest.raises(OptionsError, match=r"--resume: the run in .*bul_seed1 has another recipe"):
        run_suite(recipe, "x", Runner(), broken, resume=True)
    third = Runner()
    run_suite(recipe, "x", third, broken, overwrite=True)
    assert len(third.done) == 4


def test_only_the_first_of_several_processes_sums_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    calls = []
    recipe = content(seeds=[1, 2], **{"for": {"language": ["bul"]}})
    assert run_suite(recipe, "x", lambda *run: calls.append(run), tmp_path / "out", results=tmp_path / "x.json") == {}
    assert len(calls) == 2 and not (tmp_path / "x.json").exists() and not (tmp_path / "out").exists()
