"""Bad input to what stands beside the models: tokenizers, the processor, the pipeline, and exported models.

python tests/chaos/bad_input_calls.py
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any


os.environ["HF_HUB_OFFLINE"] = "1"
if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np
import pytest
import torch
from bad_input import Case, of_the_api, tried
from bad_input_api import forecaster
from tiny import randomize, tiny_config, tiny_model, tiny_tokenizer

from hf_rnn_seq2seq import (
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqGenerationPipeline,
    RnnSeq2SeqProcessor,
    RnnSeq2SeqTwoSidedTokenizer,
    RnnSeq2SeqWordTokenizer,
)
from hf_rnn_seq2seq.data import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.sharing import RnnSeq2SeqRuntime, RnnSeriesRuntime, RnnValuesRuntime, export_model
from hf_rnn_seq2seq.sharing.pronounce import Pronouncer


NAN, INF = math.nan, math.inf
# What is no text, and no list of texts.
NO_TEXTS: tuple[Any, ...] = (
    *(3, 1.5, True, b"abc", {"text": "a"}, [3], [None], ["a", None], ["a", 3], [b"abc"], [["a", 3]], object()),
    *("\ud800", ["a", "\udfff"], np.array([1, 2]), torch.tensor([1, 2])),
)


def shown(value: Any) -> str:
    return ascii(value)[:40]


@cache
def tokenizers_of() -> dict[str, Any]:
    plain = train_tokenizer(["the cat sat"], TokenizerOptions("character"))
    target = train_tokenizer(["die katze sass"], TokenizerOptions("word"), "target")
    return {
        "plain": plain,
        "words": train_tokenizer(["the cat"], TokenizerOptions("word", characters=True)),
        "two_sides": RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(plain, target),
        "rewriting": RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(plain, target, [["cat", "tac"]]),
        "reversing": RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(plain, target, reverse_source=True),
    }


# Options of a call, and what is wrong for each.
CALLED: dict[str, tuple[Any, ...]] = {
    "padding": ("nonsense", 3), "truncation": ("nonsense", 3), "max_length": (-1, "x", 1.5),
    "return_tensors": ("nonsense", 3), "padding_side": ("middle", 3),
    "pad_to_multiple_of": (-1, 0, "x", 1.5), "stride": (-1, "x"),
    "return_attention_mask": ("yes",), "add_special_tokens": ("yes",), "return_offsets_mapping": ("yes",),
    "is_split_into_words": ("yes",),
}  # fmt: skip
# What an error of transformers calls an option of.
ALSO = {"padding": ("PaddingStrategy",), "truncation": ("TruncationStrategy",), "return_tensors": ("TensorType",)}
# What decodes to nothing.
NO_IDS: tuple[Any, ...] = ("abc", 1.5, None, [None], ["a"], [1.5], [-1], [10**12], {"a": 1}, np.array([0.5]), True)


def options_of_a_call(kind: str, encode: Any) -> Iterator[Case]:
    """Bad options of a tokenizer or processor that is called with texts."""
    for name, values in CALLED.items():
        for value in values:
            more: dict[str, Any] = {"padding": True} if name.startswith("pad") and name != "padding" else {}
            more |= {"truncation": True, "max_length": 4} if name in ("stride", "max_length") else {}
            yield Case(
                f"{kind}(texts, {name}={value!r})", (name, *ALSO.get(name, ())),
                lambda m=more, n=name, v=value: encode(["the cat", "cat"], **{**m, n: v}),
            )  # fmt: skip


def tokenizers() -> Iterator[Case]:
    for kind, tokenizer in tokenizers_of().items():
        for value in (*NO_TEXTS, None):
            for name in ("text", "text_target"):
                yield Case(
                    f"{kind}({name}={shown(value)})", (name, "text", "source"),
                    lambda t=tokenizer, n=name, v=value: t(**{n: v}),
                )  # fmt: skip
        yield from options_of_a_call(kind, tokenizer)
        for value in NO_IDS:
            for method in ("decode", "batch_decode", "convert_ids_to_tokens"):
                yield Case(
                    f"{kind}.{method}({shown(value)})", ("ids", "sequences"),
                    lambda t=tokenizer, m=method, v=value: getattr(t, m)(v),
                )  # fmt: skip
        for value in ({}, [], [{}], {"input_ids": "x"}, {"input_ids": [[1], [2, 3]], "attention_mask": [[1]]}, "x", 3):
            yield Case(f"{kind}.pad({shown(value)})", ("input", "ids", "mask"), lambda t=tokenizer, v=value: t.pad(v))
    plain = tokenizers_of()["plain"]
    backend = plain.backend_tokenizer
    given: dict[str, Any] = {"tokenizer_object": backend, **plain.special_tokens_map}
    vocabulary = ["<unk>", "<pad>", "<s>", "</s>", "a"]
    for name, values in {
        "character_vocab": (3, "abcd", [1, 2], [None], {}, ["a"], ["<unk>", "<pad>", "a", "a"]),
        "max_word_length": (0, -1, "x", 1.5, None, 10**9, True),
        "character_normalization": ("x", 3, True),
    }.items():
        for value in values:
            yield Case(
                f"RnnSeq2SeqWordTokenizer({name}={shown(value)})", (name,),
                lambda n=name, v=value: RnnSeq2SeqWordTokenizer(**{"character_vocab": vocabulary, **given, n: v}),
            )  # fmt: skip
    for name, values in {
        "source_replacements": (3, "ab", ["ab"], [["("]], [["(", "x"]], [["a", 3]], [[3, "a"]], [None], [["a", "\\9"]],
                                {"a": "b"}),
        "reverse_source": ("yes", 3, None), "target": ("x", 3, [], tiny_model()), "source": ("x", 3, None, []),
    }.items():  # fmt: skip
        for value in values:
            yield Case(
                f"from_tokenizers({name}={shown(value)})", (name,),
                lambda n=name, v=value: RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(**{"source": plain, n: v}),
            )  # fmt: skip
    for value in ("missing_folder", "", 3, None, []):
        yield Case(
            f"RnnSeq2SeqProcessor.from_pretrained({value!r})", ("pretrained_model_name_or_path", "missing_folder"),
            lambda v=value: RnnSeq2SeqProcessor.from_pretrained(v),
        )  # fmt: skip


@cache
def extractor() -> Any:
    return RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10)


SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
NO_SOUNDS: tuple[Any, ...] = (
    *("missing.wav", 3, {}, [], SOUND[:0], SOUND.reshape(2, -1), SOUND * NAN, SOUND + INF, ["a"], [None], b"RIFF"),
)


def processors() -> Iterator[Case]:
    known = tokenizers_of()
    for value in ("x", 3, None, [], tiny_model(), tiny_model().config):
        yield Case(f"RnnSeq2SeqProcessor({shown(value)})", ("tokenizer",), lambda v=value: RnnSeq2SeqProcessor(v))
        if value is not None:
            yield Case(
                f"RnnSeq2SeqProcessor(feature_extractor={shown(value)})", ("feature_extractor",),
                lambda v=value: RnnSeq2SeqProcessor(known["plain"], v),
            )  # fmt: skip
    speech = RnnSeq2SeqProcessor(known["plain"], extractor())
    for kind, tokenizer in known.items():
        processor = RnnSeq2SeqProcessor(tokenizer)
        yield Case(f"processor of {kind}()", ("text",), processor)
        for value in NO_TEXTS:
            for name in ("text", "text_target"):
                yield Case(
                    f"processor of {kind}({name}={shown(value)})", (name, "text", "source"),
                    lambda p=processor, n=name, v=value: p(**{n: v}),
                )  # fmt: skip
        for name, value in (("audio", SOUND), ("sampling_rate", 8000), ("speaker", "a")):
            yield Case(
                f"processor of {kind}({name}=...)", (name,),
                lambda p=processor, n=name, v=value: p("the cat", **{n: v}),
            )  # fmt: skip
        yield from options_of_a_call(f"processor of {kind}", processor)
        yield Case(
            f"processor of {kind}(fewer targets)", ("text_target",),
            lambda p=processor: p(["the cat", "cat"], text_target=["the"]),
        )  # fmt: skip
    yield Case("speech()", ("audio",), speech)
    yield Case("speech(text)", ("text",), lambda: speech("the cat"))
    for value in NO_SOUNDS:
        yield Case(f"speech(audio={shown(value)})", ("audio", "raw_speech"), lambda v=value: speech(audio=v))
    for name, values in {
        "sampling_rate": (16000, 0, -1, "x", 1.5), "speaker": (3, ["a", "b"]), "return_tensors": ("x", 3),
        "nonsense": (1,), "padding": ("x", 3),
    }.items():  # fmt: skip
        for value in values:
            yield Case(
                f"speech(sound, {name}={value!r})", (name, *ALSO.get(name, ())),
                lambda n=name, v=value: speech(audio=[SOUND], **{n: v}),
            )  # fmt: skip
    yield Case(
        "speech(fewer targets)", ("text_target",), lambda: speech(audio=[SOUND, SOUND], text_target=["the cat"])
    )
    for value in NO_IDS:
        yield Case(f"processor.decode({shown(value)})", ("ids", "sequences"), lambda v=value: speech.decode(v))


def pipelines() -> Iterator[Case]:
    model, processor = tiny_model("luong", dtype=torch.float32), RnnSeq2SeqProcessor(tiny_tokenizer())
    model.generation_config.max_new_tokens = 3
    writing = RnnSeq2SeqGenerationPipeline(model, processor)
    for value in (*NO_TEXTS, None, "", ["a", ""], [["a"]]):
        yield Case(f"pipeline({shown(value)})", ("source", "text"), lambda v=value: writing(v))
    for name, values in {
        "num_beams": (0, -1, 1.5, "3"), "num_return_sequences": (0, -1, 5, "2"), "max_new_tokens": (0, -1, 1.5, "x"),
        "max_length": (0, -1, "x"), "length_penalty": (NAN, "x", INF), "do_sample": ("yes", 2),
        "temperature": (-1, NAN, "x"), "top_p": (-0.1, 1.1, NAN, "x"), "top_k": (-1, 1.5, "x"),
        "eos_token_id": ("x", -1, 99999), "suppress_tokens": ("x", 3, [-1], [99999]), "nonsense": (1,),
        "return_alignments": ("yes", 2), "batch_size": (0, -1, "x", 1.5), "early_stopping": ("sometimes", 3),
        "generation_config": ("x", 3),
    }.items():  # fmt: skip
        for value in values:
            more = {"do_sample": True} if name in ("temperature", "top_p", "top_k") else {}
            yield Case(
                f"pipeline(['ab', 'a'], {name}={value!r})", (name,),
                lambda n=name, v=value, m=more: writing(["ab", "a"], **m, **{n: v}),
            )  # fmt: skip
    for value in ("missing_folder", 3, None):
        yield Case(
            f"RnnSeq2SeqGenerationPipeline({value!r})", ("model",),
            lambda v=value: RnnSeq2SeqGenerationPipeline(v, processor),
        )  # fmt: skip
    for name in ("processor", "tokenizer", "feature_extractor"):
        for value in ("x", 3):
            more = {} if name != "feature_extractor" else {"tokenizer": tiny_tokenizer()}
            yield Case(
                f"RnnSeq2SeqGenerationPipeline(model, {name}={value!r})", (name,),
                lambda n=name, v=value, m=more: RnnSeq2SeqGenerationPipeline(model, **m, **{n: v}),
            )  # fmt: skip
    yield Case("RnnSeq2SeqGenerationPipeline(model)", ("processor",), lambda: RnnSeq2SeqGenerationPipeline(model))
    config = tiny_config(input_feature_size=10)
    listener = RnnSeq2SeqForSpeechSeq2Seq(config).eval()
    listening = RnnSeq2SeqGenerationPipeline(listener, RnnSeq2SeqProcessor(tiny_tokenizer(), extractor()))
    yield Case(
        "RnnSeq2SeqGenerationPipeline(speech model, text processor)", ("feature_extractor",),
        lambda: RnnSeq2SeqGenerationPipeline(listener, processor),
    )  # fmt: skip
    for value in NO_SOUNDS:
        if not (isinstance(value, list) and not value):  # no sources, no answers
            yield Case(
                f"pipeline(audio {shown(value)})", ("audio", "raw_speech", "wav", "'a'"), lambda v=value: listening(v)
            )
    for value in (
        *({"array": SOUND}, {"array": SOUND, "sampling_rate": 16000}, {"array": SOUND, "sampling_rate": "x"}),
        *({"array": "x", "sampling_rate": 8000}, {"array": None, "sampling_rate": 8000}, {"sampling_rate": 8000}),
        {"array": SOUND, "raw": SOUND, "sampling_rate": 8000},
    ):
        yield Case(
            f"pipeline(audio {shown(value)})", ("audio", "array", "raw_speech", "sampling_rate"),
            lambda v=value: listening(v),
        )  # fmt: skip


@cache
def exported() -> dict[str, Any]:
    """Return runtimes of every kind."""
    folder, found = Path(tempfile.mkdtemp(prefix="bad_input_")), {}
    values, series = {"num_labels": 2, "problem_type": "regression"}, {"num_time_features": 2}
    models: dict[str, tuple[Any, Any]] = {
        "text": (tiny_model("luong", dtype=torch.float32), RnnSeq2SeqRuntime),
        "vectors": (RnnSeq2SeqForTokenClassification(tiny_config(input_feature_size=3, **values)), RnnValuesRuntime),
        "symbols": (RnnSeq2SeqForTokenClassification(tiny_config(**values)), RnnValuesRuntime),
        "series": (forecaster(**series), RnnSeriesRuntime),
    }
    for name, (model, runtime) in models.items():
        randomize(model)
        model.eval().save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
        export_model(folder / name, folder / f"{name}_exported", None)
        found[name] = runtime.from_pretrained(folder / f"{name}_exported")
    (folder / "a_file").write_text("x")
    return {**found, "folder": folder}


OPTIONS: dict[str, tuple[Any, ...]] = {
    "num_beams": (0, -1, 1.5, "3", True, NAN, 10**9), "num_return_sequences": (0, -1, 5, "2", True),
    "max_new_tokens": (0, -1, 1.5, "x", 10**12), "max_length": (0, 1, -1, "x"), "min_length": (-1, "x"),
    "min_new_tokens": (-1, 1.5), "length_penalty": (NAN, "x", INF, True), "temperature": (0, -1, NAN, "x", True),
    "top_k": (-1, 1.5, "x"), "top_p": (0, -0.1, 1.1, NAN, "x"), "seed": (-1, 1.5, "x", 2**80),
    "do_sample": ("yes", 2, "False", 1), "early_stopping": ("sometimes", 3, []),
    "suppress_tokens": ("x", 3, [-1], [99999], ["x"], [1.5], [None], list(range(12))), "nonsense": (1,),
    "eos_token_id": ("x", -1, 99999, 1.5, [99999], True), "decoder_start_token_id": ("x", -1, 99999, 1.5),
    "repetition_penalty": (2.0,), "batch_size": (0, -1, "x", 1.5, None, True), "no_repeat_ngram_size": (2,),
    "pad_token_id": ("x", -1),
}  # fmt: skip


def runtimes() -> Iterator[Case]:
    """Calls of exported models that write text."""
    runtime, folder = exported()["text"], exported()["folder"]
    for name, values in OPTIONS.items():
        for value in values:
            more = {"do_sample": True} if name in ("temperature", "top_k", "top_p", "seed") else {}
            yield Case(
                f"runtime.generate({name}={value!r})", (name,),
                lambda n=name, v=value, m=more: runtime.generate("abc", **m, **{n: v}),
            )  # fmt: skip
            if name not in ("batch_size", "num_beams", "num_return_sequences"):
                yield Case(
                    f"runtime.stream({name}={value!r})", (name,),
                    lambda n=name, v=value, m=more: list(runtime.stream("abc", **m, **{n: v})),
                )  # fmt: skip
    sources: tuple[Any, ...] = (
        *(3, None, [3], [None], [["a"]], [[-1]], [[99999]], [[]], "", "  ", [""], [[1.5]], {}, b"abc", [b"abc"], 1.5),
        *(
            "\ud800",
            ["a", "\ud800"],
            [[True]],
            [[None]],
            {"a"},
            [{4: 5}],
            np.array([4, 5]),
            [np.array([4.5])],
            [[[4]]],
        ),
    )
    for value in sources:
        yield Case(f"runtime.generate({shown(value)})", ("source",), lambda v=value: runtime.generate(v))
        yield Case(f"runtime.encode({shown(value)})", ("source",), lambda v=value: runtime.encode(v))
    pronouncer = Pronouncer(runtime)
    for name, values in {"n_best": (0, -1, "x", 1.5), "num_beams": (0, -1, "x", 1.5), "batch_size": (0, "x")}.items():
        for value in values:
            yield Case(
                f"pronouncer(['ab'], {name}={value!r})", (name,),
                lambda n=name, v=value: pronouncer(["ab"], **{n: v}),
            )  # fmt: skip
    for value in ("ab", 3, None, [3], [""], ["ab\tx"]):
        yield Case(f"pronouncer({value!r})", ("word",), lambda v=value: pronouncer(v))
    for class_ in (RnnSeq2SeqRuntime, RnnValuesRuntime, RnnSeriesRuntime):
        for value in ("missing", "", 3, None, [], b"x", folder / "a_file", folder / "text", folder / "other_exported"):
            yield Case(
                f"{class_.__name__}.from_pretrained({shown(value)})", ("folder", "missing", "a_file", "text", "other"),
                lambda c=class_, v=value: c.from_pretrained(v),
            )  # fmt: skip
        for value in (0, -1, "x", 1.5, None, True, 10**9):
            yield Case(
                f"{class_.__name__}.from_pretrained(num_threads={value!r})", ("num_threads",),
                lambda c=class_, v=value: c.from_pretrained(folder / "text_exported", v),
            )  # fmt: skip


def numbers() -> Iterator[Case]:
    """Calls of exported models that read and give numbers."""
    good = np.ones((4, 3), np.float32)
    bad: dict[str, tuple[Any, ...]] = {
        "vectors": (3, None, [], "abc", {}, [3], [None], ["a"], [good[0]], [good[None]], [good[:, :2]], [good[:0]],
                    [good + INF], [good * NAN], [good.astype(complex)], [[["a"] * 3]], [[[1, 2, 3], [1]]],
                    [[["1"] * 3]]),
        "symbols": (3, None, [], "abc", {}, [3], [None], ["a"], [[1.5]], [[-1]], [[12]], [[]], [[[1]]], [[True]],
                    [["1"]], [[NAN]], [[10**30]]),
    }  # fmt: skip
    for kind, values in bad.items():
        runtime = exported()[kind]
        for value in values:
            yield Case(f"{kind}.predict({shown(value)})", ("sources",), lambda r=runtime, v=value: r.predict(v))
    runtime = exported()["series"]
    given: dict[str, Any] = {
        "past_values": np.ones((2, 6, 2)), "past_time_features": np.ones((2, 6, 2)),
        "future_time_features": np.ones((2, 4, 2)), "static_real_features": np.ones((2, 1)),
        "static_categorical_features": np.zeros((2, 1), int),
    }  # fmt: skip
    runtime.forecast(**given)
    for name, right in given.items():
        numbers: list[Any] = [3, None, "x", [], right[0], right[:, :0], right[:0], right[None], right.astype(str)]
        numbers += [right + INF, right * 1j, {}, [[["a"]]]]
        if name != "past_values":
            numbers += [right * NAN, right[:1], np.concatenate([right, right])]
        if name == "static_categorical_features":
            numbers += [right + 3, right - 1, right + 0.5]
        for value in numbers:
            yield Case(
                f"series.forecast({name}={shown(value)})", tuple(given) if np.size(value) == 0 else (name,),
                lambda n=name, v=value: runtime.forecast(**{**given, n: v}),
            )  # fmt: skip
        if name != "past_values":
            missing = {n: v for n, v in given.items() if n != name}
            yield Case(f"series.forecast(no {name})", (name,), lambda m=missing: runtime.forecast(**m))
    yield Case("series.forecast(nonsense)", ("nonsense",), lambda: runtime.forecast(**given, nonsense=1))


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "tokenizers": tokenizers, "processors": processors, "pipelines": pipelines,
    "runtimes": runtimes, "numbers": numbers,
}  # fmt: skip


@pytest.mark.chaos
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", CASES)
def test_all(part: str) -> None:
    assert not tried(CASES[part](), of_the_api)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in sys.argv[1:] or CASES:
        tried(CASES[part](), of_the_api)
