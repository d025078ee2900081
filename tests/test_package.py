"""The package as a whole: which module may import which, how long files may be, what carries a docstring."""

import ast
import importlib.util
import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hf_rnn_seq2seq


PACKAGE = Path(hf_rnn_seq2seq.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# The files that `save_pretrained` copies beside the weights, so that a model can be loaded without this package.
MODEL_FILES = {
    "configuration_rnn_seq2seq",
    "config_names",
    "special_ids",
    "presets",
    "fast",
    "option_checks",
    "subsampling",
    "recurrence",
    "state",
    "attention",
    "checks",
    "transformers_names",
    "bridge",
    "copying",
    "products",
    "lookup",
    "prepared",
    "packed",
    "deferred",
    "loss",
    "later_logits",
    "tied_tables",
    "scheduled_sampling",
    "pretrained",
    "characters",
    "encoder",
    "decoder",
    "decoder_step",
    "generation_request",
    "generation_rnn_seq2seq",
    "modeling_rnn_seq2seq",
    "crf",
    "modeling_heads",
    "feature_extraction_rnn_seq2seq",
    "ctc",
    "modeling_speech",
    "tokenization_rnn_seq2seq",
    "tokenization_words",
}
# Those of them that hold the classes which are saved; the others travel because one of these imports them.
STARTS = {
    *("modeling_rnn_seq2seq", "modeling_heads", "modeling_speech"),
    *("feature_extraction_rnn_seq2seq", "tokenization_words"),
}
# huggingface_hub is a requirement of transformers: the `@strict` of its configurations comes from there.
MODEL_FILES_MAY_IMPORT = {*sys.stdlib_module_names, "torch", "transformers", "huggingface_hub"}
# What the extras install, and transformers does not require by itself.
OPTIONAL = {
    *("accelerate", "datasets", "evaluate", "matplotlib", "onnx", "onnxruntime", "rapidfuzz", "sacrebleu"),
    *("peft", "seqeval", "sklearn", "torchao", "soundfile", "tensorboard"),
}
LONGEST_FILE = 510  # about 500: no line is squeezed to get there


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imports(module: str) -> list[ast.Import | ast.ImportFrom]:
    """Every import statement of a module, those inside functions and conditions included."""
    return [node for node in ast.walk(tree(module)) if isinstance(node, ast.Import | ast.ImportFrom)]


def siblings(module: str) -> set[str]:
    """The modules of this package that a module imports from."""
    return {node.module for node in imports(module) if isinstance(node, ast.ImportFrom) and node.level and node.module}


def test_the_package_is_one_flat_folder() -> None:
    assert [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE] == []


def test_the_files_that_travel_with_a_model_are_the_model_files() -> None:
    reached, new = set(), STARTS
    while new:
        reached |= new
        new = {sibling for module in new for sibling in siblings(module)} - reached
    assert reached == MODEL_FILES


@pytest.mark.parametrize("module", sorted(MODEL_FILES))
def test_model_files_import_only_the_standard_library_torch_transformers_and_each_other(module: str) -> None:
    for node in imports(module):
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
        elif node.level == 0:
            roots = {str(node.module).split(".")[0]}
        else:
            # Only `from .name import X` is followed when the files of a model are saved: `from . import name` is
            # silently left out, and `from ..name` points outside the folder.
            assert node.level == 1 and node.module in MODEL_FILES, f"{module}.py line {node.lineno}"
            continue
        assert roots <= MODEL_FILES_MAY_IMPORT, f"{module}.py line {node.lineno}"


@pytest.mark.parametrize("module", sorted(MODEL_FILES))
def test_model_files_have_no_postponed_annotations(module: str) -> None:
    # transformers reads the types of a configuration's fields at run time; strings cannot be checked.
    assert "__future__" not in {node.module for node in imports(module) if isinstance(node, ast.ImportFrom)}


def test_imports_point_one_way() -> None:
    graph = {module: siblings(module) for module in MODULES if module != "__init__"}
    while graph:
        leaves = [module for module, targets in graph.items() if not targets & set(graph)]
        assert leaves, f"these modules import each other in a circle: {sorted(graph)}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.glob("*.py")) + sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.stem
)
def test_files_are_short_enough_to_read(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("name", sorted(hf_rnn_seq2seq.__all__))
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(hf_rnn_seq2seq, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        # `__doc__` of the object itself: a subclass without a docstring would show that of its base.
        assert value.__doc__, f"{name} has no docstring"
    if inspect.isclass(value) and value.__module__.startswith("hf_rnn_seq2seq"):
        bare = [
            method
            for method, function in vars(value).items()
            if inspect.isfunction(function)
            and not method.startswith("_")
            and not inspect.getdoc(getattr(value, method))
        ]
        assert bare == [], f"methods of {name} without a docstring"


def test_the_package_works_without_its_optional_requirements() -> None:
    # In a process of its own. None in sys.modules is how Python marks a module that cannot be imported.
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        "from hf_rnn_seq2seq import *\n"
        "from transformers import AutoModelForSeq2SeqLM\n"
        "model = AutoModelForSeq2SeqLM.from_config(RnnSeq2SeqConfig(vocab_size=9))\n"
        "print(model.generate(model.dummy_inputs['input_ids'], min_new_tokens=3, max_new_tokens=3).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch.Size([2, 4])\n"


def test_a_tool_without_its_requirements_says_which_extra_to_install() -> None:
    tools = sorted(set(MODULES) - MODEL_FILES - {"__init__"})
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        f"for name in {tools!r}:\n"
        "    try:\n"
        "        importlib.import_module('hf_rnn_seq2seq.' + name)\n"
        "    except ImportError as error:\n"
        "        print(name, error, sep=': ')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    complaints = done.stdout.splitlines()
    assert {"data", "metrics", "training", "visualize"} <= {line.partition(":")[0] for line in complaints}
    assert [line for line in complaints if "pip install 'hf_rnn_seq2seq[" not in line] == []


def test_requirements_are_only_torch_and_transformers() -> None:
    required = [line for line in metadata.requires("hf_rnn_seq2seq") or [] if "extra ==" not in line]
    names = {line.split(">")[0].split("<")[0].split("=")[0].strip() for line in required}
    assert names == {"torch", "transformers"}


def test_type_checkers_are_told_that_the_package_is_annotated() -> None:
    spec = importlib.util.find_spec("hf_rnn_seq2seq")
    assert spec is not None and spec.submodule_search_locations
    assert (Path(spec.submodule_search_locations[0]) / "py.typed").is_file()
