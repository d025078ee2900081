"""The recipes that come with the package: listed, and copied to begin a recipe of one's own with.

Needs only the standard library.
"""

import re
from pathlib import Path

from ..data.files import DataError, read_text
from ..data.outputs import check_output_file, write_whole


def library_folder() -> Path:
    """Return the folder of the recipes: a wheel has a copy of the one that a checkout has."""
    copied = Path(__file__).parent / "library_files"
    return copied if copied.is_dir() else Path(__file__).parents[2] / "scripts" / "recipes"


def recipe_sentences() -> dict[str, str]:
    """Return the name of each recipe, and the first sentence of what its file begins with."""
    return {path.stem: _first_sentence(path) for path in sorted(library_folder().glob("*.yaml"))}


def _first_sentence(path: Path) -> str:
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    # An abbreviation, as in "(Chan et al. 2016)", ends no sentence: a capital, an option or nothing follows.
    match = re.match(r".*?\.(?= [A-Z]| --|$)", text := " ".join(lines))
    return match[0] if match else text


def copy_recipe(name: str, folder: str | Path) -> Path:
    """Copy a recipe, such as "g2p_cmudict", into a folder, which is made if it is not there; return the copy.

    Raises:
        DataError: there is no such recipe.
        FileExistsError: the folder has a file of this name.
    """
    names = recipe_sentences()
    if name not in names:
        raise DataError(f"got the recipe {name!r}, wanted one of {', '.join(names)}")
    copy = Path(folder) / f"{name}.yaml"
    check_output_file(copy, "the copy", overwrite=False)
    write_whole(copy, read_text(library_folder() / copy.name))
    return copy
