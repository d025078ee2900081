"""Exported folders: whole ones with a manifest and a copy of their runtime; those of one ONNX graph and its settings.

The runtime of these is a file that says the names in `GRAPH`, `CONFIG` and `COPIED_AS`, and the `FORMATS` it reads.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..data.files import read_text
from ..data.outputs import check_output_folder, replacing_folder, write_json, write_whole
from . import exported_folder


@contextmanager
def whole_export(output_dir: Path, runtime: ModuleType, names: Iterable[str]) -> Iterator[Path]:
    """Yield a folder to write files of these names to; with runtime and manifest it takes the place of `output_dir`.

    What else is in `output_dir` stays in it.
    """
    with replacing_folder(output_dir, {*names, exported_folder.MANIFEST}) as folder:
        yield folder
        write_whole(folder / runtime.COPIED_AS, _alone(runtime))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {path.relative_to(folder).as_posix(): exported_folder.entry_of(path.read_bytes()) for path in files}
        write_json(folder / exported_folder.MANIFEST, manifest)


def _alone(runtime: ModuleType) -> str:
    """Return the text of a runtime that needs no other file: what it imports of this package stands in it, once."""
    inlined: set[str] = set()

    def text_of(import_line: re.Match[str]) -> str:
        room, name = import_line.groups()
        if name in inlined:
            return ""
        inlined.add(name)
        file = Path(__file__).parents[1] / ("sharing" if room == "." else "model") / f"{name}.py"
        _, text = read_text(file).split('"""\n', 1)  # without its docstring
        text = text.replace("from __future__ import annotations\n", "", 1)
        return f"\n# ---- {name}.py\n{_IMPORT.sub(text_of, text)}\n# ----\n"

    return _IMPORT.sub(text_of, read_text(str(runtime.__file__)))


_IMPORT = re.compile(r"^from (\.|\.\.model\.)(\w+) import .*\n", re.MULTILINE)


def check_one_graph(output_dir: Path, runtime: ModuleType, quantize: str | None, overwrite: bool) -> None:
    """Refuse what would end a good folder.

    Raises:
        FileExistsError: `output_dir` holds something of these names, and it is no export, or `overwrite` is not set.
        ValueError: `quantize` is neither `"int8"` nor None.
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize must be 'int8' or None; got {quantize!r}")
    check_output_folder(output_dir, "output_dir")
    files = _files(runtime)
    there = [name for name in files if (output_dir / name).exists()]
    if there and (not overwrite or len(there) < len(files)):
        raise FileExistsError(
            f"output_dir: {output_dir} holds {', '.join(there)}: give --overwrite to replace an earlier export, or "
            "name another folder"
        )


def write_one_graph(
    output_dir: Path, runtime: ModuleType, settings: dict[str, Any], write_graph: Callable[[Path], None]
) -> None:
    """Write a folder; nothing in it changes before the export is whole.

    Args:
        output_dir: the folder, which `check_one_graph` has looked at.
        runtime: the module of the runtime.
        settings: what its settings file says beside the format.
        write_graph: writes the graph to this file.
    """
    with whole_export(output_dir, runtime, _files(runtime)) as folder:
        write_graph(folder / runtime.GRAPH)
        write_json(folder / runtime.CONFIG, {"format": runtime.FORMATS[-1], **settings})


def _files(runtime: ModuleType) -> tuple[str, ...]:
    return runtime.GRAPH, runtime.CONFIG, runtime.COPIED_AS
