"""Features of a source, such as inflection tags or its language, as tokens of their own in front of it.

A source with features is its text, a tab, and the features with ";" between: "sell<TAB>V;PST". A model reads
"<V><PST>sell", and its tokenizer has each feature of the training data as one token (Kann & Schuetze 2016, MED). The
rewriting is part of the `Preprocessing` that is saved with the model, so that every program takes both spellings.
Needs only `transformers`.
"""

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from .files import DataError


logger = logging.getLogger(__name__)

# "sell<TAB>V;PST" -> "<V;PST><TAB>sell" -> "<V><PST><TAB>sell" -> "<V><PST>sell"; what has no features loses its tab.
FEATURE_REPLACEMENTS = (
    (r"\t\s*\Z", ""),
    (r"\A([^\t]*)\t([^\t]+)\Z", "<\\2>\t\\1"),
    (r";(?=[^\t]*>\t)", "><"),
    (r"\A(<[^\t]*>)\t", r"\1"),
)
_TAG = re.compile("<[^<>]+>")
_TAGS = re.compile(f"(?:{_TAG.pattern})*")
_SPECIAL = ("unk", "pad", "s", "/s")


def feature_names(features: Any, place: str) -> list[str]:
    """Return features that are written "V;PST", or as a list of names, or not at all, as a list of names.

    Raises:
        DataError: they cannot be told apart again; it begins with `place`, such as file and line.
    """
    names = features.split(";") if isinstance(features, str) and features.strip() else features or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: the features are {features!r}, wanted names with ; between, or a list of names")
    for name in names:
        if not name.strip() or re.search(r"[<>;\t]", name) or name in _SPECIAL:
            wanted = f"a name without < > ; or a tab, other than {', '.join(_SPECIAL)}"
            raise DataError(f"{place}: got the feature {name!r} of {features!r}, wanted {wanted}")
    return names


def with_features(source: str, features: Any, place: str) -> str:
    """Return a source with its features, as `feature_names` takes them, behind a tab; DataError if it has one."""
    names = feature_names(features, place)
    if names and "\t" in source:
        raise DataError(f"{place}: the source {source!r} has a tab, which would part it from its features")
    return f"{source}\t{';'.join(names)}" if names else source


def split_tags(source: str) -> tuple[str, str]:
    """Return the tags of a source as a model reads it, and the rest: "<V><PST>sell" gives "<V><PST>" and "sell"."""
    tags = _TAGS.match(source)
    assert tags is not None  # it matches nothing, too
    return tags[0], source[tags.end() :]


def tags_of(sources: Iterable[str]) -> list[str]:
    """Return the different tags of sources in the order of the alphabet."""
    return sorted({tag for source in sources for tag in _TAG.findall(split_tags(source)[0])})


def warn_of_unknown_tags(sources: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Say once which tags the tokenizer does not know; a model reads them as `<unk>`."""
    known = tokenizer.get_added_vocab()
    if any(_TAG.fullmatch(tag) for tag in set(known) - set(tokenizer.all_special_tokens)):
        for tag in tags_of(sources):
            if tag not in known:
                _warn_of(tag)


@functools.cache
def _warn_of(tag: str) -> None:
    logger.warning("the feature %s is not in the training data: the model reads it as an unknown one", tag[1:-1])
