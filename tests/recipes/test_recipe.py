"""Recipes: what is written is what is used, and every mistake is refused by name before anything runs."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_rnn_seq2seq.recipes.options import OptionsError, read_yaml, write_yaml
from hf_rnn_seq2seq.recipes.recipe import Recipe, RecipeError, apply_overrides, build_recipe
from hf_rnn_seq2seq.recipes.task import load_task


RECIPES = sorted((Path(__file__).parents[2] / "scripts" / "recipes").glob("*.yaml"))

CONTENT: dict[str, Any] = {
    "data": {"dataset_name": "toy:copy", "toy": {"symbols": 5}},
    "tokenizer": {"source": {"type": "character"}, "target": {"type": "word", "lowercase": True}},
    "model": {"rnn_type": "gru", "embedding_size": 16, "hidden_dropout": 0},
    "training": {"num_train_epochs": 2, "max_tokens": 100, "teacher_forcing": {"schedule": "linear", "slope": 1e-3}},
    "generation": {"num_beams": 4, "early_stopping": True, "max_new_tokens": 9},
    "evaluation": {
        "metrics": {"wer": "g2p_wer", "bleu": {"metric": "bleu", "tokenize": "none"}},
        "best_metric": "wer",
    },
}


def build(changes: dict[str, Any] | None = None) -> Recipe:
    """The recipe above with `section.key: value` changed; `None` as a value is YAML's null."""
    content = copy.deepcopy(CONTENT)
    for path, value in (changes or {}).items():
        *keys, last = path.split(".")
        place = content
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
    return build_recipe(content, "test")


def test_a_recipe_says_what_it_says() -> None:
    recipe = build()
    assert recipe.data.dataset_name == "toy:copy"
    assert recipe.data.toy.symbols == 5 and recipe.data.toy.max_length == 8
    assert recipe.tokenizer.target is not None and recipe.tokenizer.target.lowercase
    # The section is shared between the Trainer's own arguments and ours.
    assert recipe.training == {"num_train_epochs": 2}
    assert recipe.pipeline.max_tokens == 100 and recipe.pipeline.teacher_forcing.slope == 1e-3
    assert recipe.generation == CONTENT["generation"]
    assert recipe.evaluation.metric_specs == {"wer": ("g2p_wer", {}), "bleu": ("bleu", {"tokenize": "none"})}
    config = recipe.model_config(vocab_size=10, decoder_vocab_size=20, pad_token_id=1)
    assert (config.rnn_type, config.embedding_size, config.vocab_size, config.decoder_vocab_size) == (
        "gru",
        16,
        10,
        20,
    )


def test_defaults_need_not_be_written() -> None:
    recipe = build_recipe({"data": {"train": "train.tsv"}}, "short")
    assert recipe.tokenizer.source.type == "character" and recipe.tokenizer.target is not None
    assert recipe.seed == 42 and recipe.evaluation.best_metric == "loss" and recipe.card is None


def test_metrics_may_be_a_list_of_names() -> None:
    recipe = build({"evaluation.metrics": ["per", "chrf"], "evaluation.best_metric": "chrf"})
    assert recipe.evaluation.metric_specs == {"per": ("per", {}), "chrf": ("chrf", {})}


def test_a_preset_can_be_named_and_overridden() -> None:
    config = build({"model.preset": "bahdanau2015", "model.rnn_type": "lstm"}).model_config(vocab_size=30)
    assert config.attention_type == "additive" and config.attention_query == "previous_state"
    assert config.rnn_type == "lstm" and config.embedding_size == 16 and config.vocab_size == 30


MISTAKES: dict[str, tuple[str, Any, str]] = {
    # unknown names, with the nearest known one
    "section": ("modle", {}, r"^modle: unknown section; did you mean 'model'\?"),
    "data": ("data.trian", "x", r"^data\.trian: unknown key; did you mean 'train'\?"),
    "nested": ("data.toy.symbol", 3, r"^data\.toy\.symbol: unknown key; did you mean 'symbols'\?"),
    "tokenizer": ("tokenizer.source.vocabsize", 9, r"^tokenizer\.source\.vocabsize: unknown key; .* 'vocab_size'"),
    "model": ("model.encoder_layer", 2, r"^model\.encoder_layer: unknown key; did you mean 'encoder_layers'\?"),
    "training": ("training.learning_rat", 1, r"^training\.learning_rat: unknown key; did you mean 'learning_rate'\?"),
    "ours": ("training.max_token", 1, r"^training\.max_token: unknown key; did you mean 'max_tokens'\?"),
    "schedule": ("training.teacher_forcing.rato", 1, r"^training\.teacher_forcing\.rato: unknown key; .* 'ratio'"),
    "generation": ("generation.num_beam", 3, r"^generation\.num_beam: unknown key; did you mean 'num_beams'\?"),
    "evaluation": ("evaluation.metric", [], r"^evaluation\.metric: unknown key; did you mean 'metrics'\?"),
    "nothing near": ("model.qqqqqq", 1, r"^model\.qqqqqq: unknown key$"),
    # wrong types
    "text for number": ("training.learning_rate", "two", r"^training\.learning_rate: wanted a number, got 'two'"),
    "number for text": ("data.dataset_name", 3, r"^data\.dataset_name: wanted text or null, got 3 \(type int\)"),
    "fraction for whole": ("model.encoder_layers", 1.5, r"^model\.encoder_layers: wanted a whole number, got 1\.5"),
    "truth for whole": ("model.encoder_layers", True, r"^model\.encoder_layers: wanted a whole number, got True"),
    "number for truth": ("training.bf16", 1, r"^training\.bf16: wanted true or false, got 1"),
    "one of": ("model.rnn_type", "sru", r"^model\.rnn_type: wanted one of lstm, gru, rnn_tanh, got 'sru'"),
    "enum": ("training.optim", "adamm", r"^training\.optim: wanted one of adamw_torch, .*, got 'adamm'"),
    "list": ("evaluation.splits", ["test", 3], r"^evaluation\.splits: wanted a list, each text or null"),
    "null": ("training.learning_rate", None, r"^training\.learning_rate: wanted a number, got None"),
    "no mapping": ("model", [1], r"^model: wanted a mapping of keys, got \[1\]"),
    "no nested mapping": ("data.toy", 3, r"^data\.toy: wanted a mapping of keys, got 3"),
    "generation type": ("generation.num_beams", 2.5, r"^generation\.num_beams: wanted a whole number or null"),
    "no name": ("data.train", "", r"^data\.train: got '', wanted names that are not empty or null$"),
    "no file": ("data.validation", [], r"^data\.validation: got \[\], wanted names that are not empty or null$"),
    "an empty name of many": ("data.vocabulary_files", ["a", ""], r"^data\.vocabulary_files: got \['a', ''\], wanted"),
    # out of range, contradictory, or said in the wrong place
    "bpe dropout": ("data.source_bpe_dropout", 1, r"^data\.source_bpe_dropout: got 1, wanted at least 0"),
    "bpe dropout without bpe": ("data.target_bpe_dropout", 0.1, r"^data\.target_bpe_dropout: got 0\.1 with"),
    "range": ("model.hidden_dropout", 1.5, r"^model: hidden_dropout must be at least 0 and less than 1; got 1\.5"),
    "pipeline range": ("training.max_tokens", 0, r"^training\.max_tokens: got 0"),
    "averaging": ("training.average_checkpoints", -1, r"^training\.average_checkpoints: got -1"),
    "probability": ("training.teacher_forcing.ratio", 2, r"^training\.teacher_forcing\.ratio: got 2, wanted 0 to 1"),
    "slope": ("training.teacher_forcing.slope", -1, r"^training\.teacher_forcing\.slope: got -1"),
    "k": ("training.teacher_forcing.k", 0.5, r"^training\.teacher_forcing\.k: got 0\.5"),
    "tokenizer range": ("tokenizer.target.min_frequency", 0, r"^tokenizer\.target\.min_frequency: got 0"),
    "shared and two": ("tokenizer.shared", True, r"^tokenizer\.target: given together with shared: true"),
    "generation refuses": ("generation.num_return_sequences", 9, r"^generation: "),
    "unknown metric": ("evaluation.metrics", ["bleurt"], r"^evaluation\.metrics: bleurt is 'bleurt', wanted one"),
    "metric option": ("evaluation.metrics", {"x": {"metric": "bleu", "token": 1}}, r"^evaluation\.metrics: x: "),
    "card": ("card", {"title": "x"}, r"^card\.language: missing, wanted text or a list, each text"),
    "best metric": ("evaluation.best_metric", "per", r"^evaluation\.best_metric: got 'per', .* computed: loss, wer"),
    "best not computed": ("evaluation.validation_samples", 0, r"^evaluation\.best_metric: got 'wer', .*: loss$"),
    "negative samples": ("evaluation.validation_samples", -1, r"^evaluation\.validation_samples: got -1"),
    "batch size": ("evaluation.batch_size", 0, r"^evaluation\.batch_size: got 0"),
    "from tokenizers": ("model.vocab_size", 9, r"^model\.vocab_size: cannot be set in a recipe; it follows"),
    "elsewhere": ("training.output_dir", "x", r"^training\.output_dir: cannot be set in a recipe; give --output_dir"),
    "pad": ("generation.pad_token_id", 0, r"^generation\.pad_token_id: cannot be set in a recipe"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_refused_by_name(case: str) -> None:
    path, value, message = MISTAKES[case]
    with pytest.raises(OptionsError, match=message):
        build({path: value})


def test_contradictory_model_options_are_refused_before_any_data_is_read() -> None:
    with pytest.raises(RecipeError, match=r"^model: attention_type='none'.* nothing of the input reaches the decoder"):
        build({"model.attention_type": "none", "model.bridge_type": "zeros"})
    with pytest.raises(RecipeError, match=r"^model\.preset: got 'vaswani2017', wanted one of"):
        build({"model.preset": "vaswani2017"})


def test_a_recipe_without_data_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^data: the section is missing"):
        build_recipe({"model": {}}, "x")
    with pytest.raises(RecipeError, match="wanted the sections data, tokenizer"):
        build_recipe(["data"], "x")  # type: ignore[arg-type]


def test_overrides_are_read_as_yaml() -> None:
    content = copy.deepcopy(CONTENT)
    changes = {
        "training.learning_rate": "1e-3",
        "data.toy.train": "7",
        "model.layer_norm": "true",
        "generation.stop_strings": "[a, b]",
        "card.title": "x=y",
        "training.max_tokens": "null",
    }
    apply_overrides(content, [f"{path}={value}" for path, value in changes.items()])
    assert content["training"]["learning_rate"] == 1e-3
    assert content["data"]["toy"] == {"symbols": 5, "train": 7}
    assert content["model"]["layer_norm"] is True
    assert content["generation"]["stop_strings"] == ["a", "b"]
    assert content["card"] == {"title": "x=y"}
    assert content["training"]["max_tokens"] is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed", "--set training.seed: wanted section.key=value"),
        ("seed=1", "--set seed=1: wanted section.key=value"),
        ("data.dataset_name.x=1", "--set data.dataset_name.x=1: dataset_name is not a mapping"),
        ("data.toy=[", r"--set data.toy=\[: not YAML"),
    ],
)
def test_bad_overrides_are_refused(override: str, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        apply_overrides(copy.deepcopy(CONTENT), [override])


def test_files_are_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("data:\n  train: [\n")
    with pytest.raises(OptionsError, match=r"(?s)broken\.yaml: not YAML .*line 3"):
        load_task(path)
    path.write_text("data: {}\ndata: {}\n")
    with pytest.raises(OptionsError, match=r"(?s)broken\.yaml: .*key 'data' is given twice.*line 2"):
        load_task(path)
    # a billion values in nine lines, and a list in itself
    levels = zip("abcdefgh", "bcdefghi")
    bomb = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in levels)
    for text in (f"a: &a [{', '.join('x' * 9)}]\n{bomb}", "data: &a\n  x: *a\n"):
        path.write_text(text)
        with pytest.raises(OptionsError, match=r"broken\.yaml: .*more than 100000 values, aliases written out"):
            load_task(path)
    path.write_text("- data\n")
    with pytest.raises(RecipeError, match=r"broken\.yaml: wanted a mapping of sections"):
        load_task(path)
    with pytest.raises(FileNotFoundError):
        load_task(tmp_path / "absent.yaml")


def test_numbers_in_scientific_notation_are_numbers() -> None:
    assert read_yaml("[1e-3, 5E4, -2e+1, 1.5e2, 1.0, 12, 1e, e3]", "x") == [
        1e-3,
        5e4,
        -20.0,
        150.0,
        1.0,
        12,
        "1e",
        "e3",
    ]


def test_a_recipe_written_out_is_the_same_recipe() -> None:
    recipe = build()
    again = build_recipe(read_yaml(recipe.to_yaml(), "x"), "test")
    assert again == recipe
    assert yaml.safe_load(write_yaml({"b": 1, "a": "ä"})) == {"b": 1, "a": "ä"}


def explained_keys(path: Path) -> tuple[set[str], set[str]]:
    """All keys of a recipe, and those with a comment beside them; a bare mapping explains itself by its keys."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.split("#")[0].strip()]
    keys = {line.strip().partition(":")[0]: "#" in line or line.endswith(":") for line in lines}
    return set(keys), {key for key, explained in keys.items() if explained}


OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "training.per_device_train_batch_size": (0, -1), "training.gradient_accumulation_steps": (0,),
    "training.max_steps": (0, -2), "training.num_train_epochs": (-1, 0, float("nan"), float("inf")),
    "training.logging_steps": (0, -1), "training.seed": (-1, 2**32), "training.adam_beta1": (1.0, -0.1),
    "training.learning_rate": (-1e-3, float("nan"), float("inf")), "training.save_total_limit": (0,),
    "generation.num_beams": (0, -1), "generation.max_new_tokens": (0,), "generation.top_p": (1.1,),
    "generation.length_penalty": (float("nan"),), "generation.num_beam_groups": (2,),
    "generation.suppress_tokens": ([-1],),
}  # fmt: skip


@pytest.mark.parametrize("option", OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_by_name(option: str) -> None:
    for value in OUT_OF_RANGE[option]:
        with pytest.raises(OptionsError, match=rf"^{option}: got .*, wanted"):
            build({option: value})


def test_the_ends_of_ranges_are_taken() -> None:
    assert build({"training.max_steps": -1, "training.learning_rate": 0}).training["max_steps"] == -1
