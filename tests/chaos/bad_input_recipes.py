"""Bad input to `run`: recipes of every task with a wrong value, files that are none, options that do not go together.

    python tests/chaos/bad_input_recipes.py

A recipe is run where its data is not: what is wrong with it must be said before the data is looked for.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import pytest
import tiny_runs
from bad_input import Case, of_a_command, tried

from hf_rnn_seq2seq.recipes.command import main as run_recipe
from hf_rnn_seq2seq.recipes.options import write_yaml


TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "report_to": "none", "disable_tqdm": True}
SMALL = {"embedding_size": 8, "encoder_hidden_size": 8, "encoder_layers": 1}
DECODER = {"decoder_hidden_size": 8, "decoder_layers": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "seq2seq": {"task": "seq2seq", **tiny_runs.CONTENTS["seq2seq"]},
    "token_classification": {"task": "token_classification", **tiny_runs.CONTENTS["tagging"]},
    "sequence_classification": {"task": "sequence_classification", **tiny_runs.CONTENTS["classification"]},
    "speech": {"task": "speech", **tiny_runs.CONTENTS["speech"]},
    "speak": {
        "task": "speak",
        "data": {"manifest": "manifest.tsv", "audio": "wav", "validation": "dev"},
        "features": {"sampling_rate": 8000, "num_mel_bins": 16},
        "model": {**SMALL, **DECODER},
        "training": TRAINING,
    },
    "values": {
        "task": "values",
        "data": {"train": "v.csv", "test": "v.csv", "id_column": "machine", "feature_columns": ["load"],
                 "value_columns": ["total"]},
        "model": SMALL,
        "training": TRAINING,
        "evaluation": {"metrics": ["rmse"]},
    },
    "forecast": {
        "task": "forecast",
        "data": {"file": "waves.csv", "columns": ["up"], "look_back": 8, "horizon": 4, "test": 8},
        "model": {**SMALL, **DECODER},
        "training": TRAINING,
        "evaluation": {"metrics": ["mae"]},
    },
}  # fmt: skip
METRICS = {
    "seq2seq": ["seqeval", "mae", "crps", "phm"], "token_classification": ["bleu", "wer", "mae", "perplexity",
        "rouge"],
    "sequence_classification": ["bleu", "wer", "mae", "entity_f1", "cer"], "speech": ["mae", "crps", "seqeval"],
    "speak": ["mae", "rmse"], "values": ["bleu", "accuracy", "wer", "crps", "mase"],
    "forecast": ["bleu", "accuracy", "wer", "crps"],
}  # fmt: skip
NUMBERS = ("-1", ".nan", ".inf", "text", "[1]", "'1e-3'", "{a: 1}", "true")
COUNTS = ("-1", "0", "1.5", "text", "[1]", "'1'", ".nan")
SEEDS = ("-1", "1.5", "text", ".nan", "[1]", "99999999999999999999")
NAMES = ("sometimes", "3", "[x]", "''")
BAD_TRAINING: dict[str, tuple[str, ...]] = {
    "num_train_epochs": ("-1", "0", *NUMBERS), "max_steps": ("0", "-2", "1.5", "text"),
    "per_device_train_batch_size": COUNTS, "per_device_eval_batch_size": COUNTS, "gradient_accumulation_steps": COUNTS,
    "learning_rate": NUMBERS, "weight_decay": NUMBERS, "adam_beta1": ("-0.1", "1.0", "1.5", ".nan", "text"),
    "adam_beta2": ("-0.1", "1.0", "1.5", ".nan"), "adam_epsilon": ("-1", ".nan", "text"),
    "max_grad_norm": ("-1", ".nan", "text"), "warmup_steps": ("-1", ".nan", "text"),
        "logging_steps": COUNTS[:2] + COUNTS[3:],
    "eval_steps": COUNTS[:2] + COUNTS[3:], "save_steps": COUNTS[:2] + COUNTS[3:], "save_total_limit": COUNTS,
    "seed": SEEDS, "data_seed": SEEDS, "optim": NAMES, "lr_scheduler_type": NAMES, "eval_strategy": NAMES,
    "save_strategy": NAMES, "logging_strategy": NAMES, "dataloader_num_workers": ("-1", "1.5", "text"),
    "max_tokens": COUNTS, "early_stopping_patience": COUNTS, "average_checkpoints": ("-1", "1.5", "text"),
    "average_which": NAMES, "bf16": ("yes please", "1", "[true]"), "fp16": ("1", "text"), "eval_delay": ("-1", ".nan"),
    "eval_accumulation_steps": ("0", "-1"), "torch_empty_cache_steps": ("0", "-1"),
        "lr_scheduler_kwargs": ("{nonsense: 1}",),
    "neftune_noise_alpha": ("-1", ".nan"), "report_to": ("nowhere",), "metric_for_best_model": ("bleu",),
    "learning_rat": ("1",), "teacher_forcing": ("3", "{ratio: 2}", "{ratio: -1}", "{ratio: .nan}", "{schedule: x}",
                                                "{k: -1}", "{unit: word}", "{raito: 1}", "{minimum: 2}"),
    "label_smoothing_factor": ("0.1",), "gradient_checkpointing": ("often",), "optim_args": ("nonsense",),
    "dataloader_prefetch_factor": ("-1",), "group_by_length": ("true",), "logging_first_step": ("2",),
}  # fmt: skip
BAD_MODEL: dict[str, tuple[str, ...]] = {
    "rnn_type": NAMES, "embedding_size": COUNTS, "encoder_hidden_size": (*COUNTS, "7"), "encoder_layers": COUNTS,
    "embedding_dropout": ("-0.1", "1", "1.0", "1.5", ".nan", "text"), "hidden_dropout": ("-0.1", "1.0", "1.5", ".nan"),
    "recurrent_dropout": ("-0.1", "1.0", ".nan"), "vocab_size": ("10",), "embeding_size": ("8",),
    "preset": ("nobody1999", "3"), "label_smoothing": ("-0.1", "1.0", ".nan"), "init_std": ("-1", ".nan"),
    "bidirectional_encoder": ("perhaps", "1"), "init_scheme": NAMES, "layer_norm": ("2",), "pad_token_id": ("0",),
}  # fmt: skip
BAD_DECODER: dict[str, tuple[str, ...]] = {
    "decoder_hidden_size": COUNTS, "decoder_layers": COUNTS, "attention_type": NAMES, "bridge_type": NAMES,
    "context_feeding": NAMES, "context_vector": NAMES, "output_dropout": ("-0.1", "1.0", ".nan"),
    "coverage_loss_weight": ("-1", ".nan"), "readout_size": COUNTS, "attention_size": COUNTS,
}  # fmt: skip
BAD_GENERATION: dict[str, tuple[str, ...]] = {
    "num_beams": COUNTS, "max_new_tokens": COUNTS, "max_length": ("0", "-1", "text"), "min_length": ("-1", "text"),
    "length_penalty": (".nan", ".inf", "text"), "no_repeat_ngram_size": ("-1", "1.5", "text"),
    "num_return_sequences": ("0", "-1", "5"), "temperature": ("-1", ".nan", "text"), "top_k": ("-1", "1.5"),
    "top_p": ("-0.1", "1.1", ".nan"), "repetition_penalty": ("0", "-1", ".nan"), "early_stopping": ("sometimes", "3"),
    "eos_token_id": ("3",), "num_beam": ("3",), "do_sample": ("perhaps",), "suppress_tokens": ("[-1]",),
    "max_time": ("-1", ".nan"), "num_beam_groups": ("2",), "diversity_penalty": ("0.5",), "typical_p": ("1.5",),
}  # fmt: skip
BAD_EVALUATION: dict[str, tuple[str, ...]] = {
    "metrics": ("nonsense", "[nonsense]", "3", "{x: nonsense}", "[loss]", "{loss: exact_match}"),
    "best_metric": ("nonsense", "3"), "validation_samples": ("-1", "1.5", "text"), "batch_size": COUNTS,
    "splits": ("test", "3"), "metric": ("[x]",),
}  # fmt: skip
BAD_CARD: dict[str, tuple[str, ...]] = {
    "title": ("3", "[x]"),
    "language": ("3",),
    "titel": ("x",),
    "datasets": ("x", "3"),
}
EMPTY = ("3", "null", "''", "[]", "{}", "['']", "[null]")  # in the place of a path
FILES = {"train": EMPTY, "validation": EMPTY[:1] + EMPTY[2:], "test": EMPTY[:1] + EMPTY[2:]}
TOKENIZER: dict[str, tuple[str, ...]] = {
    "type": NAMES, "vocab_size": COUNTS, "min_frequency": COUNTS, "normalization": NAMES, "lowercase": ("perhaps",),
    "tpye": ("word",), "max_word_length": ("0", "-1"), "min_character_frequency": ("0",),
}  # fmt: skip
FEATURES: dict[str, tuple[str, ...]] = {
    "sampling_rate": COUNTS, "num_mel_bins": COUNTS, "frame_length": ("0", "-1", ".nan", "text", ".inf"),
    "frame_shift": ("0", "-1", ".nan", "text"), "low_frequency": ("-1", ".nan", "99999"), "preemphasis": ("1", "-1",
        ".nan"),
    "smapling_rate": ("8000",), "high_frequency": ("0", "99999", ".nan"),
}  # fmt: skip
BAD: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "seq2seq": {
        "data": {**FILES, "format": NAMES, "source_column": ("0", "-1", "1.5"), "header": ("2",),
                 "target_column": ("0",), "max_source_length": COUNTS, "max_target_length": COUNTS, "tran": ("x",),
                 "source_bpe_dropout": ("-1", "1", ".nan", "0.1"), "target_bpe_dropout": ("2",),
                     "max_train_samples": COUNTS,
                 "source_replacements": ("[[x]]", "[['(', x]]", "x"), "dataset_name": ("toy:nonsense", "3"),
                 "reverse_source": ("2",)},
        "tokenizer": {"source": ("3", *(f"{{{key}: {value}}}" for key, v in TOKENIZER.items() for value in v)),
                      "shared": ("2",), "targt": ("{}",)},
    },
    "token_classification": {
        "data": {**FILES, "tokens_column": ("0", "1.5"), "labels_column": ("0",), "format": NAMES,
                 "validation_fraction": ("-1", "1", ".nan", "0"), "unseen_labels": NAMES, "label_names": ("3", "[x]")},
        "tokenizer": {**TOKENIZER, "word_vectors": ("3",)}, "pretrained": {"encoder": ("3", "nowhere"),
            "encodr": ("x",)},
    },
    "sequence_classification": {
        "data": {**FILES, "text_column": ("0", "1.5"), "label_column": ("0",), "format": NAMES,
                 "validation_fraction": ("-1", "1", ".nan"), "header": ("2",)},
        "tokenizer": TOKENIZER, "pretrained": {"encoder": ("nowhere",)},
    },
    "speech": {
        "data": {"manifest": EMPTY, "frames": EMPTY, "validation": ("3",), "join": ("{min: 0}",
            "{max: 0}",
                 "{train: 0}", "{seed: -1}", "{min: 5, max: 2}", "3"), "holdout": ("{nonsense: 1}", "3")},
        "tokenizer": TOKENIZER,
        "features": {"feature_type": NAMES, "frame_size": ("0", "-1", "null"), "stack": COUNTS, "delta_order": ("3",
            "-1"),
                     "normalization": NAMES, "delta_window": COUNTS,
                     "spec_augment": ("3", "{time_masks: -1}", "{time_share: 2}", "{frequency_width: -1}", "{x: 1}",
                                      "{time_share: .nan}")},
        "generation": {"ctc_weight": ("-0.1", "1.1", ".nan", "text")},
    },
    "speak": {
        "data": {"manifest": EMPTY, "toy": ("{heights: 0}", "{lengths: -1}", "{train: 0}", "{seed: -1}", "3")},
        "tokenizer": TOKENIZER, "features": FEATURES, "listening": {"recognizer": ("3", "nowhere")},
        "model": {"reduction_factor": COUNTS, "speech_decoder_prenet_dropout": ("-1", "1.0", ".nan")},
    },
    "values": {
        "data": {**FILES, "target": NAMES, "window": COUNTS, "train_step": COUNTS, "rows": NAMES,
                 "feature_columns": ("load", "[3]", "[]", "[load, load]"), "value_columns": ("[]", "[load]"),
                 "validation_fraction": ("-1", "1", ".nan"), "validation_seed": ("-1",), "format": NAMES,
                 "countdown": ("{most: -1}", "{most: .nan}", "3"), "calendar_features": ("[nonsense]",),
                 "separator": ("''", "ab", "3")},
        "model": {"regression_loss": NAMES},
    },
    "forecast": {
        "data": {"file": EMPTY, "columns": ("[]", "[3]", "up", "[up, up]"), "look_back": COUNTS,
            "horizon": COUNTS,
                 "shortest_past": (*COUNTS, "99"), "train": COUNTS, "validation": ("-1", "1.5"), "test": ("-1", "1.5"),
                 "train_stride": COUNTS, "features": ("[3]", "x"), "table": ("3", "{format: x}",
                     "{calendar_features: [x]}"),
                 "toy": ("{series: 0}", "{noise: -1}", "{least_period: 0}", "{rows: 0}", "{seed: -1}",
                     "{noise: .nan}")},
        "forecast": {"season": (*COUNTS, "999"), "samples": COUNTS, "scores_in": NAMES, "standardise": ("2",),
            "x": ("1",)},
        "model": {"segment_length": COUNTS, "distribution_output": NAMES, "window_normalization": NAMES},
    },
}  # fmt: skip
DECODES = {"seq2seq", "speech", "speak", "forecast"}
SEARCHES = {"seq2seq", "speech"}


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else write_yaml(content))
    return path


def recipes(folder: Path | None = None) -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="bad_input_")) if folder is None else folder
    os.chdir(folder)
    for kind, content in RECIPES.items():
        path = written(folder, kind, content)
        tables = {
            "training": BAD_TRAINING, "model": {**BAD_MODEL, **(BAD_DECODER if kind in DECODES else {})},
            "evaluation": {**BAD_EVALUATION, "metrics": (*BAD_EVALUATION["metrics"],
                *(f"[{m}]" for m in METRICS[kind]))},
            "card": BAD_CARD, **({"generation": BAD_GENERATION} if kind in SEARCHES else {}),
        }  # fmt: skip
        for section, own in BAD[kind].items():
            tables[section] = {**tables.get(section, {}), **own}
        for section, table in tables.items():
            for key, values in table.items():
                if key == "label_smoothing" and kind == "speak":
                    continue
                for value in values:
                    change = f"{section}.{key}={value}"
                    # What a mapping holds is named by its own key.
                    words = (
                        f"{section}.{key}",
                        f"{section}: {key}",
                        f"{key}=",
                        f"{section}: {key}",
                        f"`{key}`",
                        f"{key}",
                    )

                    def run(path: Path = path, change: str = change, folder: Path = folder) -> Any:
                        return run_recipe(
                            None, None, [str(path), "--data_dir", str(folder / "none"), "--set", change], "run"
                        )

                    yield Case(f"{kind}: {change}", words, run)
        for changes, words in (
            (["training.bf16=true", "training.fp16=true"], ("fp16", "bf16")),
            (["nonsense.key=1"], ("nonsense",)),
            (["data=3"], ("data", "--set")),
            (["training.x.y=1"], ("training",)),
            (["task=nonsense"], ("task",)),
            (["task=3"], ("task",)),
            (["model.learning_rate=1"], ("learning_rate",)),
            (["runs.seeds=[]"], ("runs",)),
            (["runs.seeds=[1, 1]"], ("runs.seeds",)),
            (["runs.seeds=[-1]"], ("seed",)),
            (["runs.seeds=x"], ("runs.seeds",)),
            (["runs.for={x: [1]}"], ("runs.for",)),
            (["runs.with={x: {}}"], ("runs",)),
            (["runs.sedes=[1]"], ("runs",)),
            (["runs.seeds=[1]", "training.seed=1"], ("seed",)),
        ):
            yield Case(
                f"{kind}: {' '.join(changes)}",
                words,
                lambda p=path, c=changes: run_recipe(
                    None, None, [str(p), "--data_dir", str(folder / "none"), "--set", *c], "run"
                ),
            )


def run_options() -> Iterator[Case]:
    folder = Path(tempfile.mkdtemp(prefix="bad_input_"))
    os.chdir(folder)
    good = written(folder, "good", RECIPES["seq2seq"])
    text = good.read_text()
    (folder / "a_folder").mkdir()
    (folder / "a_file").write_text("x")
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "latin.yaml").write_bytes("# é\n".encode("latin-1") + text.encode())
    files = {
        "empty": "", "list": "- 1\n- 2\n", "number": "3", "broken": "data: [1, 2\n", "tabs": "data:\n\t- x\n",
        "twice": text + "training: {seed: 1}\n", "twice_inside": text.replace("training:\n", "training:\n  seed: 1\n"),
        "tag": "data: !!python/object:os.system x\n", "anchor": "a: &a [*a]\n", "date": "data: 2001-99-99\n",
        "no_data": "task: seq2seq\nmodel: {}\n", "null": "task: seq2seq\ndata: null\n", "no_task": "data: {}\n",
        "text_section": "task: seq2seq\ndata: {train: x}\nmodel: text\n", "deep": "data: " + "[" * 3000,
    }  # fmt: skip
    for name, content in files.items():
        written(folder, name, content)
        yield Case(
            f"run {name}.yaml",
            (f"{name}.yaml", "data", "task", "model"),
            lambda n=name: run_recipe(None, None, [f"{n}.yaml", "--data_dir", "none"], "run"),
        )
    for what, arguments, words in (
        ("binary", ["binary.yaml"], ("binary.yaml",)),
        ("latin", ["latin.yaml"], ("latin.yaml",)),
        ("missing", ["missing.yaml"], ("missing.yaml",)),
        ("a folder", ["a_folder"], ("a_folder",)),
        ("nothing", [], ("recipe",)),
        ("--data_dir missing", ["good.yaml", "--data_dir", "none"], ("none", "data_dir")),
        ("--data_dir file", ["good.yaml", "--data_dir", "a_file"], ("a_file", "data_dir")),
        ("--data_dir ''", ["good.yaml", "--data_dir", ""], ("data_dir", "train")),
        ("--output_dir file", ["good.yaml", "--output_dir", "a_file"], ("output_dir",)),
        ("--output_dir under file", ["good.yaml", "--output_dir", "a_file/x"], ("output_dir",)),
        ("--output_dir ''", ["good.yaml", "--output_dir", ""], ("output_dir",)),
        ("--results folder", ["good.yaml", "--results", "a_folder"], ("results",)),
        ("--results under file", ["good.yaml", "--results", "a_file/x.json"], ("results",)),
        ("--results ''", ["good.yaml", "--results", ""], ("results",)),
        ("--results there", ["good.yaml", "--results", "a_file"], ("results",)),
        ("--results is recipe", ["good.yaml", "--results", "good.yaml"], ("results",)),
        ("--results is recipe, overwrite", ["good.yaml", "--results", "good.yaml", "--overwrite"], ("results",)),
        ("--resume --overwrite", ["good.yaml", "--resume", "--overwrite"], ("resume",)),
        ("--resume --eval_only", ["good.yaml", "--resume", "--eval_only", "x"], ("resume",)),
        ("--average alone", ["good.yaml", "--average"], ("average",)),
        ("--average one", ["good.yaml", "--average", "--eval_only", "x"], ("average",)),
        ("--eval_only missing", ["good.yaml", "--eval_only", "missing"], ("missing", "eval_only")),
        ("--eval_only folder", ["good.yaml", "--eval_only", "a_folder"], ("a_folder", "eval_only")),
        ("--eval_only file", ["good.yaml", "--eval_only", "a_file"], ("a_file", "eval_only")),
        ("--eval_only twice", ["good.yaml", "--eval_only", "a_folder", "a_folder"], ("a_folder", "eval_only")),
        ("--set nothing", ["good.yaml", "--set", "x"], ("--set",)),
        ("--set section", ["good.yaml", "--set", "=3"], ("--set",)),
        ("--set bad yaml", ["good.yaml", "--set", "training.seed=[1"], ("--set",)),
        ("--set section alone", ["good.yaml", "--set", "training=3"], ("--set", "training")),
        ("unknown option", ["good.yaml", "--nonsense"], ("--nonsense",)),
        ("two recipes", ["good.yaml", "x"], ("x",)),
        ("abbreviated", ["good.yaml", "--resum"], ("--resum",)),
        ("--overwrite with --eval_only missing", ["good.yaml", "--overwrite", "--eval_only", "m"], ("m", "eval_only")),
    ):
        if "--data_dir" not in arguments and arguments:
            arguments = [*arguments, "--data_dir", "none"]
        yield Case(f"run {what}", words, lambda a=arguments: run_recipe(None, None, a, "run"))


CASES: dict[str, Callable[[], Iterator[Case]]] = {"recipes": recipes, "run_options": run_options}


@pytest.mark.chaos
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", CASES)
def test_all(part: str) -> None:
    assert not tried(CASES[part](), of_a_command)


if __name__ == "__main__":
    for part in sys.argv[1:] or CASES:
        tried(CASES[part](), of_a_command)
