"""One call that publishes a model: the repository gets what its users need, its card and results included, no more.

Of a run's folder go weights, settings, tokenizers, the card with its pictures, and those code files that the settings
name or these import; not checkpoints, logs, predictions or the state of the training. The folder of an export goes as
it is. Nothing is sent before all is known to be there.
"""

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import transformers
import yaml
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    EvalResultEntry,
    HfApi,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import DataError, read_json, read_text, sentence
from ..data.preprocessing import Preprocessing
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER
from ..evaluation.reranker import RERANKER_FOLDER
from ..evaluation.saved_model import load_model, saved_classes
from . import runtime, runtime_series, runtime_values
from .card import KINDS, create_model_card
from .exported_folder import MANIFEST


CARD_FILE = "README.md"
# What a training leaves beside a model; of folders, all but the target's tokenizer stay too.
NOT_SHARED = (
    *("training_args.bin", "training_report.json", "trainer_state.json", "checksums.json", "run.yaml"),
    *("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "predictions_*", "events.out.*"),
    *(".*", "*.lock", "*.log", "*.tmp"),
)
# Files of a model: those that an earlier push left go where this one has none of the name.
_REPLACED = ("*.safetensors", "pytorch_model*.bin", "*.json", "*.py", "*.onnx")
_EXPORTS = {
    runtime.RUNTIME_CONFIG: (runtime.COPIED_AS, "RnnSeq2SeqRuntime"),
    runtime_values.CONFIG: (runtime_values.COPIED_AS, "RnnValuesRuntime"),
    runtime_series.CONFIG: (runtime_series.COPIED_AS, "RnnSeriesRuntime"),
}
# Where a card's snippet says which model.
_MODEL_ID = r"^model_id = .*?(?=  # the id on the Hub, or a folder$)"
_EXPORT_CARD = """---
library_name: onnx
tags: [rnn, onnx, hf_rnn_seq2seq]
---

# {title}

A model exported by `hf_rnn_seq2seq`. It runs with `onnxruntime`, `tokenizers` and `numpy` alone:

```python
import sys

from huggingface_hub import snapshot_download

model_id = ""  # the id on the Hub, or a folder
folder = snapshot_download(model_id)
sys.path.insert(0, folder)
from {module} import {name}

runtime = {name}.from_pretrained(folder)
```
"""


def push_to_hub(
    folder_or_model: str | Path | PreTrainedModel,
    repo_id: str,
    processor: Any = None,
    *,
    card: Mapping[str, Any] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> CommitInfo:
    """Upload a model with all that belongs to it as one commit; the repository is made if it is not there.

    The card is the folder's `README.md`, with the repository's name in its snippet; where there is none, one is
    written of what is known. Its results on test data go into `.eval_results/` too, if its `datasets` name one of the
    Hub. Model files of an earlier push that this model has not are deleted.

    Args:
        folder_or_model (`str`, `Path` or `PreTrainedModel`): a run's folder or what `save_pretrained` wrote, with all
            that lies beside the model; an exported folder; or a model.
        repo_id (`str`): "user/name".
        processor (*optional*): of a model that is no folder: what reads its inputs and writes its outputs, a
            `RnnSeq2SeqProcessor` or one tokenizer.
        card (`Mapping[str, Any]`, *optional*): fields of [`create_model_card`] for a model without a `README.md`.
        private (`bool`, *optional*): of a new repository; None: as the Hub's user has it.
        revision (`str`, *optional*): the branch, made from the main one if it is not there.
        commit_message (`str`, *optional*): what the history says.
        create_pr (`bool`, *optional*): open a pull request in place of a commit to the branch.
        token (`str` or `bool`, *optional*): None: that of `hf auth login` or `HF_TOKEN`.

    Returns:
        `CommitInfo`: with `commit_url`, `oid` and, of a pull request, `pr_url`.

    Raises:
        TypeError: what is neither a folder nor a model.
        FileNotFoundError: the folder holds no model, or a file that it needs is missing.
        ValueError: an argument that cannot be used.
        OSError: the Hub refuses.
    """
    validate_repo_id(repo_id)
    with ExitStack() as stack:
        if isinstance(folder_or_model, PreTrainedModel):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for part in (folder_or_model, processor):
                if part is not None:
                    part.save_pretrained(folder)
        elif not isinstance(folder_or_model, (str, Path)):
            got = type(folder_or_model).__name__
            raise TypeError(f"folder_or_model: got {got}, wanted a folder or a model of transformers")
        elif processor is not None:
            raise ValueError(f"processor: got one, but {folder_or_model} is a folder and has its own; leave it out")
        else:
            folder = Path(folder_or_model)
        files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in shared_files(folder)}
        has_card = CARD_FILE in files
        if has_card and card is not None:
            raise ValueError(
                f"card: got fields, but {folder / CARD_FILE} is there; leave them out, or change the file"
            )
        text = _card(folder, repo_id.rpartition("/")[2], card)
        files |= _eval_results(text)

        api = HfApi(token=token, library_name="hf_rnn_seq2seq")
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # now with the user's name
        if revision is not None and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        if has_card or card is not None or CARD_FILE not in there:  # else somebody's own says more than is known here
            model_id = f"model_id = {json.dumps(repo_id)}"
            files[CARD_FILE] = re.sub(_MODEL_ID, lambda _: model_id, text, flags=re.MULTILINE).encode()
        stale = [path for path in there if path not in files and _is_one_of(path, _REPLACED)]
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name, is_folder=False) for name in stale),
            ],
            commit_message=commit_message or "Upload model",
            revision=revision,
            create_pr=create_pr,
        )


def shared_files(folder: Path) -> list[Path]:
    """Return what is published of a saved model's folder, or of an exported one.

    Raises:
        FileNotFoundError: it holds no model, or lacks something that the model needs.
    """
    exported = _export_of(folder)
    kept = {TARGET_TOKENIZER_FOLDER, RERANKER_FOLDER}
    if exported is None:
        kept |= _code(folder)
        _check_whole(folder)
    else:
        kept |= {exported[0], *read_json(folder / MANIFEST)}
    card = folder / CARD_FILE
    linked = re.findall(r"\]\(([^():#]+)\)", read_text(card)) if card.is_file() else []
    files = {path for name in linked if (path := folder / name).is_file() and folder in path.parents}
    for path in folder.iterdir():
        wanted = path.name in kept or not (path.is_dir() or path.suffix == ".py")
        if wanted and not _is_one_of(path.name, NOT_SHARED):
            files |= {path} if path.is_file() else {part for part in path.rglob("*") if part.is_file()}
    return sorted(files)


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _export_of(folder: Path) -> tuple[str, str] | None:
    """Return the file and the class of an exported folder's runtime; None if it is no export."""
    return next((code for config, code in _EXPORTS.items() if (folder / config).is_file()), None)


def _code(folder: Path) -> set[str]:
    """Return the names of the code files that a folder's settings name, and of those which they import."""
    needed: dict[str, str] = {}  # file -> what asks for it
    for settings in sorted(folder.glob("*.json")):
        content = None if _is_one_of(settings.name, NOT_SHARED) else read_json(settings)
        if isinstance(content, dict):
            needed |= {f"{module}.py": settings.name for module in _modules(content)}
    waiting = list(needed)
    while waiting:
        name = waiting.pop()
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} lacks {name}, which {needed[name]} needs")
        new = {f"{module}.py": name for module in get_relative_imports(folder / name)}
        waiting += new.keys() - needed.keys()
        needed = {**new, **needed}
    return set(needed)


def _modules(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules of classes that `auto_map` and `custom_pipelines` name; not those of other repositories."""
    named = [*(settings.get("auto_map") or {}).values()]
    named += [entry.get("impl") for entry in (settings.get("custom_pipelines") or {}).values()]
    for entry in named:
        for name in [entry] if isinstance(entry, str) else entry or ():
            if name is not None and "--" not in name:
                yield name.rpartition(".")[0]


def _check_whole(folder: Path) -> None:
    """Refuse a folder that lacks weights, or what reads a model's inputs and writes its outputs."""
    kind = _kind(folder)
    if not any(any(folder.glob(pattern)) for pattern in _REPLACED[:2]):
        raise FileNotFoundError(
            f"{folder} holds no weights (model.safetensors): it is not the folder of a saved model"
        )
    needed = {"feature extractor": [FEATURE_EXTRACTOR_NAME]} if kind == "speech_seq2seq" else {}
    reads_text = read_json(folder / "config.json").get("input_feature_size") is None
    if kind != "forecast" and (reads_text or not kind.endswith("classification")):
        needed["tokenizer"] = ["tokenizer.json", "tokenizer_config.json"]
    for what, names in needed.items():
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(
                f"processor: {folder} holds no {what} ({names[0]}), wanted one, since the model needs it; "
                "model.push_to_hub uploads a model alone"
            )


def _kind(folder: Path) -> str:
    saved = saved_classes(folder)
    if len(saved) != 1 or saved[0] not in KINDS:
        raise DataError(f"{folder / 'config.json'}: architectures: got {saved}, wanted one of {', '.join(KINDS)}")
    return KINDS[saved[0]][0]


def _card(folder: Path, title: str, fields: Mapping[str, Any] | None) -> str:
    """Return the card of a folder: its file, or one of what is known and of `fields`."""
    exported = _export_of(folder)
    if (folder / CARD_FILE).is_file():
        return read_text(folder / CARD_FILE)
    if exported is not None:
        module, name = exported
        return _EXPORT_CARD.format(title=title, module=module.removesuffix(".py"), name=name)
    _, auto_class, task = KINDS[saved_classes(folder)[0]]
    written = Preprocessing.load(folder) or Preprocessing()
    known: dict[str, Any] = {
        "title": title,
        "language": "und",  # ISO 639 for one that is not determined
        "task": task.replace("-", " "),
        "datasets": [],
        "metrics": {},
        "recipe": None,
        "training_summary": "Not described.",
        "license": "unknown",
        **dataclasses.asdict(written),
    }
    extractor = read_json(folder / FEATURE_EXTRACTOR_NAME) if (folder / FEATURE_EXTRACTOR_NAME).is_file() else {}
    if extractor.get("feature_type", "none") != "none":
        known["sampling_rate"] = extractor["sampling_rate"]
    return create_model_card(load_model(getattr(transformers, auto_class), folder), **{**known, **(fields or {})})


def _eval_results(card: str) -> dict[str, bytes]:
    """Return the Hub's file of results, name -> content: those of a card that were measured on test data.

    https://huggingface.co/docs/hub/eval-results asks for a data set of the Hub: of a card that names none there is no
    file. The metric stands as the id of the task, which the data set's leaderboard may call otherwise.
    """
    data = cast(ModelCardData, ModelCard(card, ignore_metadata_errors=True).data)
    measured = [result for result in data.eval_results or [] if result.dataset_split != "validation"]
    if not measured or not data.datasets:
        return {}
    dataset = [data.datasets] if isinstance(data.datasets, str) else data.datasets
    entries = []
    for result in measured:
        split, metric = result.dataset_split or "test", result.metric_type
        task = metric if split == "test" else f"{split}_{metric}"
        notes = f"{result.metric_name or metric}, {split}"
        entries.append(EvalResultEntry(dataset[0], task, result.metric_value, notes=notes))
    name = dataset[0].replace("/", "_")
    content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    return {f".eval_results/{name}.yaml": content.encode()}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model_dir", help="a run's folder, what save_pretrained wrote, or what export wrote")
    parser.add_argument("repo_id", help="USER/NAME; made if it is not there")
    parser.add_argument("--private", action="store_true", default=None, help="a new repository that others do not see")
    parser.add_argument("--revision", help="the branch (default: main)")
    parser.add_argument("--commit_message", help="what the history says")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request, do not commit")
    args = vars(parser.parse_args(arguments))
    try:
        commit = push_to_hub(args.pop("model_dir"), args.pop("repo_id"), **args)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {sentence(error)}")
    sys.stdout.write(f"{commit.pr_url or commit.commit_url}\n")
