"""Puts the test modules of the installed transformers where Python can import them.

The released source archive of transformers carries `tests/test_*.py` and no other file of its `tests` package. The
archive is downloaded once with pip, which checks its hash, and the modules are kept in the user's cache, a folder for
each version. They appear as the package `transformers_tests`, so that they do not clash with tests of this project.
`stand_ins.py` supplies the few names that those modules import from files outside the archive.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers
from filelock import FileLock


PACKAGE = "transformers_tests"


def cache_folder() -> Path:
    """The folder that holds the test modules of the installed version, existing or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "hf_rnn_seq2seq" / f"transformers-{transformers.__version__}"


def fetch() -> Path:
    """Makes sure that the test modules are in the cache.

    Returns:
        The folder to put on `sys.path`; it holds the package `transformers_tests`.

    Raises:
        RuntimeError: If the source archive can be neither found in the cache nor downloaded.
    """
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # the workers of pytest-xdist all come here at once
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                extract(download(Path(scratch)), Path(scratch) / "new")
                os.replace(Path(scratch) / "new", folder)  # whole or not at all
    return folder


def download(folder: Path) -> Path:
    """Downloads the source archive of the installed version of transformers into a folder, and returns its path."""
    requirement = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "transformers", "--dest", str(folder), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    archives = list(folder.glob("transformers-*.tar.gz"))
    if done.returncode or not archives:
        raise RuntimeError(
            f"the tests of transformers come with its source archive, which could not be downloaded.\n"
            f"{' '.join(command)}\n{done.stderr}"
        )
    return archives[0]


def extract(archive: Path, folder: Path) -> None:
    """Writes the `tests/test_*.py` of a source archive into `folder/transformers_tests`."""
    package = folder / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if len(parts) == 3 and parts[1] == "tests" and parts[2].startswith("test_") and parts[2].endswith(".py"):
                content = tar.extractfile(member)
                if content is not None:
                    (package / parts[2]).write_bytes(content.read())
