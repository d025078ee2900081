"""The files of a split, which may differ: each with its language, its columns and its weight in training.

Imports only its siblings.
"""

from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_type_hints

from huggingface_hub.dataclasses import type_validator

from .features import feature_names
from .option_checks import check_range


# The files of a split: one, several, or two parallel ones; a mapping says more of one, see `FileEntry`.
Files: TypeAlias = str | list[str | dict[str, Any]] | dict[str, Any]
# Options of the section `data` that an entry may have of its own.
OWN_OPTIONS = ("format", "header", "source_column", "target_column", "feature_column")


@dataclass(frozen=True)
class FileEntry:
    """A file of a split, and how it differs from the others.

    Args:
        file: its name; parallel text has `source` and `target`, two names, in its place.
        features: the features of all its sources with ";" between: their language, say (Johnson et al. 2017).
        repeat: how often training reads each of its rows in an epoch, so that a small language counts beside a large
            one.
        max_samples: so many of its rows, taken evenly; `None`: all.
        format, header, source_column, target_column, feature_column: as in the section `data`, whose value holds where
            the entry has none.
    """

    file: str | None = None
    source: str | None = None
    target: str | None = None
    features: str | None = None
    repeat: int = 1
    max_samples: int | None = None
    format: str | None = None
    header: bool | None = None
    source_column: str | int | None = None
    target_column: str | int | None = None
    feature_column: str | int | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            try:
                type_validator(name, getattr(self, name), hint)
            except TypeError as error:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted {hint}") from error
        check_range(self, "repeat", "max_samples", least=1)
        feature_names(self.features, "features")  # refuses what is none
        names = [name for name in ("file", "source", "target") if getattr(self, name) is not None]
        if names not in (["file"], ["source", "target"]):
            raise ValueError(f"got the files {names}, wanted {{file: name}}, or {{source: name, target: name}}")
        if self.file is None and self.own_options:
            raise ValueError(f"{', '.join(self.own_options)}: parallel files have no columns; leave it out")

    @property
    def own_options(self) -> dict[str, Any]:
        """The options of the section that the entry has of its own."""
        return {name: getattr(self, name) for name in OWN_OPTIONS if getattr(self, name) is not None}


def entries_of(files: Files | None, split: str) -> list[FileEntry]:
    """Return the entries of a split; a ValueError begins with its name."""
    entries = []
    for entry in files if isinstance(files, list) else [] if files is None else [files]:
        values = {"file": entry} if isinstance(entry, str) else entry
        known = [option.name for option in fields(FileEntry)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"{split}: got the key {unknown[0]!r} in {entry}, wanted some of {', '.join(known)}")
        try:
            entries.append(FileEntry(**values))
        except ValueError as error:
            raise ValueError(f"{split}: {entry}: {error}") from error
    return entries
