"""Data: every format reads the same pairs, and bad files are refused with file and line."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from hf_rnn_seq2seq.data.pairs import (
    DataError,
    DataOptions,
    ToyOptions,
    encode_dataset,
    encode_sources,
    evaluation_items,
    load_data,
    pair_lengths,
    vocabulary_texts,
)
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer


# A quote, a line separator that str.splitlines would split at, and letters of several bytes.
PAIRS = [("ab", "A B"), ("a\u2028ä", "Ä"), ('say "x"', "S X"), ("ab", "A B2")]


@pytest.fixture(autouse=True, scope="module")
def _no_progress_bars() -> None:
    datasets.disable_progress_bars()


def write(path: Path, text: str | bytes) -> Path:
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def read(folder: Path, **options: Any) -> list[tuple[str, str]]:
    split = load_data(DataOptions(**options), folder)["train"]
    return list(zip(split["source"], split["target"], strict=True))


FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "jsonl": (
        "".join(json.dumps({"in": s, "out": {"text": t}}) + "\n" for s, t in PAIRS),
        {"source_column": "in", "target_column": "out.text"},
    ),
    "csv": ("".join(f"x,{quoted(s)},{quoted(t)}\n" for s, t in PAIRS), {"source_column": 2, "target_column": 3}),
    "tsv": (
        "target\tnumber\tsource\n" + "".join(f"{t}\t{n}\t{s}\n" for n, (s, t) in enumerate(PAIRS)),
        {"source_column": "source", "target_column": "target"},
    ),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", FILES)
def test_every_format_reads_the_same_pairs(kind: str, end: str, suffix: str, tmp_path: Path) -> None:
    text, options = FILES[kind]
    write(tmp_path / f"file.{kind}{suffix}", text.replace("\n", end))
    assert read(tmp_path, train=f"file.{kind}{suffix}", **options) == PAIRS


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parallel_text_files(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / f"train.src{suffix}", "".join(f"{s}\n" for s, _ in PAIRS))
    write(tmp_path / f"train.tgt{suffix}", "\n".join(t for _, t in PAIRS))
    assert read(tmp_path, train={"source": f"train.src{suffix}", "target": f"train.tgt{suffix}"}) == PAIRS


def test_a_header_is_skipped_when_columns_are_numbers(tmp_path: Path) -> None:
    write(tmp_path / "file.tsv", "source\ttarget\na\tb\n")
    assert read(tmp_path, train="file.tsv", header=True) == [("a", "b")]
    assert read(tmp_path, train="file.tsv") == [("source", "target"), ("a", "b")]


def test_several_files_and_a_format_that_the_name_does_not_tell(tmp_path: Path) -> None:
    write(tmp_path / "one", "\ufeffa\tb\n")
    write(tmp_path / "two", "c\td\n")
    assert read(tmp_path, train=["one", "two"], format="tsv") == [("a", "b"), ("c", "d")]


def test_a_line_end_inside_quotes_belongs_to_the_field(tmp_path: Path) -> None:
    write(tmp_path / "file.csv", 'a,"b\nc"\nd,e\n')
    assert read(tmp_path, train="file.csv") == [("a", "b\nc"), ("d", "e")]


def test_a_hub_data_set(tmp_path: Path) -> None:
    # load_dataset takes a folder as well as a name on the Hub; what comes back is the same kind of object.
    write(tmp_path / "train.jsonl", '{"translation": {"en": "a", "de": "b"}}\n')
    write(tmp_path / "validation.jsonl", '{"translation": {"en": "c", "de": "d"}}\n')
    options = DataOptions(
        dataset_name=str(tmp_path),
        train="train",
        validation="validation",
        source_column="translation.en",
        target_column="translation.de",
    )
    data = load_data(options)
    assert data["train"].to_list() == [{"source": "a", "target": "b"}]
    assert data["validation"].to_list() == [{"source": "c", "target": "d"}]
    options.target_column = "translation.fr"
    with pytest.raises(DataError, match=r"data\.target_column is 'translation\.fr', the record has \['translation'\]"):
        load_data(options)
    options.train = ["train"]
    with pytest.raises(DataError, match=r"data\.train: got \['train'\], wanted the name of a split"):
        load_data(options)


JSON_COLUMNS = {"source_column": "s", "target_column": "t"}
BAD_FILES: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "fewer columns": ("f.tsv", "a\tb\nc\n", {}, r"f\.tsv, line 2: 1 columns, wanted 2"),
    "more columns": ("f.csv", "a,b\nc,d,e\n", {}, r"f\.csv, line 2: 3 columns, wanted 2"),
    "a blank line": ("f.tsv.gz", "a\tb\n\nc\td\n", {}, r"f\.tsv\.gz, line 2: 1 columns, wanted 2"),
    "an empty source": ("f.tsv", "a\tb\n \td\n", {}, r"f\.tsv, line 2: empty source"),
    "no such column number": ("f.tsv", "a\tb\n", {"target_column": 3}, r"f\.tsv, line 1: data\.target_column is 3"),
    "no such column name": ("f.tsv", "a\tb\n", {"source_column": "x"}, r"data\.source_column is 'x', the file has"),
    "a name without a header": ("f.tsv", "a\tb\n", {"source_column": "a", "header": False}, r"data\.header is false"),
    "broken quotes": ("f.csv", 'a,b\nc,"d"e\n', {}, r"f\.csv, line 2: "),
    "no text": ("f.jsonl", '{"s": 2, "t": "b"}\n', JSON_COLUMNS, r"f\.jsonl, line 1: the source is int"),
    "broken json": ("f.jsonl", '{"s": "a", "t": "b"}\n{"s":\n', JSON_COLUMNS, r"line 2: not JSON"),
    "a json list": ("f.jsonl", "[]\n", JSON_COLUMNS, r"line 1: a JSON list, wanted an object"),
    "a missing key": ("f.jsonl", '{"s": "a"}\n', JSON_COLUMNS, r"line 1: data\.target_column is 't', the record has"),
    "numbers for json": ("f.jsonl", '{"s": "a"}\n', {}, r"line 1: data\.source_column is 1"),
    "latin-1": ("f.tsv", "a\tb\n\xe4\tc\n".encode("latin-1"), {}, r"f\.tsv, line 2: not UTF-8"),
    "an unknown ending": ("f.txt", "a\tb\n", {}, r"f\.txt: the name tells no format"),
    "nothing": ("f.tsv", "", {}, r"data\.train: 'f\.tsv' holds no line"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    name, content, options, message = BAD_FILES[case]
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, train=name, **options)


def test_a_broken_gzip_file_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(b"a\tb\n" * 10000)
    (tmp_path / "cut.tsv.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "plain.tsv.gz").write_bytes(b"a\tb\n")
    with pytest.raises(DataError, match=r"cut\.tsv\.gz, after line \d+: broken gzip file"):
        read(tmp_path, train="cut.tsv.gz")
    with pytest.raises(DataError, match=r"plain\.tsv\.gz, after line 0: broken gzip file"):
        read(tmp_path, train="plain.tsv.gz")


@pytest.mark.parametrize(("long", "short"), [("source", "target"), ("target", "source")])
def test_parallel_files_of_unequal_length_are_refused(long: str, short: str, tmp_path: Path) -> None:
    write(tmp_path / long, "a\nb\nc\n")
    write(tmp_path / short, "a\nb\n")
    with pytest.raises(DataError, match=rf"{short} ends after line 2, but .*{long} goes on"):
        read(tmp_path, train={"source": "source", "target": "target"})


def test_missing_files_and_missing_training_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tsv: no such file"):
        read(tmp_path, train="absent.tsv")
    with pytest.raises(DataError, match=r"data\.train: not set"):
        load_data(DataOptions(validation="absent.tsv"), tmp_path)  # before another split is looked for
    with pytest.raises(ValueError, match=r"train: got the key 'en' in .*wanted some of file, source, target"):
        read(tmp_path, train={"source": "a", "en": "b"})


def test_validation_sources_that_occur_in_training_can_be_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.tsv", "a\tx\nb\tx\n")
    write(tmp_path / "dev.tsv", "b\ty\nc\ty\n")
    options = DataOptions(train="train.tsv", validation="dev.tsv", test="dev.tsv", drop_validation_overlap=True)
    with caplog.at_level("INFO"):
        data = load_data(options, tmp_path)
    assert data["validation"].to_list() == [{"source": "c", "target": "y"}]
    assert len(data["test"]) == 2
    assert "dropped 1 of 2 lines" in caplog.text
    write(tmp_path / "dev.tsv", "b\ty\n")
    with pytest.raises(DataError, match="no validation line is left"):
        load_data(options, tmp_path)


def test_training_targets_can_be_made_to_end_in_a_full_stop_as_their_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = {
        ("a dog .", "ein hund ."): "ein hund .",
        ("a dog", "ein hund"): "ein hund",
        ("a dog", "ein hund ."): "ein hund",
        ("a dog", "ein hund..."): "ein hund",
        ("a dog .", "ein hund"): "ein hund .",
        ("A dog. ", "Ein Hund"): "Ein Hund.",
        ("a dog ?", "ein hund ."): "ein hund",
        ("a dog", "."): ".",  # no target is left empty
    }
    write(tmp_path / "f.tsv", "".join(f"{source}\t{target}\n" for source, target in cases))
    with caplog.at_level("INFO"):
        data = load_data(DataOptions(train="f.tsv", test="f.tsv", match_final_stop=True), tmp_path)
    assert data["train"]["target"][:] == list(cases.values())
    assert data["test"]["target"][:] == [target for _, target in cases]
    assert "changed 5 of 8 targets" in caplog.text
    plain = load_data(DataOptions(train="f.tsv"), tmp_path)
    assert plain["train"]["target"][:] == [target for _, target in cases]


def test_only_the_first_lines_if_asked(tmp_path: Path) -> None:
    write(tmp_path / "f.tsv", "".join(f"{letter}\tx\n" for letter in "abcde"))
    data = load_data(DataOptions(train="f.tsv", test="f.tsv", max_train_samples=2, max_test_samples=9), tmp_path)
    assert data["train"]["source"][:] == ["a", "b"]
    assert len(data["test"]) == 5


def test_references_of_one_source_are_grouped() -> None:
    split = datasets.Dataset.from_dict({"source": ["b", "a", "b", "b"], "target": ["1", "2", "3", "1"]})
    assert evaluation_items(split, group_references=True) == (["b", "a"], [["1", "3"], ["2"]])
    assert evaluation_items(split, group_references=False) == (["b", "a", "b", "b"], [["1"], ["2"], ["3"], ["1"]])


def test_toy_tasks_are_data_sets() -> None:
    options = DataOptions(dataset_name="toy:sort", toy=ToyOptions(train=20, validation=5, test=5, test_longer=7))
    data = load_data(options)
    assert list(data) == ["train", "validation", *options.test_splits]
    assert options.test_splits == ["test", "test_longer"]
    assert len(data["test_longer"]) == 7
    assert data["test"][0]["target"] == "".join(sorted(data["test"][0]["source"]))
    assert DataOptions(dataset_name="toy:copy").test_splits == ["test"]


def test_several_test_sets_have_names(tmp_path: Path) -> None:
    for letter in "abcd":
        write(tmp_path / f"{letter}.tsv", f"{letter}\tx\n{letter}2\tx\n")
    for side in ("src", "tgt"):
        write(tmp_path / f"p.{side}", f"{side}\n")
    options = DataOptions(
        train="a.tsv",
        validation="b.tsv",
        test={"test_1": "c.tsv", "both": ["c.tsv", "d.tsv"], "parallel": {"source": "p.src", "target": "p.tgt"}},
        max_test_samples=3,
    )
    data = load_data(options, tmp_path)
    assert list(data) == ["train", "validation", "test_1", "both", "parallel"]
    assert options.test_splits == ["test_1", "both", "parallel"]
    assert data["test_1"]["source"][:] == ["c", "c2"]
    assert data["both"]["source"][:] == ["c", "c2", "d"]
    assert data["parallel"].to_list() == [{"source": "src", "target": "tgt"}]
    # One without a name is called "test", parallel text or not.
    assert DataOptions(test="c.tsv").test_splits == ["test"]
    assert DataOptions(test={"source": "p.src", "target": "p.tgt"}).test_splits == ["test"]
    assert DataOptions().test_splits == []


def test_a_file_of_a_named_test_set_is_named_in_errors(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", "a\tb\n")
    write(tmp_path / "bad.tsv", "a\tb\nc\n")
    with pytest.raises(DataError, match=r"bad\.tsv, line 2: 1 columns"):
        load_data(DataOptions(train="a.tsv", test={"good": "a.tsv", "bad": "bad.tsv"}), tmp_path)
    write(tmp_path / "bad.tsv", "")
    with pytest.raises(DataError, match=r"data\.bad: 'bad\.tsv' holds no line"):
        load_data(DataOptions(train="a.tsv", test={"bad": "bad.tsv"}), tmp_path)


def test_sources_are_rewritten_in_every_split(tmp_path: Path) -> None:
    write(tmp_path / "f.csv", 'mr,ref\n"name[The Mill], near[Café X]",The [old] Mill\n')
    options = DataOptions(
        train="f.csv",
        test={"again": "f.csv"},
        source_column="mr",
        target_column="ref",
        source_replacements=[[r"(\w+)\[", r"\1 "], [r"\]", ""]],
    )
    data = load_data(options, tmp_path)
    wanted = [{"source": "name The Mill, near Café X", "target": "The [old] Mill"}]
    assert data["train"].to_list() == data["again"].to_list() == wanted


def test_words_of_other_files_get_into_the_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "kb.txt.gz", "1 resto_a R_phone\tresto_a_phone\n")
    write(tmp_path / "more.txt", "x\n")
    texts = vocabulary_texts(DataOptions(vocabulary_files=["kb.txt.gz", "more.txt"]), tmp_path)
    assert texts == ["1 resto_a R_phone\tresto_a_phone", "x"]
    tokenizer = train_tokenizer(["hi", *texts], TokenizerOptions("word"))
    assert tokenizer.unk_token_id not in tokenizer("resto_a_phone resto_a x")["input_ids"]
    with pytest.raises(DataError, match=r"absent\.txt: no such file"):
        vocabulary_texts(DataOptions(vocabulary_files=["absent.txt"]), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "format: got 'xml'"),
        ({"source_column": 0}, "source_column: got 0"),
        ({"max_target_length": 0}, "max_target_length: got 0"),
        ({"max_test_samples": -1}, "max_test_samples: got -1"),
        ({"source_replacements": [["("]]}, r"source_replacements: got \['\('\], wanted \[regular"),
        ({"source_replacements": [["(", ""]]}, r"source_replacements: got \['\(', ''\]: missing \)"),
        ({"source_replacements": [["a", r"\1"]]}, r"source_replacements: got .*invalid group reference"),
        ({"test": {"validation": "a.tsv"}}, "test: got the name 'validation'"),
        ({"test": {"test-2016": "a.tsv"}}, "test: got the name 'test-2016', wanted names of letters"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        DataOptions(**options)


@pytest.mark.parametrize("add_eos", [True, False])
def test_encoding(add_eos: bool) -> None:
    source = train_tokenizer(["abc"], TokenizerOptions("character", add_eos=add_eos))
    target = train_tokenizer(["X Y"], TokenizerOptions("word", add_eos=add_eos))
    split = datasets.Dataset.from_dict({"source": ["abc", "b"], "target": ["Y X", ""]})
    encoded = encode_dataset(split, source, target, DataOptions())
    end = [source.eos_token_id] if add_eos else []
    a, b, c, x, y = [*source.convert_tokens_to_ids(["a", "b", "c"]), *target.convert_tokens_to_ids(["X", "Y"])]
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert encoded["input_ids"][:] == [[a, b, c, *end], [b, *end]]
    # Every target ends, whether or not the tokenizer says so.
    assert encoded["labels"][:] == [[y, x, target.eos_token_id], [target.eos_token_id]]
    assert encoded["attention_mask"][:] == [[1] * len(ids) for ids in encoded["input_ids"][:]]
    assert pair_lengths(encoded) == [(3 + add_eos, 3), (1 + add_eos, 1)]


def test_reversing_the_source_leaves_its_end_in_place() -> None:
    tokenizer = train_tokenizer(["abc"], TokenizerOptions("character"))
    (straight,), (turned,) = (encode_sources(["abc"], tokenizer, reverse) for reverse in (False, True))
    assert turned == [*reversed(straight[:-1]), tokenizer.eos_token_id]


def test_pairs_that_are_too_long_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_tokenizer(["abc"], TokenizerOptions("character"))
    split = datasets.Dataset.from_dict({"source": ["a", "abc", "a"], "target": ["a", "a", "abc"]})
    encoded = encode_dataset(
        split, tokenizer, tokenizer, DataOptions(max_source_length=2, max_target_length=2), "train"
    )
    assert len(encoded) == 1
    assert "train: dropped 2 of 3 pairs" in caplog.text
    with pytest.raises(DataError, match=r"all 3 pairs are longer than data\.max_source_length=1"):
        encode_dataset(split, tokenizer, tokenizer, DataOptions(max_source_length=1))
