"""Words pronounced by an exported model, behind a user's lexicon, with how sure it is; without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model

from hf_rnn_seq2seq.data import DataOptions, load_data
from hf_rnn_seq2seq.data.features import tags_of
from hf_rnn_seq2seq.data.processors import save_processor
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.recipes.command_line import main as command_line
from hf_rnn_seq2seq.sharing import Pronouncer, RnnSeq2SeqRuntime
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.pronounce import COLUMNS, Lexicon, normalizer_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a model of two languages, whose target tokens are words."""
    place = tmp_path_factory.mktemp("pronounce")
    (place / "words.tsv").write_text("abcdé\tA0 B1\nbad\tB1 A0 D\n", encoding="utf-8")
    train = [{"file": "words.tsv", "features": language} for language in ("xx", "yy")]
    options = DataOptions(train=train)
    data = load_data(options, place)["train"]
    letters = TokenizerOptions("character", lowercase=True, normalization="NFD")
    source = train_tokenizer(data["source"], letters, tags=tags_of(data["source"]))
    target = train_tokenizer(data["target"], TokenizerOptions("word"), "target")
    model = tiny_model(vocab_size=len(source), decoder_vocab_size=len(target)).float()
    model.generation_config.update(max_new_tokens=6, num_beams=3, suppress_tokens=[0, 1, 2])
    model.save_pretrained(place / "model")
    save_processor(place / "model", source, target, options.preprocessing)
    return export_model(place / "model", place / "exported", quantize=None)


@pytest.fixture
def runtime(folder: Path) -> RnnSeq2SeqRuntime:
    return RnnSeq2SeqRuntime.from_pretrained(folder)


def test_the_model_answers_with_the_numbers_of_its_search(runtime: RnnSeq2SeqRuntime) -> None:
    words = ["bad", "dab\tyy", "dab"]
    several = Pronouncer(runtime, features="xx")(words, n_best=2)
    searched = runtime.generate(["bad\txx", "dab\tyy", "dab\txx"], num_beams=3, num_return_sequences=3)
    for found, ranked, features in zip(several, searched, ("xx", "yy", "xx"), strict=True):
        assert (found.features, found.from_lexicon, found.unknown) == (features, False, "")
        assert found.pronunciations == [hypothesis.text for hypothesis in ranked[:2]]
        best, second, third = (hypothesis.log_probability for hypothesis in ranked)
        rows = [row[COLUMNS.index("log_probability") :][:2] for row in found.rows()]
        assert rows == [(f"{best:.4f}", f"{best - second:.4f}"), (f"{second:.4f}", f"{second - third:.4f}")]
    assert several[1].log_probabilities != several[2].log_probabilities  # the language counts


def test_a_user_s_lexicon_goes_first_for_the_language_it_is_of(runtime: RnnSeq2SeqRuntime, tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text("BAD\tD\nbad\tB1\ndab\tyy\tA0 A0\n", encoding="utf-8")
    lexicon = Lexicon.read(file, normalizer_of(runtime), ["xx", "yy"], "xx")
    found = Pronouncer(runtime, lexicon, "xx")(["Bad", "bad\tyy", "dab", "dab\tyy"], n_best=3)
    assert [one.from_lexicon for one in found] == [True, False, False, True]
    assert found[0].pronunciations == ["D", "B1"] and found[3].pronunciations == ["A0 A0"]
    assert next(found[3].rows()) == ("dab", "yy", "1", "A0 A0", "", "", "lexicon", "")


@pytest.mark.parametrize(
    ("word", "unknown"), [("bad", ""), ("bAd", ""), ("bade\u0301", ""), ("bädzz", "äz"), ("☃bad", "☃"), ("<s>", "<s>")]
)
def test_characters_that_the_model_never_saw_are_named(runtime: RnnSeq2SeqRuntime, word: str, unknown: str) -> None:
    assert Pronouncer(runtime, features="xx")([word])[0].unknown == unknown


@pytest.mark.parametrize(
    ("word", "features", "message"),
    [
        ("bad", "", "word 'bad': got the features '', wanted some of xx, yy"),
        ("bad\tzz", "xx", "word 'bad': got the features 'zz', wanted some of xx, yy"),
        ("bad", "xx;zz", "word 'bad': got the features 'xx;zz', wanted some of xx, yy"),
        (" \txx", "", "got the word ' ', wanted one that is not blank"),
    ],
)
def test_a_word_that_cannot_be_pronounced_is_refused(
    runtime: RnnSeq2SeqRuntime, word: str, features: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Pronouncer(runtime, features=features)([word])


def test_the_exported_folder_pronounces_a_list_without_torch_and_so_does_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "mine.tsv"
    lexicon.write_text("bad\tD\n", encoding="utf-8")
    options = ["--features", "xx", "--lexicon", str(lexicon), "--n_best", "2", "--batch_size", "1"]
    program = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'hf_rnn_seq2seq', 'onnx']))\n"
        f"sys.argv = ['pronounce', *{options!r}]\n"
        f"runpy.run_path({str(folder / 'rnn_seq2seq_pronounce.py')!r}, run_name='__main__')\n"
    )
    lines = "bad\n\ndab\tyy\r\n\ncab\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input=lines, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    command_line(["pronounce", str(folder), *options, "bad", "dab\tyy", "cab"])
    assert done.stdout == capsys.readouterr().out
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert tuple(rows[0]) == COLUMNS and [row[0] for row in rows[1:]] == ["bad", "dab", "dab", "cab", "cab"]
    with pytest.raises(SystemExit, match=r"error: .*wanted some of xx, yy"):
        command_line(["pronounce", str(folder), "bad"])
    with pytest.raises(SystemExit, match=r"error: .*mine\.tsv, line 1: got .*wanted .* in between or not: xx, yy"):
        lexicon.write_text("bad\tzz\tD\n", encoding="utf-8")
        command_line(["pronounce", str(folder), *options, "bad"])
    with pytest.raises(SystemExit, match=r"error: .*mine\.tsv, line 1: got 'bad', wanted a text, a tab"):
        lexicon.write_text("bad\n", encoding="utf-8")
        command_line(["pronounce", str(folder), *options, "bad"])
