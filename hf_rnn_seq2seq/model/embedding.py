"""From ids to vectors: which ids the tables know, and words that are made of their characters.

A word's vector is its embedding beside the last states of a small bidirectional RNN that reads its characters, so that
a word which the vocabulary lacks is still known by its spelling: Ling et al. 2015; Lample et al. 2016, section 4.1.
B batch, S source length, W characters of the longest word, H size of what they say, N = B * S.
"""

from typing import Any

from torch import Tensor, nn

from .checks import check_ids, symbols_of
from .fast import read_words, replaceable
from .padding import padding_of
from .recurrence import RecurrentStack


def known_symbols(ids: Tensor, config: Any, name: str) -> Tensor:
    """Return ids (any shape), which errors call `name`, as the tables have them: a slot is the unknown symbol."""
    if config.copy_slots == 0:
        return ids
    check_ids(name, ids, *symbols_of(config, "vocab_size"), anywhere=True)  # else one beyond the slots would be one
    return ids.masked_fill(ids >= config.vocab_size, config.unk_token_id)


@replaceable("_read")
class CharacterEncoder(nn.Module):
    """
    Embed the characters of each word and read them in both directions; a word without any becomes zeros. Arguments are
    those of the configuration: `character_vocab_size` and so on.
    """

    def __init__(self, rnn_type: str, vocab_size: int, embedding_size: int, hidden_size: int, pad_token_id: int):
        super().__init__()
        self.vocab_size, self.pad_token_id = vocab_size, pad_token_id
        self.embed_characters = nn.Embedding(vocab_size, embedding_size)
        self.rnn = RecurrentStack(rnn_type, embedding_size, hidden_size, num_layers=1, bidirectional=True)

    def forward(self, character_ids: Tensor, mask: Tensor | None) -> Tensor:
        """
        Return [last forward state ; last backward state] of each word, (B, S, H), zero at padding, from character ids
        (B, S, W), `pad_token_id` after the end of each word, and a mask (B, S), True at real words.
        """
        if mask is not None:
            character_ids = character_ids.masked_fill(~mask[..., None], self.pad_token_id)  # (B, S, W)
        check_ids("character_ids", character_ids, self.vocab_size)
        words = character_ids.flatten(0, 1)  # (N, W)
        vectors = read_words(self, words)
        vectors = self._read(words) if vectors is None else vectors  # (N, H)
        return vectors.view(*character_ids.shape[:2], -1)  # (B, S, H)

    def _read(self, words: Tensor) -> Tensor:
        """Return the vectors (N, H) of words (N, W)."""
        # [last forward ; last backward state] (Lample 2016, 4.1; Ling 2015 adds a projection of them)
        stack = self.rnn(self.embed_characters(words), padding=padding_of(words != self.pad_token_id))
        return stack.states[0][0]  # (N, H)
