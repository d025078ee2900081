"""Word vectors from text files: the formats, what is refused and in which words, and how they reach a model."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForTokenClassification
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.data.word_vectors import load_word_vectors, set_word_vectors


LINES = ["the 1 2 3", "cat -0.5 1e-3 0", "Cat 9 9 9", "\u00a0 7 7 7", ". . . 4 5 6", "cat 8 8 8", "Paris 4 4 4"]


def written(path: Path, lines: list[str], ending: str = "\n") -> Path:
    data = "".join(line + ending for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.vec.gz"])
@pytest.mark.parametrize("header", [[], ["7 3"]], ids=["glove", "word2vec"])
@pytest.mark.parametrize("ending", ["\n", " \n", "\r\n"])
def test_the_formats(name: str, header: list[str], ending: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, [*header, *LINES], ending)
    matrix, found = load_word_vectors(path, ["cat", "dog", "The", "Cat", "CAT", "paris", "\u00a0", "the"], size=3)
    wanted = [[-0.5, 1e-3, 0], [0, 0, 0], [1, 2, 3], [9, 9, 9], [-0.5, 1e-3, 0], [0, 0, 0], [7, 7, 7], [1, 2, 3]]
    torch.testing.assert_close(matrix, torch.tensor(wanted))
    assert found.tolist() == [True, False, True, True, True, False, True, True]


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes("\ufeffa 1\nb 2\n".encode())
    matrix, found = load_word_vectors(path, ["b", "a"])
    assert matrix.tolist() == [[2], [1]] and found.all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a 1 2", "b 1"], "line 2: 1 values, wanted 2"),
        (["a 1 2", "b 1 2 3"], "line 2: 3 values, wanted 2"),
        (["a 1 2", "", "b 1 2"], "line 2: 0 values, wanted 2"),
        (["a 1 2", "b 1 x"], "line 2: 'x' is not a finite number"),
        (["a 1 nan"], "line 1: 'nan' is not a finite number"),
        (["2 2", "a 1 2", "b 1 2 3"], "line 3: 3 values, wanted 2"),
        (["3 2", "a 1 2", "b 1 2"], "line 1: 3 words announced, but 2 lines follow"),
        (["0 2"], "no vectors"),
        ([], "no vectors"),
        (["hello", "world"], "line 1: vectors of 0 values"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "vectors.txt", lines)
    with pytest.raises(DataError) as error:
        load_word_vectors(path, ["a", "b"])
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_a_missing_or_cut_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_word_vectors(tmp_path / "vectors.txt", ["a"])
    path = written(tmp_path / "vectors.txt.gz", LINES * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="broken gzip file"):
        load_word_vectors(path, ["a"])


@pytest.mark.parametrize(
    "model_class", [RnnSeq2SeqForTokenClassification, RnnSeq2SeqForConditionalGeneration], ids=["tagger", "seq2seq"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_reach_the_table_and_only_the_words_that_have_them(
    model_class: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(["the Cat sat on the mat"], TokenizerOptions(type="word"))
    model = model_class(tiny_config(vocab_size=len(tokenizer), embedding_size=3)).to(dtype)
    before = model.get_input_embeddings().weight.detach().clone()
    # "<unk>" and "</s>" of the file are another model's.
    path = written(tmp_path / "vectors.txt", ["the 1 2 3", "<unk> 5 5 5", "cat 4 5 6", "</s> 5 5 5", "dog 7 8 9"])
    assert set_word_vectors(model, tokenizer, path) == pytest.approx(2 / 5)
    table = model.get_encoder().embed_tokens.weight
    assert table.requires_grad and table.dtype == dtype
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("the", "Cat")}
    assert table[ids["the"]].tolist() == [1, 2, 3] and table[ids["Cat"]].tolist() == [4, 5, 6]
    others = [n for n in range(len(tokenizer)) if n not in ids.values()]
    assert torch.equal(table[others], before[others])


def test_sizes_that_do_not_fit_are_refused_with_both_numbers(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the cat"], TokenizerOptions(type="word"))
    path = written(tmp_path / "vectors.txt", LINES)
    narrow = RnnSeq2SeqForTokenClassification(tiny_config(vocab_size=6, embedding_size=2))
    with pytest.raises(DataError, match=r"line 1: vectors of 3 values, wanted 2"):
        set_word_vectors(narrow, tokenizer, path)
    short = RnnSeq2SeqForTokenClassification(tiny_config(vocab_size=5, embedding_size=3))
    with pytest.raises(ValueError, match="has 6 words, but the model's embedding table only 5 rows"):
        set_word_vectors(short, tokenizer, path)
