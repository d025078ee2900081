"""Features of a source: tokens of their own wherever the model is used, and new pairs with the stems of others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hf_rnn_seq2seq.data.features import tags_of, with_features
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.hallucination import hallucinated
from hf_rnn_seq2seq.data.pairs import DataOptions, encode_dataset, encode_sources, load_data
from hf_rnn_seq2seq.data.preprocessing import Preprocessing
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer


ROWS = [("walk", "walked", "V;PST"), ("a;b>c", "x", "3;<".replace("<", "SG")), ("sheep", "sheep", "")]
SOURCES = ["<V><PST>walk", "<3><SG>a;b>c", "sheep"]


@pytest.mark.parametrize("name", ["file.tsv", "file.csv", "file.jsonl"])
def test_every_format_reads_the_same_features(name: str, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"source_column": 1, "target_column": 2, "feature_column": 3}
    if name.endswith("jsonl"):
        lists = [f'{{"s": "{s}", "t": "{t}", "f": {f.split(";") if f else []}}}'.replace("'", '"') for s, t, f in ROWS]
        text = "\n".join(lists)
        columns = {"source_column": "s", "target_column": "t", "feature_column": "f"}
    else:
        text = "\n".join(("\t" if name.endswith("tsv") else ",").join(row) for row in ROWS)
    (tmp_path / name).write_text(text + "\n")
    options = DataOptions(train=name, **columns)
    data = load_data(options, tmp_path)["train"]
    assert list(data["source"]) == SOURCES and list(data["target"]) == [target for _, target, _ in ROWS]
    # A user writes the columns with a tab between; what was read before is left as it is.
    rewriting = options.preprocessing
    assert [rewriting.text(f"{source}\t{features}") for source, _, features in ROWS] == SOURCES
    assert [rewriting.text(source) for source in SOURCES] == SOURCES


@pytest.mark.parametrize("kind", ["character", "word", "bpe", "unigram"])
@pytest.mark.parametrize("options", [{}, {"lowercase": True, "fold_digits": True, "normalization": "NFD"}])
def test_a_tag_is_one_token_of_every_tokenizer(kind: str, options: dict[str, Any], caplog: Any) -> None:
    tokenizer = train_tokenizer(SOURCES, TokenizerOptions(type=kind, **options), tags=tags_of(SOURCES))
    for source in ("<V><PST>walk", "<3>walk"):
        tags = tags_of([source])
        tokens = tokenizer.convert_ids_to_tokens(encode_sources([source], tokenizer)[0])
        assert sorted(tokens[: len(tags)]) == tags and "<unk>" not in tokens
        assert tokens[len(tags) :] == tokenizer.convert_ids_to_tokens(encode_sources(["walk"], tokenizer)[0])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        (ids,) = encode_sources([f"<{kind}{len(options)}><V>walk"], tokenizer)
    assert f"the feature {kind}{len(options)} is not in the training data" in caplog.text
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert "<V>" in tokens and tokens[-2:] != ["<unk>", "</s>"]
    if kind in ("character", "word"):
        assert tokens[:2] == ["<unk>", "<V>"]
    typed = tokenizer.convert_ids_to_tokens(encode_sources(["<s><V>walk"], tokenizer)[0])
    assert "<s>" not in typed or kind in ("bpe", "unigram")  # typed by a user it is text


def test_slots_go_with_tags() -> None:
    options = TokenizerOptions(type="character", min_frequency=2)
    tokenizer = train_tokenizer(["<V>aab", "<V>aac"], options, tags=["<V>"])

    class Config:
        copy_slots, vocab_size, unk_token_id = 2, len(tokenizer), 0

    (ids,) = encode_sources(["<V>abc"], tokenizer, config=Config)
    tag, a = tokenizer.convert_tokens_to_ids(["<V>", "a"])
    assert ids == [tag, a, len(tokenizer), len(tokenizer) + 1, 3]


@pytest.mark.parametrize(
    ("features", "words"),
    [("V;;PST", "got the feature ''"), ("a<b", "got the feature 'a<b'"), ("s", "other than unk, pad, s"),
     (3, "the features are 3"), (["V", 3], "the features are")],
)  # fmt: skip
def test_features_that_cannot_be_tags_are_refused_with_their_place(features: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"f.tsv, line 3: .*{words}"):
        with_features("walk", features, "f.tsv, line 3")
    with pytest.raises(DataError, match="has a tab"):
        with_features("wa\tlk", "V", "f.tsv, line 3")


@pytest.mark.parametrize(
    "options", [{"train": {"source": "a", "target": "b"}}, {"dataset_name": "toy:copy"}, {"format": "dialog"}]
)
def test_what_has_no_columns_has_no_features(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"feature_column: got 3, but .* have no columns"):
        DataOptions(**options, feature_column=3)


def test_hallucinated_pairs_keep_tags_endings_and_what_both_sides_share(tmp_path: Path) -> None:
    pairs = [("<V><PST>Walk", "Walked"), ("<V><PRS>abcdefgh", "abcdefghs"), ("<V>go", "went")]
    new = hallucinated(pairs, 50, seed=1)
    assert new == hallucinated(pairs, 50, seed=1) != hallucinated(pairs, 50, seed=2)
    letters = set("Wwalkedabcdefghs".upper() + "walkedabcdefghs")
    for source, target in new:
        tags, stem = source[: source.rindex(">") + 1], source[source.rindex(">") + 1 :]
        ending = {"<V><PST>": "ed", "<V><PRS>": "s"}[tags]
        assert target == stem + ending and set(stem) <= letters
        assert stem[-1] == ("h" if ending == "s" else "k") and stem[0].isupper() == (ending == "ed")
    assert len({source[source.rindex(">") + 1] for source, _ in new}) > 5
    assert {source for source, _ in new} - {source for source, _ in pairs}
    with pytest.raises(DataError, match=r"data\.hallucinated_samples: got 5, but no source has 3 letters in a row"):
        hallucinated(pairs[2:], 5, seed=0)
    (tmp_path / "f.tsv").write_text("walk\twalked\tV;PST\nrun\trunning\tV\n")
    options = DataOptions(train="f.tsv", validation="f.tsv", feature_column=3, hallucinated_samples=7)
    data = load_data(options, tmp_path)
    assert (len(data["train"]), len(data["validation"])) == (9, 2)
    tokenizer = train_tokenizer(data["train"]["source"], TokenizerOptions(), tags=tags_of(data["train"]["source"]))
    assert len(encode_dataset(data["train"], tokenizer, tokenizer, options)) == 9


def test_the_rewriting_is_saved_with_the_model(tmp_path: Path) -> None:
    options = DataOptions(train="f.tsv", feature_column=3, source_replacements=[["ß", "ss"]], reverse_source=True)
    options.preprocessing.save(tmp_path)
    assert Preprocessing.load(tmp_path) == options.preprocessing
    assert options.preprocessing.text("groß\tADJ;SG") == "<ADJ><SG>gross"
