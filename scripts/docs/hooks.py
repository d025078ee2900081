"""What the docs site takes from the repository when mkdocs builds it (mkdocs.yml): nothing is written twice.

- A link or picture of a page that leads out of docs/, as on a code host, leads to a page of the site with that file.
- An empty code fence with the options `source="hf_rnn_seq2seq/model/attention.py:Attention.forward"` is filled with
  those lines; `from="..."` and `to="..."` cut it to the lines from one that holds a text to one that holds another.
- `<!-- door: hf_rnn_seq2seq.data -->` becomes the reference of all that the room's `__init__.py` names.
- TeX becomes MathML, which browsers draw without a script.
"""

from __future__ import annotations

import ast
import html
import os
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parents[2]
PACKAGE = "hf_rnn_seq2seq"
SOURCE = "source"  # where files of the repository are in the site
_LINK = re.compile(r"(?<=\]\()(?P<path>[^()\s#:]+)(?=[#)])")
_FENCE = re.compile(
    r'^```python source="(?P<path>[^":]+):(?P<name>[\w.]+)"'
    r'(?: from="(?P<first>[^"]+)")?(?: to="(?P<last>[^"]+)")?\n```$',
    re.M,
)
_DOOR = re.compile(r"^<!-- door: (?P<module>[\w.]+) -->$", re.M)
_MATH = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.S)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml", ".json": "json"}
_PICTURES = {".png", ".svg"}


# ---- Files of the repository ------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what these files link to in their turn; also what only the navigation names."""
    docs = Path(config.docs_dir).relative_to(ROOT).as_posix()
    waiting = [(f"{docs}/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    named = re.findall(rf"{SOURCE}/([\w./]+)", str(config.nav))
    waiting += [(path, (ROOT / path).read_text(encoding="utf-8")) for path in named]
    seen = set(named)
    for path in named:
        files.append(_site_file(path, config))
    while waiting:
        origin, text = waiting.pop()
        for path in {match["path"] for match in _LINK.finditer(text)}:
            target = _outside(path, posixpath.dirname(origin), docs)
            if target is not None and target not in seen:
                seen.add(target)
                files.append(_site_file(target, config))
                if target.endswith(".md"):
                    waiting.append((target, (ROOT / target).read_text(encoding="utf-8")))
    return files


def _outside(path: str, folder: str, docs: str) -> str | None:
    """Return the file of the repository outside of docs/ that a path in a file of `folder` means, or None."""
    target = posixpath.normpath(posixpath.join(folder, path))
    return None if target.startswith(f"{docs}/") or not (ROOT / target).is_file() else target


def _site_name(target: str) -> str:
    """Return the name of a file of the repository in the site."""
    suffix = Path(target).suffix
    return f"{SOURCE}/{target}" if suffix in {".md", *_PICTURES} else f"{SOURCE}/{target}.md"


def _site_file(target: str, config: MkDocsConfig) -> File:
    """Return a picture or page as it is, and a page that shows any other file."""
    path = ROOT / target
    if path.suffix in {".md", *_PICTURES}:
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" else None
        if text is None:
            return File.generated(config, _site_name(target), abs_src_path=str(path))
        return File.generated(config, _site_name(target), content=re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S))
    language = _LANGUAGES.get(path.suffix, "text")
    page = f"# {target}\n\n``````{language}\n{path.read_text(encoding='utf-8')}\n``````\n"
    return File.generated(config, _site_name(target), content=f"---\nsearch:\n  exclude: true\n---\n{page}")


# ---- Pages ------------------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in source lines and references, and turn links to files of the repository to where these are."""
    docs = Path(config.docs_dir).relative_to(ROOT).as_posix()
    uri = page.file.src_uri
    inside = uri.removeprefix(f"{SOURCE}/")
    folder = posixpath.dirname(inside if inside != uri else f"{docs}/{uri}")

    def turned(match: re.Match[str]) -> str:
        target = _outside(match["path"], folder, docs)
        if target is None:
            if inside == uri:
                return match["path"]
            # From a file of the repository into docs/.
            path = posixpath.normpath(posixpath.join(folder, match["path"]))
            return os.path.relpath(path.removeprefix(f"{docs}/"), posixpath.dirname(uri))
        return os.path.relpath(_site_name(target), posixpath.dirname(uri))

    if inside != uri and not (ROOT / inside).is_file():
        return markdown  # the page of a program, whose name has .md behind it
    markdown = _LINK.sub(turned, markdown)
    markdown = _FENCE.sub(lambda match: source_fence(**match.groupdict()), markdown)
    return _DOOR.sub(lambda match: "\n\n".join(f"::: {name}" for name in door(match["module"])), markdown)


def source_fence(path: str, name: str, first: str | None = None, last: str | None = None) -> str:
    """Return a code fence with the lines that define a function, class, method or variable.

    Args:
        path: File of the repository.
        name: Of what is defined in it, dots between a class and its method.
        first: A text that occurs in the first line to show; `None`: where the definition begins.
        last: Likewise of the last line to show, the first one after that.

    Raises:
        ValueError: there is no such name, or no line with such a text.
    """
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    start, end = _span(path, name)
    if first is not None:
        start = _line_with(first, lines, start, end, path, name)
    if last is not None:
        end = _line_with(last, lines, start, end, path, name) + 1
    shown = lines[start:end]
    indent = min(len(line) - len(line.lstrip()) for line in shown if line.strip())
    code = "\n".join(line[indent:] for line in shown)
    return f'```python title="{path}, lines {start + 1} to {end}"\n{code}\n```'


def _line_with(text: str, lines: list[str], start: int, end: int, path: str, name: str) -> int:
    for number in range(start, end):
        if text in lines[number]:
            return number
    raise ValueError(f"{path}: no line of {name} has the text {text!r}")


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _span(path: str, name: str) -> tuple[int, int]:
    """Return the first line of a definition, counted from 0, and the one behind its last."""
    body: list[ast.stmt] = _tree(path).body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((node for node in body if part in _defined(node)), None)
        if found is None:
            raise ValueError(f"{path} does not define {name}")
        body = getattr(found, "body", [])
    assert found is not None
    decorators = [node.lineno for node in getattr(found, "decorator_list", [])]
    return min([found.lineno, *decorators]) - 1, found.end_lineno or found.lineno


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def door(module: str) -> list[str]:
    """Return the full names of what a package or room of it names in `__init__.py`, where they are defined."""
    path = f"{module.replace('.', '/')}/__init__.py"
    for node in ast.walk(_tree(path)):
        if (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "door"
        ):  # of data/doors.py
            files: dict[str, str] = ast.literal_eval(node.args[1])
            return [f"{module}.{file}.{name}" for file, names in files.items() for name in names.split()]
        if isinstance(node, ast.Assign) and "_PUBLIC" in _defined(node):
            return [f"{module}.{file}.{name}" for name, file in ast.literal_eval(node.value).items()]
    listed = next(node for node in _tree(path).body if isinstance(node, ast.Assign) and "__all__" in _defined(node))
    where = {
        alias.name: f"{module}.{node.module}.{alias.name}"
        for node in _tree(path).body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    return [where[name] for name in ast.literal_eval(listed.value)]


def on_page_content(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn TeX into MathML; a ValueError says which formula uses what the converter does not know."""

    def drawn(match: re.Match[str]) -> str:
        tex = html.unescape(match["tex"]).strip()
        drawing = convert(tex, display="block" if match["tag"] == "div" else "inline")
        if "<mi>&</mi>" in drawing or "\\" in drawing:
            raise ValueError(f"{page.file.src_uri}: cannot turn {tex!r} into MathML")
        return drawing

    return _MATH.sub(drawn, text)
