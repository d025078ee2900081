"""Exported folders of one ONNX graph, its settings and a copy of the runtime that runs it.

The runtime is a file that says the names in `GRAPH`, `CONFIG` and `COPIED_AS`, and the `FORMAT` that it reads.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..data.outputs import check_output_folder, remove, write_json


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
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f"{output_dir.name}.") as name:
        folder = Path(name)
        write_graph(folder / runtime.GRAPH)
        write_json(folder / runtime.CONFIG, {"format": runtime.FORMAT, **settings})
        shutil.copyfile(str(runtime.__file__), folder / runtime.COPIED_AS)
        output_dir.mkdir(exist_ok=True)
        for file in _files(runtime):
            if (output_dir / file).exists():
                remove(output_dir / file)
            (folder / file).replace(output_dir / file)


def _files(runtime: ModuleType) -> tuple[str, ...]:
    return runtime.GRAPH, runtime.CONFIG, runtime.COPIED_AS
