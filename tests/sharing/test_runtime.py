"""The runtime: the tokens and scores of transformers' `generate()`, in a process that has neither it nor torch.

The reference is `generate()` on the model that was exported, in single precision.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.data.pairs import encode_sources
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, save_tokenizers, train_tokenizer
from hf_rnn_seq2seq.evaluation.decoding import _hypothesis_tokens
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.onnx_graphs import write_graphs
from hf_rnn_seq2seq.sharing.runtime import GenerationOptions, RnnSeq2SeqRuntime
from hf_rnn_seq2seq.sharing.search_options import draw


SOURCES = [[4, 5, 6, 7, 5, 3], [8, 3], [9, 10, 4, 3], [11, 4, 3], [4]]
SPECIAL = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}


def runtime_of(model: RnnSeq2SeqForConditionalGeneration, folder: Path) -> RnnSeq2SeqRuntime:
    """The runtime of a model without tokenizers."""
    folder.mkdir(exist_ok=True)
    write_graphs(model, folder)
    sessions = [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder_step")]
    return RnnSeq2SeqRuntime(*sessions, {"vocab_size": 12, "reverse_source": False}, SPECIAL)


def generate(
    model: RnnSeq2SeqForConditionalGeneration, sources: list[list[int]], **options: Any
) -> tuple[list[tuple[int, ...]], list[float] | None]:
    """Tokens and scores of transformers' search, source by source."""
    width = max(len(source) for source in sources)
    ids = torch.tensor([source + [1] * (width - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
    found = model.generate(
        ids, attention_mask=mask, do_sample=False, return_dict_in_generate=True, output_scores=True, **options
    )
    ends = set(options.get("eos_token_id", [3]))
    tokens = [_hypothesis_tokens(sequence, 2, ends, 1) for sequence in found.sequences.tolist()]
    return tokens, found.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, RnnSeq2SeqRuntime]]:
    """Models that react strongly to what they read, so that searches differ; and their runtimes."""
    pairs = []
    for seed, structure in enumerate(["luong", "cho", "everything", "textbook"]):
        model = tiny_model(structure, dtype=torch.float32, seed=seed)
        with torch.no_grad():
            model.lm_head.bias[1] -= 20  # padding is no symbol of a target
            model.lm_head.bias[3] += 1  # and targets end
        pairs.append((model, runtime_of(model, tmp_path_factory.mktemp(structure))))
    return pairs


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 9},
        {"max_new_tokens": 7, "min_new_tokens": 4},
        {"max_length": 6, "min_length": 4},
        {"max_new_tokens": 5, "suppress_tokens": [3, 5]},
        {"max_new_tokens": 8, "eos_token_id": [3, 7]},
        {},
    ],
    ids=str,
)
def test_greedy_gives_the_tokens_of_generate(models: list, options: dict[str, Any]) -> None:
    for model, runtime in models:
        tokens, _ = generate(model, SOURCES, **options)
        assert [ranked[0].tokens for ranked in runtime.generate(SOURCES, batch_size=2, **options)] == tokens


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
def test_beam_search_gives_the_tokens_and_scores_of_generate(
    models: list, length_penalty: float, early_stopping: bool | str
) -> None:
    for (model, runtime), extra in itertools.product(models, [{}, {"min_new_tokens": 3, "eos_token_id": [3, 7]}]):
        options: dict[str, Any] = {
            "max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 3, **extra,
            "length_penalty": length_penalty, "early_stopping": early_stopping,
        }  # fmt: skip
        tokens, scores = generate(model, SOURCES, **options)
        found = [hypothesis for ranked in runtime.generate(SOURCES, **options) for hypothesis in ranked]
        assert [hypothesis.tokens for hypothesis in found] == tokens
        assert [hypothesis.score for hypothesis in found] == pytest.approx(scores, rel=1e-5, abs=1e-5)


def test_searches_end_at_different_lengths(models: list) -> None:
    # Otherwise the comparisons above would say little.
    lengths = {len(ranked[0].tokens) for _, runtime in models for ranked in runtime.generate(SOURCES, num_beams=4)}
    assert len(lengths) >= 4


def test_scores_are_the_model_s_log_probabilities(models: list) -> None:
    model, runtime = models[0]
    for options in ({}, {"num_beams": 3, "num_return_sequences": 3}):
        for source, ranked in zip(SOURCES, runtime.generate(SOURCES, max_new_tokens=5, **options), strict=True):
            for hypothesis in ranked:
                tokens = [*hypothesis.tokens, 3][:5]  # with the end, if it ended
                with torch.no_grad():
                    loss = model(torch.tensor([source]), labels=torch.tensor([tokens])).loss
                assert hypothesis.log_probability == pytest.approx(-float(loss) * len(tokens), abs=1e-4)
                assert hypothesis.score == pytest.approx(hypothesis.log_probability / len(tokens))


def test_a_stream_gives_the_symbols_of_generate_one_by_one(models: list) -> None:
    for _, runtime in models:
        for source in SOURCES:
            whole = runtime.generate([source], max_new_tokens=9)[0][0]
            assert tuple(runtime.stream_ids(source, max_new_tokens=9)) == whole.tokens
    stream = runtime.stream_ids(SOURCES[0], max_new_tokens=1000, suppress_tokens=[3])
    assert len(list(itertools.islice(stream, 5))) == 5  # and does not run on to the thousandth


def test_sampling_repeats_with_its_seed_and_is_greedy_among_one(models: list) -> None:
    _, runtime = models[0]
    options = {"do_sample": True, "num_return_sequences": 6, "max_new_tokens": 6}
    first = runtime.generate(SOURCES, seed=1, **options)
    assert first == runtime.generate(SOURCES, seed=1, **options) != runtime.generate(SOURCES, seed=2, **options)
    assert len({hypothesis.tokens for hypothesis in first[0]}) > 1
    best = runtime.generate(SOURCES, max_new_tokens=6)
    only = runtime.generate(SOURCES, do_sample=True, top_k=1, max_new_tokens=6)
    assert [ranked[0].tokens for ranked in only] == [ranked[0].tokens for ranked in best]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.6}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.3}, [0, 0, 0, 1]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
    ],
)
def test_draws_follow_the_distribution(options: dict[str, Any], expected: list[float]) -> None:
    scores = np.log(np.tile([0.1, 0.2, 0.3, 0.4], (20_000, 1)))
    search = GenerationOptions(do_sample=True, **options, **SPECIAL)
    drawn = draw(scores, search, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(drawn), expected, atol=0.015)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A saved model with two vocabularies, its target made of bytes; and the folder that export wrote."""
    folder = tmp_path_factory.mktemp("exported")
    target = train_tokenizer(["größe übung 日本"], TokenizerOptions("bpe", vocab_size=280), "target")
    model = tiny_model("bahdanau", dtype=torch.float32, decoder_vocab_size=len(target))
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder / "model")
    save_tokenizers(folder / "model", tiny_tokenizer(), target)
    return model, export_model(folder / "model", folder / "out", quantize=None)


TEXTS = ["abc", "h", "deadbeef"]


def test_text_in_and_text_out(exported: tuple[Any, Path]) -> None:
    model, folder = exported
    runtime = RnnSeq2SeqRuntime.from_pretrained(folder)
    sources = encode_sources(TEXTS, tiny_tokenizer())
    tokens, _ = generate(model, sources)
    target = train_tokenizer(["größe übung 日本"], TokenizerOptions("bpe", vocab_size=280), "target")
    found = runtime.generate(TEXTS)
    assert [ranked[0].tokens for ranked in found] == tokens
    assert [ranked[0].text for ranked in found] == [target.decode(list(row)) for row in tokens]
    assert runtime.generate("abc") == [found[0]]
    for text, ranked in zip(TEXTS, found, strict=True):
        pieces = list(runtime.stream(text))
        assert "".join(pieces) == ranked[0].text and len(pieces) > 1


def test_neither_torch_nor_transformers_is_needed(exported: tuple[Any, Path]) -> None:
    _, folder = exported
    # In a process of its own, away from the checkout. None in sys.modules is how Python marks what cannot be imported.
    program = (
        "import json, sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'hf_rnn_seq2seq', 'onnx']))\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "from rnn_seq2seq_runtime import RnnSeq2SeqRuntime\n"
        f"runtime = RnnSeq2SeqRuntime.from_pretrained({str(folder)!r})\n"
        f"print(json.dumps(runtime.generate({TEXTS!r}, num_beams=3, num_return_sequences=2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    here = RnnSeq2SeqRuntime.from_pretrained(folder).generate(TEXTS, num_beams=3, num_return_sequences=2)
    assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_the_folder_runs_as_a_program(exported: tuple[Any, Path]) -> None:
    _, folder = exported
    command = [sys.executable, "-I", str(folder / "rnn_seq2seq_runtime.py")]
    expected = [ranked[0].text for ranked in RnnSeq2SeqRuntime.from_pretrained(folder).generate(TEXTS, batch_size=1)]
    for arguments, lines in ((TEXTS, ""), ([], "".join(f"{text}\n" for text in TEXTS))):
        done = subprocess.run([*command, *arguments], input=lines, capture_output=True, text=True, check=True)
        assert done.stdout == "".join(f"{text}\n" for text in expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_sources_are_encoded_as_in_training(exported: tuple[Any, Path], reverse: bool) -> None:
    _, folder = exported
    tokenizer = train_tokenizer(["abc</s>"], TokenizerOptions("character"))
    runtime = RnnSeq2SeqRuntime.from_pretrained(folder)
    runtime.source_tokenizer = tokenizer.backend_tokenizer
    runtime.source_tokenizer.encode_special_tokens = True
    runtime.settings = {**runtime.settings, "reverse_source": reverse}
    texts = ["abc", "a</s>b", "xa"]  # "</s>" in a text is text
    assert [runtime._encode_text(text) for text in texts] == encode_sources(texts, tokenizer, reverse)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (SOURCES, {"repetition_penalty": 1.5}, "no generation option 'repetition_penalty'"),
        (SOURCES, {"num_beam": 2}, "no generation option 'num_beam'"),
        (SOURCES, {"num_return_sequences": 2}, "num_return_sequences=2 is more than num_beams=1"),
        (SOURCES, {"num_beams": 0}, "num_beams must be at least 1; got 0"),
        (SOURCES, {"do_sample": True, "num_beams": 2}, "do_sample=True needs num_beams=1"),
        (SOURCES, {"do_sample": True, "top_p": 0.0}, "top_p=0.0"),
        (SOURCES, {"early_stopping": "always"}, "early_stopping must be True, False or 'never'"),
        ([[4], []], {}, "source 1 is empty"),
        ([[4, 12]], {}, "source 0 holds the id 12, wanted ids from 0 to 11"),
        ([4, 5], {}, "got a list of ids"),
        ("abc", {}, "no tokenizer"),
    ],
)
def test_bad_requests_are_refused_by_name(models: list, sources: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models[0][1].generate(sources, **options)


def test_a_folder_that_export_did_not_write_is_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"runtime_config\.json"):
        RnnSeq2SeqRuntime.from_pretrained(tmp_path)
    for path in exported[1].glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "runtime_config.json").read_text())
    (tmp_path / "runtime_config.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(ValueError, match="got format 99, wanted 5"):
        RnnSeq2SeqRuntime.from_pretrained(tmp_path)


def test_half_of_another_export_is_refused_and_what_lies_outside(exported: tuple[Any, Path], tmp_path: Path) -> None:
    def refused(message: str, error: type[Exception] = ValueError) -> None:
        with pytest.raises(error, match=message):
            RnnSeq2SeqRuntime.from_pretrained(tmp_path / "out")

    shutil.copytree(exported[1], tmp_path / "out")
    shutil.copy(tmp_path / "out" / "tokenizer.json", tmp_path)
    RnnSeq2SeqRuntime.from_pretrained(tmp_path / "out")
    (tmp_path / "out" / "decoder_step.onnx").write_bytes(b"of another one")
    refused(r"decoder_step\.onnx is not what manifest\.json says")
    shutil.copy(exported[1] / "decoder_step.onnx", tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    (tmp_path / "out" / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    refused("'tokenizer.json' lies outside the folder")
    (tmp_path / "out" / "manifest.json").unlink()
    refused(r"holds no manifest\.json", FileNotFoundError)
