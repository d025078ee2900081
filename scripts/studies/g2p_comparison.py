#!/usr/bin/env python
"""Compare the one model of g2p_multilingual.yaml with single models, and with what people use for pronunciation.

    python scripts/studies/g2p_comparison.py --data_dir DATA --splits SPLITS --fp32 FOLDER --int8 FOLDER \\
        [--phonetisaurus FOLDER] [--python ANOTHER_PYTHON] --results scripts/results/g2p_comparison.json

DATA is that of the recipe, SPLITS the folder of CMUdict's splits without stress (as in g2p_cmudict.yaml), on which
English is scored. --fp32 and --int8 are exports of the model. FOLDER of --phonetisaurus has LANGUAGE.fst, trained on
the same files: `phonetisaurus train --model eng.fst --lexicon-word-separator '\\t' train.tsv`. eSpeak NG is looked for
as a library, g2p_en and phonetisaurus in --python. Every system answers the same words; it runs in a process of its
own (g2p_systems.py), one thread.

Scores are in percent: a word is wrong where none of its pronunciations is given. eSpeak NG writes English in the
International Phonetic Alphabet, which is mapped to the phones of CMUdict, and other languages in conventions that
differ from WikiPron's. So there are two more scores. "coarse" takes in English AH and IH without stress for one phone,
and AA and AO; "letters" keeps of the alphabet the base letters alone: no length, stress, tone, ties or diacritics.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hf_rnn_seq2seq.data.files import table_columns
from hf_rnn_seq2seq.data.outputs import check_output_file, write_json
from hf_rnn_seq2seq.evaluation import load_metric
from hf_rnn_seq2seq.recipes.arguments import file_to_write, one_sentence
from hf_rnn_seq2seq.sharing.results import describe_hardware, installed_versions, portable_command, read_results


sys.path.append(str(Path(__file__).parents[1] / "benchmark"))
from results_table import update_document


SMALL = "ady arm bul dut fre geo gre hin hun ice jpn kor lit rum vie".split()
ENGLISH = "eng"
# The languages of a system; of eSpeak NG, which has no Adyghe, as it writes them.
LANGUAGES = {
    "ours": [ENGLISH, *SMALL],
    "ours_greedy": [ENGLISH, *SMALL],
    "phonetisaurus": [ENGLISH, *SMALL],
    "espeak_ng": [ENGLISH, *(language for language in SMALL if language != "ady")],
    "g2p_en": [ENGLISH],
}
Word: TypeAlias = tuple[str, str]  # its language, and its letters
TIMED = 400  # words answered one at a time, of all languages of a system alike
# eSpeak NG's letters for North American English -> CMUdict's phones; the longest goes first.
ARPABET = {
    "aɪɚ": "AY ER", "aɪə": "AY AH", "tʃ": "CH", "dʒ": "JH", "eɪ": "EY", "aɪ": "AY", "aʊ": "AW", "ɔɪ": "OY", "oʊ": "OW",
    "iə": "IY AH", "ɪɹ": "IH R", "ɑː": "AA", "ɔː": "AO", "oː": "AO", "iː": "IY", "uː": "UW", "ɜː": "ER", "ɚ": "ER",
    "i": "IY", "ɪ": "IH", "ᵻ": "IH", "ɛ": "EH", "æ": "AE", "ɑ": "AA", "ɔ": "AO", "ʊ": "UH", "u": "UW", "ʌ": "AH",
    "ə": "AH", "ɐ": "AH", "a": "AA", "o": "OW", "e": "EH", "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G",
    "f": "F", "v": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "m": "M", "n": "N",
    "ŋ": "NG", "l": "L", "ɫ": "L", "ɹ": "R", "r": "R", "j": "Y", "w": "W", "ɾ": "T", "ʔ": "T", "x": "K",
}  # fmt: skip
_ARPABET = re.compile("|".join(sorted(ARPABET, key=lambda letters: -len(letters))))


def without_stress(phones: str) -> str:
    """Phones of CMUdict without the marks of stress."""
    return re.sub("[0-9]", "", phones)


def arpabet(text: str) -> str:
    """What eSpeak NG writes of English as phones of CMUdict, without stress."""
    text = text.replace("n̩", "ən").replace("l̩", "əl").replace("m̩", "əm")
    return " ".join(ARPABET[letters] for letters in _ARPABET.findall(re.sub("[ˈˌ]", "", text)))


def coarse(phones: str) -> str:
    """English phones in which conventions differ least: one for AH and IH, one for AA and AO."""
    return re.sub(r"\bIH\b", "AH", re.sub(r"\bAO\b", "AA", without_stress(phones)))


def base_letters(phones: str) -> str:
    """Base letters of the International Phonetic Alphabet, parted by blanks."""
    decomposed = unicodedata.normalize("NFD", phones.replace("ɡ", "g"))
    return " ".join(letter for letter in decomposed if unicodedata.category(letter) in ("Ll", "Lo"))


def references(args: argparse.Namespace) -> dict[Word, list[str]]:
    """Word -> its pronunciations, those of English without stress."""
    files = {language: args.data_dir / f"sigmorphon2020_g2p/{language}_test.tsv.gz" for language in SMALL}
    found: dict[Word, list[str]] = {}
    for language, path in {ENGLISH: args.splits / "test.tsv.gz", **files}.items():
        for _, (word, phones) in table_columns(path, "tsv", {"word": 1, "phones": 2}, header=False):
            word = word.lower() if language == ENGLISH else word
            found.setdefault((language, word), []).append(phones)
    return found


def run(args: argparse.Namespace, system: str, folder: Path | str, mode: str, words: list[Any]) -> dict[str, Any]:
    """Have words answered by a system in a process of its own."""
    worker = Path(__file__).with_name("g2p_systems.py")
    python = args.python if system in ("g2p_en", "phonetisaurus") else sys.executable
    start = time.time()
    process = subprocess.run(
        [python, worker, system, str(folder), mode],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        sys.exit(f"error: {system}: {process.stderr.strip()[-1000:]}")
    answered: dict[str, Any] = json.loads(process.stdout)
    answered["start"] = answered["first_answer"] - start
    return answered


def rates(answers: list[str], wanted: list[list[str]]) -> dict[str, float]:
    """Word and phone error rate."""
    return {
        name: round(load_metric(metric).compute(predictions=answers, references=wanted)[metric], 2)
        for name, metric in (("wer", "g2p_wer"), ("per", "per"))
    }


def scores(system: str, answers: Mapping[Word, str], wanted: Mapping[Word, list[str]]) -> dict[str, Any]:
    """Language -> its scores, and the means over the small languages."""
    result: dict[str, Any] = {}
    for language in LANGUAGES[system]:
        words = [word for word in wanted if word[0] == language]
        given, right = [answers[word] for word in words], [wanted[word] for word in words]
        if language == ENGLISH:
            given = [arpabet(text) if system == "espeak_ng" else without_stress(text) for text in given]
            folds: dict[str, Callable[[str], str]] = {"": without_stress, "coarse_": coarse}
        else:
            folds = {"": str.strip, "letters_": base_letters}
        result[language] = {
            f"{kind}{name}": rate
            for kind, fold in folds.items()
            if kind or system != "espeak_ng" or language == ENGLISH
            for name, rate in rates([fold(text) for text in given], [[*map(fold, texts)] for texts in right]).items()
        }
    small = [result[language] for language in LANGUAGES[system] if language != ENGLISH]
    names = small[0] if small else ()
    return {**result, "mean of 15": {name: round(float(np.mean([one[name] for one in small])), 2) for name in names}}


def size_of(path: Path) -> float:
    """Megabytes of a file or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 2**20, 2)


def measured(
    args: argparse.Namespace, name: str, system: str, folder: Path | str, wanted: Mapping[Word, list[str]]
) -> tuple[dict[str, Any], dict[Word, str]]:
    """Scores, times and sizes of one system, and its answers."""
    words = [word for word in wanted if word[0] in LANGUAGES[system]]
    batch = run(args, system, folder, "batch", words)
    by_word = dict(zip(words, batch["answers"], strict=True))
    own = scores(system, by_word, wanted)
    each = TIMED // len(LANGUAGES[system])
    few = [word for language in LANGUAGES[system] for word in [w for w in words if w[0] == language][:each]]
    single = run(args, system, folder, "single", few)
    times = np.percentile(single["milliseconds"], (50, 99)).round(2).tolist()
    at_work = np.percentile(single["processor"], (50, 99)).round(2).tolist()
    sys.stdout.write(f"{name}: {json.dumps(own)}\n  {times} ms, {single['memory']:.0f} MB, {single['start']:.2f} s\n")
    return {
        "scores": own,
        "milliseconds_p50": times[0],
        "milliseconds_p99": times[1],
        "processor_milliseconds_p50": at_work[0],
        "processor_milliseconds_p99": at_work[1],
        "memory_mb": round(single["memory"], 1),
        "start_seconds": round(single["start"], 3),
        "disk_mb": size_of(Path(folder)) if Path(folder).exists() else None,
    }, by_word


def stress(answers: dict[Word, str], args: argparse.Namespace) -> float:
    """WER of English with stress, of the words that have it in the dictionary."""
    wanted: dict[str, list[str]] = {}
    for _, (word, phones) in table_columns(args.data_dir / "cmudict/test.tsv", "tsv", {"w": 1, "p": 2}, header=False):
        wanted.setdefault(word, []).append(phones)
    return rates([answers[ENGLISH, word] for word in wanted], list(wanted.values()))["wer"]


def single_models() -> dict[str, float]:
    """Language -> word error rate on the test data of a model of that language alone, of the committed results."""
    folder = Path(__file__).parents[1] / "results"
    small = read_results(folder / "sigmorphon2020_g2p.json").metrics
    return {
        **{language: small[f"{language}_wer"] for language in SMALL},
        ENGLISH: read_results(folder / "g2p_cmudict.json").metrics["wer"],
    }


def tables(results: Mapping[str, Any], singles: Mapping[str, float]) -> str:
    """The markdown tables of a results file; `singles`: the word error rates of single models by language."""
    systems: dict[str, Any] = results["systems"]

    def cell(name: str, language: str, score: str = "wer") -> str:
        found = systems[name]["scores"].get(language, {}).get(score)
        return "" if found is None else f"{found:.2f}"

    def table(head: list[str], rows: list[list[str]]) -> str:
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    small = [language for language in SMALL if language in singles]
    alone = {**singles, "mean of 15": float(np.mean([singles[language] for language in small]))}
    native = [name for name in systems if any("wer" in scores for scores in systems[name]["scores"].values())]
    names = [*SMALL, "mean of 15", ENGLISH]
    own = [[name, f"{alone[name]:.2f}", *(cell(one, name) for one in native)] for name in names]
    letters = [[name, *(cell(one, name, "letters_wer") for one in systems)] for name in [*SMALL, "mean of 15"]]
    letters.append([f"{ENGLISH}, coarse", *(cell(one, ENGLISH, "coarse_wer") for one in systems)])
    with_stress = [f"{systems[one].get('english_wer_with_stress', '')}" for one in systems]
    letters.append([f"{ENGLISH}, with stress", *with_stress])
    columns = [f"{kind}milliseconds_{part}" for kind in ("processor_", "") for part in ("p50", "p99")]
    columns += ["start_seconds", "memory_mb", "disk_mb"]
    speed = [
        [name, *("" if (value := systems[name][key]) is None else f"{value}" for key in columns)] for name in systems
    ]
    head = ["system", "ms of a processor, p50", "p99", "ms, p50", "p99", "start, s", "memory, MB", "disk, MB"]
    return "\n\n".join(
        [
            table(["WER", "a model a language", *native], own),
            table(["WER, folded", *systems], letters),
            table(head, speed),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data_dir", "splits", "fp32", "int8"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--phonetisaurus", type=Path, metavar="FOLDER", help="transducers; default: left out")
    parser.add_argument("--python", default=sys.executable, help="the Python that has g2p_en and phonetisaurus")
    parser.add_argument("--results", type=file_to_write, required=True, metavar="FILE")
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine, for the results")
    parser.add_argument("--page", type=Path, metavar="FILE", help="markdown whose tables are to be renewed")
    parser.add_argument("--overwrite", action="store_true", help="replace a file of this name")
    args = parser.parse_args(arguments)
    with one_sentence():
        check_output_file(args.results, "--results", args.overwrite)
        wanted = references(args)
    systems: dict[str, tuple[str, Path | str]] = {
        "one model, 32 bits, beam 5": ("ours", args.fp32),
        "one model, 8 bits, beam 5": ("ours", args.int8),
        "one model, 8 bits, greedy": ("ours_greedy", args.int8),
        "eSpeak NG": ("espeak_ng", "-"),
        "g2p_en, network": ("g2p_en", "-"),
    }
    if args.phonetisaurus is not None:
        systems["Phonetisaurus, a transducer a language"] = ("phonetisaurus", args.phonetisaurus)
    found: dict[str, Any] = {}
    for name, (system, folder) in systems.items():
        found[name], answers = measured(args, name, system, folder, wanted)
        if system in ("ours", "ours_greedy", "g2p_en", "phonetisaurus"):
            found[name]["english_wer_with_stress"] = stress(answers, args)
    results = {
        "command": portable_command(["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]),
        "hardware": describe_hardware("cpu"),
        "beside": args.beside,
        "versions": installed_versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "words": {language: sum(word[0] == language for word in wanted) for language in LANGUAGES["ours"]},
        "systems": found,
    }
    write_json(args.results, results)
    if args.page is not None:
        update_document(args.page, tables(results, single_models()), "g2p", check=False)


if __name__ == "__main__":
    main()
