"""Pronounce words with an exported model: a user's lexicon first, then the model, which says how sure it is.

    hf-rnn-seq2seq pronounce exported encoder colour --features eng --lexicon mine.tsv --n_best 3
    python exported/rnn_seq2seq_pronounce.py --features eng < words.txt > pronounced.tsv

Words are arguments, or lines of the standard input (UTF-8), blank ones passed over; a tab and the language may follow
a word, in place of --features. Written is a table with a line a pronunciation, best first:

    word, features      as they were given
    rank                from 1 on
    pronunciation
    log_probability     natural, of the whole pronunciation; empty for the lexicon's
    margin              by how much this is above that of the next in rank, likewise
    from                lexicon or model
    unknown             characters that the training data did not have, in any language: do not trust the model here

`export_model` puts a copy of this file beside that of `runtime.py`: like it, it needs neither torch nor transformers.
It works with any text-to-text model: `features` are whatever the sources of the model have, its language or others.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING or __package__:
    from .runtime import RnnSeq2SeqRuntime
else:  # the copy in an exported folder
    sys.path.insert(0, str(Path(__file__).parent))
    from rnn_seq2seq_runtime import RnnSeq2SeqRuntime


COPIED_AS = "rnn_seq2seq_pronounce.py"
COLUMNS = ("word", "features", "rank", "pronunciation", "log_probability", "margin", "from", "unknown")
_PART = 1024  # words read before any is answered: batches are of words of like length
_LARGEST_LEXICON = 2**28  # bytes


class Lexicon:
    """A user's answers, in place of the model's.

    Args:
        normalize: brings a text into the form in which entries are compared.
        entries: text -> its answers, best first.
    """

    def __init__(self, normalize: Callable[[str], str], entries: dict[str, list[str]] | None = None) -> None:
        self._normalize = normalize
        self._entries = {normalize(text): answers for text, answers in (entries or {}).items()}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, text: str) -> list[str] | None:
        """Return the answers to a text, or None."""
        return self._entries.get(self._normalize(text)) if self._entries else None

    @classmethod
    def read(
        cls, path: Path, normalize: Callable[[str], str], known_features: Sequence[str] = (), features: str = ""
    ) -> Lexicon:
        """Read lines of a text, a tab and an answer (UTF-8); several lines of a text are its answers, best first.

        Between the two may stand another tab and the text's features, such as its language, if they are among
        `known_features`; `features` are those of a text without any.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not UTF-8, or a line has another form.
        """
        if not path.is_file():  # which a pipe is not, that would be waited for
            raise FileNotFoundError(f"{path}: no such file")
        if path.stat().st_size > _LARGEST_LEXICON:
            raise ValueError(f"{path}: got {path.stat().st_size} bytes, wanted at most {_LARGEST_LEXICON}")
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
        entries: dict[str, list[str]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            *text, answer = line.removesuffix("\r").split("\t")
            own = text[1].split(";") if len(text) == 2 else []
            if len(text) not in (1, 2) or not normalize(text[0]) or not set(own) <= set(known_features):
                known = f", with its features in between or not: {', '.join(known_features)}" if known_features else ""
                raise ValueError(f"{path}, line {number}: got {line!r}, wanted a text, a tab and its answer{known}")
            if not own and features:
                text.append(features)
            entries.setdefault(normalize("\t".join(text)), []).append(answer)
        return cls(normalize, entries)


def normalizer_of(runtime: RnnSeq2SeqRuntime) -> Callable[[str], str]:
    """Return what makes equal the texts that the model's tokenizer reads as equal (lower case, Unicode forms)."""
    rules = getattr(runtime.source_tokenizer, "normalizer", None)

    def normalize(text: str) -> str:
        return unicodedata.normalize("NFC", text if rules is None else rules.normalize_str(text)).strip()

    return normalize


class Pronounced(NamedTuple):
    """The pronunciations of a word, best first."""

    word: str
    features: str
    pronunciations: list[str]
    log_probabilities: list[float]  # one more than there are pronunciations, if there is one; of the lexicon: none
    unknown: str  # characters that the model does not know

    @property
    def from_lexicon(self) -> bool:
        """Whether the user's lexicon answered."""
        return not self.log_probabilities

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the lines of the table, see `COLUMNS`."""
        for rank, pronunciation in enumerate(self.pronunciations):
            own, below = ([*self.log_probabilities, math.nan, math.nan][rank + n] for n in (0, 1))
            score, margin = ("" if math.isnan(number) else f"{number:.4f}" for number in (own, own - below))
            found_in = "lexicon" if self.from_lexicon else "model"
            yield self.word, self.features, str(rank + 1), pronunciation, score, margin, found_in, self.unknown


class Pronouncer:
    """An exported model behind a lexicon.

    ```python
    pronouncer = Pronouncer(RnnSeq2SeqRuntime.from_pretrained("exported"), features="eng")
    pronouncer(["encoder"], n_best=3)[0].pronunciations
    ```

    Args:
        runtime: the model.
        lexicon: answers that go before the model's.
        features: those of a word without any, such as its language.
    """

    def __init__(self, runtime: RnnSeq2SeqRuntime, lexicon: Lexicon | None = None, features: str = "") -> None:
        if runtime.source_tokenizer is None or runtime.target_tokenizer is None:
            raise ValueError("the exported folder holds no tokenizer: wanted one, since words are texts")
        self.runtime, self.tokenizer = runtime, runtime.source_tokenizer
        self.lexicon = lexicon or Lexicon(normalizer_of(runtime))
        self.known_features, self.features = runtime.known_features, features

    def split(self, text: str) -> tuple[str, str]:
        """Return word and features of a text; a ValueError if the model does not know these."""
        word, _, features = text.partition("\t")
        features = features.strip() or self.features
        if not word.strip():
            raise ValueError(f"got the word {word!r}, wanted one that is not blank")
        unknown = [name for name in features.split(";") if name not in self.known_features and (features or name)]
        if unknown or (self.known_features and not features):
            known = ", ".join(self.known_features) or "none, since the model has no such thing"
            raise ValueError(f"word {word!r}: got the features {features!r}, wanted some of {known}")
        return word, features

    def unknown_characters(self, word: str) -> str:
        """Return the characters of a word that the model does not know, each once."""
        unknown = self.tokenizer.token_to_id("<unk>")
        encoded = self.tokenizer.encode(word, add_special_tokens=False)
        spans = (word[start:end] for token, (start, end) in zip(encoded.ids, encoded.offsets) if token == unknown)
        return "".join(dict.fromkeys(spans))

    def __call__(
        self, words: Sequence[str], n_best: int = 1, num_beams: int | None = None, batch_size: int = 32
    ) -> list[Pronounced]:
        """Pronounce words.

        Args:
            words: each a word, or a word, a tab and its features.
            n_best: how many pronunciations are wanted.
            num_beams: hypotheses of the search; `None`: as saved with the model, and more than `n_best`.
            batch_size: words decoded at a time.

        Raises:
            ValueError: a word is blank, or has features that the model does not know.
        """
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"words: got {words!r:.80}, wanted a list of texts")
        for name, number in (("n_best", n_best), ("num_beams", num_beams)):
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{name} must be a whole number, at least 1; got {number!r}")
        several = [self.split(text) for text in words]
        texts = [f"{word}\t{features}" if features else word for word, features in several]
        known = [self.lexicon.get(text) for text in texts]
        wanted = max(n_best + 1, 2)  # the margin is that above the next
        beams = max(num_beams or self.runtime.generation.get("num_beams") or 1, wanted)
        asked = [text for text, answers in zip(texts, known) if answers is None]
        search = {"num_beams": beams, "num_return_sequences": wanted, "do_sample": False}
        found = iter(self.runtime.generate(asked, batch_size, **search) if asked else [])
        results = []
        for (word, features), answers in zip(several, known):
            ranked = [] if answers is not None else next(found)
            texts = [hypothesis.text or "" for hypothesis in ranked] if answers is None else answers
            scores = [hypothesis.log_probability for hypothesis in ranked]
            unknown = "" if answers is not None else self.unknown_characters(word)
            results.append(Pronounced(word, features, texts[:n_best], scores, unknown))
        return results


def _lines(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, or the lines of the standard input that are not blank; an error names the line."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline=None)  # newline: all kinds
    for text in arguments or (line.removesuffix("\n") for line in sys.stdin):
        text.encode("utf-8")  # an argument may be none
        if text.strip():
            yield text


def _parts(lines: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(lines)
    while part := list(itertools.islice(iterator, _PART)):
        yield part


def main(arguments: Sequence[str] | None = None, program: str | None = None, folder: Path | None = None) -> None:
    """Run the command line; `folder`: the exported model, `None`: the first argument says it."""
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if folder is None:
        parser.add_argument("folder", type=Path, help="a folder that export wrote")
    parser.add_argument("words", nargs="*", help="default: lines of the standard input")
    parser.add_argument("--features", default="", help="of words without any, such as their language")
    parser.add_argument("--lexicon", type=Path, help="lines of word<TAB>pronunciation or word<TAB>features<TAB>...")
    parser.add_argument("--n_best", type=int, default=1, help="pronunciations a word")
    parser.add_argument("--num_beams", type=int, help="hypotheses of the search; default: as saved with the model")
    parser.add_argument("--batch_size", type=int, default=32, help="words decoded at a time")
    args = parser.parse_intermixed_args(arguments)  # words may stand behind options
    for name in ("n_best", "num_beams", "batch_size"):
        if (getattr(args, name) or 1) < 1:
            parser.error(f"--{name}: got {getattr(args, name)}, wanted at least 1")
    try:
        runtime = RnnSeq2SeqRuntime.from_pretrained(folder or args.folder)
        known, normalize = runtime.known_features, normalizer_of(runtime)
        lexicon = args.lexicon and Lexicon.read(args.lexicon, normalize, known, args.features)
        pronouncer = Pronouncer(runtime, lexicon, args.features)
        header = [COLUMNS]
        for part in _parts(_lines(args.words)):
            found = pronouncer(part, args.n_best, args.num_beams, args.batch_size)
            rows = header + [row for pronounced in found for row in pronounced.rows()]
            sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
            header = []
    except Exception as error:  # those of onnxruntime and tokenizers have nothing else in common
        sys.exit(f"error: {'input, wanted UTF-8: ' * isinstance(error, UnicodeError)}{error}")


if __name__ == "__main__":
    main(folder=Path(__file__).parent)
