"""The comparison of pronunciation systems: symbols of others in ours, scores, tables; splits with stress."""

import gzip
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest


ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/studies/g2p_comparison.py"))


@pytest.mark.parametrize(
    ("espeak", "phones"),
    [
        ("fˈaɪɚ", "F AY ER"),
        ("bˈɑːɹli", "B AA R L IY"),
        ("bˈʌʔn̩", "B AH T AH N"),
        ("wˈɔːɾɚ", "W AO T ER"),
        ("dʒˈʌdʒ", "JH AH JH"),
        ("nˈeɪʃən", "N EY SH AH N"),
        ("tʃˈeə", "CH EH AH"),
    ],
)
def test_espeak_s_english_in_the_phones_of_cmudict(espeak: str, phones: str) -> None:
    assert SCRIPT["arpabet"](espeak) == phones


def test_what_is_left_of_conventions() -> None:
    assert SCRIPT["coarse"]("K AO1 R IH0 B AA2 AH0") == "K AA R AH B AA AH"
    assert SCRIPT["base_letters"]("t͡sʰ iː ˈɡ ɑ̃ ŋ ˧˩") == SCRIPT["base_letters"]("tsiɡɑŋ") == "t s i g ɑ ŋ"


def test_a_system_is_scored_on_the_words_of_its_languages() -> None:
    small = SCRIPT["SMALL"]
    wanted = {("eng", "a"): ["AH", "EY"], ("eng", "b"): ["B IY"], **{(language, "x"): ["xː"] for language in small}}
    answers = {("eng", "a"): "EY1", ("eng", "b"): "B AY1", **{(language, "x"): "x" for language in small}}
    scores = SCRIPT["scores"]("ours", answers, wanted)
    assert scores["eng"]["wer"] == 50 and scores["eng"]["per"] == pytest.approx(100 / 3, abs=0.01)
    assert scores["mean of 15"] == {"wer": 100, "per": 100, "letters_wer": 0, "letters_per": 0}
    espeak = SCRIPT["scores"]("espeak_ng", {**answers, ("eng", "a"): "ˈeɪ", ("eng", "b"): "bˈiː"}, wanted)
    assert espeak["eng"]["wer"] == 0 and "ady" not in espeak and "wer" not in espeak["arm"]
    assert espeak["arm"]["letters_wer"] == 0


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    results = json.loads((ROOT / "scripts/results/g2p_comparison.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/pronunciation.md").read_text(encoding="utf-8")
    assert f"\n{SCRIPT['tables'](results, SCRIPT['single_models']())}\n<!-- g2p:end -->" in page


def test_splits_of_others_get_the_stress_of_the_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: dict[str, Any] = runpy.run_path(str(ROOT / "scripts/cmudict_splits.py"))
    dictionary = tmp_path / "cmudict.dict"
    dictionary.write_text("read R EH1 D\nread(2) R IY1 D\na AH0\na(2) EY1\nnew N UW1\n")
    monkeypatch.setitem(splits["main"].__globals__, "dictionary_file", lambda: dictionary)
    lines = {"train": "READ\tR IY D\nNEW\tN Y UW\n", "dev": "READ\tR EH D\n", "test": "A\tEY\nA\tAH\nNONE\tN\n"}
    for split, text in lines.items():
        with gzip.open(tmp_path / f"{split}.tsv.gz", "wt") as file:
            file.write(text)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["cmudict_splits.py", str(out), "--as_in", str(tmp_path)])
    splits["main"]()
    assert (out / "train.tsv").read_text() == "read\tR IY1 D\n"
    assert (out / "validation.tsv").read_text() == "read\tR EH1 D\n"
    assert (out / "test.tsv").read_text() == "a\tEY1\na\tAH0\n"
