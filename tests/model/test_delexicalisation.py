"""Delexicalised slots: values become placeholders and come back, and a tokenizer takes them along."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from hf_rnn_seq2seq import RnnSeq2SeqProcessor, RnnSeq2SeqTwoSidedTokenizer
from hf_rnn_seq2seq.data import Preprocessing, TokenizerOptions, save_processor, train_tokenizer
from hf_rnn_seq2seq.model.delexicalisation import delexicalised, lexicalised, slot_values


SLOTS = {"XNAME": r"\bname ([^,]+)", "XNEAR": r"\bnear ([^,]+)"}
SOURCE = "name The Eagle, food Thai, near The Eagle Inn"
TEXT = "The Eagle is Thai. The Eagle's door is near The Eagle Inn, not The Eagles."


def test_values_are_whole_words_and_the_longer_goes_first() -> None:
    values = slot_values(SOURCE, SLOTS)
    assert values == {"XNAME": "The Eagle", "XNEAR": "The Eagle Inn"}
    assert delexicalised(SOURCE, values) == "name XNAME, food Thai, near XNEAR"
    assert delexicalised(TEXT, values) == "XNAME is Thai. XNAME's door is near XNEAR, not The Eagles."
    assert lexicalised("XNAME (near XNEAR), XNAME", values) == "The Eagle (near The Eagle Inn), The Eagle"
    # A slot that the source has not got stays as it is written, and a value of two slots is the first one's.
    assert lexicalised("near XNEAR", slot_values("name A", SLOTS)) == "near XNEAR"
    assert delexicalised("A by A", slot_values("name A, near A", SLOTS)) == "XNAME by XNAME"
    assert slot_values("name  , food Thai", SLOTS) == {}


_VALUES = st.text(alphabet="ab. $\\", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(["XA", "XAB", "YNEAR"]), _VALUES), st.text(alphabet="ab. $\\c", max_size=30))
def test_what_was_replaced_comes_back(values: dict[str, str], text: str) -> None:
    assert lexicalised(delexicalised(text, values), values) == text


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (["XNAME"], r"delexicalised_slots: got \['XNAME'\], wanted placeholders"),
        ({"X NAME": "(a)"}, "delexicalised_slots: got 'X NAME'"),
        ({"": "(a)"}, "delexicalised_slots: got ''"),
        ({"XNAME": "a"}, "delexicalised_slots: got 'XNAME': 'a', wanted .* a group"),
        ({"XNAME": "(a"}, "delexicalised_slots: got 'XNAME': .*unterminated"),
        ({"XNAME": 3}, "delexicalised_slots: got 'XNAME': 3"),
    ],
)
def test_bad_slots_are_refused_by_name(slots: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(delexicalised_slots=slots)  # type: ignore[arg-type]
    tokenizer = train_tokenizer(["a b"], TokenizerOptions("word"))
    with pytest.raises(ValueError, match=message):
        RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(tokenizer, delexicalised_slots=slots)  # type: ignore[arg-type]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_processor_takes_the_slots_along_and_reads_both_sides_by_them(reverse: bool, tmp_path: Path) -> None:
    preprocessing = Preprocessing([[r"\[", " "], [r"\]", ""]], reverse, SLOTS)
    tokenizer = train_tokenizer(["name XNAME near XNEAR", "XNAME is by XNEAR"], TokenizerOptions("word"))
    save_processor(tmp_path, tokenizer, preprocessing=preprocessing)
    assert Preprocessing.load(tmp_path) == preprocessing
    source, target = "name[The Eagle], near[Inn]", "The Eagle is by Inn"
    for kind in (RnnSeq2SeqProcessor, AutoProcessor):
        processor = kind.from_pretrained(tmp_path)
        one = processor(source, text_target=target)
        assert processor.decode(one["labels"], skip_special_tokens=True) == "XNAME is by XNEAR"
        several = processor([source, "name[B]"], text_target=[target, "B is"], padding=True)
        assert several["input_ids"][0] == one["input_ids"] and several["labels"][0] == one["labels"]
        text = preprocessing.delexicalised(["name The Eagle, near Inn"])[0]
        ids = tokenizer(text)["input_ids"]
        assert one["input_ids"] == ([*ids[:-1][::-1], ids[-1]] if reverse else ids)
        assert processor.lexicalise("XNAME is by XNEAR", source) == target
