"""Pretrained word vectors from a plain text file, written into the encoder's embedding table.

The format is that of word2vec, GloVe and fastText: a line a word, the word and its values with a blank between them,
and perhaps a first line "number of words, number of values". The file is read line by line, and only the wanted lines
are kept. Needs only torch and transformers; works with any model.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .files import DataError, text_lines


def load_word_vectors(path: str | Path, words: Sequence[str], size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the vectors (N, size) of N words, zeros where there is none, and whether there is one, bool (N,).

    Args:
        path: a text file, gzipped if its name ends in `.gz`. Of a word that comes twice the first line counts.
        words: the words; one that the file lacks as written gets the vector of its lower case.
        size: number of values of a vector; `None`: as many as in the file's first one.

    Raises:
        DataError: the file cannot be read, is empty or shorter than its first line says, or a line has another number
            of values than wanted or something that is no finite number. The message names file and line.
    """
    path = Path(path)
    wanted = {form for word in words for form in (word, word.lower())}
    vectors: dict[str, Tensor] = {}
    announced: int | None = None
    number, values = 0, 0
    for number, line in enumerate(text_lines(path), start=1):
        line = line.rstrip(" ")  # fastText ends its lines with a blank
        blanks = line.count(" ")
        if number == 1:
            first, _, second = line.partition(" ")
            if first.isdecimal() and second.isdecimal():
                announced, values = int(first), int(second)
            else:
                values = blanks
            if values < 1 or values != (size or values):
                raise DataError(f"{path}, line 1: vectors of {values} values, wanted {size or 'at least 1'}")
            if announced is not None:
                continue
        if blanks != values:
            # A few words of the GloVe files have blanks in them, ". . ." for one. No word that we look for has.
            if blanks > values and not _is_number(line.split(" ", 2)[1]):
                continue
            raise DataError(f"{path}, line {number}: {blanks} values, wanted {values} as in the first line")
        word, _, rest = line.partition(" ")
        if word in wanted and word not in vectors:
            for field in rest.split(" "):
                if not _is_number(field):
                    raise DataError(f"{path}, line {number}: {field!r} is not a finite number")
            vectors[word] = torch.tensor([float(field) for field in rest.split(" ")])
    if number == (announced is not None):
        raise DataError(f"{path}: no vectors, wanted a line a word")
    if announced is not None and announced != number - 1:
        raise DataError(f"{path}, line 1: {announced} words announced, but {number - 1} lines follow")
    rows = [vectors.get(word, vectors.get(word.lower())) for word in words]
    found = torch.tensor([row is not None for row in rows], dtype=torch.bool)
    matrix = torch.zeros(len(words), values)
    for place, row in zip(matrix, rows, strict=True):
        if row is not None:
            place.copy_(row)
    return matrix, found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def set_word_vectors(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> float:
    """Write the vectors of a file into a model's input embeddings; words that the file lacks keep theirs.

    The tokenizer numbers the words; its special tokens are left alone. `path` is as for `load_word_vectors`.

    Returns:
        The coverage: the share of the tokenizer's words, special tokens not counted, that have a vector.

    Raises:
        ValueError: the table has fewer rows than the tokenizer has words, or the tokenizer has no words.
        DataError: as `load_word_vectors`; also if the file's vectors are not of the table's width.
    """
    table = cast(nn.Embedding, model.get_input_embeddings()).weight
    if len(tokenizer) > len(table):
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} words, but the model's embedding table only {len(table)} rows: make "
            "the model with vocab_size=len(tokenizer)"
        )
    special = set(tokenizer.all_special_ids)
    ids = {word: index for word, index in tokenizer.get_vocab().items() if index not in special}
    if not ids:
        raise ValueError("the tokenizer has no words beside its special tokens")
    matrix, found = load_word_vectors(path, list(ids), size=table.shape[1])
    with torch.no_grad():
        table[torch.tensor(list(ids.values()), device=table.device)[found]] = matrix[found].to(table)
    return found.double().mean().item()
