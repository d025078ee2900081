"""Values of a recipe that are written `auto`: they follow from the number of training items by the rule below.

Few items: small batches, many epochs, much dropout, a small model and a small vocabulary (Sennrich & Zhang 2019; Wu &
Cotterell 2019 have batches of 20); many items: the contrary. The constants follow from the recipes that were tuned by
hand and from these papers; `scripts/studies/learning_curves.py` compares the two on validation data of sets cut to
100, 25 and 5 % of their size. Knows nothing of files and trainers.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import StatisticsError, correlation
from typing import Any

from .options import OptionsError


AUTO = "auto"
_SECTIONS = ("tokenizer", "model", "training")
# In 200 words of each of 15 languages a phone is seen 17 times or more, has 1 to 1.7 characters, and up to a third are
# seen less than 3 times; words have 5 to 15 characters, and may have blanks (Vietnamese).
SYMBOL_COUNT, SYMBOL_LENGTH, WORD_LENGTH = 10, 2.5, 25
# Of `order_is_kept`: 0.64 to 1 in pronunciation of 15 languages and inflection of four, at most 0 in sorts and dates.
MONOTONE = 0.5
MOST_HARD = 10_000


@dataclass(frozen=True)
class Scale:
    """The constants of one kind of task.

    Args:
        epochs: passes over 3,600 items.
        most_epochs: over however few.
        batch: items of a batch, in those of a text-to-text model.
        dropout: its strength, in that of a tagger.
        start_dropout: what falls by 0.1 each time the items are ten times as many, from there at one item.
        embedding_dropout: of embeddings, as a share of that of the states.
        slope, start: an encoder has `slope` coordinates for each doubling of the items from 2 ** `start` on.
        largest: most coordinates.
        rate: learning rate at 3,600 items.
        steepest: largest learning rate, however few the items, as a share of that.
        embedding: size of an embedding as a share of the encoder's.
        decodes: whether the model has a decoder.
        deepens: whether the number of the encoder's layers follows, too.
        tokenizers: sections with the key `vocab_size`.
    """

    epochs: float
    most_epochs: int = 100
    batch: float = 1.0
    dropout: float = 1.0
    start_dropout: float = 0.75
    embedding_dropout: float = 1.0
    slope: int = 32
    start: float = 6.0
    largest: int = 320
    rate: float = 0.002
    steepest: float = 1.0
    embedding: float = 0.5
    decodes: bool = False
    deepens: bool = False
    tokenizers: tuple[str, ...] = ("tokenizer",)


# What the key `task` of a recipe may say -> its constants.
SCALES = {
    "seq2seq": Scale(
        *(40.0, 100), start_dropout=0.8, embedding_dropout=0.6, slope=64, start=5.8, largest=512, steepest=1.5,
        decodes=True, deepens=True, tokenizers=("tokenizer.source", "tokenizer.target"),
    ),
    "speech": Scale(25.0, dropout=0.75, embedding_dropout=0.5, slope=64, start=2.0, largest=512, decodes=True),
    "speak": Scale(15.0, dropout=0.5, slope=64, start=5.0, decodes=True),
    "token_classification": Scale(30.0),
    "sequence_classification": Scale(16.0, 60),
    "values": Scale(12.0, 60, batch=4.0, dropout=0.5, slope=16, start=7.0, largest=128, rate=0.003, tokenizers=()),
    "forecast": Scale(
        *(8.0, 40), batch=4.0, slope=16, start=5.0, largest=128, rate=0.001, embedding=1.0, decodes=True, tokenizers=()
    ),
}  # fmt: skip


def derive(task: str, items: int, lengths: Sequence[tuple[int, int]] = ()) -> dict[str, int | float]:
    """Return `section.key` -> the value that `auto` stands for there, of all keys that have the word.

    Args:
        task: what the recipe says in its key `task`.
        items: number N of training items: texts, pairs, recordings, windows.
        lengths: (source, target) length of each, in what `training.max_tokens` counts, from which that follows; it is
            not among the values without them.
    """
    scale = SCALES[task]
    batch = _within(scale.batch * items**0.4, 4, 128)
    epochs = _within(scale.epochs * (items / 3600) ** -0.3, 3, scale.most_epochs)
    size = round(_within(scale.slope * (math.log2(items) - scale.start), 64, scale.largest) / 32) * 32
    dropout = round(scale.dropout * _within(scale.start_dropout - 0.1 * math.log10(items), 0.1, 0.5), 2)
    values: dict[str, int | float] = {
        "training.num_train_epochs": math.ceil(epochs),
        "training.updates": math.ceil(epochs * items / batch),
        "training.per_device_train_batch_size": round(batch),
        "training.learning_rate": round(scale.rate * _within((items / 3600) ** -0.2, 0.5, scale.steepest), 5),
        "model.encoder_hidden_size": size,
        "model.embedding_size": min(256, round(size * scale.embedding)),
        "model.hidden_dropout": dropout,
        "model.embedding_dropout": round(dropout * scale.embedding_dropout, 2),
    }
    if scale.decodes:
        values["model.decoder_hidden_size"] = size
    if scale.deepens:
        values["model.encoder_layers"] = round(_within(math.log10(items) - 2, 1, 3))
    for section in scale.tokenizers:
        values[f"{section}.vocab_size"] = round(_within(47 * math.sqrt(items), 500, 32_000))
    if lengths:
        longest = [max(pair) for pair in lengths]
        values["training.max_tokens"] = max(*longest, round(batch * sum(longest) / len(longest)))
    return values


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def derive_from_texts(content: Mapping[str, Any], sources: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return what `auto` stands for as `type` of both tokenizers and as `model.attention_type`, of N training pairs.

    The attention of up to MOST_HARD words that keep the order of their letters is hard and monotonic.
    """
    keys = [f"tokenizer.{side}.type" for side in ("source", "target")]
    if not {*keys, "model.attention_type"}.intersection(auto_keys(content)):
        return {}
    shared = value_at(content, "tokenizer.shared") is True
    values = dict(zip(keys, map(tokenizer_type, ([*sources, *targets] if shared else sources, targets)), strict=True))
    if shared:
        values[keys[1]] = values[keys[0]]
    said = [value_at(content, key) for key in keys]
    types = [values[key] if word == AUTO else word for key, word in zip(keys, said, strict=True)]
    hard = len(sources) <= MOST_HARD and set(types) <= {"character", "word"} and "character" in types
    if hard:
        some = slice(None, None, len(sources) // 2000 + 1)
        source, target = ([t.split() if type == "word" else list(t) for t in texts[some]]
                          for type, texts in zip(types, (sources, targets), strict=True))  # fmt: skip
        hard = order_is_kept(list(zip(source, target, strict=True)))
    return {**values, "model.attention_type": "hard_monotonic" if hard else "general"}


def tokenizer_type(texts: Sequence[str]) -> str:
    """Return the `type` of a tokenizer: "word" of symbols with blanks between, "character" of words, else "bpe".

    Symbols, such as phones, are short and seen often, and few of them are rare; half the words of sentences are.
    """
    counts = Counter(symbol for text in texts for symbol in text.split())
    rare = sum(count < 3 for count in counts.values())
    letters = sum(len(symbol) * count for symbol, count in counts.items())
    often = counts.total() >= SYMBOL_COUNT * len(counts) and 2 * rare <= len(counts)
    if often and letters < SYMBOL_LENGTH * counts.total():
        return "word"
    return "character" if sum(map(len, texts)) <= WORD_LENGTH * len(texts) else "bpe"


def order_is_kept(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> bool:
    """Return whether target symbols stand in the order of what they are written for: pronunciation, inflection.

    A symbol is taken to be written for the source symbol that it is seen with most, by Dice's coefficient; the order
    is kept if their relative positions, where both are seen once, correlate by MONOTONE.
    """
    sources: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for source, target in pairs:
        sources.update(set(source))
        targets.update(set(target))
        both.update(product(set(source), set(target)))
    best: dict[str, tuple[float, str]] = {}
    for (x, y), number in both.items():
        best[y] = max(best.get(y, (0.0, "")), (number / (sources[x] + targets[y]), x))
    places = [
        (source.index(best[y][1]) / len(source), target.index(y) / len(target))
        for source, target in pairs
        for y in dict.fromkeys(target)
        if target.count(y) == 1 == source.count(best[y][1])
    ]
    try:
        return correlation(*zip(*places, strict=True)) >= MONOTONE
    except (TypeError, StatisticsError):  # no such places, or always the same
        return False


def stand_ins(task: str) -> dict[str, int | float | str]:
    """Return values of all keys that have the word, with which a recipe is checked before its data is read."""
    texts = {"tokenizer.source.type": "bpe", "tokenizer.target.type": "bpe", "model.attention_type": "general"}
    return derive(task, 1000, [(10, 10)]) | (texts if task == "seq2seq" else {})


def without_auto(content: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return a recipe with stand-ins for what follows from the data; OptionsError for `auto` where nothing does."""
    values = stand_ins(task)
    for key in auto_keys(content):
        if key not in values:
            raise OptionsError(f"{key}: got auto, which {task} has for {', '.join(values)}")
    return dict(filled(content, values))


def auto_keys(content: Mapping[str, Any]) -> list[str]:
    """Return the keys of a recipe that are written `auto`, as `section.key`."""
    return [key for section in _SECTIONS for key in _keys(content.get(section), section)]


def _keys(part: Any, path: str) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _keys(value, f"{path}.{key}")
    elif part == AUTO:
        yield path


def value_at(content: Any, key: str) -> Any:
    """Return what a recipe says at `section.key`, `auto` where it says nothing."""
    for name in key.split("."):
        content = content.get(name, AUTO) if isinstance(content, Mapping) else AUTO
    return content


def chosen_values(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that a recipe says `auto` for; vocabularies that are no subwords have no limit."""
    found = {key: values[key] for key in auto_keys(content) if key in values}
    for key in found:
        section, _, name = key.rpartition(".")
        if name == "vocab_size" and value_at(content, f"{section}.type") not in ("bpe", "unigram"):
            found[key] = None
    return found


def filled(part: Any, values: Mapping[str, Any], path: str = "") -> Any:
    """Return a recipe, or a part of it, with those values in place of `auto` that there are."""
    if isinstance(part, Mapping):
        return {key: filled(value, values, f"{path}.{key}" if path else str(key)) for key, value in part.items()}
    return values.get(path, part) if part == AUTO else part


def in_words(values: Mapping[str, Any]) -> str:
    """Return derived values as a log, a results file and a card show them."""
    return ", ".join(f"{key} {'null' if value is None else value}" for key, value in values.items())


# A run is said to be short of updates with less than this share of those of the rule: a text classifier of 13,000
# items that was tuned by hand has 0.29 of them, one whose accuracy 16 more epochs raised from 86 to 95.5 had 0.17.
FEW = 0.25
# ... to have a falling loss with this share of its fall in the last fifth of the updates, the lowest at the end ...
FALLING = 0.05
# ... and a long warm-up with more than this share of the updates.
LONG_WARMUP = 0.2


def remarks(
    task: str, items: int, planned: int, done: int, warmup: int, losses: Sequence[tuple[float, float]]
) -> list[str]:
    """Return a sentence for each sign that a run was too short for its data.

    Args:
        task, items: as for `derive`.
        planned, done, warmup: updates: as the recipe has them, of the run that may have stopped early, of the warm-up.
        losses: (update, validation loss) of each evaluation.
    """
    found = []
    wanted = int(derive(task, items)["training.updates"])
    if planned < FEW * wanted:
        found.append(
            f"few updates: {planned} for {items} training items, where training.num_train_epochs: auto and "
            f"training.max_tokens: auto make about {wanted}"
        )
    before = [loss for update, loss in losses if update <= 0.8 * done]
    lowest = min((loss for _, loss in losses[:-1]), default=0.0)
    if before and losses[-1][1] < lowest and before[-1] - losses[-1][1] > FALLING * (before[0] - losses[-1][1]):
        found.append(
            f"the validation loss was still falling at the end, from {before[-1]:.4g} to {losses[-1][1]:.4g} in the "
            "last fifth: give the run more epochs, or training.updates"
        )
    if warmup > LONG_WARMUP * done:
        found.append(
            f"the warm-up took {min(warmup, done)} of {done} updates, more than {LONG_WARMUP:.0%}: "
            "set training.warmup_steps to a share, such as 0.05"
        )
    return found
