"""Exported models of values: what the graph gives is what the model gives, in the user's units, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import randomize, tiny_config

from hf_rnn_seq2seq import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from hf_rnn_seq2seq.sharing import RnnValuesRuntime, export_model


KINDS = {"each": RnnSeq2SeqForTokenClassification, "whole": RnnSeq2SeqForSequenceClassification}
LENGTHS = [5, 1, 9]


def saved(folder: Path, kind: str, **options: Any) -> Any:
    defaults: dict[str, Any] = {
        "input_feature_size": 3, "num_labels": 2, "problem_type": "regression", "standardise_features": True,
    }  # fmt: skip
    model = KINDS[kind](tiny_config(**{**defaults, **options}))
    randomize(model)
    if model.config.problem_type == "regression":
        model.output_scale.fit(torch.tensor([[100.0, -1.0], [300.0, 5.0]]))
    if model.config.standardise_features:
        model.model.encoder.input_scale.fit(torch.tensor([[10.0, 0.0, 5.0], [30.0, 1.0, 7.0]]))
    model.eval().save_pretrained(folder)
    return model


def vectors() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    found = [(generator.normal(size=(length, 3)) * 10 + 20).astype(np.float32) for length in LENGTHS]
    found[0][1, 2] = np.nan  # missing
    return found


@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_gives_the_models_values_of_each_sequence_alone(kind: str, rnn_type: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", kind, rnn_type=rnn_type)
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    runtime = RnnValuesRuntime.from_pretrained(tmp_path / "exported")
    assert runtime.names == ["LABEL_0", "LABEL_1"]
    for source, found in zip(vectors(), runtime.predict(vectors()), strict=True):
        wanted = model(input_features=torch.from_numpy(source)[None]).logits[0].detach().numpy()
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("options", [
    {"classifier_pooling": "mean"}, {"classifier_pooling": "max"}, {"classifier_pooling": "attention"},
    {"bidirectional_encoder": False}, {"layer_norm": True, "residual": True}, {"standardise_features": False},
])  # fmt: skip
def test_every_structure_of_the_whole_sequence_is_exported(options: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "whole", **options)
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    sources = [np.nan_to_num(source) for source in vectors()]
    for source, found in zip(sources, RnnValuesRuntime.from_pretrained(tmp_path / "exported").predict(sources)):
        wanted = model(input_features=torch.from_numpy(source)[None]).logits[0].detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, 3])
def test_labels_and_their_probabilities(kind: str, problem_type: str | None, size: int | None, tmp_path: Path) -> None:
    options = {"problem_type": problem_type, "standardise_features": False, "input_feature_size": size}
    model = saved(tmp_path / "model", kind, **options)
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    runtime = RnnValuesRuntime.from_pretrained(tmp_path / "exported")
    sources: list[Any] = [[2, 5, 7], [3]] if size is None else [np.nan_to_num(source) for source in vectors()]
    several = problem_type == "multi_label_classification"
    for source, found, labels in zip(sources, runtime.predict(sources), runtime.labels(sources), strict=True):
        name = "input_ids" if size is None else "input_features"
        logits = model(**{name: torch.tensor(np.array(source))[None]}).logits[0].detach()
        wanted = logits.sigmoid() if several else logits.softmax(-1)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
        rows, named = (wanted, labels) if kind == "each" else (wanted[None], [labels])
        for row, got in zip(rows, named, strict=True):
            held = [f"LABEL_{number}" for number in (row >= 0.5).nonzero().flatten().tolist()]
            assert got == (held if several else f"LABEL_{int(row.argmax())}")


def test_what_gives_no_single_labels_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model", "each")
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    runtime = RnnValuesRuntime.from_pretrained(tmp_path / "exported")
    with pytest.raises(ValueError, match="the model gives values, wanted predict"):
        runtime.labels(vectors())
    with pytest.raises(ValueError, match=r"sources\[0\]\[1, 2\] is inf, wanted a finite number"):
        runtime.predict([np.where(np.isnan(source), np.inf, source) for source in vectors()])
    saved(tmp_path / "crf", "each", problem_type=None, use_crf=True, standardise_features=False)
    with pytest.raises(ValueError, match="use_crf=True cannot be exported: the runtime does not search"):
        export_model(tmp_path / "crf", tmp_path / "exported")


def test_a_model_that_reads_symbols_and_a_quantised_one(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "each", input_feature_size=None, standardise_features=False)
    sources = [[2, 5, 7], [3]]
    for quantize, near in ((None, 1e-3), ("int8", 60.0)):
        export_model(tmp_path / "model", tmp_path / "exported", quantize=quantize)
        for source, found in zip(sources, RnnValuesRuntime.from_pretrained(tmp_path / "exported").predict(sources)):
            wanted = model(torch.tensor([source])).logits[0].detach().numpy()
            np.testing.assert_allclose(found, wanted, atol=near)


def test_the_copied_runtime_needs_no_torch(tmp_path: Path) -> None:
    saved(tmp_path / "model", "each")
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from rnn_values_runtime import RnnValuesRuntime\n"
        "print(RnnValuesRuntime.from_pretrained('.').predict([[[1, 2, 3], [4, 5, 6]]])[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "exported", capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(2, 2)", done.stderr


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "sources: got \\[\\], wanted at least one"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"sources\[1\] has shape \(2, 4\), wanted vectors \(S, 3\)"),
        ([np.zeros((0, 3))], r"sources\[0\] has shape \(0, 3\)"),
    ],
)
def test_bad_sources_are_refused(sources: list[np.ndarray], message: str, tmp_path: Path) -> None:
    saved(tmp_path / "model", "each")
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    with pytest.raises(ValueError, match=message):
        RnnValuesRuntime.from_pretrained(tmp_path / "exported").predict(sources)


def test_what_is_there_is_not_lost_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model", "each")
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    with pytest.raises(FileExistsError, match=r"holds values\.onnx, values_config\.json"):
        export_model(tmp_path / "model", tmp_path / "exported", overwrite=False)
    with pytest.raises(ValueError, match="quantize must be 'int8' or None; got 'int4'"):
        export_model(tmp_path / "model", tmp_path / "exported", quantize="int4")
    with pytest.raises(ValueError, match=r"reverse_source: got True, but .* holds a model of values or labels"):
        export_model(tmp_path / "model", tmp_path / "exported", reverse_source=True)
    saved(tmp_path / "reduced", "whole", time_reduction=2)
    with pytest.raises(ValueError, match="time_reduction=2 cannot be exported"):
        export_model(tmp_path / "reduced", tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"holds no values_config\.json"):
        RnnValuesRuntime.from_pretrained(tmp_path / "model")
