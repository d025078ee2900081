"""Words outside the vocabulary as temporary ids, so that they can be copied (See, Liu & Manning 2017, section 2.2).

The extended vocabulary of a source: `config.copy_slots` ids from `config.vocab_size` on, the slots, stand for its
unknown words in order of first appearance. Decoding needs the words again: a slot means another word in every source,
and `tokenizer.decode` leaves it out. Works with tokenizers of whole words or characters. Needs only `tokenizers` and
`transformers`.

    words = unknown_words(texts, tokenizer, model.config)  # of each source
    sources = encode_with_slots(texts, tokenizer, words, model.config)
    labels = encode_with_slots(targets, tokenizer, words, model.config)  # for training
    decode_with_slots(model.generate(torch.tensor(sources[:1]))[0], tokenizer, words[0], model.config)

A model learns to copy unknown words from training data that has some: the tokenizer's `min_frequency` has to leave
words out (a vocabulary that both sides share counts a copied word twice), or `token_dropout` has to hide some.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

from tokenizers import models
from transformers import PreTrainedTokenizerBase


def unknown_words(texts: Sequence[Any], tokenizer: PreTrainedTokenizerBase, config: Any) -> list[list[str]]:
    """Return the unknown words of each source in order of first appearance, normalised, at most `copy_slots`.

    The k-th word, counted from 0, has the id `vocab_size + k` in this source and its target. `config` is the model's;
    without `copy_slots` nothing gets a slot.

    Raises:
        ValueError: the tokenizer (of both sides) has subwords, or more entries than the model's vocabulary.
    """
    slots = _slots(config)
    if not slots:
        return [[] for _ in texts]
    _check(tokenizer, config)
    known = tokenizer.backend_tokenizer.token_to_id
    return [
        list(dict.fromkeys(word for word in _words(text, tokenizer) if known(word) is None))[:slots] for text in texts
    ]


def encode_with_slots(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[Sequence[str]],
    config: Any,
    add_special_tokens: bool = True,
) -> list[list[int]]:
    """Return the ids of each source, or of its target; unknown words that are not among the source's become `<unk>`.

    Raises:
        ValueError: as `unknown_words`, or there are not as many lists of words as texts.
    """
    texts = list(texts)
    if not _slots(config):
        plain = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False)
        return cast("list[list[int]]", plain["input_ids"])
    if len(words) != len(texts):
        raise ValueError(f"words: got lists of {len(words)} sources for {len(texts)} texts, wanted as many")
    _check(tokenizer, config)
    encoded = tokenizer(
        texts, add_special_tokens=add_special_tokens, return_attention_mask=False, return_special_tokens_mask=True
    )
    rows: list[list[int]] = []
    for text, own, ids, added in zip(texts, words, encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        slot_of = {word: config.vocab_size + slot for slot, word in enumerate(own)}
        spelt = _words(text, tokenizer)
        count = len(added) - sum(added)
        if len(spelt) != count:
            raise ValueError(f"tokenizer: gave {count} ids for the {len(spelt)} words of {text!r}, wanted one each")
        remaining = iter(spelt)
        rows.append([idx if special else slot_of.get(next(remaining), idx) for idx, special in zip(ids, added)])
    return rows


def tokens_with_slots(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, words: Sequence[str], config: Any
) -> list[str]:
    """Return the tokens of the ids of one source, or of its hypothesis; `words` are this source's `unknown_words`.

    Raises:
        ValueError: an id is a slot for which there is no word.
    """
    ids = [int(idx) for idx in ids]
    if not _slots(config):
        return cast("list[str]", tokenizer.convert_ids_to_tokens(ids))
    slots = [idx - config.vocab_size for idx in ids]
    if max(slots, default=-1) >= len(words):
        raise ValueError(
            f"ids holds the id {config.vocab_size + max(slots)}, but words has only {len(words)} for the ids from "
            f"{config.vocab_size} on: wanted what unknown_words gave for the source of these ids"
        )
    tokens = tokenizer.convert_ids_to_tokens([min(idx, config.vocab_size - 1) for idx in ids])
    return [token if slot < 0 else words[slot] for slot, token in zip(slots, tokens)]


def decode_with_slots(
    ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    config: Any,
    skip_special_tokens: bool = False,
) -> str:
    """Return the text of a hypothesis, a row of `generate()`, with the source's words at its slots.

    Arguments as for `tokens_with_slots`; `skip_special_tokens` leaves out `<unk>` and all other special tokens.
    """
    ids = [int(idx) for idx in ids]
    if not _slots(config):
        return str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))
    if skip_special_tokens:
        ids = [idx for idx in ids if idx not in tokenizer.all_special_ids]
    return str(tokenizer.convert_tokens_to_string(tokens_with_slots(ids, tokenizer, words, config)))


def _slots(config: Any) -> int:
    return int(getattr(config, "copy_slots", 0))  # any encoder-decoder of transformers will do


def _check(tokenizer: Any, config: Any) -> None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind = type(tokenizer if backend is None else backend.model).__name__
    if backend is None or not isinstance(backend.model, models.WordLevel):
        raise ValueError(
            f"tokenizer: copy_slots={config.copy_slots} needs one of words or characters, got {kind}; subwords spell "
            "every word, so that none is unknown: set copy_slots to 0"
        )
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"tokenizer: has {len(tokenizer)} entries, the ids from the model's vocab_size={config.vocab_size} on are "
            "slots; wanted the model's tokenizer, or model.resize_token_embeddings(len(tokenizer))"
        )


def _words(text: str, tokenizer: Any) -> list[str]:
    """Return the words that the tokenizer looks up, one for each of the text's ids."""
    backend = tokenizer.backend_tokenizer
    added = sorted(set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens))  # tags: taken out first
    words: list[str] = []
    for number, part in enumerate(re.split(f"({'|'.join(map(re.escape, added))})", text) if added else [text]):
        if number % 2 == 0 and backend.normalizer is not None:
            part = backend.normalizer.normalize_str(part)
        words += [part] if number % 2 else [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(part)]
    return words
