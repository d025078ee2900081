"""What README and docs/ promise: their snippets and commands run and print what is said, links lead somewhere.

A page is run block by block, in order, in one folder: code fences with a title are written as files, `python` and
`bash` are run, and a `text` fence behind one of them is what it prints (`...` for anything). Commands of `sh` fences
are not run: they take hours, other machines or a network; their programs, options and recipes are looked up.
"""

from __future__ import annotations

import argparse
import doctest
import html.parser
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from accelerate.commands.launch import launch_command_parser
from test_house import DOORS
from torch.distributed.run import get_args_parser

import hf_rnn_seq2seq
from hf_rnn_seq2seq.recipes import command_line


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
RECIPES_PAGE = ROOT / "scripts/recipes/README.md"
PROGRAMS = Path(sys.executable).parent  # where the command of this environment is
_FENCE = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A code fence of a page."""

    language: str
    options: str
    code: str
    place: str  # page and line, for messages

    @property
    def title(self) -> str | None:
        found = re.search(r'title="([^"]+)"', self.options)
        return found and found[1]

    @property
    def commands(self) -> list[str]:
        lines = [line.strip() for line in self.code.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    return [
        Block(
            fence["language"], fence["options"], fence["code"], f"{name}:{text.count(chr(10), 0, fence.start()) + 1}"
        )
        for fence in _FENCE.finditer(text)
        if "source=" not in fence["options"]  # of the package's own files: filled in where the site is built
    ]


# ---- Running a page ---------------------------------------------------------------------------------------------

DRIVER = """
import json, os, subprocess, sys
namespace = {"__name__": "__main__"}
for kind, name, code in json.load(open(sys.argv[1], encoding="utf-8")):
    print("\\x1e", flush=True)
    if kind == "python":
        exec(compile(code, name, "exec"), namespace)
    elif kind == "bash":
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    else:
        with open(name, "x", encoding="utf-8") as file:
            file.write(code)
"""
# A training cut short: what a page says of the results is then not so, but all else is.
SHORT = """
hf-rnn-seq2seq() {
  local cut=()
  if [ "$1" = run ]; then cut=(--set training.max_steps=2 training.num_train_epochs=1 training.warmup_steps=0); fi
  command hf-rnn-seq2seq "$@" "${cut[@]}"
}
"""
RUN = {
    name: path for name, path in PAGES.items() if any(block.language in ("bash", "python") for block in blocks(path))
}
TRAINED = {name for name, path in RUN.items() if any("hf-rnn-seq2seq run" in block.code for block in blocks(path))}


def outputs(path: Path, folder: Path, short: bool) -> Iterator[tuple[Block, str, str]]:
    """Run a page; yield each block with what it should print and what it printed."""
    steps, wanted = [], {}
    for block in blocks(path):
        if block.title is not None:
            steps.append((block, ("file", block.title, block.code)))
        elif block.language in ("python", "bash"):
            code = SHORT + block.code if short and block.language == "bash" else block.code
            steps.append((block, (block.language, block.place, code)))
        elif block.language == "text" and steps:
            wanted[len(steps) - 1] = block.code
    program = folder / "page.json"
    program.write_text(json.dumps([step for _, step in steps]), encoding="utf-8")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", DRIVER, str(program)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    printed = done.stdout.split("\x1e\n")[1:]
    for number, (block, _) in enumerate(steps):
        yield block, wanted.get(number, ""), printed[number]


def is_as_said(wanted: str, printed: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return not wanted or doctest.OutputChecker().check_output(wanted, printed, flags)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUN)
def test_what_a_page_says_runs(name: str, tmp_path: Path) -> None:
    cut_short = False
    for block, wanted, printed in outputs(PAGES[name], tmp_path, short=True):
        cut_short = cut_short or "hf-rnn-seq2seq run" in block.code
        assert cut_short or is_as_said(wanted, printed), f"{block.place} printed:\n{printed}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRAINED)
def test_what_a_page_says_of_its_results_is_so(name: str, tmp_path: Path) -> None:
    for block, wanted, printed in outputs(PAGES[name], tmp_path, short=False):
        assert is_as_said(wanted, printed), f"{block.place} printed:\n{printed}"


def test_the_readme_fits_on_a_screen_and_its_snippet_in_twenty_lines() -> None:
    (snippet,) = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert len([line for line in snippet.code.splitlines() if line.strip()]) <= 24
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 100


# ---- Commands that are not run ----------------------------------------------------------------------------------

LOOKED_UP = [
    pytest.param(command, id=f"{block.place} {command.split()[0]}{number}")
    for path in [*PAGES.values(), RECIPES_PAGE]
    for block in blocks(path)
    if block.language == "sh" or (block.language == "bash" and (path == RECIPES_PAGE or block.title is not None))
    for number, command in enumerate(block.commands)
    if block.title is None or command.startswith("srun ")  # of a program for SLURM
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


class Parsed(Exception):
    """The options were accepted."""


@pytest.mark.parametrize("command", LOOKED_UP)
def test_a_command_is_accepted(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "docs").symlink_to(DOCS)
    for recipe in (ROOT / "scripts/recipes").glob("*.yaml"):
        (tmp_path / recipe.name).symlink_to(recipe)
    monkeypatch.chdir(tmp_path)
    # What a shell would put in for a variable is a number here, of a task or of machines.
    words = [re.sub(r"\$\w+", "1", word) for word in shlex.split(command, comments=True)]
    while words[0] == "srun" or re.match(r"[A-Z0-9_]+=", words[0]):  # or a variable of the environment
        words.pop(0)
    if words[0] == "torchrun":
        arguments = get_args_parser().parse_args(words[1:])
        program = [] if arguments.no_python else ["python"]
        words = [*program, arguments.training_script, *arguments.training_script_args]
    elif words[:2] == ["accelerate", "launch"]:
        arguments = launch_command_parser().parse_args(words[2:])
        words = ["python", arguments.training_script, *arguments.training_script_args]
    if words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[([\w,]+)\]", command)
        assert set(",".join(extras).split(",")) <= {*EXTRAS, ""}
    elif words[0] == "bash":
        assert Path(words[1]).is_file()
    elif words[0] == "sbatch":
        assert words[1] in {block.title for path in PAGES.values() for block in blocks(path)}
    else:
        accepted_by_its_program(words, monkeypatch)


def accepted_by_its_program(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the options as the program does; a recipe is read and checked too."""
    runs_a_recipe = words[1] == ("run" if words[0] == "hf-rnn-seq2seq" else "scripts/run.py")
    parse = argparse.ArgumentParser.parse_args

    def stop(*args: Any, **kwargs: Any) -> Any:
        raise Parsed

    def parse_and_stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        options = parse(parser, *args, **kwargs)
        return options if runs_a_recipe or parser.prog == command_line.PROGRAM else stop()

    monkeypatch.setattr("hf_rnn_seq2seq.recipes.command.run_recipe", stop)
    if words[:2] == ["hf-rnn-seq2seq", "recipes"]:
        command_line.main(words[1:])
        return
    for method in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(f"argparse.ArgumentParser.{method}", parse_and_stop)
    with pytest.raises(Parsed):
        if words[0] == "hf-rnn-seq2seq":
            command_line.main(words[1:])
        else:
            assert words[0] == "python" and words[1].startswith("scripts/"), f"a program that no test knows: {words}"
            monkeypatch.setattr("sys.argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")


@pytest.mark.parametrize("name", PAGES)
def test_programs_for_the_shell_are_well_formed(name: str) -> None:
    for block in blocks(PAGES[name]):
        if block.language in ("bash", "sh"):
            done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.place}: {done.stderr}"


def test_the_recipes_page_names_all_recipes() -> None:
    text = RECIPES_PAGE.read_text(encoding="utf-8")
    assert not [path.stem for path in RECIPES_PAGE.parent.glob("*.yaml") if f"`{path.stem}`" not in text]


# ---- Links and the site -----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that a code host makes of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES.values(), RECIPES_PAGE], ids=str)
def test_links_and_pictures_of_a_page_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


class Site(NamedTuple):
    """The built site: what was said, and its pages by their path."""

    log: str
    folder: Path
    pages: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    # A network that cannot be reached: the site is built without.
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, **closed, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    pages = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    return Site(done.stderr, folder, pages)


class References(html.parser.HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.links |= {given["href"]} if "href" in given else set()
        elif tag != "link" or given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads |= {given[name] for name in ("src", "href") if name in given}


def test_the_site_is_built_without_warnings_and_reads_nothing_from_a_network(site: Site) -> None:
    assert "WARNING" not in site.log
    assert {"index.html", "model.html", "results.html", "source/scripts/recipes/index.html"} <= site.pages.keys()
    for page, text in site.pages.items():
        loads = [name for name in References(text).loads if re.match(r"(https?:)?//", name)]
        assert not loads, f"{page}: {loads}"
        assert "arithmatex" not in text and "{source=" not in text, page
    assert site.pages["model.html"].count("<math") > 30
    assert "c = f.sigmoid() * c" in re.sub(r"<[^>]+>", "", site.pages["model.html"])
    stylesheets = [path.read_text(encoding="utf-8") for path in site.folder.rglob("*.css")]
    assert not [text for text in stylesheets if re.search(r"url\([\"']?(https?:)?//", text)]


def test_links_within_the_site_lead_somewhere(site: Site) -> None:
    references = {page: References(text) for page, text in site.pages.items()}
    for page, found in references.items():
        for link in found.links | found.loads:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", path) or page == "404.html":
                continue
            target = (site.folder / page).parent / unquote(path) if path else site.folder / page
            assert target.is_file(), f"{page}: {link}"
            name = os.path.relpath(target.resolve(), site.folder.resolve())
            if anchor and name in references:
                assert unquote(anchor) in references[name].anchors, f"{page}: {link}"


def test_every_public_name_has_its_reference(site: Site) -> None:
    for room, names in DOORS.items():
        anchors_of_room = References(site.pages[f"api/{room}.html"]).anchors
        missing = [name for name in names.split() if not [a for a in anchors_of_room if a.endswith(f".{name}")]]
        assert not missing, f"docs/api/{room}.md"
    top = References(site.pages["api/models.html"]).anchors
    assert not [name for name in hf_rnn_seq2seq.__all__ if not [a for a in top if a.endswith(f".{name}")]]


def test_lines_of_the_source_are_found_by_name_or_refused() -> None:
    fence = runpy.run_path(str(ROOT / "scripts/docs/hooks.py"))["source_fence"]
    path = "hf_rnn_seq2seq/model/attention.py"
    shown = fence(path, "Attention.keys")
    assert shown.splitlines()[1].startswith("def keys(") and f'title="{path}, lines' in shown
    cut = fence(path, "Attention.forward", "if self.attention_type ==", "scores = query @")
    assert cut.splitlines()[1] == 'if self.attention_type == "additive":' and "def forward" not in cut
    with pytest.raises(ValueError, match=r"attention\.py does not define Attention\.nothing"):
        fence(path, "Attention.nothing")
    with pytest.raises(ValueError, match="no line of Attention has the text 'nothing of it'"):
        fence(path, "Attention", "nothing of it")


# ---- Numbers and the quickstart ---------------------------------------------------------------------------------


def test_the_results_table_is_that_of_the_results_files() -> None:
    command = ["scripts/benchmark/results_table.py", "docs/results.md", "scripts/results", "--check"]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


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
