"""Dialogues in the format of the bAbI dialogue tasks (Bordes, Boureau & Weston 2017), one pair a response of the bot.

A line is `ID user<TAB>bot` or, without a tab, `ID fact`: a result from the knowledge base that the bot has looked up.
IDs count from 1 in each dialogue; blank lines may stand between dialogues. Imports only its siblings.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from .files import DataError, split_blanks, text_lines


# What stands before the words of a user's turn, of a bot's turn, and of the facts of one entity.
USER_MARK, BOT_MARK, FACT_MARK = "<user>", "<bot>", "<kb>"


def read_dialogues(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, source, target) of every response, words separated by single blanks.

    The target is the bot's response. The source is all that was said and looked up before it in the dialogue, in
    order, and the user's turn that it answers. Facts that follow each other and begin with the same word, the entity,
    share one mark and that word, which halves the long sources:
    `<kb> resto_1 R_cuisine indian R_price cheap <user> hi <bot> hello <user> a table please`.
    A line in another format, or an ID that neither follows nor begins a dialogue, is a DataError.
    """
    history: list[str] = []
    last_id = 0
    entity: str | None = None
    for number, line in enumerate(text_lines(path), start=1):
        if not split_blanks(line):
            last_id = 0
            continue
        identifier, _, text = line.partition(" ")
        turn = text.split("\t")
        if not re.fullmatch("[0-9]+", identifier) or len(turn) > 2 or not all(map(split_blanks, turn)):
            raise DataError(f"{path}, line {number}: wanted 'ID user<TAB>bot' or 'ID fact', got {line!r}")
        if int(identifier) == 1:
            history, entity = [], None
        elif int(identifier) != last_id + 1:
            wanted = f"1 or {last_id + 1}" if last_id else "1"
            raise DataError(f"{path}, line {number}: the ID is {identifier}, wanted {wanted}")
        last_id = int(identifier)
        words = split_blanks(turn[0])
        if len(turn) == 1:
            history += words[1:] if words[0] == entity else [FACT_MARK, *words]
            entity = words[0]
            continue
        response = split_blanks(turn[1])
        history += [USER_MARK, *words]
        yield number, " ".join(history), " ".join(response)
        history += [BOT_MARK, *response]
        entity = None
