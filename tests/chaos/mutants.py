"""Mutants: small changes of the model's code, each of which the tests of its module should notice.

    python tests/chaos/mutants.py [--number 90] [--seed 0] [--modules loss attention]

A mutant is one changed operator, comparison, number or truth value, drawn from all of the modules below. It is made
in a copy of the tree, and the tests run in a fork that has torch loaded, up to the first failure. First the tests of
each module must pass without one; a mutant that takes ten times as long hangs, and counts as killed. Prints each
mutant, and `N of M killed`. Survivors may be equal to the original (a size that only saves memory): a person looks at
them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers


ROOT = Path(__file__).parents[2]
# Module -> the tests of it, the quickest first.
TESTS = {
    "model/attention.py": "model/test_attention.py model/test_alignments.py model/test_modeling.py",
    "model/bridge.py": "model/test_bridge.py model/test_modeling.py properties/test_papers.py",
    "model/state.py": "model/test_state.py model/test_modeling.py model/test_generation.py",
    "model/recurrence.py": "model/test_recurrence.py model/test_packed.py model/test_modeling.py",
    "model/loss.py": "model/test_loss.py model/test_copying.py model/test_copy_slots.py",
    "model/fast_loss.py": "model/test_loss.py model/test_copy_slots.py model/test_fast_training.py",
    "model/copying.py": "model/test_copying.py model/test_copy_slots.py model/test_loss.py",
    "model/generation_rnn_seq2seq.py": "model/test_generation.py model/test_generation_edges.py",
    "model/fast_search.py": "model/test_fast_generation.py model/test_origin.py model/test_generation.py",
    "model/fast_beams.py": "model/test_fast_beams.py model/test_fast_generation.py",
    "training/checkpoints.py": "training/test_checkpoints.py",
}
SECONDS = 3600  # of the tests of a module without a mutant
_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult, ast.MatMult: ast.Add,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield what can be changed in a module, and where: not messages, annotations and what is done in an error."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.AnnAssign):
            yield from sites(ast.Module([ast.Expr(node.value)] if node.value else [], []))
            continue
        if isinstance(node, ast.arguments):
            yield from sites(
                ast.Module([ast.Expr(one) for one in (*node.defaults, *filter(None, node.kw_defaults))], [])
            )
            continue
        if isinstance(node, ast.FunctionDef):
            node = copy.copy(node)
            node.returns = None  # the same statements, without the annotation
        place = f"{getattr(node, 'lineno', 0)}:{getattr(node, 'col_offset', 0)}"
        if (
            (isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _SWAPS)
            or isinstance(node, ast.Compare | ast.BoolOp | ast.IfExp | ast.If)
            or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert))
            or (isinstance(node, ast.Constant) and isinstance(node.value, int | float))
        ):
            yield node, place
        yield from sites(node)


def mutate(node: ast.AST) -> None:
    """Change a node in place."""
    if isinstance(node, ast.Compare):
        node.ops[0] = _SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        node.op = _SWAPS[type(node.op)]()
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if not isinstance(node.op, ast.Not) else node.op
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    ast.fix_missing_locations(node)


def mutants(module: str) -> Iterator[tuple[str, str, int]]:
    """Yield each mutant of a module: its name, the module, and its number there."""
    tree = ast.parse((ROOT / "hf_rnn_seq2seq" / module).read_text(encoding="utf-8"))
    for number, (_, place) in enumerate(sites(tree)):
        yield f"{Path(module).name}:{place}", module, number


def made(module: str, number: int) -> tuple[str, str]:
    """Return the old and the new line of a mutant, and its text."""
    tree = ast.parse((ROOT / "hf_rnn_seq2seq" / module).read_text(encoding="utf-8"))
    node = list(sites(tree))[number][0]
    before = ast.unparse(node)
    mutate(node)
    shown = f"{before.splitlines()[0][:60]}  ->  {ast.unparse(node).splitlines()[0][:60]}"
    return shown, ast.unparse(ast.fix_missing_locations(tree))


def outcome(tree: Path, module: str, text: str, log: Path, seconds: float) -> str:
    """Run the tests of a module with another text in its place: "SURVIVES", "killed", or "hangs" after `seconds`."""
    file = tree / "hf_rnn_seq2seq" / module
    original = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("wb") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.chdir(tree)
        sys.path[:0] = [str(tree)]
        sys.dont_write_bytecode = True
        names = [f"tests/{name}" for name in TESTS[module].split()]
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not chaos", *names]))
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "SURVIVES" if os.waitstatus_to_exitcode(status) == 0 else "killed"
            time.sleep(0.1)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "hangs"
    finally:
        file.write_text(original, encoding="utf-8")


def limits_of(tree: Path, modules: set[str], log: Path) -> dict[str, float]:
    """Return how long a mutant of each module may take; SystemExit if the tests fail without one."""
    limits = {}
    for module in sorted(modules):
        start = time.monotonic()
        found = outcome(tree, module, (tree / "hf_rnn_seq2seq" / module).read_text(encoding="utf-8"), log, SECONDS)
        if found != "SURVIVES":
            said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"{module}: the tests fail without a mutant ({found}):\n{said}")
        limits[module] = 60 + 10 * (time.monotonic() - start)
        print(f"unchanged {module}: {limits[module] / 10 - 6:.0f} s", flush=True)
    return limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", help="names such as loss; default: all")
    parser.add_argument("--only", nargs="+", default=[], help="mutants by their names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    modules = [module for module in TESTS if not args.modules or Path(module).stem in args.modules]
    drawn = [mutant for module in modules for mutant in mutants(module)]
    random.Random(args.seed).shuffle(drawn)
    drawn = [one for one in drawn if one[0] in args.only] if args.only else drawn[: args.number]
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for folder in ("hf_rnn_seq2seq", "tests", "scripts"):
            shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, tree / file)
        log = tree / "log.txt"
        limits = limits_of(tree, {module for _, module, _ in drawn}, log)
        for place, module, number in drawn:
            shown, text = made(module, number)
            start = time.monotonic()
            word = outcome(tree, module, text, log, limits[module])
            found[word] += 1
            print(f"{word:8} {place:28} {time.monotonic() - start:5.0f} s  {shown}", flush=True)
    killed = found["killed"] + found["hangs"]
    hang = f" ({found['hangs']} hang)" if found["hangs"] else ""
    print(f"{killed} of {len(drawn)} killed{hang} by their modules' tests (transformers {transformers.__version__})")


if __name__ == "__main__":
    main()
