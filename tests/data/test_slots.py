"""Unknown words get slots and come back as words: by hand, in the run of a recipe, and when a saved model predicts."""

from __future__ import annotations

import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from hf_rnn_seq2seq.data.pairs import DataOptions, encode_dataset, encode_sources
from hf_rnn_seq2seq.data.slots import decode_with_slots, encode_with_slots, tokens_with_slots, unknown_words
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.evaluation.decoding import decode
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.sharing.card import save_model_card
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.onnx_graphs import write_graphs


def tokenizer_of(**options: Any) -> PreTrainedTokenizerFast:
    """Ids 4 to 8: a b c d e."""
    return train_tokenizer(["a a a a a b b b b c c c d d e"], TokenizerOptions(**{"type": "word", **options}))


def config_of(tokenizer: PreTrainedTokenizerFast, slots: int = 3) -> Any:
    return SimpleNamespace(vocab_size=len(tokenizer), copy_slots=slots)


def test_unknown_words_get_slots_in_order_of_first_appearance() -> None:
    tokenizer = tokenizer_of()
    config = config_of(tokenizer)
    texts = ["a Kim b Lee Kim  e", "c d", "Lee Ann Joe Eve Ann Eve a", ""]
    words = unknown_words(texts, tokenizer, config)
    assert words == [["Kim", "Lee"], [], ["Lee", "Ann", "Joe"], []]
    # The fourth is one too many.
    wanted = [[4, 9, 5, 10, 9, 8, 3], [6, 7, 3], [9, 10, 11, 0, 10, 0, 4, 3], [3]]
    assert encode_sources(texts, tokenizer, config=config) == wanted
    assert encode_with_slots(texts, tokenizer, words, config) == wanted
    turned = encode_sources(texts, tokenizer, reverse=True, config=config)
    assert turned == [[*ids[:-1][::-1], 3] for ids in wanted]
    targets = ["Lee a Bob", "Kim", "Ann", "Lee"]
    coded = encode_with_slots(targets, tokenizer, words, config, add_special_tokens=False)
    assert coded == [[10, 4, 0], [0], [10], [0]]
    decoded = [decode_with_slots(ids, tokenizer, own, config) for ids, own in zip(coded, words, strict=True)]
    assert decoded == ["Lee a <unk>", "<unk>", "Ann", "<unk>"]
    generated = torch.tensor([2, 10, 4, 0, 3, 1])
    assert decode_with_slots(generated, tokenizer, words[0], config, skip_special_tokens=True) == "Lee a"
    assert tokens_with_slots(generated, tokenizer, words[0], config) == ["<s>", "Lee", "a", "<unk>", "</s>", "<pad>"]


def test_a_word_is_what_the_tokenizer_makes_of_it() -> None:
    tokenizer = tokenizer_of(lowercase=True, normalization="NFC")
    config = config_of(tokenizer)
    text = "A KIM kim Ge\u0301rard B"
    assert unknown_words([text], tokenizer, config) == [["kim", "g\u00e9rard"]]
    assert encode_sources([text], tokenizer, config=config) == [[4, 9, 9, 10, 5, 3]]


def test_without_slots_all_is_as_ever() -> None:
    tokenizer = tokenizer_of(type="bpe", vocab_size=270)
    for config in (None, SimpleNamespace(), config_of(tokenizer, slots=0)):
        texts = ["a Kim <unk> b", "xyz"]
        assert unknown_words(texts, tokenizer, config) == [[], []]
        assert encode_sources(texts, tokenizer, config=config) == tokenizer(texts)["input_ids"]
        ids = tokenizer("a Kim b")["input_ids"]
        assert decode_with_slots(ids, tokenizer, [], config) == "a Kim b</s>"
        assert tokens_with_slots(ids, tokenizer, [], config) == tokenizer.convert_ids_to_tokens(ids)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["word", "character"]), st.text("abcxyz \u00e9", max_size=12))
def test_what_has_slots_for_all_its_words_comes_back(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(type=kind)
    config = config_of(tokenizer, slots=12)
    words = unknown_words([text], tokenizer, config)
    (ids,) = encode_with_slots([text], tokenizer, words, config, add_special_tokens=False)
    back = decode_with_slots(ids, tokenizer, words[0], config)
    if kind == "character":
        assert back == text and len(set(ids)) == len(set(text))
    else:
        assert back == " ".join(text.split()) and len(set(ids)) == len(set(text.split()))
    assert 0 not in ids


def test_labels_and_sources_of_a_data_set_share_the_slots_of_the_row() -> None:
    tokenizer = tokenizer_of()
    pairs = Dataset.from_dict({"source": ["Kim a Lee", "Lee"], "target": ["Lee Kim Ann", "Lee b"]})
    encoded = encode_dataset(pairs, tokenizer, tokenizer, DataOptions(), config=config_of(tokenizer))
    assert encoded["input_ids"][:] == [[9, 4, 10, 3], [9, 3]]
    assert encoded["labels"][:] == [[10, 9, 0, 3], [9, 5, 3]]


def test_what_has_no_words_is_refused() -> None:
    subwords, tokenizer = tokenizer_of(type="bpe", vocab_size=270), tokenizer_of()
    with pytest.raises(ValueError, match=r"tokenizer: copy_slots=3 needs one of words or characters, got BPE"):
        unknown_words(["a"], subwords, config_of(subwords))
    small = SimpleNamespace(vocab_size=8, copy_slots=3)
    with pytest.raises(ValueError, match=r"tokenizer: has 9 entries, .* vocab_size=8 .*resize_token_embeddings"):
        encode_with_slots(["a"], tokenizer, [[]], small)
    config = config_of(tokenizer)
    with pytest.raises(ValueError, match="words: got lists of 1 sources for 2 texts"):
        encode_with_slots(["a", "b"], tokenizer, [[]], config)
    for words in ([], ["Kim"]):
        with pytest.raises(ValueError, match=f"ids holds the id 10, but words has only {len(words)} for the ids from"):
            decode_with_slots([4, 10], tokenizer, words, config)
    model = tiny_model(use_copy=True, vocab_size=9, copy_slots=3)
    with pytest.raises(ValueError, match=r"words: got none, but the model copies words .*copy_slots=3"):
        decode(model, [[4, 3]], tokenizer, GenerationConfig(max_new_tokens=2))
    content = {
        "data": {"dataset_name": "toy:copy"},
        "tokenizer": {"shared": True, "source": {"type": "unigram"}},
        "model": {"use_copy": True, "copy_slots": 5},
    }
    with pytest.raises(OptionsError, match=r"model.copy_slots: got 5 with tokenizer.source.type unigram"):
        build_recipe(content, "subwords")


def dialogues(count: int, seed: int) -> list[tuple[str, str]]:
    """Who is where: both have names that nobody else has."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        who, where = ("".join(draw.choices("klmnoprstuvwxyz", k=7)) for _ in range(2))
        said = draw.choice([f"i am {who} from {where}", f"from {where} comes {who}", f"{where} is where {who} lives"])
        question, answer = draw.choice([("who", f"{who} does"), ("which place", f"in {where} , {who}")])
        pairs.append((f"{said} . {question} ?", answer))
    return pairs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A model of names that all occur once, and the scores of names that it has never seen."""
    folder = tmp_path_factory.mktemp("names")
    for name, count, seed in (("train", 300, 0), ("validation", 20, 1), ("test", 40, 2)):
        lines = [f"{source}\t{target}\n" for source, target in dialogues(count, seed)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    content = {
        "data": {"train": "train.tsv", "validation": "validation.tsv", "test": "test.tsv"},
        "tokenizer": {"shared": True, "source": {"type": "word", "min_frequency": 3}},
        "model": {"rnn_type": "gru", "embedding_size": 16, "encoder_hidden_size": 32, "decoder_hidden_size": 32,
                  "encoder_layers": 1, "decoder_layers": 1, "use_copy": True, "copy_slots": 2},
        "training": {"num_train_epochs": 3, "max_tokens": 128, "learning_rate": 0.02, "report_to": "none",
                     "disable_tqdm": True, "seed": 1},
        "generation": {"num_beams": 2},
        "evaluation": {"metrics": ["exact_match", "perplexity"], "best_metric": "exact_match"},
    }  # fmt: skip
    (folder / "names.yaml").write_text(write_yaml(content))
    arguments = [folder / "names.yaml", "--data_dir", folder, "--output_dir", folder / "model", "--results",
                 folder / "results.json"]  # fmt: skip
    return folder, run_command(Seq2SeqTask, None, [str(argument) for argument in arguments])


def test_words_never_seen_are_copied_right(run: tuple[Path, dict[str, float]]) -> None:
    folder, scores = run
    pairs = dialogues(40, 2)
    assert scores["exact_match"] == 100
    assert scores["perplexity"] < 1.1
    predictions = next((folder / "model").rglob("*test*.tsv")).read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split("\t")[3] for line in predictions] == [target for _, target in pairs]


def test_a_saved_model_predicts_words_never_seen(
    run: tuple[Path, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pairs = str(run[0] / "model"), dialogues(5, 3)
    texts = tmp_path / "in.txt"
    texts.write_text("".join(f"{source}\n" for source, _ in pairs))
    predict([folder, "--input_file", str(texts), "--output_file", str(tmp_path / "out.txt")])
    assert (tmp_path / "out.txt").read_text().splitlines() == [target for _, target in pairs]
    capsys.readouterr()
    predict([folder, pairs[0][0], "--num_beams", "1", "--attention", str(tmp_path / "attention.png")])
    assert capsys.readouterr().out.splitlines()[0].endswith(f"  {pairs[0][1]}")
    assert (tmp_path / "attention.png").stat().st_size > 0


def test_without_slots_in_its_source_a_model_gives_none(run: tuple[Path, dict[str, float]]) -> None:
    folder = str(run[0] / "model")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer([source for source, _ in dialogues(5, 3)], return_tensors="pt", padding=True)
    for beams in (1, 3):
        for text in tokenizer.batch_decode(model.generate(**inputs, num_beams=beams)):
            assert "<unk>" in text


def test_the_snippet_of_the_card_copies(
    run: tuple[Path, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, (source, target) = str(run[0] / "model"), dialogues(1, 4)[0]
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    fields: dict[str, Any] = {"title": "Names", "language": "en", "task": "dialogue", "datasets": [], "metrics": {},
                              "recipe": None, "training_summary": "", "license": "apache-2.0"}  # fmt: skip
    card = save_model_card(tmp_path, model, **fields, model_id=folder, example=source).read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert capsys.readouterr().out == f"{target}\n"
    (call,) = re.findall(r"`(model\.alignments\(.*?\))`", card)
    assert eval(call, names).shape[2] == len(source.split()) + 1


def test_unknown_words_are_not_exported(run: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"copy_slots=2 cannot be exported: .* config.copy_slots = 0"):
        export_model(run[0] / "model", tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(str(run[0] / "model"))
    model.config.copy_slots = 0
    write_graphs(model, tmp_path)
