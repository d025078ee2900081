"""What has to hold with every transformers and torch that the package allows: the oldest, the newest, those between.

Continuous integration runs this file in environments that hold the package, its two requirements and pytest, and
nothing else. So it must import nothing that `pip install .` does not bring.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import STRUCTURES, padded_batch, random_ids, tiny_model
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache, StaticLayer
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer import Trainer

import hf_rnn_seq2seq
from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqEnsemble
from hf_rnn_seq2seq.model.state import new_cache
from hf_rnn_seq2seq.model.transformers_names import CACHE_NAME, PRIVATE_NAMES, search_is_known, why_not


pytestmark = pytest.mark.filterwarnings(
    "error::FutureWarning", "error::DeprecationWarning", "ignore:.past_key_values. is deprecated:FutureWarning"
)

PACKAGE = Path(hf_rnn_seq2seq.__file__).parent
SPECIAL = [0, 1, 2]  # unknown, padding, start: a random model would write them
# Every cell with every attention, each before and after the step, with and without input feeding; and what copies.
GRID: dict[str, dict[str, Any]] = {
    f"{cell}-{attention}-{query}-{'fed' if feeding else 'plain'}": {
        "rnn_type": cell, "attention_type": attention, "attention_query": query, "input_feeding": feeding,
    }
    for cell in ("lstm", "gru", "rnn_tanh")
    for attention in ("none", "dot", "general", "additive")
    for query in ("new_state", "previous_state")
    for feeding in (False, True)
    if attention != "none" or (query == "new_state" and not feeding)
}  # fmt: skip
COPYING = {"attention_type": "additive", "use_copy": True, "coverage": True}
MODELS: dict[str, dict[str, Any]] = {**STRUCTURES, **GRID, "copying": COPYING}
SOME = ("luong", "bahdanau", "sutskever", "copying")


@pytest.fixture(autouse=True)
def _nothing_deprecated() -> Iterator[None]:
    """transformers does not only warn of what is deprecated, it also logs it, once a process."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    listener, root = Listener(level=logging.WARNING), logging.getLogger("transformers")
    root.addHandler(listener)
    yield
    root.removeHandler(listener)
    # An assistant model is called by transformers in a way that transformers itself calls deprecated.
    ours = [message for message in said if not message.startswith("Passing `generation_config` together")]
    assert [message for message in ours if "deprecat" in message.lower()] == []


@pytest.fixture
def stock_searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the searches of transformers that were called: none, where ours did the work."""
    called: list[str] = []
    for name in ("_sample", "_beam_search"):
        monkeypatch.setattr(GenerationMixin, name, _counted(getattr(GenerationMixin, name), name, called))
    return called


def _counted(search: Any, name: str, called: list[str]) -> Any:
    @functools.wraps(search)
    def counting(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return search(*args, **kwargs)

    return counting


def model_of(name: str, **options: Any) -> RnnSeq2SeqForConditionalGeneration:
    return tiny_model(None, torch.float64, **{**MODELS[name], **options})


def source(kind: str = "left") -> dict[str, Tensor]:
    batch = padded_batch(kind, [4, 6, 1], 6)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def uncached_greedy(model: RnnSeq2SeqForConditionalGeneration, inputs: dict[str, Tensor], steps: int) -> Tensor:
    """Greedy search with nothing but whole forward passes without a cache."""
    ids = torch.full((3, 1), model.config.decoder_start_token_id)
    finished = torch.zeros(3, dtype=torch.bool)
    while ids.shape[1] <= steps and not finished.all():
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=ids, use_cache=False).logits[:, -1]
        logits[:, SPECIAL] = -torch.inf
        symbols = logits.argmax(-1).masked_fill(finished, model.config.pad_token_id)
        finished |= symbols == model.config.eos_token_id
        ids = torch.cat([ids, symbols[:, None]], dim=1)
    return ids


OPTIONS: dict[str, Any] = {"do_sample": False, "suppress_tokens": SPECIAL, "max_new_tokens": 8}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.fast_path
def test_generate_is_uncached_greedy_search(name: str, fast: bool, stock_searches: list[str]) -> None:
    model, inputs = model_of(name), source()
    model.use_fast_generation = fast
    wanted = uncached_greedy(model, inputs, 8)
    assert model.generate(**inputs, **OPTIONS).tolist() == wanted.tolist()
    assert stock_searches == ([] if fast else ["_sample"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.fast_path
def test_beam_search_is_that_of_transformers(name: str, stock_searches: list[str]) -> None:
    model, inputs = model_of(name), source("interior")
    options = {
        **OPTIONS,
        "num_beams": 3,
        "num_return_sequences": 2,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    ours = model.generate(**inputs, **options)
    assert stock_searches == []
    model.use_fast_generation = False
    theirs = model.generate(**inputs, **options)
    assert stock_searches == ["_beam_search"]
    assert ours.sequences.tolist() == theirs.sequences.tolist()
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores)


@pytest.mark.parametrize(
    ("case", "search"),
    [
        ({"do_sample": True}, "_sample"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "_sample"),
        ({"cache_implementation": "static"}, "_sample"),
        ({"num_beams": 2, "do_sample": True}, "_beam_search"),
    ],
)
def test_what_our_search_is_not_made_for_is_left_to_transformers(
    case: dict[str, Any], search: str, stock_searches: list[str]
) -> None:
    model_of("luong").generate(**source(), **{**OPTIONS, **case})
    assert stock_searches == [search]


@pytest.mark.parametrize("name", SOME)
def test_a_static_cache_gives_the_same(name: str) -> None:
    model, inputs = model_of(name), source()
    wanted = uncached_greedy(model, inputs, 8)
    assert model.generate(**inputs, **OPTIONS, cache_implementation="static").tolist() == wanted.tolist()


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("how", ["assistant", "prompt lookup"])
def test_drafts_change_nothing(name: str, how: str) -> None:
    model, inputs = model_of(name), {key: part[1:2] for key, part in source().items()}
    drafts = {"assistant_model": tiny_model("cho", seed=3)} if how == "assistant" else {"prompt_lookup_num_tokens": 2}
    model.use_fast_generation = False
    wanted = model.generate(**inputs, **OPTIONS)
    assert model.generate(**inputs, **OPTIONS, **drafts).tolist() == wanted.tolist()


def test_drafts_need_a_cache_that_can_go_back() -> None:
    model, inputs = model_of("luong"), {key: part[1:2] for key, part in source().items()}
    with pytest.raises(ValueError, match=r"(?i)assisted"):
        model.generate(**inputs, **OPTIONS, prompt_lookup_num_tokens=2, cache_implementation="static")


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("argument", ["past_key_values", "cache"])
def test_generation_goes_on_from_a_state(name: str, fast: bool, argument: str) -> None:
    model, inputs = model_of(name), source()
    model.use_fast_generation = fast
    options = {**OPTIONS, "eos_token_id": None}
    wanted = model.generate(**inputs, **options)
    first = model.generate(**inputs, **{**options, "max_new_tokens": 3}, return_dict_in_generate=True)
    rest = {**options, "max_new_tokens": 5, "decoder_input_ids": first.sequences}
    again = model.generate(**inputs, **rest, **{argument: getattr(first, CACHE_NAME)})
    assert again.tolist() == wanted.tolist()


def ensemble() -> RnnSeq2SeqEnsemble:
    return RnnSeq2SeqEnsemble([model_of("luong"), model_of("bahdanau")])


@pytest.mark.parametrize("fast", [True, False])
def test_an_ensemble_decodes_as_without_a_cache(fast: bool) -> None:
    model: Any = ensemble()
    wanted = uncached_greedy(model, source(), 8)
    assert model.generate(**source(), **OPTIONS, use_cache=fast).tolist() == wanted.tolist()


@pytest.mark.parametrize("kind", ["model", "whole", "ensemble"])
@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_a_forward_takes_the_cache_under_both_names(kind: str, name: str) -> None:
    model: Any = {"model": model_of("luong").model, "whole": model_of("luong"), "ensemble": ensemble()}[kind]
    ids, result = random_ids(3, 5), "last_hidden_state" if kind == "model" else "logits"
    assert name in inspect.signature(model.forward).parameters
    with torch.no_grad():
        wanted = model(**source(), decoder_input_ids=ids, use_cache=False)[result]
        cache = new_cache(model.config)
        parts = []
        for step in ids.split(1, dim=1):
            out = model(**source(), decoder_input_ids=step, **{name: cache})
            assert getattr(out, CACHE_NAME) is cache
            parts.append(out[result])
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted)


@pytest.mark.parametrize("kind", ["model", "whole", "ensemble"])
def test_the_old_name_of_the_cache_is_told_where_there_is_a_new_one(kind: str) -> None:
    model: Any = {"model": model_of("luong").model, "whole": model_of("luong"), "ensemble": ensemble()}[kind]
    inputs = {**source(), "decoder_input_ids": random_ids(3, 2)}
    for name in ("past_key_values", "cache"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model(**inputs, **{name: new_cache(model.config)})
        found = [str(one.message) for one in told if "is deprecated" in str(one.message)]
        assert (len(found) == 1 and f"`{name}`" in found[0]) if name != CACHE_NAME == "cache" else not found


@pytest.mark.parametrize("kind", ["model", "whole", "ensemble"])
def test_two_caches_and_what_is_no_cache_are_refused(kind: str) -> None:
    model: Any = {"model": model_of("luong").model, "whole": model_of("luong"), "ensemble": ensemble()}[kind]
    inputs, cache = {**source(), "decoder_input_ids": random_ids(3, 2)}, new_cache(model.config)
    with pytest.raises(ValueError, match="both past_key_values and cache"):
        model(**inputs, past_key_values=cache, cache=cache)
    with pytest.raises(TypeError, match="cache is tuple, wanted a Cache"):
        model(**inputs, cache=((cache,),))
    for name in ("cache_params", "caches", "mems"):
        with pytest.raises(TypeError, match=f"no argument '{name}'"):
            model(**inputs, **{name: cache})


@pytest.mark.parametrize("name", ["luong", "sutskever", "copying"])
def test_a_step_of_training_lowers_the_loss(name: str) -> None:
    model = model_of(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        loss = model(**source(), labels=random_ids(3, 5)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("row", PRIVATE_NAMES, ids=lambda row: f"{row.owner.rpartition(':')[2]}.{row.name}")
def test_transformers_has_what_we_rely_on(row: Any) -> None:
    assert row.complaint() is None
    for module in row.used_in.split(", "):
        (path,) = PACKAGE.rglob(f"{module}.py")
        assert row.name in path.read_text(encoding="utf-8")


def test_the_searches_were_tested_with_this_transformers() -> None:
    assert why_not(transformers.__version__) is None


# Classes whose private names would be overridden by a name of ours.
THEIR_CLASSES = (
    transformers.PreTrainedModel, transformers.PreTrainedConfig, GenerationMixin, GenerationConfig, Trainer,
    transformers.PreTrainedTokenizerFast, SequenceFeatureExtractor, transformers.TrainerCallback,
    transformers.Pipeline, GradientCheckpointingLayer, Cache, CacheLayerMixin, StaticLayer, DynamicCache,
    EncoderDecoderCache,
)  # fmt: skip
# Private names of others: named tuples, the autograd engine, dynamo, oneDNN, accelerate.
NOT_OF_TRANSFORMERS = {
    *("_exit", "_fields", "_replace", "_C", "_current_graph_task_id", "_dynamo", "_original_forward"),
    *("_linear_pointwise", "_reorder_linear_weight", "_reorder_mkldnn_rnn_layer_weight"),
}


def test_the_table_has_every_private_name_of_transformers_that_the_package_uses() -> None:
    used, defined = set(), set()
    for path in PACKAGE.rglob("*.py"):
        if path.stem == "transformers_names":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                (used if isinstance(node.ctx, ast.Load) else defined).add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
                used |= {part.value for part in node.args if isinstance(part, ast.Constant)}
    private = {name for name in used | defined if isinstance(name, str) and name[:1] == "_" and name[:2] != "__"}
    theirs = {name for kind in THEIR_CLASSES for name in dir(kind)} - set(dir(nn.Module))
    torch_has = set(dir(nn.Linear(1, 1))) | NOT_OF_TRANSFORMERS
    found = {name for name in private if name in theirs or (name not in defined and name not in torch_has)}
    # set on a configuration of transformers, or looked for by name, and read only there
    by_name = ("_from_model_config", "_switch_to_input_mode", "_switch_to_target_mode")
    found |= {name for name in private if name in by_name}
    assert found == {row.name for row in PRIVATE_NAMES}


def warned(action: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return result, [str(warning.message) for warning in caught if "transformers" in str(warning.message)]


@pytest.fixture
def fresh_look() -> Iterator[None]:
    search_is_known.cache_clear()
    yield
    search_is_known.cache_clear()


@pytest.mark.usefixtures("fresh_look")
@pytest.mark.parametrize("version", ["5.25.0", "5.100.0.dev0", "6.0.0rc1"])
@pytest.mark.fast_path
def test_a_newer_transformers_gets_one_warning_and_its_own_search(
    version: str, monkeypatch: pytest.MonkeyPatch, stock_searches: list[str]
) -> None:
    model = model_of("luong")
    wanted = uncached_greedy(model, source(), 8)
    # transformers imports itself a second time: the module that `import transformers` gave before is another one
    monkeypatch.setattr("hf_rnn_seq2seq.model.transformers_names.transformers.__version__", version)
    results, messages = warned(lambda: [model.generate(**source(), **OPTIONS) for _ in range(2)])
    assert all(result.tolist() == wanted.tolist() for result in results)
    assert stock_searches == ["_sample", "_sample"]
    assert len(messages) == 1 and f"transformers {version} is newer" in messages[0]


@pytest.mark.usefixtures("fresh_look")
@pytest.mark.parametrize("change", ["gone", "other signature"])
@pytest.mark.fast_path
def test_a_private_name_that_changed_gives_one_warning_and_the_search_of_transformers(
    change: str, monkeypatch: pytest.MonkeyPatch, stock_searches: list[str]
) -> None:
    model, name = model_of("luong"), "_check_early_stop_heuristic"
    wanted = uncached_greedy(model, source(), 8)
    if change == "gone":
        monkeypatch.delattr(GenerationMixin, name)
    else:
        monkeypatch.setattr(GenerationMixin, name, lambda self, state: None)
    results, messages = warned(lambda: [model.generate(**source(), **OPTIONS) for _ in range(2)])
    assert all(result.tolist() == wanted.tolist() for result in results)
    assert stock_searches == ["_sample", "_sample"]
    assert len(messages) == 1 and name in messages[0]


@pytest.mark.usefixtures("fresh_look")
@pytest.mark.parametrize("name", ["_sample", "_beam_search"])
@pytest.mark.fast_path
def test_a_wrapper_of_anybody_is_no_change_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, method = model_of("luong"), [], getattr(GenerationMixin, name)
    wanted = [model.generate(**source(), **{**OPTIONS, "num_beams": beams}) for beams in (1, 2)]
    search_is_known.cache_clear()

    def counted(*args: Any, **kwargs: Any) -> Any:  # says nothing of what it wraps
        calls.append(name)
        return method(*args, **kwargs)

    monkeypatch.setattr(GenerationMixin, name, counted)
    found, messages = warned(
        lambda: [model.generate(**source(), **{**OPTIONS, "num_beams": beams}) for beams in (1, 2)]
    )
    assert all(map(torch.equal, found, wanted)) and not messages and not calls


PROGRAM = """
import json, logging, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import torch
from transformers import AutoModelForSeq2SeqLM
from transformers.generation import GenerationMixin

said, stock, search = [], [], GenerationMixin._sample
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("transformers").addHandler(handler)

def counting(self, *args, **kwargs):
    stock.append(1)
    return search(self, *args, **kwargs)

folder = sys.argv[1]
inputs, options = json.load(open(f"{folder}/inputs.json"))
inputs = {name: torch.tensor(value) for name, value in inputs.items()}
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float64).eval()
model.generate(**inputs, **options)
counting.__signature__ = __import__("inspect").signature(search)
GenerationMixin._sample = counting
fast = model.generate(**inputs, **options)
counted = len(stock)
model.use_fast_generation = False
slow = model.generate(**inputs, **options)
print(json.dumps({
    "fast": fast.tolist(), "slow": slow.tolist(), "stock": [counted, len(stock)], "said": said,
    "module": type(model).__module__.split(".")[0], "imported": "hf_rnn_seq2seq" in sys.modules,
}))
"""


@pytest.mark.parametrize("name", ["luong", "copying"])
@pytest.mark.fast_path
def test_saved_code_decodes_alike_where_the_package_is_not(name: str, tmp_path: Path) -> None:
    model, inputs = model_of(name), source()
    model.save_pretrained(tmp_path)
    content = [{key: value.tolist() for key, value in inputs.items()}, OPTIONS]
    (tmp_path / "inputs.json").write_text(json.dumps(content), encoding="utf-8")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-W", "error::UserWarning:transformers_modules", "-c", PROGRAM,
         str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["module"] == "transformers_modules" and not got["imported"]
    wanted = uncached_greedy(model, inputs, 8).tolist()
    assert got["fast"] == wanted and got["slow"] == wanted and got["stock"] == [0, 1]
    assert [message for message in got["said"] if "deprecat" in message] == []
