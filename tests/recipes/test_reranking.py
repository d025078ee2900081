"""A recipe with placeholders and a reranker: one tiny run, and every door that answers with names put back."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import DECODER, SIZES, TRAINING, run
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline

from hf_rnn_seq2seq.evaluation import Hypothesis, SlotReranker
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.sharing import RnnSeq2SeqRuntime, export_model


NAMES, FOODS, AREAS = ["Alto", "The Big Eagle", "Cotto Bar"], ["Thai", "French", None], ["river", "centre", None]
NEW = "name[An Unseen Name], food[Thai], area[river]"
SPOKEN = "An Unseen Name serves Thai food by the river"
RECIPE: dict[str, Any] = {
    "data__train": "mr.csv", "data__validation": "mr.csv", "data__test": None,
    "data__source_column": "mr", "data__target_column": "ref",
    "data__source_replacements": [[r"\[", " "], [r"\]", ""]],
    "data__delexicalised_slots": {"XNAME": r"\bname ([^,]+)"},
    "tokenizer__shared": True, "tokenizer__source": {"type": "word"},
    "model": {**SIZES, **DECODER, "encoder_hidden_size": 32, "decoder_hidden_size": 32, "embedding_size": 16},
    "training": {**TRAINING, "max_steps": 120, "eval_steps": 60, "save_steps": 60, "learning_rate": 0.02},
    "generation": {"num_beams": 4, "max_new_tokens": 12},
    "evaluation__reranker": {"slots": "(?:^|, )([^,]+)", "hidden_size": 32, "num_train_epochs": 250},
    "card__example": NEW,
}  # fmt: skip


def changes(**other: Any) -> dict[str, Any]:
    """The recipe's changes, whole sections included, as `content` takes them."""
    flat: dict[str, Any] = {}
    for path, value in {**RECIPE, **other}.items():
        flat |= {path: value} if "__" in path else {f"{path}__{key}": entry for key, entry in value.items()}
    return flat


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranked")
    with open(folder / "mr.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["mr", "ref"])
        for name, food, area in itertools.product(NAMES, FOODS, AREAS):
            source = f"name[{name}]" + (f", food[{food}]" if food else "") + (f", area[{area}]" if area else "")
            text = f"{name} serves" + (f" {food}" if food else "") + " food" + (f" by the {area}" if area else "")
            rows.writerow([source, text])
    return folder


@pytest.fixture(scope="module")
def model_dir(data_dir: Path) -> Path:
    scores = run("seq2seq", data_dir, "--output_dir", data_dir / "out", **changes())
    assert scores["validation_exact_match"] == 100
    return data_dir / "out"


def test_every_door_puts_the_name_of_its_source_in_place(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict([str(model_dir), NEW])
    assert SPOKEN in capsys.readouterr().out
    (tmp_path / "in.txt").write_text(f"{NEW}\nname[Alto]\n")
    files = ["--input_file", str(tmp_path / "in.txt"), "--output_file", str(tmp_path / "out.txt")]
    predict([str(model_dir), *files])
    assert (tmp_path / "out.txt").read_text() == f"{SPOKEN}\nAlto serves food\n"

    write = pipeline("seq2seq-generation", model=str(model_dir))
    assert write(NEW)[0]["generated_text"] == SPOKEN
    answers = write([NEW, "name[Alto]", "name[B C]"], batch_size=2)
    assert [ranked[0]["generated_text"] for ranked in answers] == [SPOKEN, "Alto serves food", "B C serves food"]

    processor, model = AutoProcessor.from_pretrained(model_dir), AutoModelForSeq2SeqLM.from_pretrained(model_dir)
    written = processor.decode(model.generate(**processor([NEW], return_tensors="pt"))[0], skip_special_tokens=True)
    assert written == SPOKEN.replace("An Unseen Name", "XNAME") and processor.lexicalise(written, NEW) == SPOKEN
    assert "lexicalise(" in (model_dir / "README.md").read_text()


def test_an_exported_model_puts_it_in_place_too(model_dir: Path, tmp_path: Path) -> None:
    export_model(model_dir, tmp_path / "exported")
    runtime = RnnSeq2SeqRuntime.from_pretrained(tmp_path / "exported")
    assert [ranked[0].text for ranked in runtime.generate([NEW, "name[Alto]"])] == [SPOKEN, "Alto serves food"]
    assert "".join(pieces := list(runtime.stream(NEW))) == SPOKEN and len(pieces) > 2
    ids = runtime.encode([NEW])
    assert runtime.generate(ids)[0][0].text == SPOKEN.replace("An Unseen Name", "XNAME")  # ids have no names
    settings = tmp_path / "exported" / "runtime_config.json"
    assert json.loads(settings.read_text())["delexicalised_slots"] == RECIPE["data__delexicalised_slots"]


def test_the_trained_reranker_knows_what_is_left_out(model_dir: Path) -> None:
    reranker = SlotReranker.from_pretrained(model_dir / "reranker")
    texts = [SPOKEN, "An Unseen Name serves food by the river", "An Unseen Name serves French food by the river"]
    lists = [[Hypothesis(text, (4,) * 8, -float(9 - n)) for n, text in enumerate(texts)]]
    source = "name An Unseen Name, food Thai, area river"
    assert reranker.distances([source], lists) == [[0, 1, 2]]
    assert [found.text for found in reranker([source], lists)[0]] == texts


def test_predict_orders_by_the_reranker_beside_the_model_or_another_or_none(
    model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def best(*options: str) -> list[str]:
        predict([str(model_dir), "name[A], area[river]", "--num_return_sequences", "3", *options])
        return [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()]

    reranked, plain = best(), best("--reranker", "none")
    assert best("--reranker", str(model_dir / "reranker")) == reranked
    reranker = SlotReranker.from_pretrained(model_dir / "reranker")
    sources, lists = ["name A, area river"], [[Hypothesis(text, (), 0.0) for text in reranked]]
    distances = reranker.distances(sources, lists)[0]
    assert distances == sorted(distances) and distances[0] == 0
    assert reranked[0] == plain[0] == "A serves food by the river"
    with pytest.raises(SystemExit, match=r"--reranker: got .*reranker, but of a search by one beam"):
        best("--reranker", str(model_dir / "reranker"), "--num_beams", "1", "--num_return_sequences", "1")
    with pytest.raises(SystemExit, match=r"holds no reranker\.json"):
        best("--reranker", str(model_dir))


def test_a_saved_run_is_scored_again_with_its_reranker(model_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    folder = ["--eval_only", model_dir, "--output_dir", tmp_path / "new"]
    assert run("seq2seq", data_dir, *folder, **changes())["validation_exact_match"] == 100
    other = {**RECIPE["evaluation__reranker"], "slots": "[^,]+"}
    with pytest.raises(SystemExit, match=r"evaluation\.reranker\.slots: got '\[\^,\]\+', but the classifier"):
        run("seq2seq", data_dir, *folder, "--overwrite", **changes(evaluation__reranker=other))
    with pytest.raises(SystemExit, match=r"data\.delexicalised_slots: the recipe says \{\}, but the model"):
        run("seq2seq", data_dir, *folder, "--overwrite", **changes(data__delexicalised_slots={}))


def test_references_and_sources_are_scored_with_their_names(model_dir: Path) -> None:
    lines = (model_dir / "predictions_validation.tsv").read_text().splitlines()
    assert any(
        line.startswith("name The Big Eagle, food Thai") and "The Big Eagle serves Thai" in line for line in lines
    )
    assert "XNAME" not in "".join(lines)


def reranker(**options: Any) -> dict[str, Any]:
    return {"evaluation__reranker": {"slots": "a", **options}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reranker(slots="("), r"evaluation\.reranker\.slots: got '\('"),
        ({"evaluation__reranker": {}}, r"evaluation\.reranker\.slots: missing"),
        (reranker(penalty=-1), r"evaluation\.reranker\.penalty: got -1, wanted at least"),
        (reranker(hidden_size=3), r"evaluation\.reranker\.hidden_size: got 3"),
        (reranker(num_train_epochs=0), r"evaluation\.reranker\.num_train_epochs: got 0"),
        ({"generation": {"num_beams": 1}}, r"evaluation\.reranker: generation\.num_beams is 1, wanted 2 or more"),
        (reranker(slots="nowhere"), r"evaluation\.reranker\.slots: 'nowhere' finds nothing in the training sources"),
        ({"data__delexicalised_slots": {"XNAME": "name"}}, r"data\.delexicalised_slots: got 'XNAME': 'name', wanted"),
        (
            {"tokenizer__source": {"type": "word", "lowercase": True}},
            r"data\.delexicalised_slots: got the placeholder 'XNAME', which the target tokenizer makes 'xname'",
        ),
        (
            {"model__use_copy": True, "model__copy_slots": 4, "model__attention_type": "general"},
            r"data\.delexicalised_slots: model\.copy_slots copies names already",
        ),
    ],
)
def test_bad_options_are_refused_by_key(change: dict[str, Any], message: str, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        run("seq2seq", data_dir, "--output_dir", tmp_path / "refused", **changes(**change))
    assert not (tmp_path / "refused" / "model.safetensors").exists()


def test_other_tasks_have_no_reranker() -> None:
    from hf_rnn_seq2seq.recipes.task_labels import TokenClassificationTask

    content = {"task": "token_classification", "data": {"train": "x"}, "evaluation": {"reranker": {"slots": "a"}}}
    with pytest.raises(ValueError, match=r"evaluation\.reranker: slots are of texts, wanted task seq2seq"):
        build_recipe(content, "tags", TokenClassificationTask.kind)
