"""Evaluations that the tests of several kinds of task share."""

from pathlib import Path

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task import Task
from hf_rnn_seq2seq.sharing.results import read_results
from hf_rnn_seq2seq.training.checkpoints import checkpoints_of


def check_that_several_models_are_evaluated(task: type[Task], run: Path, data_dir: Path, folder: Path) -> None:
    """The checkpoints in `run`/out as an ensemble, and their mean; `tiny.yaml` and `tiny.json` lie beside."""
    folders = checkpoints_of(run / "out")
    assert len(folders) >= 2
    for number, more in enumerate(([], ["--average"])):
        output = folder / str(number)
        options = ["--data_dir", data_dir, "--output_dir", output, "--eval_only", *folders, *more]
        got = main(task, None, [str(option) for option in (run / "tiny.yaml", *options)])
        assert got.keys() == read_results(run / "tiny.json").metrics.keys() and got["accuracy"] > 50
        assert (output / "model.safetensors").exists() == bool(more)
