"""The vectors of words that are read character by character: every distinct word once, beside words of its length.

Plain twin: `CharacterEncoder._read`, which reads all words, as long as the longest. N words, W characters, H size of a
vector. This file travels to the Hub: it imports only the standard library and torch.
"""

from collections.abc import Callable

import torch
from torch import Tensor


# Words are read in this many groups of about equal length: most words are short, and one long word would make all of
# them wait. More groups than this gain nothing.
_GROUPS = 4
# Fewer words than this in a group take as long as so many: batches of 16 sentences lost 13 % (measured).
_SMALLEST = 128


def read_each_once(read: Callable[[Tensor], Tensor], words: Tensor, pad_token_id: int) -> Tensor:
    """
    Return the vectors (N, H) of words (N, W).

    Which words are equal, and how long they are, is looked up, which is free on the CPU only.

    Args:
        read: The plain twin, (N, W) -> (N, H).
    """
    distinct, which = words.unique(dim=0, return_inverse=True)
    places = torch.arange(1, words.shape[1] + 1)
    lengths = (places * (distinct != pad_token_id)).amax(1).clamp(min=1)
    order = lengths.argsort()
    size = max(_SMALLEST, -(-len(order) // _GROUPS))
    vectors = torch.cat([read(distinct[rows, : lengths[rows[-1]]]) for rows in order.split(size)])
    return vectors.index_select(0, order.argsort()[which])
