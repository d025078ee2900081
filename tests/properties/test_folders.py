"""A folder of a model holds everything its answers depend on: what loads it answers the same, or refuses."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model, tiny_tokenizer
from tiny_runs import CONTENTS, KINDS, TASKS, Runs, content, run, snapshot, write_data

from hf_rnn_seq2seq import (
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)
from hf_rnn_seq2seq.data.pairs import DataOptions
from hf_rnn_seq2seq.data.preprocessing import PREPROCESSING_FILE, Preprocessing
from hf_rnn_seq2seq.data.tokenizers import load_tokenizers, save_tokenizers
from hf_rnn_seq2seq.evaluation.saved_model import average_models, load_ensemble, load_model
from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


SCRIPTS = Path(__file__).parents[2] / "scripts"
PREDICT = runpy.run_path(str(SCRIPTS / "predict.py"))["main"]
# Names of the ways to prepare sources, and the keys of the section `data` that ask for them.
REPLACEMENTS = [["a", "d"], ["d(.)", r"\1\1b"]]  # applied twice they give something else
WAYS: dict[str, dict[str, Any]] = {
    "reversed": {"data__reverse_source": True},
    "replaced": {"data__source_replacements": REPLACEMENTS},
    "both": {"data__reverse_source": True, "data__source_replacements": REPLACEMENTS},
}
# Enough training that an answer depends on its source.
LEARNT: dict[str, Any] = {
    **{"training__max_steps": 60, "training__eval_steps": 30, "training__save_steps": 30},
    **{"training__learning_rate": 0.03, "model__encoder_hidden_size": 24, "model__decoder_hidden_size": 24},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run for each way to prepare sources."""
    folders = {way: tmp_path_factory.mktemp(way) / "out" for way in WAYS}
    for way, folder in folders.items():
        run("seq2seq", data_dir, "--output_dir", folder, **LEARNT, **WAYS[way])
    return folders


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind of task."""
    return Runs(tmp_path_factory.mktemp, data_dir)


def scored(folder: Path) -> list[str]:
    """What the evaluation of a run predicted for the test data."""
    with (folder / "predictions_test.tsv").open(newline="") as handle:
        return [row["prediction"] for row in csv.DictReader(handle, delimiter="\t") if row["rank"] == "1"]


def predicted(folder: Path, data_dir: Path, tmp_path: Path) -> list[str]:
    """What predict.py says to the same sources, as they are in the file."""
    PREDICT(
        [
            str(folder),
            "--input_file",
            str(data_dir / "test.tsv"),
            "--output_file",
            str(tmp_path / "o.txt"),
            "--overwrite",
        ]
    )
    return (tmp_path / "o.txt").read_text().splitlines()


def exported(folder: Path, data_dir: Path, tmp_path: Path) -> list[str | None]:
    """What an export of a model says to them, run by the copy of the runtime that lies in it."""
    runtime = RnnSeq2SeqRuntime.from_pretrained(export_model(folder, tmp_path / "exported", quantize=None))
    sources = [line.split("\t")[0] for line in (data_dir / "test.tsv").read_text().splitlines()]
    return [ranked[0].text for ranked in runtime.generate(sources)]


@pytest.mark.parametrize("way", WAYS)
def test_every_program_prepares_sources_as_the_training_did(
    way: str, prepared: dict[str, Path], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepared[way]
    wanted = scored(folder)
    assert len(set(wanted)) > 1
    # Nothing but what `hf upload` takes: no recipe beside it.
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    (alone / "recipe.yaml").unlink()
    assert predicted(alone, data_dir, tmp_path) == wanted
    assert exported(alone, data_dir, tmp_path) == wanted
    capsys.readouterr()
    PREDICT([str(alone), "ab", "dada"])
    texts = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert texts == [wanted[0], wanted[7]]
    # To a model that is not told, these are other sources.
    Preprocessing().save(alone)
    assert predicted(alone, data_dir, tmp_path) != wanted


@pytest.mark.parametrize("way", WAYS)
def test_checkpoints_means_and_ensembles_prepare_them_too(
    way: str, prepared: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    checkpoints = sorted(prepared[way].glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 2
    changes = {**LEARNT, **WAYS[way]}
    mean = tmp_path / "mean"
    run("seq2seq", data_dir, "--eval_only", *checkpoints, "--average", "--output_dir", mean, **changes)
    run("seq2seq", data_dir, "--eval_only", *checkpoints, "--output_dir", tmp_path / "ensemble", **changes)
    assert predicted(mean, data_dir, tmp_path) == scored(mean) == exported(mean, data_dir, tmp_path)
    moved = tmp_path / "moved"
    shutil.copytree(checkpoints[1], moved)
    run("seq2seq", data_dir, "--eval_only", moved, "--output_dir", tmp_path / "one", **changes)
    assert predicted(moved, data_dir, tmp_path) == scored(tmp_path / "one")
    average_models(checkpoints, tmp_path / "by_function")
    assert Preprocessing.load(tmp_path / "by_function") == Preprocessing.load(mean) == Preprocessing.load(moved)


@pytest.mark.parametrize("way", WAYS)
def test_a_recipe_that_prepares_sources_otherwise_is_refused(
    way: str, prepared: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    folder = prepared[way]
    checkpoints = sorted(folder.glob("checkpoint-*"))
    for other in ({}, *(changes for name, changes in WAYS.items() if name != way)):
        for models in ([folder], checkpoints, [*checkpoints, "--average"]):
            with pytest.raises(
                SystemExit, match=r"^error: data\.(reverse_source|source_replacements): the recipe say"
            ):
                run("seq2seq", data_dir, "--eval_only", *models, "--output_dir", tmp_path / "new", **other, **LEARNT)
    assert not list(tmp_path.glob("new/*"))


def test_models_that_prepare_sources_otherwise_are_not_mixed(
    prepared: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    one = prepared["reversed"]
    plain = tmp_path / "plain"
    shutil.copytree(one, plain)
    Preprocessing().save(plain)
    for function in (load_ensemble, lambda folders: average_models(folders, tmp_path / "mean")):
        with pytest.raises(
            ValueError, match=r"plain reads its sources otherwise than .*: they differ in reverse_sour"
        ):
            function([one, plain])
    changes = {**LEARNT, **WAYS["reversed"]}
    for options in ([], ["--average"]):
        with pytest.raises(SystemExit, match="reads its sources otherwise"):
            run("seq2seq", data_dir, "--eval_only", one, plain, *options, "--output_dir", tmp_path / "new", **changes)


def test_older_folders_are_told_by_their_recipe(prepared: dict[str, Path], data_dir: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(prepared["both"], old)
    for file in old.rglob(PREPROCESSING_FILE):
        file.unlink()
    wanted = Preprocessing(REPLACEMENTS, True)
    assert Preprocessing.load(old) == wanted
    assert all(Preprocessing.load(checkpoint) == wanted for checkpoint in old.glob("checkpoint-*"))
    assert predicted(old, data_dir, tmp_path) == scored(old) == exported(old, data_dir, tmp_path)
    # Nothing says how the sources were prepared: as before they are read as they are, and a recipe is believed.
    (old / "recipe.yaml").unlink()
    assert Preprocessing.load(old) is None
    run("seq2seq", data_dir, "--eval_only", old, "--output_dir", tmp_path / "new", **LEARNT, **WAYS["both"])
    assert scored(tmp_path / "new") == scored(old) != predicted(old, data_dir, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", r"got \[\], wanted an object with some of source_replacements, reverse_source"),
        ('{"lowercase": true}', "got {'lowercase': True}, wanted an object with some of"),
        ('{"reverse_source": 1}', "reverse_source: got 1, wanted true or false"),
        ('{"source_replacements": ["ab"]}', "source_replacements: got ab, wanted"),
        ('{"source_replacements": [["(", ""]]}', r"source_replacements: got \['\(', ''\]: missing \)"),
        ('{"source_replacements": 3}', "not iterable"),
    ],
)
def test_a_file_that_asks_for_something_else_is_refused_by_name(
    text: str, message: str, prepared: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(prepared["reversed"], model)
    (model / PREPROCESSING_FILE).write_text(text)
    with pytest.raises(ValueError, match=rf"{PREPROCESSING_FILE}.*: .*{message}"):
        Preprocessing.load(model)
    with pytest.raises(ValueError, match=PREPROCESSING_FILE):
        export_model(model, tmp_path / "exported")
    with pytest.raises(SystemExit, match=PREPROCESSING_FILE):
        PREDICT([str(model), "ab"])
    with pytest.raises(SystemExit, match=PREPROCESSING_FILE):
        run("seq2seq", data_dir, "--eval_only", model, "--output_dir", tmp_path / "new", **LEARNT, **WAYS["reversed"])


def test_export_does_not_contradict_the_folder(prepared: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reverse_source: got False, but .* says True"):
        export_model(prepared["reversed"], tmp_path / "exported", reverse_source=False)
    assert not (tmp_path / "exported").exists()


@given(
    st.lists(st.tuples(st.sampled_from(["a", "[ab]+", "b$", "(.)c", r"\s+"]), st.sampled_from(["", "x", " c "]))),
    st.text(alphabet="abch ", max_size=8),
    st.booleans(),
)
def test_the_runtime_prepares_texts_as_the_package_does(
    pairs: list[tuple[str, str]], text: str, reverse: bool
) -> None:
    preprocessing = Preprocessing(pairs, reverse)
    tokenizer = tiny_tokenizer()
    settings = {"vocab_size": 12, "reverse_source": reverse, "source_replacements": pairs}
    runtime = RnnSeq2SeqRuntime(None, None, settings, {}, tokenizer.backend_tokenizer)  # type: ignore[arg-type]
    from hf_rnn_seq2seq.data.pairs import encode_sources

    wanted = encode_sources([preprocessing.text(text)], tokenizer, preprocessing.reverse_source)[0]
    assert runtime._encode_text(text) == wanted


def test_a_source_of_which_nothing_is_left_is_said(prepared: dict[str, Path], data_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(prepared["replaced"], model)
    Preprocessing([["c", " "]]).save(model)
    with pytest.raises(SystemExit, match=r"source_replacements leave nothing of the text 'cc'"):
        PREDICT([str(model), "ab", "cc"])
    assert predicted(model, data_dir, tmp_path)[4] == ""
    with pytest.raises(SystemExit, match=r"data\.source_replacements: leaves nothing of the train source 'cc'"):
        run("seq2seq", data_dir, "--output_dir", tmp_path / "new", data__source_replacements=[["c", " "]])


def test_options_of_the_data_that_a_model_depends_on_are_all_saved() -> None:
    # A new option of the section has to be put on one side: it is part of the folder, or concerns training data alone,
    # or says where the data is.
    saved = {"source_replacements", "reverse_source", "delexicalised_slots"}
    training = {"max_source_length", "max_target_length", "drop_validation_overlap", "match_final_stop",
                "source_bpe_dropout", "target_bpe_dropout", "vocabulary_files", "group_references", "toy",
                "hallucinated_samples", "hallucination_seed",
                *(f"max_{split}_samples" for split in ("train", "validation", "test"))}  # fmt: skip
    where = {"dataset_name", "dataset_config", "train", "validation", "test", "format", "source_column",
             "target_column", "header"}  # fmt: skip
    rewritten = {"feature_column"}  # by source_replacements of the folder
    assert {*DataOptions.__dataclass_fields__} == saved | training | where | rewritten
    assert {*Preprocessing.__dataclass_fields__} == saved


def test_tokenizers_of_one_vocabulary_take_the_place_of_two(tmp_path: Path) -> None:
    save_tokenizers(tmp_path, tiny_tokenizer(), tiny_tokenizer())
    assert load_tokenizers(tmp_path)[0] is not load_tokenizers(tmp_path)[1]
    save_tokenizers(tmp_path, tiny_tokenizer(), None)
    source, target = load_tokenizers(tmp_path)
    assert source is target


# ---- Models of another kind -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_model_of_another_kind_is_refused_by_every_script(
    kind: str, other: str, finished: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    folder = finished[other]
    checkpoints = sorted(folder.glob("checkpoint-*"))
    before = snapshot(folder)
    for number, models in enumerate(([folder], [checkpoints[0]], checkpoints, [*checkpoints, "--average"])):
        options = ["--eval_only", *models, "--output_dir", tmp_path / str(number)]
        if kind == other == "speak" and models is checkpoints:
            with pytest.raises(SystemExit, match=r"^error: --eval_only: got 2 models"):
                run(kind, data_dir, *options)
        elif kind == other:
            assert run(kind, data_dir, *options)
        else:
            with pytest.raises(SystemExit, match=r"^error: .*(wanted a RnnSeq2Seq\w+$|holds no)"):
                run(kind, data_dir, *options)
            assert not list((tmp_path / str(number)).glob("*"))
    refusals = {
        "speech": "ab: the model in .* reads frames in an \\.npz file",
        "speak": "--sound: the model in .* speaks, wanted the folder that its sound goes to",
        **dict.fromkeys(("values", "forecast"), "the model in .* reads tables: give --input_file"),
    }
    if other in refusals:
        with pytest.raises(SystemExit, match=f"^error: {refusals[other]}"):
            PREDICT([str(folder), "ab"])
    else:
        PREDICT([str(folder), "ab"])
    if other not in ("speech", "speak"):
        export_model(folder, tmp_path / "exported")
    else:
        with pytest.raises(ValueError, match=r"holds a RnnSeq2SeqFor.*, wanted a RnnSeq2SeqForConditionalGeneration"):
            export_model(folder, tmp_path / "exported")
        assert not (tmp_path / "exported").exists()
    assert snapshot(folder) == before


CLASSES = (
    RnnSeq2SeqModel,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqForSequenceClassification,
)


@pytest.mark.parametrize("saved", CLASSES)
@pytest.mark.parametrize("wanted", CLASSES)
def test_only_the_class_that_was_saved_is_loaded(saved: type, wanted: type, tmp_path: Path) -> None:
    model = saved(tiny_config("luong", num_labels=3))
    model.save_pretrained(tmp_path)
    if saved is wanted:
        loaded = load_model(wanted, tmp_path).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
        return
    with pytest.raises(ValueError, match=f"holds a {saved.__name__}, wanted a {wanted.__name__}"):
        load_model(wanted, tmp_path)
    # Even if the folder does not say of what class it is.
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    if {saved, wanted} == {RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification}:
        load_model(wanted, tmp_path)  # their weights have the same names and shapes: nothing shows it
        return
    with pytest.raises(ValueError, match=r"(lacks the weights|has weights that belong to another model)"):
        load_model(wanted, tmp_path)


@pytest.mark.parametrize("structure", ["luong", "everything", "cho", "textbook", "bahdanau"])
def test_weights_that_are_missing_or_too_many_are_named(structure: str, tmp_path: Path) -> None:
    tiny_model(structure, dtype=torch.float32).save_pretrained(tmp_path)
    load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    for name in weights:
        save_file({other: value for other, value in weights.items() if other != name}, file, {"format": "pt"})
        with pytest.raises(ValueError, match="lacks the weights"):
            load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    save_file({**weights, "model.more": torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"has weights that belong to another model, model\.more"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    name = next(iter(weights))
    save_file({**weights, name: torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match="its weights cannot be loaded"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    file.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="its weights cannot be loaded"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="its weights cannot be loaded"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: got a JSON list, wanted an object"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_model(RnnSeq2SeqForConditionalGeneration, tmp_path)


def test_a_speech_model_is_loaded_whole(finished: dict[str, Path]) -> None:
    assert load_model(RnnSeq2SeqForSpeechSeq2Seq, finished["speech"]).config.input_feature_size == 4


@pytest.mark.parametrize("kind", ["tagging", "classification"])
def test_data_of_other_labels_is_refused(kind: str, finished: dict[str, Path], data_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(data_dir, other)
    for name in ("train", "dev", "test"):
        for file, old, new in ((f"{name}.jsonl", "B-X", "B-Y"), (f"{name}_labels.tsv", "yes", "maybe")):
            (other / file).write_text((other / file).read_text().replace(old, new))
    checkpoints = sorted(finished[kind].glob("checkpoint-*"))
    label = {"tagging": "B-Y", "classification": "maybe"}[kind]
    for models in ([finished[kind]], checkpoints, [*checkpoints, "--average"]):
        with pytest.raises(
            SystemExit, match=rf"^error: data\.train: has the labels {label}, which the model does not"
        ):
            run(kind, other, "--eval_only", *models, "--output_dir", tmp_path / "new")
    assert not list(tmp_path.glob("new/*"))
    # Members that know other labels are not mixed either.
    run(kind, other, "--output_dir", tmp_path / "other")
    with pytest.raises(SystemExit, match="members of an ensemble must agree on id2label"):
        run(kind, data_dir, "--eval_only", finished[kind], tmp_path / "other", "--output_dir", tmp_path / "new")


def test_speech_of_other_features_is_refused(finished: dict[str, Path], data_dir: Path, tmp_path: Path) -> None:
    checkpoints = sorted(finished["speech"].glob("checkpoint-*"))
    for name, value in (("stack", 2), ("delta_order", 1), ("normalization", "speaker")):
        for models in ([finished["speech"]], [*checkpoints, "--average"]):
            options = ["--eval_only", *models, "--output_dir", tmp_path / "new"]
            with pytest.raises(
                SystemExit, match=rf"^error: features\.{name}: the recipe says {value!r}, but the model"
            ):
                run("speech", data_dir, *options, **{f"features__{name}": value})
    assert not list(tmp_path.glob("new/*"))
    other = tmp_path / "other"
    shutil.copytree(checkpoints[0], other)
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**settings, "normalization": "speaker"}))
    with pytest.raises(ValueError, match=r"other reads other features than .*: they differ in normalization"):
        average_models([checkpoints[0], other], tmp_path / "mean", RnnSeq2SeqForSpeechSeq2Seq)


def test_an_encoder_of_prepared_sources_is_not_given_plain_ones(
    prepared: dict[str, Path], data_dir: Path, tmp_path: Path
) -> None:
    changed = content("classification", pretrained__encoder=str(prepared["reversed"]))
    del changed["model"]
    (tmp_path / "r.yaml").write_text(write_yaml(changed))
    options = [tmp_path / "r.yaml", "--data_dir", data_dir, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"pretrained\.encoder: .*was trained with data\.reverse_source=True"):
        main(TASKS["classification"], None, [str(option) for option in options])


def test_the_card_of_a_model_prepares_its_example(
    prepared: dict[str, Path], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_recipe(content("seq2seq"), "x").card is not None and CONTENTS
    for way, folder in prepared.items():
        code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        code = code.replace('"your-name/a-test"', repr(str(folder))).replace('"hello"', '"dada"')
        capsys.readouterr()
        exec(code, {})
        assert capsys.readouterr().out.strip() == f"['{scored(folder)[7]}']", way
