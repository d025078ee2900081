"""Bad input is refused clearly: a seeded few of the cases that the harnesses beside this file have in full."""

from __future__ import annotations

from pathlib import Path

import bad_input_api
import bad_input_calls
import bad_input_recipes
import bad_input_tables
import pytest
from bad_input import of_a_command, of_the_api, sample, tried


@pytest.mark.parametrize("part", bad_input_api.CASES)
def test_calls(part: str) -> None:
    assert not tried(sample(bad_input_api.CASES[part](), 12, seed=0), of_the_api)


@pytest.mark.parametrize("part", ["tokenizers", "processors", "runtimes", "numbers"])
def test_calls_of_what_stands_beside_the_models(part: str) -> None:
    assert not tried(sample(bad_input_calls.CASES[part](), 20, seed=0), of_the_api)


def test_recipes_are_refused_before_the_data_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not tried(sample(bad_input_recipes.recipes(tmp_path), 30, seed=0), of_a_command)


@pytest.mark.parametrize("part", bad_input_tables.CASES)
def test_tables(part: str) -> None:
    assert not tried(sample(bad_input_tables.CASES[part](), 20, seed=0), bad_input_tables.judge)
