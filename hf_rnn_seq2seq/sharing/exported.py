"""The folder of an export: what it may take the place of, and the preprocessing that goes into it.

`export.py` writes the files; a folder of an earlier export stays whole until they are all there. Needs onnxruntime, as
`runtime.py` does; must not be imported by the model files.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from ..data.outputs import check_output_folder, remove
from ..data.preprocessing import PREPROCESSING_FILE, Preprocessing
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER
from . import runtime


# What an export writes.
FILES = (
    *(runtime.ENCODER, runtime.DECODER_STEP, runtime.RUNTIME_CONFIG, runtime.GENERATION_CONFIG, runtime.COPIED_AS),
    *("tokenizer.json", TARGET_TOKENIZER_FOLDER),
)


def check_export_folder(output_dir: Path, overwrite: bool) -> None:
    """Refuse a folder in which something else than an earlier export would be lost.

    Args:
        output_dir: the folder to write.
        overwrite: replace the files of an earlier export.

    Raises:
        FileExistsError: it holds a model, or other files of the same names; or an earlier export, and `overwrite` is
            not set.
    """
    check_output_folder(output_dir, "output_dir")
    there = [name for name in FILES if (output_dir / name).exists()]
    if there and not (output_dir / runtime.RUNTIME_CONFIG).is_file():
        raise FileExistsError(
            f"output_dir: {output_dir} is no export, and holds {', '.join(there)}, as an export does: wanted another "
            "folder"
        )
    if there and not overwrite:
        raise FileExistsError(
            f"output_dir: {output_dir} holds an earlier export: give --overwrite to replace it, or name another folder"
        )


def place_export(written: str | Path, output_dir: Path) -> None:
    """Move the files of a finished export to where an earlier one may be."""
    output_dir.mkdir(exist_ok=True)
    for name in FILES:
        new, old = Path(written) / name, output_dir / name
        if old.is_dir() or (old.exists() and not new.exists()):
            remove(old)
        if new.exists():
            new.replace(old)


def write_settings(
    output_dir: str | Path,
    model_dir: Path,
    generation: dict[str, Any],
    preprocessing: Preprocessing,
    **settings: Any,
) -> None:
    """Write all files of an export but the graphs.

    Args:
        output_dir: an existing folder.
        model_dir: the model's folder, which may have tokenizers.
        generation: the model's search.
        preprocessing: what is done to its sources.
        **settings: what else the runtime has to know.
    """
    output_dir = Path(output_dir)
    candidates = ("tokenizer.json", f"{TARGET_TOKENIZER_FOLDER}/tokenizer.json")
    tokenizers = [name for name in candidates if (model_dir / name).is_file()]
    for name in tokenizers:
        (output_dir / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(model_dir / name, output_dir / name)
    _write_json(output_dir / runtime.GENERATION_CONFIG, generation)
    _write_json(
        output_dir / runtime.RUNTIME_CONFIG,
        {
            "format": runtime.FORMAT,
            **settings,
            "source_tokenizer": tokenizers[0] if tokenizers else None,
            "target_tokenizer": tokenizers[-1] if tokenizers else None,
            "split_special_tokens": _splits_special_tokens(model_dir),
            **dataclasses.asdict(preprocessing),
        },
    )
    shutil.copyfile(runtime.__file__, output_dir / runtime.COPIED_AS)


def exported_preprocessing(model_dir: Path, reverse_source: bool | None) -> Preprocessing:
    """What a model's folder says of its preprocessing, or the caller of `export` where it does not.

    Raises:
        ValueError: the two contradict each other.
    """
    saved = Preprocessing.load(model_dir)
    if saved is None or reverse_source in (None, saved.reverse_source):
        return saved or Preprocessing(reverse_source=bool(reverse_source))
    if (model_dir / PREPROCESSING_FILE).is_file():
        raise ValueError(
            f"reverse_source: got {reverse_source}, but {model_dir / PREPROCESSING_FILE} says {saved.reverse_source}, "
            "and that is how the model was trained; leave it out"
        )
    return dataclasses.replace(saved, reverse_source=bool(reverse_source))


def _splits_special_tokens(model_dir: Path) -> bool:
    """Whether "</s>" in a text is text; plain tokenizers take it for the end of the sequence."""
    file = model_dir / "tokenizer_config.json"
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")).get("split_special_tokens", False))


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
