"""The package as a whole: what it requires, what it says without its extras, what carries a docstring."""

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
TOOLS = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in PACKAGE.glob("*/*.py")
    if path.parent.name != "model" and path.stem != "__init__"
)

# What the extras install, and transformers does not require by itself.
OPTIONAL = {
    *("accelerate", "datasets", "evaluate", "matplotlib", "onnx", "onnxruntime", "rapidfuzz", "sacrebleu"),
    *("peft", "seqeval", "sklearn", "torchao", "soundfile", "tensorboard", "fastapi", "gradio", "prometheus_client"),
    *("uvicorn", "scipy"),
}


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
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        f"for name in {TOOLS!r}:\n"
        "    try:\n"
        "        importlib.import_module('hf_rnn_seq2seq.' + name)\n"
        "    except ImportError as error:\n"
        "        print(name, error, sep=': ')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    complaints = done.stdout.splitlines()
    assert {"data.pairs", "evaluation.metrics", "training.trainer", "evaluation.attention_plot"} <= {
        line.partition(":")[0] for line in complaints
    }
    assert [line for line in complaints if "pip install 'hf_rnn_seq2seq[" not in line] == []


def test_requirements_are_only_torch_and_transformers() -> None:
    required = [line for line in metadata.requires("hf_rnn_seq2seq") or [] if "extra ==" not in line]
    names = {line.split(">")[0].split("<")[0].split("=")[0].strip() for line in required}
    assert names == {"torch", "transformers"}


def test_type_checkers_are_told_that_the_package_is_annotated() -> None:
    spec = importlib.util.find_spec("hf_rnn_seq2seq")
    assert spec is not None and spec.submodule_search_locations
    assert (Path(spec.submodule_search_locations[0]) / "py.typed").is_file()
