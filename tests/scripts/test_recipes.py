"""The recipes of the repository: each is valid, each key explained; those that are compared differ in one thing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.recipes.options import read_yaml
from hf_rnn_seq2seq.recipes.recipe import SEQ2SEQ, Recipe, RecipeKind, build_recipe
from hf_rnn_seq2seq.recipes.suite import SECTION, expand
from hf_rnn_seq2seq.recipes.task_forecast import FORECAST
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask, TokenClassificationTask
from hf_rnn_seq2seq.recipes.task_speak import SPEAK
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask
from hf_rnn_seq2seq.recipes.task_values import ValueTask


FOLDER = Path(__file__).parents[2] / "scripts" / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# What scripts other than run_seq2seq.py train.
KINDS: dict[str, RecipeKind] = {
    **dict.fromkeys(
        ["ud_ewt_pos", "snips_slots", "wnut17_ner", "wnut17_ner_parts", "start_here_tags"],
        TokenClassificationTask.kind,
    ),
    **dict.fromkeys(["snips_intent", "sst2", "trec6", "start_here_class"], SequenceClassificationTask.kind),
    **dict.fromkeys(["an4", "fsdd_digits", "start_here_speech"], SpeechTask.kind),
    **dict.fromkeys(
        [
            *(f"etth1_{hours}" for hours in (24, 48, 96, 192, 336, 720)),
            "etth1_96_probabilistic",
            "toy_sine",
            "error_by_horizon",
            "start_here_forecast",
        ],
        FORECAST,
    ),
    **dict.fromkeys(["fsdd_speak", "toy_stop"], SPEAK),
    **dict.fromkeys(["cmapss_rul", "cmapss_rul_each_cycle", "toy_sum", "start_here_values"], ValueTask.kind),
}
# These say only what is particular to them; the rest is explained where their first lines say.
SHORT = {"quickstart_g2p": "g2p_cmudict", "wnut17_ner_parts": "wnut17_ner"}


def content(name: str) -> dict[str, Any]:
    recipe = read_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), name)
    assert isinstance(recipe, dict)
    return recipe


def recipes(name: str) -> list[Recipe]:
    """The recipe, or that of each of its runs."""
    contents = [run.content for run in expand(content(name))] if SECTION in content(name) else [content(name)]
    return [build_recipe(one, name, KINDS.get(name, SEQ2SEQ)) for one in contents]


def keys_and_explained(name: str) -> tuple[set[str], set[str]]:
    """
    All keys of a recipe, and those with a comment beside them or beside the mapping that they are in (such as `card:`,
    whose texts speak for themselves); a bare mapping explains itself by its keys.
    """
    keys: dict[str, bool] = {}
    mappings: dict[int, bool] = {}
    for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        said = line.split("#")[0].rstrip()
        if not said.strip() or said.strip().startswith("- "):
            continue
        key, depth = said.strip().partition(":")[0], len(said) - len(said.lstrip())
        if said.endswith(":"):
            mappings[depth] = "#" in line
        explained = "#" in line or said.endswith(":") or mappings.get(depth - 2, False)
        keys[key] = keys.get(key, False) or explained
    return set(keys), {key for key, explained in keys.items() if explained}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_valid(name: str) -> None:
    for recipe in recipes(name):
        assert recipe.name == name
        # A card for every text-to-text model that somebody may want to keep: all but the toys.
        if name not in KINDS:
            assert (recipe.card is None) == name.startswith(("toy_", "weaknesses"))
        for text in () if recipe.card is None else (recipe.card.title, recipe.card.task, recipe.card.limitations):
            assert text and text.strip() == text and "{" not in text
        # What is reported exists, and what is chosen by is computed.
        if recipe.evaluation.splits is not None and isinstance(getattr(recipe.data, "test_splits", None), list):
            assert set(recipe.evaluation.splits) <= {"validation", *recipe.data.test_splits}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_recipe_is_explained(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    assert max(len(line) for line in path.read_text(encoding="utf-8").splitlines()) <= 130
    keys, explained = keys_and_explained(name)
    elsewhere = keys_and_explained(SHORT[name])[1] if name in SHORT else set()
    assert keys <= explained | elsewhere


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("sigmorphon2020_g2p", "ady arm bul dut fre geo gre hin hun ice jpn kor lit rum vie"),
        ("babi_dialog", "task1 task2 task3 task4 task5"),
        ("scan_simple", "seed1 seed2 seed3 seed4 seed5"),
    ],
)
def test_the_runs_of_a_recipe(name: str, names: str) -> None:
    assert [run.name for run in expand(content(name))] == names.split()


@pytest.mark.parametrize("hours", [24, 48, 96, 192, 336, 720])
def test_etth1_is_split_as_in_the_literature(hours: int) -> None:
    """Informer (Zhou 2021) and all that followed: all columns, 12, 4 and 4 months, every window."""
    for recipe in recipes(f"etth1_{hours}"):
        data = recipe.data
        assert (data.horizon, data.train, data.validation, data.test) == (hours, 8640, 2880, 2880)
        assert data.columns == "HUFL HULL MUFL MULL LUFL LULL OT".split() and data.past_needed == data.look_back
        assert recipe.more["forecast"].scores_in == "standard_deviations" and recipe.more["forecast"].standardise


def without(recipe: dict[str, Any], *sections: str) -> dict[str, Any]:
    return {section: options for section, options in recipe.items() if section not in sections}


@pytest.mark.parametrize("name", ["multi30k_ende_structure1", "multi30k_ende_structure2"])
def test_what_attention_brings_is_measured_on_equal_terms(name: str) -> None:
    attention, fixed = content("multi30k_ende"), content(name)
    # The fixed contexts had a little less time and more dropout; that costs them far less than the missing attention.
    assert attention["training"].pop("num_train_epochs") == 26 and fixed["training"].pop("num_train_epochs") == 22
    assert attention["model"].pop("hidden_dropout") == 0.4 and fixed["model"].pop("hidden_dropout") == 0.5
    assert without(fixed, "model", "card") == without(attention, "model", "card")
    particular = {
        "attention_type",
        "attention_query",
        "input_feeding",
        "readout_type",
        "context_vector",
        "context_feeding",
        "bridge_type",
    }
    for recipe in (attention, fixed):
        recipe["model"] = {key: value for key, value in recipe["model"].items() if key not in particular}
    assert fixed["model"] == attention["model"]
    structure = {"multi30k_ende_structure1": "initial_state", "multi30k_ende_structure2": "every_step"}[name]
    (recipe,) = recipes(name)
    assert recipe.model["attention_type"] == "none" and recipe.model["context_feeding"] == structure
    assert not recipe.data.reverse_source
    # Attention has the same output layer by default.
    (with_attention,) = recipes("multi30k_ende")
    sizes = {"vocab_size": 8000, "decoder_vocab_size": None}
    outputs = [(c.readout_type, c.readout_size) for c in (r.model_config(**sizes) for r in (recipe, with_attention))]
    assert outputs[0] == outputs[1]


def test_english_french_differs_from_english_german_in_the_files() -> None:
    german, french = content("multi30k_ende"), content("multi30k_enfr")
    assert without(german, "data", "card") == without(french, "data", "card")
    assert str(german["data"]).replace(".de.gz", ".fr.gz") == str(french["data"])


def test_the_parts_of_the_tagger_are_compared_on_equal_terms() -> None:
    whole, *parts = recipes("wnut17_ner") + recipes("wnut17_ner_parts")
    assert parts[-1].model == whole.model and parts[-1].tokenizer == whole.tokenizer
    for part in parts:
        assert (part.data, part.evaluation) == (whole.data, whole.evaluation)
        assert {**part.training, "seed": 1} == whole.training and part.training["seed"] in (1, 2, 3)
    switches = {(part.model["use_crf"], part.tokenizer.characters) for part in parts}
    assert len(parts) == 12 and len(switches) == 4


@pytest.mark.parametrize("name", ["scan_simple", "scan_length", "scan_jump", "scan_turn_left"])
def test_the_network_of_scan_is_that_of_the_paper(name: str) -> None:
    # Lake & Baroni 2018, section 3: the overall-best network. Three recipes differ in the files; the fourth trains as
    # the paper does.
    recipe = recipes(name)[0]
    config = recipe.model_config(vocab_size=17, decoder_vocab_size=10)
    with torch.device("meta"):
        model = RnnSeq2SeqForConditionalGeneration(config)
    layer = 4 * (200 * 200 + 200 * 200 + 2 * 200)
    assert model.num_parameters() == 17 * 200 + 10 * 200 + 4 * layer + 200 * 10 + 10
    assert (config.attention_type, config.embedding_dropout, config.hidden_dropout) == ("none", 0.5, 0.5)
    own, simple = without(content(name), "data", "card"), without(content("scan_simple"), "data", "card")
    if name == "scan_turn_left":
        assert own["model"].pop("init_scheme") == "torch" and own["model"].pop("output_dropout") == 0
        training, forcing = recipe.training, recipe.pipeline.teacher_forcing
        assert (training["max_steps"], training["per_device_train_batch_size"]) == (100_000, 1)
        assert (training["learning_rate"], training["lr_scheduler_type"]) == (0.001, "constant")
        assert training["max_grad_norm"] == 5 and "warmup_steps" not in training
        assert (forcing.schedule, forcing.ratio, forcing.unit) == ("constant", 0.5, "sequence")
        own, simple = without(own, "training"), without(simple, "training")
    assert own == simple
