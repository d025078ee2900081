"""The vector of a word made of its characters: the last states of a small bidirectional RNN that reads them.

Ling et al. 2015; Lample et al. 2016, section 4.1. It stands beside the word's embedding, so that a word which the
vocabulary lacks is still told by its spelling. B batch, S source length, W characters of the longest word, H size of
the vector. This file travels to the Hub: it imports only torch and the flat files beside it.
"""

import torch
from torch import Tensor, nn

from .checks import check_ids
from .fast import may_look, replaceable
from .recurrence import RecurrentStack, padding_of


# Words are read in this many groups of about equal length, where that can be arranged: most words are short, and one
# long word would make all of them wait. More groups than this gain nothing.
_GROUPS = 4


@replaceable("_read")
class CharacterEncoder(nn.Module):
    """
    Embeds the characters of each word and reads them in both directions; a word without any becomes zeros.

    Args:
        rnn_type (`str`): `"lstm"`, `"gru"` or `"rnn_tanh"`.
        vocab_size (`int`): Number of characters.
        embedding_size (`int`): Size of an embedded character.
        hidden_size (`int`): H, size of the word's vector, both directions together.
        pad_token_id (`int`): What fills a row of characters after the end of its word.
    """

    def __init__(self, rnn_type: str, vocab_size: int, embedding_size: int, hidden_size: int, pad_token_id: int):
        super().__init__()
        self.vocab_size, self.pad_token_id = vocab_size, pad_token_id
        self.embed_characters = nn.Embedding(vocab_size, embedding_size)
        self.rnn = RecurrentStack(rnn_type, embedding_size, hidden_size, num_layers=1, bidirectional=True)

    def forward(self, character_ids: Tensor, mask: Tensor | None) -> Tensor:
        """
        Args:
            character_ids: (B, S, W) character ids, `pad_token_id` after the end of each word.
            mask: (B, S) True at real words, or None: everywhere.

        Returns:
            (B, S, H), [last forward state ; last backward state] of each word, zero at padding.
        """
        if mask is not None:
            character_ids = character_ids.masked_fill(~mask[..., None], self.pad_token_id)
        check_ids("character_ids", character_ids, self.vocab_size)
        words = character_ids.flatten(0, 1)  # (B * S, W)
        # Which words are equal, and how long they are, is looked up only where looking is free.
        looks = words.device.type == "cpu" and may_look(self)
        vectors = self._read_each_once(words) if looks else self._read(words)
        return vectors.view(*character_ids.shape[:2], -1)

    def _read(self, words: Tensor) -> Tensor:
        """The vectors (N, H) of words (N, W)."""
        stack = self.rnn(self.embed_characters(words), padding=padding_of(words != self.pad_token_id))
        return stack.states[0][0]

    def _read_each_once(self, words: Tensor) -> Tensor:
        """As `_read`, but every distinct word once, and beside words of about its own length."""
        distinct, which = words.unique(dim=0, return_inverse=True)
        places = torch.arange(1, words.shape[1] + 1)
        lengths = (places * (distinct != self.pad_token_id)).amax(1).clamp(min=1)
        order = lengths.argsort()
        vectors = torch.cat([self._read(distinct[rows, : lengths[rows[-1]]]) for rows in order.chunk(_GROUPS)])
        return vectors.index_select(0, order.argsort()[which])
