"""Tokenizers: reversible, loadable without our code, with fixed special ids."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_rnn_seq2seq.data.tokenizers import (
    NORMALIZATIONS,
    SPECIAL_TOKENS,
    TOKENIZER_TYPES,
    TokenizerOptions,
    load_tokenizers,
    save_tokenizers,
    train_tokenizer,
)


CORPUS = ["the cat sat on the mat", "  two  blanks and a\ttab\n", "naïve café 日本語", "it's 3.14 % of x < y & z > 0"]
SUBWORD = {"bpe": 300, "unigram": 300}
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def options(kind: str, **changes: object) -> TokenizerOptions:
    return TokenizerOptions(**{"type": kind, "vocab_size": SUBWORD.get(kind), **changes})  # type: ignore[arg-type]


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    return str(tokenizer.decode(ids[:-1]))


def reloaded(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    tokenizer.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_special_tokens_have_fixed_ids_after_loading(kind: str, tmp_path: Path) -> None:
    tokenizer = reloaded(train_tokenizer(CORPUS, options(kind)), tmp_path)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    assert [tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id] == [
        0,
        1,
        2,
        3,
    ]
    # No holes: the size of the vocabulary is the size of the model's embedding table.
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert list(tokenizer(CORPUS[0])) == ["input_ids", "attention_mask"]


@few
@given(texts=st.lists(st.text(), min_size=1).filter(lambda texts: any(text.strip() for text in texts)))
def test_characters_are_reversible(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = reloaded(train_tokenizer(texts, options("character")), tmp_path_factory.mktemp("tokenizer"))
    for text in texts:
        assert round_trip(tokenizer, text) == text
        assert len(tokenizer(text)["input_ids"]) == len(text) + 1
    assert len(tokenizer) == 4 + len(set("".join(texts)))


@pytest.fixture(scope="module")
def subwords(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], PreTrainedTokenizerFast]:
    """The subword tokenizers without and with a blank before the text."""
    return {
        (kind, blank): reloaded(
            train_tokenizer(CORPUS, options(kind, add_prefix_space=blank)), tmp_path_factory.mktemp(kind)
        )
        for kind in SUBWORD
        for blank in (False, True)
    }


@few
@given(text=st.one_of(st.text(), st.text(" a\n", max_size=6)))
@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("kind", SUBWORD)
def test_subwords_encode_any_text_without_unknowns(
    kind: str, blank: bool, text: str, subwords: dict[tuple[str, bool], PreTrainedTokenizerFast]
) -> None:
    tokenizer = subwords[kind, blank]
    assert round_trip(tokenizer, text) == text
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", SUBWORD)
def test_a_blank_before_the_text_makes_its_first_word_like_the_others(
    kind: str, subwords: dict[tuple[str, bool], PreTrainedTokenizerFast]
) -> None:
    word = CORPUS[0].split()[0]
    for blank in (False, True):
        tokenizer = subwords[kind, blank]
        once, twice = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f"{word} {word}"))
        assert (twice == once * 2) == blank
        # The beginning of what is decoded stays as it is when more tokens come: a stream may show it.
        for length in range(len(twice)):
            assert f"{word} {word}".startswith(tokenizer.decode(twice[:length]))


@few
@given(words=st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), min_size=1))
def test_words_are_joined_with_blanks(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = reloaded(train_tokenizer(["  ".join(words)], options("word")), tmp_path_factory.mktemp("tokenizer"))
    assert round_trip(tokenizer, "\t".join(words)) == " ".join(words)
    assert len(tokenizer) == 4 + len(set(words))


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_special_tokens_in_a_text_are_text(kind: str) -> None:
    tokenizer = train_tokenizer([*CORPUS, "< / s >", "</ s>"], options(kind))
    ids = tokenizer("a </s>b")["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_an_empty_training_text_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="source tokenizer: the training text is empty"):
        train_tokenizer(texts, options(kind))


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_no_end_symbol_if_not_wanted(kind: str, tmp_path: Path) -> None:
    tokenizer = reloaded(train_tokenizer(CORPUS, options(kind, add_eos=False)), tmp_path)
    ids = tokenizer(CORPUS[0])["input_ids"]
    assert not set(ids) & {1, 2, 3}
    assert tokenizer.decode(ids) == CORPUS[0]


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_lowercase_holds_for_training_and_use(kind: str, tmp_path: Path) -> None:
    tokenizer = reloaded(train_tokenizer(["ABBA aBBa"], options(kind, lowercase=True)), tmp_path)
    assert round_trip(tokenizer, "AbBa") == "abba"
    assert "B" not in tokenizer.get_vocab() or kind in SUBWORD


@pytest.mark.parametrize("form", NORMALIZATIONS)
def test_unicode_normalization_is_that_of_the_standard_library(form: str) -> None:
    text = "caf\u00e9 cafe\u0301 \ufb01 \u212b \uff21"
    tokenizer = train_tokenizer([text], options("character", normalization=form))
    assert round_trip(tokenizer, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["character", "word"])
def test_rare_entries_become_unknown(kind: str) -> None:
    text = ["a a a b b c"]
    tokenizer = train_tokenizer(text, options(kind, min_frequency=2))
    assert tokenizer("c")["input_ids"] == [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert "b" in tokenizer.get_vocab()
    small = train_tokenizer(["a a a b b c"], options(kind, vocab_size=5 if kind == "word" else 6))
    assert "a" in small.get_vocab() and "b" not in small.get_vocab()


@pytest.mark.parametrize("kind", SUBWORD)
def test_subword_vocabularies_grow_to_their_size_and_shorten_texts(kind: str) -> None:
    corpus = [f"{stem}{ending}" for stem in ("walk", "talk", "jump") for ending in ("", "s", "ed", "ing", "er")] * 5
    tokenizer = train_tokenizer(corpus, options(kind, vocab_size=280))
    assert 260 < len(tokenizer) <= 280
    assert len(tokenizer("walking", add_special_tokens=False)["input_ids"]) < len("walking")


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_training_is_deterministic(kind: str) -> None:
    first, second = (train_tokenizer(CORPUS * 3, options(kind)).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "sentencepiece"}, "type: got 'sentencepiece', wanted one of character"),
        ({"normalization": "nfc"}, "normalization: got 'nfc', wanted one of NFC"),
        ({"min_frequency": 0}, "min_frequency: got 0"),
        ({"vocab_size": 4}, "vocab_size: got 4, wanted at least 5 for type character"),
        ({"type": "bpe", "vocab_size": 100}, "vocab_size: got 100, wanted at least 260 for type bpe"),
        ({"type": "unigram", "min_frequency": 2}, "min_frequency: type unigram"),
        ({"type": "word", "add_prefix_space": True}, "add_prefix_space: got true with type word, wanted type bpe or"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        TokenizerOptions(**changes)  # type: ignore[arg-type]


def test_two_vocabularies_live_in_one_model_folder(tmp_path: Path) -> None:
    source, target = train_tokenizer(["abc"], options("character")), train_tokenizer(["X Y"], options("word"))
    save_tokenizers(tmp_path / "two", source, target)
    save_tokenizers(tmp_path / "one", source, source)
    assert [tokenizer.get_vocab() for tokenizer in load_tokenizers(tmp_path / "two")] == [
        source.get_vocab(),
        target.get_vocab(),
    ]
    one, same = load_tokenizers(tmp_path / "one")
    assert one is same
    assert AutoTokenizer.from_pretrained(tmp_path / "two", subfolder="target_tokenizer")("Y X")["input_ids"] == [
        5,
        4,
        3,
    ]


def test_loading_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        load_tokenizers(tmp_path)


def test_loads_where_the_package_cannot_be_imported(tmp_path: Path) -> None:
    train_tokenizer(CORPUS, options("character")).save_pretrained(tmp_path)
    program = (
        "import sys; sys.modules['hf_rnn_seq2seq'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        "assert tokenizer.decode(tokenizer('the cat').input_ids, skip_special_tokens=True) == 'the cat'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
