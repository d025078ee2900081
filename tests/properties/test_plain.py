"""The book alone: without its appendix a recipe gives the same numbers, and what a user changes in it is what runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hf_rnn_seq2seq
from hf_rnn_seq2seq.model.fast import ACCELERATIONS, is_on, may_look, plain


PACKAGE = Path(hf_rnn_seq2seq.__file__).parent
# What a random draw decides is drawn in another order where fewer steps are made: no dropout.
RECIPE = """
data:
  dataset_name: toy:reverse
  toy: {{symbols: 4, min_length: 2, max_length: 5, train: 200, validation: 20, test: 20}}
tokenizer: {{target: {{type: character}}}}
model: {{rnn_type: {cell}, embedding_size: 24, encoder_hidden_size: 16, decoder_hidden_size: 16, encoder_layers: 1,
         decoder_layers: 1, attention_type: {attention}, input_feeding: {feeding}}}
training: {{num_train_epochs: 3, max_tokens: 200, learning_rate: 0.02, report_to: none, disable_tqdm: true, seed: 5}}
generation: {{num_beams: 2}}
evaluation: {{metrics: [exact_match, cer, perplexity], best_metric: loss}}
"""
RUN = """
import json, sys
from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
print(json.dumps(main(Seq2SeqTask, None, sys.argv[1:])))
"""


def run_program(program: str, *arguments: Any, root: Path = PACKAGE.parent, switched_off: str = "") -> list[str]:
    """Run a program in a process of its own with the package under `root`; return the lines that it prints."""
    environment = {**os.environ, "HF_RNN_SEQ2SEQ_PLAIN": switched_off, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def copied(folder: Path, edits: dict[str, tuple[str, str]]) -> Path:
    """Copy the package with an edit (a pattern and what takes its place) of some files of the model."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (pattern, replacement) in edits.items():
        file = folder / PACKAGE.name / "model" / name
        text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), flags=re.S)
        assert count == 1, name
        file.write_text(text, encoding="utf-8")
    return folder


def without_appendix(folder: Path) -> Path:
    """Copy the package; every public function of the appendix says "not here", by returning None."""
    copied(folder, {})
    for file in (folder / PACKAGE.name / "model").glob("fast_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file.name == "fast_switch.py":  # it decides, and computes nothing
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                node.body = [ast.Return(ast.Constant(None))]
        file.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("cell", "attention", "feeding"),
    [("lstm", "general", "true"), ("gru", "additive", "false"), ("lstm", "hard_monotonic", "false")],
    ids=["lstm", "gru", "hard_monotonic"],
)
def test_a_recipe_gives_the_same_metrics_without_the_appendix(
    cell: str, attention: str, feeding: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(cell=cell, attention=attention, feeding=feeding), encoding="utf-8")
    metrics = {
        name: json.loads(run_program(RUN, recipe, "--output_dir", tmp_path / name, **how)[-1])
        for name, how in {
            "fast": {},
            "plain": {"switched_off": "1"},
            "cut": {"root": without_appendix(tmp_path / "copy")},
        }.items()
    }
    assert metrics["fast"]
    for name in ("plain", "cut"):
        assert metrics[name] == pytest.approx(metrics["fast"], rel=1e-3, abs=1e-4)
        files = [(tmp_path / where / "predictions_test.tsv").read_text().splitlines() for where in ("fast", name)]
        rows = [[line.split("\t") for line in file] for file in files]  # the metrics tell how far scores are apart
        assert [row[:2] + row[3:] for row in rows[0]] == [row[:2] + row[3:] for row in rows[1]]


EDITED = """
import torch
from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
config = RnnSeq2SeqConfig(vocab_size=12, embedding_size=6, encoder_hidden_size=8, decoder_hidden_size=8,
    readout_type="tanh", readout_size=8, input_feeding={feeding}, eos_token_id=None, decoder_start_token_id=2)
model = RnnSeq2SeqForConditionalGeneration(config)
seen = []
model.model.decoder.readout.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
ids = torch.randint(4, 12, (3, 5))
encoded = model.get_encoder()(ids)
assert bool((encoded.last_hidden_state == 0.5).all()), "encoder"
model.train()(input_ids=ids, labels=ids).loss.backward()
model.eval().generate(ids, max_new_tokens=4, do_sample=False)
model.model.decoder.readout._forward_hooks.clear()
greedy = model.generate(ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True)
beams = model.generate(ids, max_new_tokens=4, num_beams=3, do_sample=False)
for inputs in seen:
    assert bool((inputs[..., :8] == 7).all()) and bool((inputs[..., 8:] == 0.5).all()), "decoder"
always = model.lm_head(model.model.decoder.readout(torch.tensor([7.0] * 8 + [0.5] * 8)).tanh())
for logits in greedy.logits:
    torch.testing.assert_close(logits, always.expand_as(logits))
assert bool((greedy.sequences[:, 1:] == always.argmax()).all()) and beams.shape == (3, 5)
print("edited")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_user_edits_is_what_runs_everywhere(tmp_path: Path) -> None:
    # Whatever goes in, h is 0.5 and c_t is 7.
    edits = {
        "recurrence.py": (r"return o\.sigmoid\(\) \* c\.tanh\(\), c\n", "return 0 * o + 0.5, c\n"),
        "attention.py": (
            r"return weights\.to\(memory\.dtype\) @ memory, weights",
            "return 0 * (weights @ memory) + 7, weights",
        ),
    }
    root = copied(tmp_path, edits)
    for feeding in (True, False):
        program = EDITED.replace("{feeding}", str(feeding))
        assert run_program(program, root=root, switched_off="1") == ["edited"]


@pytest.mark.fast_path
def test_accelerations_are_switched_off_by_name() -> None:
    with plain("lookup"):
        assert not is_on("lookup") and is_on("packed")
        assert not may_look(by="lookup") and may_look(by="packed") and may_look()
        with plain("packed"):
            assert not is_on("lookup") and not is_on("packed")
        assert is_on("packed")
    assert all(map(is_on, ACCELERATIONS))
    with plain(*ACCELERATIONS):
        assert not may_look()
    with pytest.raises(ValueError, match=r"plain\(\) knows fused, packed, .*; got speed"), plain("speed"):
        pass


def test_a_process_switches_some_of_them_off() -> None:
    names = "from hf_rnn_seq2seq.model.fast import ACCELERATIONS as names, is_on"
    program = f"{names}; print(*[name for name in names if not is_on(name)])"
    assert run_program(program, switched_off="lookup,search") == ["lookup search"]
    assert run_program(program, switched_off="1") == [" ".join(ACCELERATIONS)]


def test_each_acceleration_names_its_plain_twin() -> None:
    """A twin of the book is there; the others are torch's or transformers' own."""
    for name, acceleration in ACCELERATIONS.items():
        module, _, path = acceleration.twin.partition(" ")[0].partition(".")
        if (PACKAGE / "model" / f"{module}.py").exists():
            found: Any = __import__(f"hf_rnn_seq2seq.model.{module}", fromlist=["*"])
            for part in path.split("."):
                found = getattr(found, part)
            assert callable(found), name
