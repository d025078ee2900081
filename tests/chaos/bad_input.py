"""What the harnesses of bad input share: a case, and what became of it.

Clear is an error of the right kind that names the argument; silent is an answer; crashed is anything else.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError


class Case(NamedTuple):
    name: str  # what is wrong with what
    words: tuple[str, ...]  # the message has one of them; of "a & b" both
    run: Callable[[], Any]


def _named(words: Iterable[str], text: str) -> bool:
    return any(all(part in text for part in word.split(" & ")) for word in words)


def of_the_api(case: Case) -> str:
    """Return what became of a call: "clear", or "silent: ..." or "crashed: ..."."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.run()
        except (ValueError, TypeError, FileNotFoundError, StrictDataclassError) as error:
            text = " ".join(str(error).split())
            named = _named(case.words, text) and not isinstance(error, UnicodeError)
            return "clear" if named else f"crashed: {type(error).__name__}: {text[:160]}"
        except Exception as error:
            return f"crashed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return "silent"


def of_a_command(case: Case) -> str:
    """Return what became of a command: as of a call, clear if it ends with a sentence and a status that is not 0."""
    out, err = io.StringIO(), io.StringIO()
    stdin, sys.stdin = sys.stdin, io.StringIO("")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.run()
    except SystemExit as error:
        if error.code in (None, 0):
            return "silent"
        said = error.code if isinstance(error.code, str) else err.getvalue()
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if _named(case.words, last) and len(said.strip().splitlines()[-1:]) == 1:
            # argparse says its usage before, sys.exit one line
            one_line = not isinstance(error.code, str) or "\n" not in said.strip()
            return "clear" if one_line else f"crashed: several lines: {said.strip()[:200]}"
        return f"crashed: unclear: {said.strip()[-200:]}"
    except BaseException as error:
        return f"crashed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    finally:
        sys.stdin = stdin
    return "silent"


def _too_long(*_: Any) -> None:
    raise RuntimeError("not done within 60 seconds")


def tried(cases: Iterable[Case], judge: Callable[[Case], str]) -> dict[str, str]:
    """Return the name of each case that is not clear, and what became of it; print how many of them hold."""
    logging.disable(logging.WARNING)
    counts: Counter[str] = Counter()
    failures = {}
    signal.signal(signal.SIGALRM, _too_long)
    for case in cases:
        signal.alarm(60)
        verdict = judge(case)
        signal.alarm(0)
        counts[verdict.partition(":")[0]] += 1
        if verdict != "clear":
            failures[case.name] = verdict
    logging.disable(logging.NOTSET)
    sys.stdout.writelines(f"{name}: {verdict}\n" for name, verdict in failures.items())
    numbers = (
        f"{counts['clear']} of {sum(counts.values())} clear, {counts['silent']} silent, {counts['crashed']} crashed"
    )
    sys.stdout.write(f"{numbers}\n")
    return failures


def sample(cases: Iterable[Case], number: int, seed: int) -> list[Case]:
    """Return a few of many cases."""
    return random.Random(seed).sample(list(cases), number)
