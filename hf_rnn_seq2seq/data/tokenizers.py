"""Tokenizers trained by a recipe: character, word, BPE and unigram, saved as plain `tokenizer.json` files.

`AutoTokenizer.from_pretrained(directory)` loads them without any code of this package, those with `characters`
excepted. BPE is Sennrich et al. 2016, the unigram model Kudo 2018; both run on bytes, so that any text is encoded
without an unknown token and decoded back exactly. Needs only `tokenizers` and `transformers`; of the model files it
imports only the tokenizer classes, so that it works for any sequence-to-sequence model.
"""

import copy
import json
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..model.tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer
from ..model.tokenization_two_sides import RnnSeq2SeqTwoSidedTokenizer
from ..model.tokenization_words import RnnSeq2SeqWordTokenizer
from .features import split_tags
from .files import DataError, check_text, read_object, reading
from .option_checks import check_choice, check_range
from .outputs import writing


# The order fixes the ids: <unk> 0, <pad> 1, <s> 2, </s> 3.
UNK_TOKEN, PAD_TOKEN, BOS_TOKEN, EOS_TOKEN = SPECIAL_TOKENS = ("<unk>", "<pad>", "<s>", "</s>")
TOKENIZER_TYPES = ("character", "word", "bpe", "unigram")
NORMALIZATIONS = ("NFC", "NFD", "NFKC", "NFKD")
TARGET_TOKENIZER_FOLDER = "target_tokenizer"
_SUBWORD_TYPES = ("bpe", "unigram")
# A word that reads like a special token gets an invisible word joiner (U+2060), so that it is a word like another; it
# is taken out again where words are joined to a text. Characters and bytes spell such a word anyway.
_LIKE_SPECIAL = Regex(r"(?<!\S)<(?=(?:unk|pad|s|/s)>(?!\S))")
# Tags that the training data do not have are one unknown token: see `features.py`.
_UNKNOWN_TAGS = r"\A(?:<(?!(?:unk|pad|s|/s)>)[^<>]+>)+"
_MARKED_SPECIAL = Regex("^<\u2060(?=(?:unk|pad|s|/s)>$)")
_DEFAULT_SUBWORD_VOCAB_SIZE = 8000


@dataclass
class TokenizerOptions:
    """The training of one tokenizer (the `tokenizer.source` and `tokenizer.target` sections of a recipe).

    Args:
        type: "character" (one token a Unicode code point, blanks included), "word" (split at white space), "bpe" or
            "unigram".
        vocab_size: largest number of entries, special tokens included. `None`: no limit for character and word, 8000
            for the subword types, which need at least 4 special tokens + 256 bytes.
        min_frequency: entries seen less often become `<unk>` (character, word) or are not merged (bpe). Unigram
            ignores counts.
        lowercase: lower-case the text before anything else; decoding returns lower case. References are
            normalised by the target tokenizer, too, before they are scored.
        normalization: Unicode form "NFC", "NFD", "NFKC" or "NFKD" applied first, or `None`.
        add_prefix_space: types bpe and unigram only: put a blank before the text, which decoding takes away again: a
            word is then the same tokens at the beginning of a text as within it.
        add_eos: append `</s>` when encoding. Targets get their `</s>` in `data.encode_dataset` either way.
        fold_digits: every digit becomes 0; decoding returns zeros.
        characters: type word only: also return the characters of each word, as `character_ids`. `lowercase` and
            `fold_digits` leave them as they are in the text.
        min_character_frequency: characters seen less often become `<unk>`.
        max_word_length: of a longer word only so many characters are given, half from its beginning, half from its
            end.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    type: str = "character"
    vocab_size: int | None = None
    min_frequency: int = 1
    lowercase: bool = False
    normalization: str | None = None
    add_prefix_space: bool = False
    add_eos: bool = True
    fold_digits: bool = False
    characters: bool = False
    min_character_frequency: int = 1
    max_word_length: int = 40

    def __post_init__(self) -> None:
        check_choice(self, "type", TOKENIZER_TYPES)
        check_choice(self, "normalization", NORMALIZATIONS)
        check_range(self, "min_frequency", "min_character_frequency", "max_word_length", least=1)
        if self.characters and self.type != "word":
            raise ValueError(f"characters: type {self.type} has no words to give the characters of, wanted type word")
        if self.type == "unigram" and self.min_frequency != 1:
            raise ValueError("min_frequency: type unigram chooses its pieces by likelihood, leave it at 1")
        if self.add_prefix_space and self.type not in _SUBWORD_TYPES:
            raise ValueError(f"add_prefix_space: got true with type {self.type}, wanted type bpe or unigram, or false")
        smallest = len(SPECIAL_TOKENS) + (256 if self.type in _SUBWORD_TYPES else 1)
        if self.vocab_size is not None and self.vocab_size < smallest:
            raise ValueError(
                f"vocab_size: got {self.vocab_size}, wanted at least {smallest} for type {self.type}"
                + (" (4 special tokens and 256 bytes)" if self.type in _SUBWORD_TYPES else "")
            )


def _normalizer(options: TokenizerOptions) -> normalizers.Normalizer | None:
    form = options.normalization
    steps: list[normalizers.Normalizer] = [] if form is None else [getattr(normalizers, form)()]
    if options.lowercase:
        steps.append(normalizers.Lowercase())
    if options.fold_digits:
        steps.append(normalizers.Replace(Regex(r"\d"), "0"))
    if options.add_prefix_space:
        # Not the pre-tokenizer's option of this name: it leaves out the blank where the text has one, for good.
        steps.append(normalizers.Prepend(" "))
    if options.type == "word":
        steps.append(normalizers.Replace(_LIKE_SPECIAL, "<\u2060"))
    return normalizers.Sequence(steps) if steps else None


def _empty_tokenizer(options: TokenizerOptions) -> tuple[Tokenizer, trainers.Trainer]:
    """Return the untrained tokenizer of a type, with its reversible splitting and joining, and its trainer."""
    common: dict[str, Any] = {"special_tokens": list(SPECIAL_TOKENS), "show_progress": False}
    trainer: trainers.Trainer
    if options.type in ("character", "word"):
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK_TOKEN))
        size = 2**31 if options.vocab_size is None else options.vocab_size
        trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=options.min_frequency, **common)
        if options.type == "character":
            # (?m:.) also matches line ends: every code point is a token, and joining them restores the text.
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
            tokenizer.decoder = decoders.Fuse()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            # It joins words with blanks: none begins with a line end, the prefix of what would be joined without.
            joining = decoders.WordPiece(prefix="\n", cleanup=False)
            tokenizer.decoder = decoders.Sequence([decoders.Replace(_MARKED_SPECIAL, "<"), joining])
        return tokenizer, trainer
    common["vocab_size"] = _DEFAULT_SUBWORD_VOCAB_SIZE if options.vocab_size is None else options.vocab_size
    common["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    if options.type == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=UNK_TOKEN))
        trainer = trainers.BpeTrainer(min_frequency=options.min_frequency, **common)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(unk_token=UNK_TOKEN, **common)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if options.add_prefix_space:
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer, trainer


def _reproducible_unigram(tokenizer: Tokenizer) -> models.Unigram:
    """Return the trained unigram model without the accidents of the trainer's hash maps.

    Two trainings on the same text find the same pieces, but in a random order the trainer numbers pieces of equal
    score, and scores symbols that the text does not need (the lowest score plus a multiple of 0.0001). Ids, and with
    them the whole run, would differ.
    """
    vocabulary: list[tuple[str, float]] = [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"]]
    special, pieces = vocabulary[: len(SPECIAL_TOKENS)], vocabulary[len(SPECIAL_TOKENS) :]
    lowest = min(score for _, score in pieces)
    band = lowest + 1e-4 * sum(len(piece) == 1 for piece, _ in pieces)
    # Six decimals: sums in another order differ in the fifteenth.
    scored = [(piece, round(lowest if len(piece) == 1 and score < band else score, 6)) for piece, score in pieces]
    return models.Unigram([*special, *sorted(scored, key=lambda entry: (-entry[1], entry[0]))], 0, False)


def train_tokenizer(
    texts: Iterable[str], options: TokenizerOptions, name: str = "source", tags: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer trained on texts, with ids `<unk>` 0, `<pad>` 1, `<s>` 2, `</s>` 3.

    A text is a sentence, word or line. Errors call the tokenizer by `name`, "source" or "target". Each of `tags`,
    which stand in front of texts such as "<V><PST>sell", is a token of its own (see `features.py`).

    Raises:
        DataError: the texts are all empty, or one of them has no UTF-8 form.
    """
    tokenizer, trainer = _empty_tokenizer(options)
    tokenizer.normalizer = _normalizer(options)
    form = options.normalization
    seen_text = False
    character_counts: Counter[str] = Counter()

    def checked() -> Iterator[str]:
        nonlocal seen_text
        for number, text in enumerate(texts, start=1):
            check_text(text, f"{name} tokenizer: text {number}")
            seen_text = seen_text or bool(text.strip())
            if options.characters:
                normalized = text if form is None else unicodedata.normalize(form, text)  # type: ignore[arg-type]
                character_counts.update("".join(normalized.split()))
            yield split_tags(text)[1] if tags else text

    tokenizer.train_from_iterator(checked(), trainer)
    if not seen_text:
        raise DataError(f"{name} tokenizer: the training text is empty, wanted at least one non-blank text")
    if options.type == "unigram":
        tokenizer.model = _reproducible_unigram(tokenizer)
    if options.add_eos:
        tokenizer.post_processor = _ending(SPECIAL_TOKENS.index(EOS_TOKEN))
    wrapping: dict[str, Any] = {
        "tokenizer_object": tokenizer,
        **{"unk_token": UNK_TOKEN, "pad_token": PAD_TOKEN, "bos_token": BOS_TOKEN, "eos_token": EOS_TOKEN},
        "clean_up_tokenization_spaces": False,
        # "</s>" typed by a user is text, not an end of sentence; tokens that a user adds are recognised all the same.
        "split_special_tokens": True,
    }
    if tags and options.type == "character":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{_UNKNOWN_TAGS}|(?m:.)"), "isolated")
    elif tags and options.type == "word":
        split = pre_tokenizers.Split(Regex(_UNKNOWN_TAGS), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.WhitespaceSplit()])
    # As they are: neither in lower case nor with folded digits.
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    if not options.characters:
        return RnnSeq2SeqTokenizer(**wrapping, model_input_names=["input_ids", "attention_mask"])
    by_frequency = sorted(character_counts.items(), key=lambda entry: (-entry[1], entry[0]))
    frequent = [character for character, count in by_frequency if count >= options.min_character_frequency]
    return RnnSeq2SeqWordTokenizer(
        **wrapping,
        character_vocab=[*SPECIAL_TOKENS, *frequent],
        max_word_length=options.max_word_length,
        character_normalization=form,
    )


def _ending(eos_token_id: int) -> processors.PostProcessor:
    """Return what appends `</s>` to what is encoded."""
    return processors.TemplateProcessing(
        single=f"$A {EOS_TOKEN}", pair=f"$A {EOS_TOKEN} $B {EOS_TOKEN}", special_tokens=[(EOS_TOKEN, eos_token_id)]
    )


def with_eos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer that appends `</s>`, as targets need: the same, or a copy of one that was trained without."""
    if tokenizer("")["input_ids"]:
        return tokenizer
    ending = copy.deepcopy(tokenizer)
    ending.backend_tokenizer.post_processor = _ending(tokenizer.eos_token_id)
    return ending


def normalized(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return texts in the tokenizer's Unicode form and case, as it would decode them if it knew all words.

    Hypotheses are in that form, and are compared with references in it.
    """
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is None and backend.pre_tokenizer is None:
        return list(texts)

    def decoded(text: str) -> str:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        pieces = [text]
        if backend.pre_tokenizer is not None:
            pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return str(" ".join(pieces) if backend.decoder is None else backend.decoder.decode(pieces))

    return [decoded(text) for text in texts]


def save_tokenizers(
    directory: str | Path, source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast | None
) -> None:
    """Save the source tokenizer in a model directory, and a target tokenizer of its own in `target_tokenizer`."""
    with writing(directory):
        source.save_pretrained(directory)
    folder = Path(directory) / TARGET_TOKENIZER_FOLDER
    if target is not None and target is not source:
        with writing(folder):
            target.save_pretrained(folder)
    elif folder.is_dir():
        shutil.rmtree(folder)  # of a model that was here before: this one would decode with it


_MOST_LABELS = 2**20  # as of the model's configuration


def load_tokenizers(directory: str | Path) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """Return the source and the target tokenizer of a model directory, the same object twice if they are shared.

    What is done to a source beside (`Preprocessing`) is not in them.
    FileNotFoundError: it holds no `tokenizer.json`; DataError: its files are damaged.
    """
    if not (Path(directory) / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{directory} holds no tokenizer.json: it is not a saved model of this package")
    config = Path(directory) / "config.json"
    labels = read_object(config).get("num_labels") if config.is_file() else None
    if isinstance(labels, int) and labels > _MOST_LABELS:  # AutoTokenizer makes a name for each
        raise DataError(f"{config}: num_labels: got {labels}, wanted at most {_MOST_LABELS}")
    # By its saved class; that of this package's own tokenizer, and not the code in the directory, has been registered.
    with reading(directory, "a folder with the files of a tokenizer", any_error=True):
        source = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False))
    if isinstance(source, RnnSeq2SeqTwoSidedTokenizer):  # one of both sides, which rewrites its sources
        target = source.target_tokenizer if source.has_two_vocabularies else None
        source = source.source_tokenizer
        return source, source if target is None else target
    folder = Path(directory) / TARGET_TOKENIZER_FOLDER
    if not folder.is_dir():
        return source, source
    with reading(folder, "a folder with the files of a tokenizer", any_error=True):
        return source, cast(
            PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        )
