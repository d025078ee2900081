"""The README's table of results files."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_table import BEGIN, END, PUBLISHED_FILE, main, replace_block, results_table

from hf_rnn_seq2seq.sharing.results import write_results


GIVEN = {
    "recipe": "g2p_toy",
    "command": ["python", "scripts/run_seq2seq.py", "scripts/recipes/g2p_toy.yaml"],
    "seeds": [1, 2],
    "metrics": {"per": 5.0412, "g2p_wer": 21.6},
    "parameters": 4_321_000,
    "training_seconds": 4983.21,
    "details": {"bleu_signature": "nrefs:1|case:mixed"},
}


def test_the_table_has_one_row_a_recipe(tmp_path):
    assert results_table(tmp_path) == "*No results yet.*"
    write_results(tmp_path / "b.json", **{**GIVEN, "recipe": "b|c", "parameters": 900, "training_seconds": 42.0})
    write_results(tmp_path / "a.json", **{**GIVEN, "parameters": 12_345, "training_seconds": 95.0})
    metrics = {"validation_per": 4.0, **GIVEN["metrics"]}  # the validation data's numbers stay out of the table
    write_results(tmp_path / "c.json", **{**GIVEN, "metrics": metrics})
    write_results(tmp_path / "d.json", **{**GIVEN, "metrics": {"validation_per": 4.0}})
    header, rule, *rows = results_table(tmp_path).splitlines()
    assert header.count("|") == rule.count("|") == 9
    cells = [[cell.strip() for cell in row.replace("\\|", "/").strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["`g2p_toy`", "`b/c`", "`g2p_toy`", "`g2p_toy`"]
    assert [row[3:5] for row in cells[:3]] == [["12.3 k", "2 min"], ["900", "42 s"], ["4.3 M", "1 h 23 min"]]
    assert all(row[1] == "per **5.04**, g2p_wer **21.60**" and row[6] == "1, 2" for row in cells[:3])
    assert cells[3][1] == "validation_per **4.00**"


def test_what_others_reached_stands_beside_our_numbers(tmp_path):
    write_results(tmp_path / "a.json", **GIVEN)
    published = tmp_path / PUBLISHED_FILE
    published.write_text("g2p_toy\tPER 5.04 (Someone 2016)\nnot_yet_run\t1.0\n")
    assert "| PER 5.04 (Someone 2016) | 4.3 M |" in results_table(tmp_path)
    published.write_text("g2p_toy\t1.0\ng2p_toy\t2.0\n")
    with pytest.raises(ValueError, match=r"published.tsv, line 2: got 'g2p_toy.t2.0', wanted a new recipe"):
        results_table(tmp_path)


def test_published_numbers_are_of_recipes_that_exist():
    scripts = Path(__file__).parents[2] / "scripts"
    lines = (scripts / "results" / PUBLISHED_FILE).read_text(encoding="utf-8").splitlines()
    assert {line.split("\t")[0] for line in lines} <= {path.stem for path in (scripts / "recipes").glob("*.yaml")}


def test_a_row_of_many_runs_names_the_means_only(tmp_path):
    many = {f"run{number}_wer": float(number) for number in range(30)}
    write_results(tmp_path / "suite.json", **{**GIVEN, "metrics": {"wer": 17.5, "wer_std": 0.25, **many}})
    row = results_table(tmp_path).splitlines()[-1]
    assert "wer **17.50**, wer_std **0.25**, run0_wer **0.00**, run1_wer **1.00**, and 28 more in the file" in row
    # Of few runs it names each one's first metric.
    others = {f"{name}{metric}": 1.0 for name in ("", "one_", "two_") for metric in ("wer", "cer", "per", "a", "b")}
    write_results(tmp_path / "suite.json", **{**GIVEN, "metrics": others})
    row = results_table(tmp_path).splitlines()[-1]
    assert "| wer **1.00**, one_wer **1.00**, two_wer **1.00**, and 12 more in the file |" in row


def test_the_table_needs_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"folder must be a folder of results files, got .*nowhere"):
        results_table(tmp_path / "nowhere")


def test_command_line_rewrites_the_block_and_checks_it(tmp_path, capsys):
    folder, document = tmp_path / "results", tmp_path / "README.md"
    document.write_text(f"# Title ü\n\n{BEGIN}\nold\n{END}\n\nThe end.\n", encoding="utf-8")
    write_results(folder / "g2p_toy.json", **GIVEN)
    with pytest.raises(SystemExit) as stale:
        main([str(document), str(folder), "--check"])
    assert stale.value.code == 1
    assert "stale" in capsys.readouterr().err
    assert "old" in document.read_text(encoding="utf-8")

    main([str(document), str(folder)])
    expected = f"# Title ü\n\n{BEGIN}\n{results_table(folder)}\n{END}\n\nThe end.\n"
    assert document.read_text(encoding="utf-8") == expected
    main([str(document), str(folder), "--check"])

    write_results(folder / "g2p_toy.json", **{**GIVEN, "metrics": {"per": 4.9}})
    with pytest.raises(SystemExit) as stale:
        main([str(document), str(folder), "--check"])
    assert stale.value.code == 1


@pytest.mark.parametrize("text", ["no block", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", BEGIN])
def test_a_document_without_the_block_is_refused(tmp_path, text, capsys):
    with pytest.raises(ValueError, match="one <!-- results:begin --> and after it one <!-- results:end -->"):
        replace_block(text, "table")
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(SystemExit) as refused:
        main([str(tmp_path / "README.md"), str(tmp_path)])
    assert refused.value.code == 2
    assert "README.md: the file must hold one" in capsys.readouterr().err


def test_a_table_is_not_replaced_by_that_of_a_folder_without_results(tmp_path, capsys):
    document = tmp_path / "README.md"
    document.write_text(f"{BEGIN}\n| a |\n{END}\n")
    with pytest.raises(SystemExit):
        main([str(document), str(tmp_path)])
    assert "README.md: holds a table, but" in capsys.readouterr().err
    assert document.read_text() == f"{BEGIN}\n| a |\n{END}\n"
