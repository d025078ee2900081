"""New training pairs for inflection with few of them: known pairs with other stems (Anastasopoulos & Neubig 2019).

What a lemma and its form have in common, three letters in a row or more, is taken for the stem, and half of its
letters become random ones, on both sides alike: "<V><PST>walk", "walked" give "<V><PST>wuik", "wuiked". Letters beside
a change stay, since endings depend on them. The letters are those of the training data, capitals in the place of
capitals. Imports only its siblings.
"""

import random
from collections.abc import Sequence
from difflib import SequenceMatcher

from .features import split_tags
from .files import DataError


# As the authors' own program has them: a stem's shortest part, and the share of its letters that are replaced.
_SHORTEST, _SHARE = 3, 0.5


def hallucinated(pairs: Sequence[tuple[str, str]], number: int, seed: int) -> list[tuple[str, str]]:
    """Return so many new pairs, always the same for the same seed; their features are those of the known ones.

    Raises:
        DataError: sources and targets have no stems in common.
    """
    lemmas = [split_tags(source) for source, _ in pairs]
    blocks = [_stems(lemma, form) for (_, lemma), (_, form) in zip(lemmas, pairs, strict=True)]
    usable = [row for row, found in enumerate(blocks) if found]
    if not usable:
        raise DataError(
            f"data.hallucinated_samples: got {number}, but no source has {_SHORTEST} letters in a row in common with "
            "its target; leave it out"
        )
    texts = (text for row in usable for text in (lemmas[row][1], pairs[row][1]))
    letters = sorted({letter.lower() for text in texts for letter in text if not letter.isspace()})
    chance = random.Random(seed)
    new: list[tuple[str, str]] = []
    for _ in range(number):
        row = chance.choice(usable)
        lemma, form = list(lemmas[row][1]), list(pairs[row][1])
        for a, b, size in blocks[row]:
            first = 0 if a == b == 0 else 1
            last = size if (a + size, b + size) == (len(lemma), len(form)) else size - 1
            for place in range(first, last):
                old = lemma[a + place]
                if not old.isspace() and chance.random() < _SHARE:
                    letter = chance.choice(letters)
                    lemma[a + place] = form[b + place] = letter.upper() if old.isupper() else letter
        new.append((lemmas[row][0] + "".join(lemma), "".join(form)))
    return new


def _stems(lemma: str, form: str) -> list[tuple[int, int, int]]:
    """Return (start in the lemma, start in the form, length) of each part that both have in common."""
    found = SequenceMatcher(None, lemma, form, autojunk=False).get_matching_blocks()
    return [(a, b, size) for a, b, size in found if size >= _SHORTEST]
