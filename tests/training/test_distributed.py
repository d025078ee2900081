"""Two processes (gloo) under torchrun: the losses of one with the double batch; a file shared, killed, gone on with.

What of this needs no second process is in test_batches.py and test_parts.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny import LIVELY, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.training.checkpoints import checkpoints_of


SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

CONTENT: dict[str, Any] = {
    "data": {"train": "train.tsv"},
    "tokenizer": {"source": {"type": "word"}, "target": {"type": "word"}},
    "model": {
        **{"embedding_size": 8, "encoder_hidden_size": 16, "decoder_hidden_size": 16},
        **{"encoder_layers": 1, "decoder_layers": 1, "embedding_dropout": 0.0, "hidden_dropout": 0.0},
    },
    "training": {
        **{"learning_rate": 0.003, "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "epoch", "seed": 3},
        **{"report_to": "none", "disable_tqdm": True},
    },
}


def script(name: str) -> str:
    return str(SCRIPTS / name)


def run(*arguments: str | Path, folder: Path) -> str:
    done = subprocess.run(list(map(str, arguments)), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def losses(launcher: list[str], folder: Path, name: str, **training: Any) -> list[float]:
    """The loss of every update of a run."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(write_yaml({**CONTENT, "training": {**CONTENT["training"], **training}}))
    run(*launcher, script("run_seq2seq.py"), recipe, "--data_dir", folder, "--output_dir", name, folder=folder)
    state = json.loads((checkpoints_of(folder / name)[-1] / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Pairs of 3, 4, 5 and 6 tokens, each of which a budget of 60 divides by: see test_batches.py."""
    generator = random.Random(0)
    lines = []
    for length in (3, 4, 5, 6):
        for _ in range(240 // length):
            words = generator.choices("abcdefgh", k=length - 1)
            # Targets are shorter than sources by up to two words, so that numbers of labels differ between processes.
            lines.append(f"{' '.join(words)}\t{' '.join(words[generator.randint(0, min(2, length - 2)) :])}\n")
    generator.shuffle(lines)
    (tmp_path / "train.tsv").write_text("".join(lines))
    return tmp_path


def test_two_processes_have_the_losses_of_one_with_the_double_budget(ragged: Path) -> None:
    two = losses(TORCHRUN, ragged, "two", max_tokens=60, num_train_epochs=4)
    one = losses([sys.executable], ragged, "one", max_tokens=120, num_train_epochs=4)
    assert len(one) == 32 and min(one) < 0.9 * one[0]
    assert two == pytest.approx(one, rel=1e-4)


def test_two_processes_have_the_losses_of_one_with_the_double_batch(ragged: Path) -> None:
    two = losses(TORCHRUN, ragged, "two", per_device_train_batch_size=6, num_train_epochs=2)
    one = losses([sys.executable], ragged, "one", per_device_train_batch_size=12, num_train_epochs=2)
    assert len(one) == 38 and min(one) < 0.9 * one[0]
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("sizes", [{"max_tokens": 60}, {"per_device_train_batch_size": 6}])
def test_two_processes_count_the_values_that_are_observed(sizes: dict[str, int], tmp_path: Path) -> None:
    """Series of 3, 4, 5 and 6 rows, a third of whose values are missing, unevenly between the processes."""
    generator, lines = random.Random(0), ["id,x,y"]
    for length in (3, 4, 5, 6):
        for number in range(240 // length):
            for _ in range(length):
                x = generator.uniform(-5, 5)
                lines.append(f"{length}.{number},{x},{'' if generator.random() < number / 60 else 3 * x}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    content: dict[str, Any] = {
        "task": "values",
        "data": {"train": "train.csv", "id_column": "id", "feature_columns": ["x"], "value_columns": ["y"]},
        "model": {"encoder_hidden_size": 8, "encoder_layers": 1},
        "training": {**CONTENT["training"], "num_train_epochs": 2},
    }
    found = []
    for name, launcher, factor in (("two", TORCHRUN, 1), ("one", [sys.executable], 2)):
        more = {option: factor * size for option, size in sizes.items()}
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(write_yaml({**content, "training": {**content["training"], **more}}))
        run(*launcher, script("run.py"), recipe, "--data_dir", tmp_path, "--output_dir", name, folder=tmp_path)
        state = json.loads((checkpoints_of(tmp_path / name)[-1] / "trainer_state.json").read_text())
        found.append([entry["loss"] for entry in state["log_history"] if "loss" in entry])
    assert len(found[1]) > 10 and min(found[1]) < 0.9 * found[1][0]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_file_is_shared_out_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    model = tiny_model("luong", dtype=torch.float32)
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    model.generation_config = GenerationConfig(**ids, **LIVELY, num_beams=3, max_new_tokens=8)
    model.save_pretrained(str(tmp_path / "model"))
    tiny_tokenizer().save_pretrained(str(tmp_path / "model"))
    generator = random.Random(0)
    texts = ["".join(generator.choices("abcdefgh", k=generator.randint(1, 12))) for _ in range(1601)]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
    command = [script("predict.py"), str(tmp_path / "model"), "--input_file", "in.txt"]
    command += ["--part_size", "4", "--scores", "--output_file"]

    killed = subprocess.Popen([*TORCHRUN, *command, "two.jsonl"], cwd=tmp_path)
    parts = tmp_path / "two.jsonl.parts"
    deadline = time.monotonic() + 600
    while len(list(parts.glob("*[0-9]"))) < 20:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        process.send_signal(signal.SIGKILL)
    killed.wait()
    finished = len(list(parts.glob("*[0-9]")))
    assert 20 <= finished < 401
    said = run(*TORCHRUN, *command, "two.jsonl", folder=tmp_path)
    assert f"{401 - finished} of 401 parts are to be done, by 2 processes" in said
    run(sys.executable, *command, "one.jsonl", folder=tmp_path)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert [json.loads(line)["source"] for line in (tmp_path / "one.jsonl").read_text().splitlines()] == texts
