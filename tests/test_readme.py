"""The README's promises: its snippet prints what its comment says, its commands work, its links lead somewhere."""

from __future__ import annotations

import gzip
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_snippet_trains_and_translates(tmp_path: Path) -> None:
    (snippet,) = blocks("python")
    code = [line for line in snippet.splitlines() if line.strip()]
    assert len(code) <= 24, "the README promises about twenty lines"
    (tmp_path / "snippet.py").write_text(snippet, encoding="utf-8")
    assert run([sys.executable, "snippet.py"], tmp_path).splitlines()[-1] == "fedcba"
    assert (tmp_path / "runs/reverse/model/model.safetensors").is_file()


def test_every_command_is_one_that_a_test_runs() -> None:
    known = (
        "bash scripts/quickstart.sh",  # test_the_quickstart_command, slow
        "bash scripts/test.sh",  # this test run itself
        "pip install .",  # scripts/setup_venv.sh does it; test_package.py checks what it needs
        'pip install ".[train,metrics]"',
        'pip install ".[audio]"',
        'pip install ".[export]"',
        "python scripts/run.py",  # below
        "python scripts/predict.py",
        "python scripts/export.py",
        "python exported/rnn_seq2seq_runtime.py",
        "hf-rnn-seq2seq serve exported",  # tests/sharing/test_server.py
        "hf-rnn-seq2seq demo runs/g2p_cmudict",  # tests/sharing/test_demo_page.py, slow
        "torchrun --nproc_per_node 2 scripts/run.py",
    )
    unknown = [command for command in commands() if not command.startswith(known)]
    assert not unknown


@pytest.fixture(scope="module")
def g2p_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of words in the layout of the G2P recipes' data."""
    folder = tmp_path_factory.mktemp("g2p")
    words = {"ENCODER": "EH N K OW D ER", "DECODER": "D IY K OW D ER", "CODE": "K OW D", "DEED": "D IY D"}
    text = "".join(f"{word}\t{phones}\n" for word, phones in words.items())
    for split in ("train", "dev", "test"):
        with gzip.open(folder / f"{split}.tsv.gz", "wt", encoding="utf-8") as handle:
            handle.write(text)
    return folder


SMALLER = [
    *("--set", "training.max_steps=2", "training.num_train_epochs=1", "training.warmup_steps=0"),
    *("training.bf16=false", "model.encoder_hidden_size=16", "model.decoder_hidden_size=16"),
]


def test_recipe_commands_train_and_predict(tmp_path: Path, g2p_folder: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    trained = False
    for command in commands():
        words = [str(g2p_folder) if word == "DIR" else word for word in shlex.split(command)]
        words = [word.replace("scripts/results", "results") for word in words]
        if words[:2] == ["python", "scripts/run.py"]:
            extra = SMALLER + ([] if "toy" in words[2] else ["data.drop_validation_overlap=false"])
            run([sys.executable, *words[1:], *extra], tmp_path)
            trained = trained or "g2p" in words[2]
        elif words[:2] == ["python", "scripts/predict.py"]:
            assert trained, "predict.py comes after the training of its model"
            printed = run([sys.executable, *words[1:]], tmp_path)
            assert printed.count("\n") >= 6  # two words, three pronunciations each
            assert (tmp_path / "attention.png").is_file()
        elif words[0] == "python":
            assert run([sys.executable, *words[1:]], tmp_path)
    assert (tmp_path / "results/g2p_cmudict.json").is_file()


def test_commands_of_the_recipes_folder_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "scripts/recipes/README.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, flags=re.S) for line in block.splitlines()]
    names = {path.stem for path in (ROOT / "scripts/recipes").glob("*.yaml")}
    assert not [name for name in names if f"`{name}`" not in text]
    monkeypatch.chdir(ROOT)
    seen: list[str] = []
    # The recipe is read and checked by the script's own task; only the run itself is left out.
    monkeypatch.setattr(
        "hf_rnn_seq2seq.recipes.command.run_recipe", lambda task, *_, **__: seen.append(task.recipe.name) or {}
    )
    predicted: list[list[str]] = []
    monkeypatch.setattr(
        "hf_rnn_seq2seq.recipes.predict.start_processes", lambda: predicted.append(sys.argv) or sys.exit(0)
    )
    for line in lines:
        words = shlex.split(line, comments=True)
        program = next(number for number, word in enumerate(words) if word.startswith("scripts/"))
        if words[0] == "torchrun":
            get_args_parser().parse_args(words[1:])
        elif words[0] == "accelerate":
            launch_command_parser().parse_args(words[2:])
        monkeypatch.setattr("sys.argv", words[program:])
        if words[program] == "scripts/predict.py":
            with pytest.raises(SystemExit, match="0"):
                runpy.run_path(words[program], run_name="__main__")
        else:
            runpy.run_path(words[program], run_name="__main__")
    assert len(seen) + len(predicted) == len(lines) >= 10


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert targets
    assert not missing


def test_the_results_table_is_that_of_the_results_files() -> None:
    run([sys.executable, "scripts/benchmark/results_table.py", "README.md", "scripts/results", "--check"], ROOT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quickstart_command() -> None:
    done = subprocess.run(
        ["bash", "scripts/quickstart.sh", "tensor"], cwd=ROOT, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"^tensor\s+-?\d+\.\d+\s+\w", done.stdout, flags=re.M)
    wer = float(re.search(r"^wer = (\S+)", done.stdout, flags=re.M)[1])
    assert wer < 40
    for name in ("model.safetensors", "README.md", "attention.png"):
        assert (ROOT / "runs/quickstart" / name).is_file()
