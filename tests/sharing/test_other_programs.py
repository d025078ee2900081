"""What other people's programs use: pipelines without the package, a stock Trainer's folder, added tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_ids, randomize, tiny_config, tiny_model, tiny_tokenizer
from transformers import (
    AddedToken,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    pipeline,
)

from hf_rnn_seq2seq import (
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqTokenizer,
)
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, load_tokenizers, save_tokenizers, train_tokenizer
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import GenerationOptions, RnnSeq2SeqRuntime


HIDDEN = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
"""


def without_the_package(program: str, folder: Path, *arguments: str) -> Any:
    """What a program prints as JSON in a process where the package cannot be imported."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", HIDDEN + program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- Speech -----------------------------------------------------------------------------------------------------

TRANSCRIBE = """
import numpy as np
from transformers import pipeline

transcriber = pipeline("automatic-speech-recognition", model=sys.argv[1], trust_remote_code=True)
print(json.dumps([transcriber.type, transcriber(np.load(sys.argv[1] + "/speech.npy"))["text"]]))
"""


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_speech_pipeline_works_where_the_package_is_not(ctc_weight: float, tmp_path: Path) -> None:
    extractor = RnnSeq2SeqFeatureExtractor(sampling_rate=8000, num_mel_bins=10)
    tokenizer = train_tokenizer(["low high"], TokenizerOptions("character"))
    config = tiny_config(
        "luong", vocab_size=len(tokenizer), input_feature_size=extractor.feature_size, ctc_weight=ctc_weight
    )
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    randomize(model)
    model.generation_config.max_new_tokens, model.generation_config.suppress_tokens = 6, [0, 1, 2, 3]
    for part in (model, tokenizer, extractor):
        part.save_pretrained(tmp_path)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 3000).astype(np.float32)
    np.save(tmp_path / "speech.npy", sound)
    wanted = pipeline("automatic-speech-recognition", model=str(tmp_path))(sound)["text"]
    assert wanted
    assert without_the_package(TRANSCRIBE, tmp_path, str(tmp_path)) == ["seq2seq", wanted]


# ---- What a stock Trainer leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["luong", "cho", "dot"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_a_stock_trainer_that_generates_has_saved_is_exported(structure: str, beams: int, tmp_path: Path) -> None:
    model = tiny_model(structure, torch.float32)
    pairs = [
        {"input_ids": row, "attention_mask": [1] * 5, "labels": [*row[:3], 3]} for row in random_ids(8, 5).tolist()
    ]
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True, max_steps=2, eval_steps=2,
        eval_strategy="steps", predict_with_generate=True, generation_num_beams=beams,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(
        model, arguments, DataCollatorForSeq2Seq(tiny_tokenizer(), model=model), train_dataset=pairs,
        eval_dataset=pairs, compute_metrics=lambda prediction: {"rows": float(len(prediction.predictions))},
    )  # fmt: skip
    trainer.train()
    model.generation_config.num_beams = beams
    trainer.save_model(str(tmp_path / "model"))
    written = json.loads((tmp_path / "model" / "generation_config.json").read_text(encoding="utf-8"))
    assert "num_assistant_tokens" in written and written["max_length"] == 20  # as this transformers leaves it
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    runtime = RnnSeq2SeqRuntime.from_pretrained(tmp_path / "exported")
    for source in random_ids(4, 6):
        ids = loaded.generate(source[None], attention_mask=torch.ones(1, 6))[0, 1:].tolist()
        assert list(runtime.generate([source.tolist()])[0][0].tokens) == ids[: -1 if ids[-1] == 3 else None]


IDS = {"decoder_start_token_id": 2, "eos_token_id": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"num_assistant_tokens": 20, "assistant_confidence_threshold": 0.4, "target_lookbehind": 10},
        {"cache_implementation": "static", "cache_config": {"a": 1}, "low_memory": True, "output_scores": True},
        {"typical_p": 0.5, "min_p": 0.1, "epsilon_cutoff": 0.1},  # of sampling, and nothing is sampled
        {"bad_words_ids": [], "sequence_bias": {}, "forced_bos_token_id": None, "stop_strings": None},
    ],
)
def test_settings_that_change_no_result_are_no_reason_to_refuse(options: dict[str, Any]) -> None:
    assert GenerationOptions.of({**IDS, **options}) == GenerationOptions.of(IDS)


@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.2}, {"forced_bos_token_id": 5}, {"bad_words_ids": [[4]]},
        {"do_sample": True, "typical_p": 0.5}, {"do_sample": True, "min_p": 0.1}, {"renormalize_logits": True},
        {"guidance_scale": 2.0}, {"exponential_decay_length_penalty": [3, 1.2]}, {"ctc_weight": 0.3},
        {"prompt_lookup_num_tokens_of": 3}, {"begin_suppress_tokens": [4]}, {"num_beam_groups": 2},
    ],
)  # fmt: skip
def test_settings_that_change_a_result_are_refused(options: dict[str, Any]) -> None:
    *_, name = options
    with pytest.raises(ValueError, match=f"no generation option '{name}'; got {name}="):
        GenerationOptions.of({**IDS, **options})


# ---- Added tokens -----------------------------------------------------------------------------------------------

CORPUS = ["the cat sat on the mat", "< / s > 2 d e"]
KINDS: dict[str, TokenizerOptions] = {
    "character": TokenizerOptions("character"),
    "word": TokenizerOptions("word"),
    "word_lowercase": TokenizerOptions("word", lowercase=True, add_eos=False),
    "word_with_characters": TokenizerOptions("word", characters=True),
    "bpe": TokenizerOptions("bpe", vocab_size=300),
    "bpe_with_blank": TokenizerOptions("bpe", vocab_size=300, add_prefix_space=True),
    "unigram": TokenizerOptions("unigram", vocab_size=300),
}
ADDITIONS: dict[str, Any] = {
    "additional": lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<2DE>", "<2fr>"]}),
    "extra": lambda tokenizer: tokenizer.add_special_tokens({"extra_special_tokens": ["<2DE>", "<2fr>"]}),
    "objects": lambda tokenizer: tokenizer.add_special_tokens(
        {"extra_special_tokens": [AddedToken(text, special=True, normalized=False) for text in ("<2DE>", "<2fr>")]}
    ),
    "named": lambda tokenizer: tokenizer.add_special_tokens({"cls_token": "<2DE>", "sep_token": "<2fr>"}),
    "tokens": lambda tokenizer: tokenizer.add_tokens(["<2DE>", "<2fr>"], special_tokens=True),
    "plain_tokens": lambda tokenizer: tokenizer.add_tokens([AddedToken(text, normalized=False) for text in
                                                            ("<2DE>", "<2fr>")]),
}  # fmt: skip


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_is_recognised_and_stays_so(kind: str, addition: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, KINDS[kind])
    before = tokenizer("the </s> <s> cat")["input_ids"]
    size = len(tokenizer)
    assert ADDITIONS[addition](tokenizer) == 2
    assert len(tokenizer) == size + 2
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(tokenizer)
    readers = [tokenizer, loaded]
    if addition != "named":  # a plain tokenizer makes its named tokens special again
        readers.append(PreTrainedTokenizerFast.from_pretrained(tmp_path))  # as where the package is not
    for one in readers:
        ids = one("<2DE> the cat<2fr> mat")["input_ids"]
        assert [number for number in ids if number >= size] == [size, size + 1] and ids[0] == size
        assert one.convert_ids_to_tokens([size, size + 1]) == ["<2DE>", "<2fr>"]
        # What is typed like a special token of the training is the text that it was before.
        assert one("the </s> <s> cat")["input_ids"] == before
        assert "<2DE>" in one.decode(ids)
    if addition in ("additional", "extra", "objects", "named"):
        for one in (tokenizer, loaded):
            assert {size, size + 1} <= set(one.all_special_ids)
            ids = one("<2DE> the cat<2fr> mat")["input_ids"]
            for text in (
                one.decode(ids, skip_special_tokens=True),
                *one.batch_decode([ids], skip_special_tokens=True),
            ):
                assert "<2" not in text and "the cat" in text and "</s>" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_more_is_added_to_what_was_loaded(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, KINDS[kind])
    ADDITIONS["additional"](tokenizer)
    save_tokenizers(tmp_path, tokenizer, None)
    again, _ = load_tokenizers(tmp_path)
    again.add_special_tokens({"additional_special_tokens": ["<2es>"]}, replace_extra_special_tokens=False)
    again.add_special_tokens({"eos_token": "</s>", "pad_token": "<pad>"})
    save_tokenizers(tmp_path, again, None)
    once_more, _ = load_tokenizers(tmp_path)
    size = len(tokenizer)
    assert isinstance(once_more, RnnSeq2SeqTokenizer) and len(once_more) == size + 1
    assert once_more.eos_token_id == 3
    ids = once_more("<2es> the <2DE> cat")["input_ids"]
    assert [number for number in ids if number >= size - 2] == [size, size - 2]
    if "word" not in kind:
        assert once_more("a </s>b")["input_ids"].count(3) == 1


PLAIN = """
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = ["<2DE> the cat", "the cat</s>"]
print(json.dumps([type(tokenizer).__name__, tokenizer(texts)["input_ids"]]))
"""


def test_what_is_added_is_recognised_without_the_package(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, TokenizerOptions("character"))
    ADDITIONS["additional"](tokenizer)
    tokenizer.save_pretrained(tmp_path)
    wanted = tokenizer(["<2DE> the cat", "the cat</s>"])["input_ids"]
    assert without_the_package(PLAIN, tmp_path, str(tmp_path)) == ["TokenizersBackend", wanted]


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_what_is_added_is_recognised_in_an_exported_folder(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, KINDS[kind])
    model = RnnSeq2SeqForConditionalGeneration(tiny_config("luong", vocab_size=len(tokenizer)))
    ADDITIONS["additional"](tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.max_new_tokens = 5
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "exported", quantize=None)
    runtime = RnnSeq2SeqRuntime.from_pretrained(tmp_path / "exported")
    for text in ("<2DE> the cat", "the </s> mat<2fr>"):
        ids = tokenizer(text)["input_ids"]
        assert runtime.generate([text])[0][0].tokens == runtime.generate([ids])[0][0].tokens
        assert runtime._encode_text(text) == ids


# ---- Kinds of problem -------------------------------------------------------------------------------------------


def test_a_tagger_refuses_problems_that_it_does_not_solve() -> None:
    with pytest.raises(ValueError, match=r"problem_type='ranking': wanted one of .*single_label_classification"):
        RnnSeq2SeqForTokenClassification(tiny_config("luong")).config.problem_type = "ranking"
        model = RnnSeq2SeqForTokenClassification(tiny_config("luong"))
        model.config.problem_type = "ranking"
        model(random_ids(2, 4), labels=torch.zeros(2, 4, dtype=torch.long))


def test_a_tagger_refuses_numbers() -> None:
    model = RnnSeq2SeqForTokenClassification(tiny_config("luong"))
    with pytest.raises(ValueError, match=r"torch\.float32, wanted integers"):
        model(random_ids(2, 4), labels=torch.zeros(2, 4))
    assert model(random_ids(2, 4), labels=torch.ones(2, 4, dtype=torch.long)).loss > 0
    named = tiny_config("luong", problem_type="single_label_classification")
    assert RnnSeq2SeqForTokenClassification(named)(random_ids(2, 4)).logits.shape == (2, 4, 2)
