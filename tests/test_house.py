"""The house: which room may import which, in no circle, and that `model/` is what travels to the Hub."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tiny import SIZES, tiny_tokenizer

import hf_rnn_seq2seq
from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTextToSpectrogram,
    RnnSeq2SeqForTimeSeriesPrediction,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
    RnnSeq2SeqTokenizer,
    RnnSeq2SeqWordTokenizer,
)


PACKAGE = Path(hf_rnn_seq2seq.__file__).parent
ROOT = PACKAGE.parent
WRITTEN = (ROOT / "docs", ROOT / "scripts", PACKAGE)
LONGEST_FILE = 510  # about 500: no line is squeezed to get there
# What each room may import of the package: rooms, or single files of them.
MAY_IMPORT = {
    "model": set(),
    "data": {
        *("model.tokenization_rnn_seq2seq", "model.tokenization_two_sides", "model.tokenization_words"),
        *("model.feature_extraction_rnn_seq2seq", "model.processing_rnn_seq2seq", "model.delexicalisation"),
    },
    "training": {"model", "data"},
    "evaluation": {"model", "data", "training.checkpoints"},
    "sharing": {"model", "data", "evaluation"},
    "recipes": {"model", "data", "training", "evaluation", "sharing"},
}
# What a file that travels may import beside its siblings.
TRAVELS_WITH = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}


def imports_of(file: Path, when_loaded: bool = False) -> Iterator[str]:
    """The absolute names of the modules that a file imports, wherever in it; or only when it is loaded itself."""
    parts = (PACKAGE.name, *file.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(node) for kind in ast.walk(tree) if isinstance(kind, ast.FunctionDef) for node in ast.walk(kind)}
    for node in ast.walk(tree):
        if when_loaded and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from . import x` imports a module x, or a name of the package
            is_package = bool(node.level) and not node.module
            yield from (f"{module}.{alias.name}" for alias in node.names) if is_package else [module]


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).glob("*.py"))


def test_every_room_has_a_rule_and_no_file_stands_outside() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and (folder / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py"}
    assert not [path for room in rooms for path in (PACKAGE / room).rglob("*.py") if path.parent.name != room]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = {f"{PACKAGE.name}.{name}" for name in {room, *MAY_IMPORT[room]}}
    wrong = [
        f"{file.name} imports {name}"
        for file in files_of(room)
        for name in imports_of(file)
        if name.startswith(f"{PACKAGE.name}.") and not any(f"{name}.".startswith(f"{may}.") for may in allowed)
        if name != f"{PACKAGE.name}.__version__"
    ]
    assert not wrong


def test_modules_import_in_no_circle() -> None:
    """`fast.py` asks files that are made of what asks it: those it imports when it is asked."""
    graph: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        name = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        graph[name] = set(imports_of(file, when_loaded=file.name == "fast.py"))
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in graph[name] & graph.keys():
                if other != PACKAGE.name:  # the top imports all
                    visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_that_travel_import_nothing_else() -> None:
    wrong = [
        f"{file.name} imports {name}"
        for file in files_of("model")
        for name in imports_of(file)
        if name.split(".")[0] not in TRAVELS_WITH and not name.startswith(f"{PACKAGE.name}.model")
    ]
    assert not wrong


def test_the_model_room_is_what_travels(tmp_path: Path) -> None:
    """Saved models of every class, with tokenizers and extractor, bring all files of the room, and no others."""
    text, vectors = RnnSeq2SeqConfig(**SIZES), RnnSeq2SeqConfig(**SIZES, input_feature_size=4)
    words = tiny_tokenizer()._tokenizer
    saved: list[Any] = [RnnSeq2SeqModel(text), RnnSeq2SeqForConditionalGeneration(text)]
    saved += [RnnSeq2SeqForTokenClassification(text), RnnSeq2SeqForSequenceClassification(text)]
    saved += [RnnSeq2SeqForTextToSpectrogram(RnnSeq2SeqConfig(**SIZES, num_mel_bins=4))]
    saved += [RnnSeq2SeqForSpeechSeq2Seq(vectors), RnnSeq2SeqFeatureExtractor(feature_size=4)]
    saved.append(RnnSeq2SeqForTimeSeriesPrediction(RnnSeq2SeqConfig(**SIZES, input_size=4, prediction_length=3)))
    saved += [kind(tokenizer_object=words) for kind in (RnnSeq2SeqTokenizer, RnnSeq2SeqWordTokenizer)]
    for number, part in enumerate(saved):
        part.save_pretrained(tmp_path / str(number))
    assert {path.name for path in tmp_path.rglob("*.py")} == {path.name for path in files_of("model")} - {
        "__init__.py"
    }


def test_files_that_travel_are_reached_by_plain_relative_imports() -> None:
    """`from . import name` is silently left out when the files of a model are saved."""
    for file in files_of("model"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, f"{file.name} line {node.lineno}"
            # transformers reads the types of a configuration's fields at run time; strings cannot be checked
            assert not (isinstance(node, ast.ImportFrom) and node.module == "__future__"), file.name


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")], ids=lambda p: p.stem)
def test_files_are_short_enough_to_read_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    assert ast.get_docstring(ast.parse(text))


# The doors. What is not here may move.
DOORS = {
    "model": """
        ACCELERATIONS plain
    """,
    "data": """
        DataError DataOptions ForecastDataOptions ForecastWindows HoldoutOptions JoinOptions Preprocessing
        SequenceLabelDataOptions Series SpeakDataOptions SpeechDataOptions TableOptions TokenLabelDataOptions
        TokenizerOptions ToyOptions ValueDataOptions decode_with_slots encode_dataset encode_sources encode_with_slots
        evaluation_items label_map load_data load_labelled_data load_speech_data load_spoken_data load_tokenizers
        load_value_data load_windows load_word_vectors read_table save_processor save_tokenizers set_word_vectors
        tokens_with_slots train_tokenizer unknown_words
    """,
    "training": """
        ArrayRows BpeDropout RecipeTrainer ScheduledSamplingCallback SpecAugmentOptions
        TeacherForcingOptions TokenBudgetBatchSampler TrainingClock average_checkpoints checkpoints_of
        pad_rows pad_value_rows rank_checkpoints spec_augment teacher_forcing_ratio
    """,
    "evaluation": """
        GriffinLim Hypothesis RnnSeq2SeqEnsemble RnnSeq2SeqSequenceClassificationEnsemble RnnSeq2SeqSpeechEnsemble
        RnnSeq2SeqTimeSeriesEnsemble RnnSeq2SeqTokenClassificationEnsemble SlotReranker average_models decode
        load_ensemble load_metric load_model
        plot_attention plot_spectrogram target_log_probabilities write_wav
    """,
    "sharing": """
        Pronouncer RnnSeq2SeqRuntime RnnSeriesRuntime RnnValuesRuntime build_demo create_model_card export_model
        launch_demo push_to_hub save_model_card serve write_space
    """,
    "recipes": """
        copy_recipe load_task recipe_sentences run_recipe
    """,
}


@pytest.mark.parametrize("room", DOORS)
def test_a_door_names_what_is_public_and_nothing_else(room: str) -> None:
    module = import_module(f"{PACKAGE.name}.{room}")
    assert sorted(module.__all__) == DOORS[room].split()
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - asked for


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *(path for part in WRITTEN for path in part.rglob("*.md"))], ids=str
)
def test_what_is_written_for_users_goes_through_the_doors(path: Path) -> None:
    public = {room: set(names.split()) for room, names in DOORS.items()} | {"": set(hf_rnn_seq2seq.__all__)}
    text = path.read_text(encoding="utf-8")
    for module, names in re.findall(rf"from {PACKAGE.name}((?:\.\w+)*) import ([\w, ]+)", text):
        assert set(names.split(", ")) <= public[module.removeprefix(".")], f"{path.name}: {module}"
