"""Runs of every kind of task that take a second, and the state of a folder: what tests of whole commands share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.task import Task
from hf_rnn_seq2seq.recipes.task_forecast import ForecastTask
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask, TokenClassificationTask
from hf_rnn_seq2seq.recipes.task_speak import SpeakTask
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.recipes.task_values import ValueTask


SIZES = {"rnn_type": "gru", "embedding_size": 8, "encoder_hidden_size": 8, "encoder_layers": 1}
DECODER = {"decoder_hidden_size": 8, "decoder_layers": 1}
TRAINING = {
    "max_steps": 4, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2,
    "per_device_train_batch_size": 8, "learning_rate": 0.01, "report_to": "none", "disable_tqdm": True, "seed": 3,
}  # fmt: skip
CARD = {"title": "A test", "language": "en", "task": "a task", "datasets": ["toy"]}
WORDS = ["ab", "bcd", "a", "dcba", "cc", "bad", "cab", "dada"]

TASKS: dict[str, type[Task]] = {
    "seq2seq": Seq2SeqTask,
    "tagging": TokenClassificationTask,
    "classification": SequenceClassificationTask,
    "speech": SpeechTask,
    "values": ValueTask,
    "forecast": ForecastTask,
    "speak": SpeakTask,
}
# The kinds as parameters of tests of which each takes a second.
KINDS = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("values", "forecast", "speak") else kind for kind in TASKS
]
CONTENTS: dict[str, dict[str, Any]] = {
    "seq2seq": {
        "data": {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        "model": {**SIZES, **DECODER},
        "training": TRAINING,
        "evaluation": {"metrics": ["exact_match"]},
        "card": CARD,
    },
    "tagging": {
        "data": {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
        "model": SIZES,
        "training": TRAINING,
        "evaluation": {"metrics": ["accuracy"]},
        "card": CARD,
    },
    "classification": {
        "data": {"train": "train_labels.tsv", "validation": "dev_labels.tsv", "test": "test_labels.tsv",
                 "text_column": 2, "label_column": 1},
        "model": SIZES,
        "training": TRAINING,
        "evaluation": {"metrics": ["accuracy"]},
        "card": CARD,
    },
    "speech": {
        "data": {"manifest": "manifest.tsv", "frames": "frames.npz", "validation": "dev"},
        "features": {"feature_type": "none", "frame_size": 4},
        "model": {**{name: size for name, size in SIZES.items()}, **DECODER},
        "training": TRAINING,
        "evaluation": {"metrics": ["cer"]},
        "card": CARD,
    },
    "values": {
        "data": {"train": "train_table.csv", "validation": "dev_table.csv", "test": "test_table.csv",
                 "id_column": "id", "feature_columns": ["load"], "value_columns": ["total"]},
        "model": SIZES,
        "training": TRAINING,
        "evaluation": {"metrics": ["mae"]},
        "card": CARD,
    },
    "forecast": {
        "data": {"file": "train_table.csv", "table": {"id_column": "id"}, "columns": ["load", "total"],
                 "look_back": 4, "horizon": 2, "validation": 3, "test": 3},
        "model": {**SIZES, **DECODER},
        "training": TRAINING,
        "evaluation": {"metrics": ["mae"]},
        "card": CARD,
    },
    "speak": {
        "data": {"toy": {"max_symbols": 3, "train": 32, "validation": 4, "test": 4}},
        "tokenizer": {"type": "character"},
        "model": {**SIZES, **DECODER},
        "training": TRAINING,
        "card": CARD,
    },
}  # fmt: skip


def content(kind: str, **changes: Any) -> dict[str, Any]:
    """The recipe of a kind with `section__key=value` changed."""
    changed: dict[str, Any] = json.loads(json.dumps(CONTENTS[kind]))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        changed.setdefault(section, {})[key] = value
    return changed


def write_data(folder: Path) -> None:
    """The files that the recipes of all kinds name."""
    manifest, frames, offsets = ["id\ttranscript\tsplit"], [], [0]
    generator = np.random.default_rng(0)
    for split, number in (("train", 32), ("dev", 8), ("test", 8)):
        loads = generator.integers(1, 9, (number // 4, 12))
        table = [f"{row},{load},{total}" for row, one in enumerate(loads) for load, total in zip(one, one.cumsum())]
        (folder / f"{split}_table.csv").write_text("".join(line + "\n" for line in ("id,load,total", *table)))
        words = [WORDS[item % len(WORDS)] for item in range(number)]
        lines = {
            f"{split}.tsv": [f"{word}\t{word[::-1]}" for word in words],
            f"{split}.jsonl": [
                json.dumps({"tokens": ["the", word], "tags": ["O", "B-X" if "a" in word else "O"]}) for word in words
            ],
            f"{split}_labels.tsv": [f"{'yes' if 'a' in word else 'no'}\tis {word}" for word in words],
        }
        for name, text in lines.items():
            (folder / name).write_text("".join(line + "\n" for line in text))
        for word in words:
            manifest.append(f"{len(manifest)}\t{word}\t{split}")
            frames.append(generator.standard_normal((2 * len(word) + 1, 4)).astype(np.float32))
            offsets.append(offsets[-1] + len(frames[-1]))
    (folder / "manifest.tsv").write_text("".join(line + "\n" for line in manifest))
    np.savez(folder / "frames.npz", feats=np.concatenate(frames), offsets=np.array(offsets))


def run(kind: str, data_dir: Path, *options: str | Path, **changes: Any) -> dict[str, float]:
    """The script of a kind, with the recipe `<kind>.yaml` that is written beside the data."""
    recipe = data_dir / f"{kind}.yaml"
    recipe.write_text(write_yaml(content(kind, **changes)))
    return main(TASKS[kind], None, [str(recipe), "--data_dir", str(data_dir), *map(str, options)])


class Runs(dict[str, Path]):
    """Finished runs by their kinds, each made when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], Path], data_dir: Path, with_results: bool = False) -> None:
        self.make_folder, self.data_dir, self.with_results = make_folder, data_dir, with_results

    def __missing__(self, kind: str) -> Path:
        folder = self[kind] = self.make_folder(kind) / "out"
        results = ["--results", folder / "results.json"] if self.with_results else []
        run(kind, self.data_dir, "--output_dir", folder, *results)
        return folder


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
