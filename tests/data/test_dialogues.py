"""Dialogues: each response with all that came before it, and bad lines refused by number."""

import re
from pathlib import Path

import pytest

from hf_rnn_seq2seq.data.dialogues import read_dialogues
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.pairs import DataOptions, load_data


TEXT = """1 resto_1 R_cuisine indian
2 resto_1 R_price cheap
3 resto_2 R_price cheap
4 hi\thello what can i help you with today
5 <SILENCE>\twhere  should it be
6 resto_2 R_rating 3
7 in paris\tapi_call paris

1 hello\thi
1 bye\tbye then
"""


def test_a_source_is_all_that_came_before(tmp_path: Path) -> None:
    (tmp_path / "dialogues.txt").write_text(TEXT)
    facts = "<kb> resto_1 R_cuisine indian R_price cheap <kb> resto_2 R_price cheap"
    first = f"{facts} <user> hi"
    second = f"{first} <bot> hello what can i help you with today <user> <SILENCE>"
    third = f"{second} <bot> where should it be <kb> resto_2 R_rating 3 <user> in paris"
    wanted = [
        (4, first, "hello what can i help you with today"),
        (5, second, "where should it be"),
        (7, third, "api_call paris"),
        # A blank line or an ID of 1 begins a dialogue that knows nothing of the one before.
        (9, "<user> hello", "hi"),
        (10, "<user> bye", "bye then"),
    ]
    assert list(read_dialogues(tmp_path / "dialogues.txt")) == wanted
    data = load_data(DataOptions(train="dialogues.txt", format="dialog"), tmp_path)
    assert data["train"].to_list() == [{"source": source, "target": target} for _, source, target in wanted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 hi\thello\nbye\tbye\n", r"line 2: wanted 'ID user<TAB>bot' or 'ID fact', got 'bye\\tbye'"),
        ("1 hi\thello\tyou\n", r"line 1: wanted 'ID user<TAB>bot' or 'ID fact'"),
        ("1 hi\t\n", r"line 1: wanted 'ID user<TAB>bot'"),
        ("1 \thello\n", r"line 1: wanted 'ID user<TAB>bot'"),
        ("1\n", r"line 1: wanted 'ID user<TAB>bot'"),
        ("1 hi\thello\n3 bye\tbye\n", r"line 2: the ID is 3, wanted 1 or 2"),
        ("1 hi\thello\n\n2 bye\tbye\n", r"line 3: the ID is 2, wanted 1$"),
    ],
)
def test_a_bad_line_is_refused_by_number(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "dialogues.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path)) + ", " + message):
        list(read_dialogues(path))
