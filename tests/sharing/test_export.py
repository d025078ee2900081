"""Export: the ONNX graphs compute what the model does, for any batch and length; the folder holds what runs them.

The reference is the model itself, in single precision as the graphs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from tiny import STRUCTURES, padded_batch, random_ids, tiny_config, tiny_model, tiny_tokenizer

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, save_tokenizers, train_tokenizer
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.onnx_graphs import write_graphs
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


# One of each kind, and what only the decoder's step shows: copying, and coverage inside and beside a score.
EXPORTED = {
    **{name: {"structure": name} for name in STRUCTURES},
    "copy": {"structure": "luong", "use_copy": True, "coverage": True},
    "coverage": {"structure": "bahdanau", "coverage": True},
    "two_vocabularies": {"structure": "luong", "decoder_vocab_size": 15},
    "normed_states": {"structure": "sutskever", "layer_norm": True, "residual": True},
    "normed_context": {"structure": "both_max", "context_vector": "last", "layer_norm": True},
}


def run_graphs(folder: Path, input_ids: np.ndarray, mask: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Log-probabilities (B, T, V) and attention (B, T, S) of the graphs, with the given previous symbols."""
    encoder, step = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder_step"))
    names = [output.name for output in encoder.get_outputs()]
    inputs = dict(zip(names, encoder.run(names, {"input_ids": input_ids, "attention_mask": mask}), strict=True))
    outputs = [output.name for output in step.get_outputs()]
    steps = []
    for previous in targets.T:
        results = dict(zip(outputs, step.run(outputs, {**inputs, "previous_ids": previous}), strict=True))
        inputs.update({name: results[f"new_{name}"] for name in names if name.startswith("state.")})
        steps.append(results)
    kinds = [name for name in ("log_probabilities", "attention") if name in steps[0]]
    return {kind: np.stack([results[kind] for results in steps], axis=1) for kind in kinds}


def check_the_loop(folder: Path, model: RnnSeq2SeqForConditionalGeneration) -> None:
    """Greedy search inside the graph finds what the search step by step does, to the last bit of a score."""
    sessions = [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder_step")]
    settings = {"vocab_size": model.config.vocab_size}
    runtime = RnnSeq2SeqRuntime(*sessions, settings, {"decoder_start_token_id": 2, "max_new_tokens": 9})
    symbols = list(range(model.config.target_vocab_size))
    for least, eos, forbidden in (
        (0, None, None),
        (0, [3], [4]),
        (4, [3], None),
        (4, symbols[5:], None),
        (9, [3], []),
    ):
        options = {"eos_token_id": eos, "suppress_tokens": forbidden, "min_new_tokens": least}
        found = []
        assert runtime.loops
        for runtime.loops in (False, True):
            found.append([runtime.generate([source], **options) for source in ([5], [4, 5, 6, 5, 7, 3])])
        assert found[0] == found[1]


@torch.no_grad()
def run_model(
    model: RnnSeq2SeqForConditionalGeneration, input_ids: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor
) -> dict[str, np.ndarray]:
    outputs = model(input_ids, mask, decoder_input_ids=targets, output_attentions=True)
    results = {"log_probabilities": outputs.logits.log_softmax(-1).numpy()}
    if outputs.cross_attentions:
        results["attention"] = outputs.cross_attentions[0][:, 0].numpy()
    return results


def weights_of(file: Path) -> list[tuple[int, ...]]:
    """The shapes of a graph's tensors that are more than constants of operators."""
    initializers = onnx.load(file).graph.initializer
    return [tuple(tensor.dims) for tensor in initializers if math.prod(tensor.dims) > 4]


@pytest.mark.parametrize("name", EXPORTED)
def test_graphs_equal_the_model_for_any_batch_and_length(name: str, tmp_path: Path) -> None:
    model = tiny_model(dtype=torch.float32, **EXPORTED[name])
    write_graphs(model, tmp_path)
    # The example that is traced has two rows of three; a source may repeat symbols, which copying adds up.
    for lengths, width, steps in (([7, 1, 4, 2, 7], 7, 6), ([1], 1, 1), ([2, 3], 9, 3)):
        batch = padded_batch("right", lengths, width)
        targets = random_ids(len(lengths), steps, vocab_size=model.config.target_vocab_size)
        expected = run_model(model, batch.input_ids, batch.attention_mask, targets)
        found = run_graphs(tmp_path, batch.input_ids.numpy(), batch.attention_mask.numpy(), targets.numpy())
        assert found.keys() == expected.keys()
        for kind, values in expected.items():
            np.testing.assert_allclose(found[kind], values, atol=1e-5, rtol=0, err_msg=kind)
    check_the_loop(tmp_path, model)


def test_a_large_step_makes_no_others(tmp_path: Path) -> None:
    write_graphs(tiny_model(dtype=torch.float32, vocab_size=2**22 // 6), tmp_path)
    sessions = [onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder_step")]
    assert not RnnSeq2SeqRuntime(*sessions, {}, {}).loops


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("attention_type", ["dot", "general", "additive", "none"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "rnn_tanh"])
def test_greedy_search_inside_the_graph_equals_that_step_by_step(
    rnn_type: str, attention_type: str, quantize: str | None, tmp_path: Path
) -> None:
    attends = attention_type != "none"
    for seed, (feeding, layers, copies) in enumerate(((False, 1, True), (True, 2, False), (True, 2, True))):
        options = {"rnn_type": rnn_type, "attention_type": attention_type, "decoder_layers": layers}
        options |= {"input_feeding": feeding and attends, "encoder_layers": layers}
        options |= {"use_copy": copies and attends, "coverage": feeding and attends}
        model = tiny_model(dtype=torch.float32, seed=seed, **options)
        write_graphs(model, tmp_path, quantize)
        check_the_loop(tmp_path, model)


@pytest.mark.parametrize("name", ["luong", "sutskever"])
def test_a_step_finds_the_best_continuations_of_each_source(name: str, tmp_path: Path) -> None:
    write_graphs(tiny_model(name, dtype=torch.float32), tmp_path)
    encoder, step = (onnxruntime.InferenceSession(tmp_path / f"{part}.onnx") for part in ("encoder", "decoder_step"))
    sources = {"input_ids": np.array([[4, 5], [7, 3]]), "attention_mask": np.ones((2, 2), np.int64)}
    read = dict(zip([output.name for output in encoder.get_outputs()], encoder.run(None, sources)))
    rows = {key: part.repeat(3, axis=0) if key.startswith("state.") else part for key, part in read.items()}
    inputs = {**rows, "previous_ids": np.array([2, 4, 5, 6, 7, 8])}
    wanted = ["log_probabilities", "best_scores", "best_places"]
    scores, best, places = step.run(wanted, inputs)
    np.testing.assert_array_equal(places[:, 0], scores.argmax(1))
    np.testing.assert_array_equal(best[:, 0], scores.max(1))
    totals = np.array([[0.0], [-1.0], [-0.3], [-2.0], [0.0], [-0.1]], np.float32)
    allowed = np.where(np.arange(scores.shape[1]) == scores[0].argmax(), -np.inf, 0).astype(np.float32)
    given = {"totals": totals, "allowed": allowed, "grouping": np.array([2, -1]), "best": np.array([7])}
    _, best, places = step.run(wanted, {**inputs, **given})
    each = (scores + totals + allowed).reshape(2, -1)
    np.testing.assert_array_equal(places, (-each).argsort(1, kind="stable")[:, :7])
    np.testing.assert_array_equal(best, -np.sort(-each, 1)[:, :7])


@pytest.mark.parametrize("name", ["luong", "everything", "cho", "textbook"])
def test_the_export_leaves_the_model_as_it_was_and_writes_each_weight_once(name: str, tmp_path: Path) -> None:
    model = tiny_model(name, dtype=torch.float32)
    before = {key: (value.data_ptr(), value.clone()) for key, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    write_graphs(model, tmp_path)
    assert [type(module) for module in model.modules()] == kinds
    for key, value in model.state_dict().items():
        assert value.data_ptr() == before[key][0] and torch.equal(value, before[key][1])
    written = sum(math.prod(dims) for file in tmp_path.glob("*.onnx") for dims in weights_of(file))
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    # A shared table is read by both graphs, which are two files. A decoder that reads no symbol has a column of zeros.
    twice = model.get_input_embeddings().weight.numel() if model.config.share_embeddings else 0
    column = 0 if model.config.feed_previous_token else 8
    small = sum(count for count in parameters.values() if count <= 4)
    assert abs(written - sum(parameters.values()) - twice) <= column + small


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_int8_is_a_quarter_of_the_size_and_close_to_the_model(rnn_type: str, tmp_path: Path) -> None:
    sizes = {"embedding_size": 64, "encoder_hidden_size": 128, "decoder_hidden_size": 128}
    # The weights of a model that is about to be trained, and a sharper output: those of the other tests saturate.
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(rnn_type=rnn_type, vocab_size=100, **sizes)).eval()
    with torch.no_grad():
        model.lm_head.weight *= 20
    results, bytes_of_decoder = {}, {}
    batch, targets = padded_batch("right", [9, 4], 9, 100), random_ids(2, 5, 100)
    for quantize in (None, "int8"):
        folder = tmp_path / str(quantize)
        folder.mkdir()
        write_graphs(model, folder, quantize)
        found = run_graphs(folder, batch.input_ids.numpy(), batch.attention_mask.numpy(), targets.numpy())
        results[quantize] = found["log_probabilities"]
        check_the_loop(folder, model)
        bytes_of_decoder[quantize] = (folder / "decoder_step.onnx").stat().st_size
    assert bytes_of_decoder["int8"] < 0.33 * bytes_of_decoder[None]
    error = (results["int8"] - results[None]).std() / results[None].std()
    assert 0 < error < 0.05


def test_the_folder_holds_graphs_settings_and_both_tokenizers(tmp_path: Path) -> None:
    model = tiny_model("luong", dtype=torch.float32, decoder_vocab_size=7)
    model.generation_config.update(max_new_tokens=9, num_beams=2, length_penalty=0.5)
    model.save_pretrained(tmp_path / "model")
    target = train_tokenizer(["x y z"], TokenizerOptions("word"), "target")
    save_tokenizers(tmp_path / "model", tiny_tokenizer(), target)
    (tmp_path / "model" / "recipe.yaml").write_text(yaml.safe_dump({"data": {"reverse_source": True}}))
    folder = export_model(tmp_path / "model", tmp_path / "out", quantize=None)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "decoder_step.onnx",
        "encoder.onnx",
        "generation_config.json",
        "manifest.json",
        "rnn_seq2seq_pronounce.py",
        "rnn_seq2seq_runtime.py",
        "runtime_config.json",
        "target_tokenizer/tokenizer.json",
        "tokenizer.json",
    ]
    settings = json.loads((folder / "runtime_config.json").read_text())
    assert settings["reverse_source"] is True and settings["quantize"] is None and settings["vocab_size"] == 12
    generation = json.loads((folder / "generation_config.json").read_text())
    wanted = {"max_new_tokens": 9, "num_beams": 2, "length_penalty": 0.5, "eos_token_id": 3}
    assert {name: generation[name] for name in wanted} == wanted
    again = export_model(tmp_path / "model", tmp_path / "out", quantize=None, reverse_source=False)
    assert json.loads((again / "runtime_config.json").read_text())["reverse_source"] is False


def test_what_the_runtime_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model("luong", dtype=torch.float32)
    with pytest.raises(ValueError, match="quantize must be 'int8' or None; got 'int4'"):
        write_graphs(model, tmp_path, "int4")
    vectors = tiny_model(dtype=torch.float32, input_feature_size=4)
    with pytest.raises(ValueError, match="input_feature_size=4 cannot be exported"):
        write_graphs(vectors, tmp_path)
    model.generation_config.no_repeat_ngram_size = 2
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no generation option 'no_repeat_ngram_size'"):
        export_model(tmp_path / "model", tmp_path / "out")
    assert not list((tmp_path).glob("out/*"))
