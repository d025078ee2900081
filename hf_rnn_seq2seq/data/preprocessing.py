"""The rewriting of source texts before a model reads them. It belongs to the weights, and is saved beside them.

A model that was trained on reversed or rewritten sources gives wrong answers to plain ones. So every folder of a
text-to-text model holds a `preprocessing.json`, checkpoints and means of checkpoints included, and every program that
loads the folder does what the file says. The runtime without torch, which is copied alone into an exported folder,
has the same steps as settings there. Imports only its siblings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..model.delexicalisation import check_slots, delexicalised, slot_values
from .files import read_json, read_text
from .outputs import write_json


PREPROCESSING_FILE = "preprocessing.json"
SERIES_FILE = "series.json"  # what a forecaster reads of tables
COLUMNS_FILE = "columns.json"  # what a model of values reads of tables: see values.py
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Preprocessing:
    """The rewriting of a source text before it is tokenized, and the order of its tokens.

    Args:
        source_replacements: pairs of a regular expression and its replacement, applied to the text one after the other
            as by `re.sub`.
        reverse_source: reverse the order of the text's tokens (Sutskever et al. 2014, section 3.3).
        delexicalised_slots: placeholder -> regular expression whose first group is a value in a text so rewritten; the
            model reads and writes placeholders in the place of values (see `model/delexicalisation.py`).
    """

    source_replacements: Sequence[Sequence[str]] = ()
    reverse_source: bool = False
    delexicalised_slots: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.reverse_source, bool):
            raise ValueError(f"reverse_source: got {self.reverse_source!r}, wanted true or false")
        for pair in self.source_replacements:
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise ValueError(f"source_replacements: got {pair}, wanted [regular expression, replacement]")
            try:
                re.sub(pair[0], pair[1], "")
            except re.error as error:
                raise ValueError(f"source_replacements: got {pair}: {error}") from error
        object.__setattr__(self, "delexicalised_slots", check_slots(self.delexicalised_slots))
        # Equal to one that was read from a file, where pairs are lists.
        object.__setattr__(self, "source_replacements", tuple(map(tuple, self.source_replacements)))

    def text(self, source: str) -> str:
        """Return a source as the replacements make it, still with its values."""
        for pattern, replacement in self.source_replacements:
            source = re.sub(pattern, replacement, source)
        return source

    def values(self, sources: Sequence[str]) -> list[dict[str, str]]:
        """Return placeholder -> value of each source that `text` gave: what a model writes placeholders for."""
        return [slot_values(source, self.delexicalised_slots) for source in sources]

    def delexicalised(self, sources: Sequence[str], texts: Sequence[str] | None = None) -> list[str]:
        """Return sources that `text` gave, or a text of each, with placeholders: what the tokenizers read."""
        pairs = zip(sources if texts is None else texts, self.values(sources), strict=True)
        return [delexicalised(text, values) for text, values in pairs]

    def differences(self, other: Preprocessing) -> list[str]:
        """Return the names of the options in which two differ."""
        return [option.name for option in fields(self) if getattr(self, option.name) != getattr(other, option.name)]

    def save(self, directory: str | Path) -> None:
        """Write the file beside a model."""
        write_json(Path(directory) / PREPROCESSING_FILE, asdict(self))

    @classmethod
    def load(cls, directory: str | Path) -> Preprocessing | None:
        """Return the preprocessing of a saved model, or `None` if nothing in its folder says.

        A folder without the file, which is older, has it in the `recipe.yaml` beside the model, or, if it is a
        checkpoint, in that of its run. A ValueError if it cannot be read, or asks for something else than this class
        has.
        """
        folder = Path(directory)
        file = folder / PREPROCESSING_FILE
        if file.is_file():
            return cls._of(read_json(file), file)
        run = folder.resolve().parent if re.fullmatch(r"checkpoint-\d+", folder.resolve().name) else folder
        recipe = run / RECIPE_FILE
        if not recipe.is_file():
            return None
        from .strict_yaml import read_yaml  # needs the extra `train`, as what wrote the recipe did

        content = read_yaml(read_text(recipe), str(recipe))
        data = (content.get("data") if isinstance(content, dict) else None) or {}
        names = {option.name for option in fields(cls)}
        return cls._of({name: value for name, value in data.items() if name in names}, recipe)

    @classmethod
    def _of(cls, content: Any, file: Path) -> Preprocessing:
        known = [option.name for option in fields(cls)]
        if not isinstance(content, Mapping) or not set(content) <= set(known):
            raise ValueError(f"{file}: got {content!r}, wanted an object with some of {', '.join(known)}")
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
