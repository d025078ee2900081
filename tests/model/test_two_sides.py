"""One tokenizer for both sides: `text_target`, decoding, rewritten sources, added tokens, saved and loaded."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
from transformers import AutoTokenizer, DataCollatorForSeq2Seq

from hf_rnn_seq2seq import RnnSeq2SeqTokenizer, RnnSeq2SeqTwoSidedTokenizer
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, encode_sources, load_tokenizers, train_tokenizer
from hf_rnn_seq2seq.data.processors import save_processor


SOURCES = ["the cat", "a dog sat", ""]
TARGETS = ["die katze", "ein hund sass", "katze"]
KINDS = {
    "character": TokenizerOptions("character"),
    "word": TokenizerOptions("word", lowercase=True),
    "bpe": TokenizerOptions("bpe", vocab_size=280),
    "unigram": TokenizerOptions("unigram", vocab_size=280),
    "without_eos": TokenizerOptions("character", add_eos=False),
}
PREPROCESSING = {
    "plain": Preprocessing(),
    "reversed": Preprocessing(reverse_source=True),
    "rewritten": Preprocessing([["[aeiou]", "_"], ["_+", "."]]),
    "both": Preprocessing([["cat", "dog dog"]], reverse_source=True),
}


def two_sided(kind: str, name: str = "plain", shared: bool = False) -> RnnSeq2SeqTwoSidedTokenizer:
    source = train_tokenizer([*SOURCES, *(TARGETS if shared else [])], KINDS[kind])
    target = source if shared else train_tokenizer(TARGETS, TokenizerOptions("word"), "target")
    options = PREPROCESSING[name]
    return RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(
        source, target, options.source_replacements, options.reverse_source
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_encoded_as_in_training_and_targets_by_their_own_tokenizer(
    kind: str, name: str, shared: bool
) -> None:
    tokenizer, options = two_sided(kind, name, shared), PREPROCESSING[name]
    encoded = tokenizer(SOURCES, text_target=TARGETS)
    texts = [options.text(source) for source in SOURCES]
    assert encoded["input_ids"] == encode_sources(texts, tokenizer.source_tokenizer, options.reverse_source)
    assert encoded["labels"] == tokenizer.target_tokenizer(TARGETS)["input_ids"]
    assert encoded["attention_mask"] == [[1] * len(ids) for ids in encoded["input_ids"]]
    assert tokenizer(text_target=TARGETS)["input_ids"] == encoded["labels"]
    # A single text, and a source after a target.
    assert [tokenizer(source)["input_ids"] for source in SOURCES] == encoded["input_ids"]
    assert tokenizer.batch_decode(encoded["labels"], skip_special_tokens=True) == TARGETS


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_its_rows_padded(name: str, side: str) -> None:
    tokenizer = two_sided("bpe", name)
    tokenizer.padding_side = side
    rows = tokenizer(SOURCES)["input_ids"]
    batch = tokenizer(SOURCES, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == max(map(len, rows))
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == row and (ids[~mask.bool()] == tokenizer.pad_token_id).all()
    wide = tokenizer(SOURCES, padding="max_length", max_length=40, return_tensors="pt")
    assert wide["input_ids"].shape == (3, 40)
    single = tokenizer(SOURCES[0], return_tensors="pt")
    assert single["input_ids"].tolist() == [rows[0]]


@pytest.mark.parametrize("name", PREPROCESSING)
def test_a_truncated_source_keeps_its_end(name: str) -> None:
    tokenizer = two_sided("character", name)
    encoded = tokenizer(SOURCES, text_target=TARGETS, truncation=True, max_length=3)
    for ids in (*encoded["input_ids"], *encoded["labels"]):
        assert len(ids) <= 3 and ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_does_the_same(kind: str, name: str, shared: bool, tmp_path: Path) -> None:
    tokenizer = two_sided(kind, name, shared)
    wanted = dict(tokenizer(SOURCES, text_target=TARGETS))
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is RnnSeq2SeqTwoSidedTokenizer and loaded.has_two_vocabularies is not shared
    assert dict(loaded(SOURCES, text_target=TARGETS)) == wanted
    assert dict(pickle.loads(pickle.dumps(loaded))(SOURCES, text_target=TARGETS)) == wanted
    # Each side alone, as before.
    source, target = load_tokenizers(tmp_path)
    assert (source is target) is shared and type(source) is RnnSeq2SeqTokenizer
    assert source(SOURCES)["input_ids"] == tokenizer.source_tokenizer(SOURCES)["input_ids"]
    assert target(TARGETS)["input_ids"] == wanted["labels"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_what_a_user_adds_is_recognised_on_its_side(kind: str, shared: bool, tmp_path: Path) -> None:
    tokenizer = two_sided(kind, shared=shared)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<2de>", "<2fr>"]})
    if not shared:
        tokenizer.target_tokenizer.add_special_tokens({"additional_special_tokens": ["<polite>"]})
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        ids = one("<2fr>the cat")["input_ids"]
        assert ids[0] == size + 1 and size + 1 not in ids[1:] and len(one) == size + 2
        # Typed by a user, what the tokenizer was trained with is text, and decodes to text.
        assert one("</s>")["input_ids"].count(one.eos_token_id) == (kind != "without_eos")
        if not shared:
            labels = one(text_target="<polite> katze")["input_ids"]
            assert labels[0] == len(one.target_tokenizer) - 1
            assert one.decode(labels, skip_special_tokens=True) == "katze"


def test_source_ids_are_decoded_on_request() -> None:
    tokenizer = two_sided("character")
    ids = tokenizer("the cat")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True, use_source_tokenizer=True) == "the cat"
    assert tokenizer.decode(ids, skip_special_tokens=True) != "the cat"


def test_a_stock_collator_pads_each_side_with_its_own() -> None:
    tokenizer = two_sided("character", "both")
    rows = [dict(tokenizer(a, text_target=b)) for a, b in zip(SOURCES, TARGETS, strict=True)]
    batch = DataCollatorForSeq2Seq(tokenizer)(rows)
    for row, ids, labels in itertools.islice(zip(rows, batch["input_ids"], batch["labels"], strict=True), 3):
        assert ids[: len(row["input_ids"])].tolist() == row["input_ids"]
        assert labels[labels != -100].tolist() == row["labels"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_replacements": ["ab"]}, r"source_replacements: got ab, wanted \[regular expression, replacement\]"),
        ({"source_replacements": [["(", ""]]}, "source_replacements: got .*unterminated"),
        ({"reverse_source": 1}, "reverse_source must be true or false; got 1"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    source = train_tokenizer(SOURCES, TokenizerOptions())
    with pytest.raises(ValueError, match=message):
        RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(source, source, **changes)  # type: ignore[arg-type]


def test_two_vocabularies_that_number_special_tokens_differently_are_refused() -> None:
    source = train_tokenizer(SOURCES, TokenizerOptions())
    other = train_tokenizer(TARGETS, TokenizerOptions())
    other.add_special_tokens({"eos_token": "<end>"})
    with pytest.raises(ValueError, match=r"eos_token is .*, the source's 3"):
        RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(source, other)


@pytest.mark.parametrize("options", [{"text_pair": ["a", "b", "c"]}, {"return_overflowing_tokens": True}])
def test_what_cannot_be_rewritten_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="rewrites its sources"):
        two_sided("character", "both")(SOURCES, **options)
    with pytest.raises(ValueError, match="a source must be a text; got int"):
        two_sided("character", "both")([1, 2])


def test_a_target_ends_although_its_tokenizer_was_trained_without(tmp_path: Path) -> None:
    source, target = (train_tokenizer(texts, TokenizerOptions(add_eos=False)) for texts in (SOURCES, TARGETS))
    save_processor(tmp_path, source, target, Preprocessing())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("a")["input_ids"] == source("a")["input_ids"]
    assert tokenizer(text_target="a")["input_ids"] == [*target("a")["input_ids"], tokenizer.eos_token_id]
