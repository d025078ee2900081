"""What training reaches is saved and loads again: names in a configuration, special ids, tables, losses and logits."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from tiny import ALL, gradients, random_ids, tiny_config, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
)


Model = RnnSeq2SeqForConditionalGeneration
QUIET: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": 4}
IDS = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id")


@pytest.fixture
def warnings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Collects what a module of the package warns of."""

    def collect(module: str) -> list[str]:
        told: list[str] = []
        logger = logging.getLogger(f"hf_rnn_seq2seq.model.{module}")
        monkeypatch.setattr(logger, "warning", told.append)
        return told

    return collect


# ---- Names in a configuration -----------------------------------------------------------------------------------


class Pair(PreTrainedConfig):
    """A configuration of somebody else's that holds one of ours."""

    model_type = "pair_of_tests"
    rnn: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.rnn, dict):
            self.rnn = RnnSeq2SeqConfig(**self.rnn)
        super().__post_init__(**kwargs)


READERS: dict[str, Callable[[Path], Any]] = {
    "from_pretrained": RnnSeq2SeqConfig.from_pretrained,
    "auto": AutoConfig.from_pretrained,
    "model": lambda folder: AutoModelForSeq2SeqLM.from_pretrained(folder).config,
    "json_file": lambda folder: RnnSeq2SeqConfig.from_json_file(folder / "config.json"),
    "from_dict": lambda folder: RnnSeq2SeqConfig.from_dict({"old_option": 3, "language_pair": "de-en", "hiden": 1}),
    "as_keywords": lambda folder: RnnSeq2SeqConfig(**json.loads((folder / "config.json").read_text("utf-8"))),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_name_of_the_users_or_of_another_version_is_kept_and_told_once(
    reader: str, tmp_path: Path, warnings_of: Callable[[str], list[str]]
) -> None:
    model = tiny_model("luong")
    model.config.language_pair = "de-en"
    model.config.old_option, model.config.hiden_dropout = 3, 0.5
    model.save_pretrained(tmp_path)
    told = warnings_of("option_rules")
    config = READERS[reader](tmp_path)
    assert config.language_pair == "de-en" and config.old_option == 3
    assert len(told) == 1 and "'language_pair'" in told[0] and "'old_option'" in told[0]
    if reader != "from_dict":
        assert "'hiden_dropout' (near 'hidden_dropout')" in told[0]
        assert config.hidden_dropout == 0
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))["language_pair"] == "de-en"


def test_the_note_is_in_every_copy(tmp_path: Path) -> None:
    config = tiny_config("luong")
    config.language_pair = "de-en"
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config and other.language_pair == "de-en"
    Pair(rnn=config).save_pretrained(tmp_path)
    assert Pair.from_pretrained(tmp_path).rnn.language_pair == "de-en"
    config.save_pretrained(tmp_path)
    assert RnnSeq2SeqConfig.from_pretrained(tmp_path, language_pair="fr-en").language_pair == "fr-en"


@pytest.mark.parametrize(
    "make",
    [
        lambda: RnnSeq2SeqConfig(hiden_dropout=0.5),
        lambda: AutoConfig.for_model("rnn_seq2seq", hiden_dropout=0.5),
        lambda: RnnSeq2SeqConfig.from_preset("luong2015", hiden_dropout=0.5),
    ],
)
def test_a_misspelt_option_is_refused_where_a_configuration_is_made(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="no option 'hiden_dropout'; did you mean 'hidden_dropout'"):
        make()


def test_ranges_are_checked_at_reading_too(tmp_path: Path) -> None:
    tiny_config("luong").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**saved, "hidden_dropout": 3.0, "note": 1}), "utf-8")
    with pytest.raises(StrictDataclassError, match=r"hidden_dropout must be at least 0 and less than 1; got 3\.0"):
        RnnSeq2SeqConfig.from_pretrained(tmp_path)


# ---- Special ids ------------------------------------------------------------------------------------------------


def source_tokenizer() -> PreTrainedTokenizerFast:
    """Thirty words, and special tokens among them."""
    symbols = [f"w{number}" for number in range(30)]
    for place, token in ((0, "<unk>"), (20, "<pad>"), (5, "<s>"), (25, "</s>")):
        symbols[place] = token
    backend = Tokenizer(models.WordLevel({symbol: n for n, symbol in enumerate(symbols)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def pairs(count: int) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": random_ids(1, 5, seed=n)[0].tolist(), "attention_mask": [1] * 5,
         "labels": [*random_ids(1, 4, seed=n + 50)[0].tolist(), 3]}
        for n in range(count)
    ]  # fmt: skip


def trainer_of(model: Any, folder: Path, tokenizer: Any = None, **arguments: Any) -> Seq2SeqTrainer:
    args = Seq2SeqTrainingArguments(output_dir=str(folder), **{**QUIET, "max_steps": 2, **arguments})
    collator = DataCollatorForSeq2Seq(tokenizer or tiny_tokenizer(), model=model)
    scores = {"compute_metrics": lambda prediction: {"rows": float(len(prediction.predictions))}}
    data = {"train_dataset": pairs(8), "eval_dataset": pairs(4)}
    return Seq2SeqTrainer(model, args, collator, processing_class=tokenizer, **data, **scores)


CHECKPOINTS = {"save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "predict_with_generate": True}


def special_ids(thing: Any) -> list[Any]:
    return [getattr(thing, name) for name in IDS]


@pytest.mark.parametrize("structure", ["luong", "cho", "every_step_mean"])
def test_two_vocabularies_keep_the_targets_ids_under_the_sources_tokenizer(
    structure: str, tmp_path: Path, warnings_of: Callable[[str], list[str]]
) -> None:
    model = Model(tiny_config(structure, vocab_size=30, decoder_vocab_size=12))
    model.generation_config.max_new_tokens = 6
    told = warnings_of("special_ids")
    trainer_of(model, tmp_path, source_tokenizer(), **CHECKPOINTS).train()
    assert len(told) == 1 and "'eos_token_id': 3" in told[0] and "'eos_token_id': 25" in told[0]
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint-2").eval()
    for one in (model, loaded):
        assert special_ids(one.config) == special_ids(one.generation_config) == [3, 2, 1, 2]
        assert one.generation_config.max_new_tokens == 6
    source = random_ids(3, 5)
    mask = torch.ones_like(source)
    assert torch.equal(
        loaded.generate(source, attention_mask=mask), model.eval().generate(source, attention_mask=mask)
    )


def test_several_ends_stay_as_they_were(tmp_path: Path) -> None:
    model = Model(tiny_config("luong", vocab_size=30, decoder_vocab_size=12, eos_token_id=[3, 7]))
    trainer_of(model, tmp_path, source_tokenizer()).train()
    assert model.config.eos_token_id == [3, 7] and model.generation_config.eos_token_id == [3, 7]


def test_a_user_sets_ids_of_two_vocabularies(tmp_path: Path) -> None:
    model = Model(tiny_config("luong", vocab_size=30, decoder_vocab_size=12))
    model.config.eos_token_id = model.generation_config.eos_token_id = 7
    trainer_of(model, tmp_path, source_tokenizer()).train()
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 7


def test_only_special_ids_are_shielded() -> None:
    config = tiny_config("luong", vocab_size=30, decoder_vocab_size=12)
    side = config.get_text_config()
    assert side == config and isinstance(side, RnnSeq2SeqConfig) and side.to_dict() == config.to_dict()
    side.vocab_size, side.note, side.pad_token_id = 31, "kept", 9
    assert (config.vocab_size, config.note, config.pad_token_id, side.pad_token_id) == (31, "kept", 1, 1)
    # What is made of it stands for itself.
    decoder = side.get_text_config(decoder=True)
    assert (decoder.vocab_size, config.vocab_size) == (12, 31)
    for other in (copy.deepcopy(side), pickle.loads(pickle.dumps(side))):
        other.vocab_size = 40
        assert config.vocab_size == 31
    config.pad_token_id = 9
    assert config.get_text_config().pad_token_id == 9


def test_one_vocabulary_takes_the_tokenizers_ids(tmp_path: Path) -> None:
    model = Model(tiny_config("luong", vocab_size=30))
    trainer_of(model, tmp_path, source_tokenizer(), **CHECKPOINTS).train()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint-2")
    assert special_ids(loaded.config) == special_ids(model.config) == [25, 5, 20, 2]
    assert loaded.generation_config.eos_token_id == [25, 3]


@pytest.mark.parametrize("kind", [Model, RnnSeq2SeqForTokenClassification])
def test_ids_that_are_no_symbols_are_refused_before_training(kind: Any, tmp_path: Path) -> None:
    model = kind(tiny_config("luong"))
    args = TrainingArguments(output_dir=str(tmp_path), **QUIET, max_steps=1)
    data = [{**row, "labels": [0] * 5} for row in pairs(4)]
    with pytest.raises(ValueError, match="pad_token_id=20 is not in the vocabulary: give an id from 0 to 11"):
        Trainer(model, args, train_dataset=data, processing_class=source_tokenizer()).train()
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_classifier_of_two_vocabularies_trains_and_loads(tmp_path: Path) -> None:
    model = RnnSeq2SeqForTokenClassification(tiny_config("luong", vocab_size=30, decoder_vocab_size=12))
    args = TrainingArguments(output_dir=str(tmp_path), **QUIET, max_steps=1, save_steps=1)
    data = [{**row, "labels": [0] * 5} for row in pairs(4)]
    Trainer(model, args, train_dataset=data, processing_class=source_tokenizer()).train()
    loaded = RnnSeq2SeqForTokenClassification.from_pretrained(tmp_path / "checkpoint-1")
    assert special_ids(loaded.config) == [3, 2, 1, 2]


# ---- Tables -----------------------------------------------------------------------------------------------------


def table(size: int = 12) -> nn.Embedding:
    return nn.Embedding(size, 6, dtype=torch.float64)


def output_layer(bias: bool = True) -> nn.Linear:
    return nn.Linear(6, 12, bias=bias, dtype=torch.float64)


CHANGES: dict[str, list[Callable[[Any], Any]]] = {
    "input": [lambda model: model.set_input_embeddings(table())],
    "inner": [lambda model: model.model.set_input_embeddings(table())],
    "output": [lambda model: model.set_output_embeddings(output_layer())],
    "output_without_bias": [lambda model: model.set_output_embeddings(output_layer(bias=False))],
    "encoder": [lambda model: model.get_encoder().set_input_embeddings(table())],
    "decoder": [lambda model: model.get_decoder().set_input_embeddings(table())],
    "resize": [lambda model: model.resize_token_embeddings(15)],
    "tie": [lambda model: model.tie_weights()],
}
CHANGES |= {
    f"{first}_{second}": CHANGES[first] + CHANGES[second]
    for first in CHANGES
    for second in ("input", "output", "resize", "tie")
    if first != second and (first != "resize" or second == "tie")  # the new tables are of the first size
}


def tables_of(model: Any) -> list[nn.Parameter]:
    return [model.get_encoder().embed_tokens.weight, model.get_decoder().embed_tokens.weight, model.lm_head.weight]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_tables_load_as_they_were(change: str, tied: bool, shared: bool, tmp_path: Path) -> None:
    # readout_size: so that any output layer of this test fits
    model = tiny_model("luong", share_embeddings=shared, tie_word_embeddings=tied, readout_size=6)
    for step in CHANGES[change]:
        step(model)
    source = random_ids(2, 4)
    wanted = model(source, decoder_input_ids=source).logits
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(loaded(source, decoder_input_ids=source).logits, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", ["input", "output", "input_resize", "output_resize", "input_output"])
def test_what_is_tied_follows_a_new_table(change: str) -> None:
    for shared, tied, wanted in ((True, True, 1), (True, False, 2), (False, True, 2), (False, False, 3)):
        model = tiny_model("luong", share_embeddings=shared, tie_word_embeddings=tied, readout_size=6)
        old = tables_of(model)
        for step in CHANGES[change]:
            step(model)
        new = tables_of(model)
        assert len({id(weight) for weight in new}) == wanted
        if (shared, tied) == (True, True):
            assert not any(weight is before for weight in new for before in old)


@pytest.mark.parametrize("kept", ["lm_head.weight", "model.encoder.embed_tokens.weight",
                                  "model.decoder.embed_tokens.weight"])  # fmt: skip
def test_one_table_may_have_any_of_its_names_in_a_file(kept: str, tmp_path: Path) -> None:
    model = tiny_model("everything")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    one = weights.pop("model.encoder.embed_tokens.weight")
    save_file({**weights, kept: one}, file, metadata={"format": "pt"})
    loaded = Model.from_pretrained(tmp_path, dtype=torch.float64)
    assert all(torch.equal(weight, one) for weight in tables_of(loaded))
    assert len({id(weight) for weight in tables_of(loaded)}) == 1


# ---- Losses and logits ------------------------------------------------------------------------------------------


def batch_of(model: Any) -> dict[str, Tensor]:
    return dict(DataCollatorForSeq2Seq(tiny_tokenizer(), model=model)(pairs(4)))


VECTORS = {"input_feature_size": 3, "share_embeddings": False}
SMOOTHED_ALONE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "copy_slots": (Model, {"use_copy": True, "copy_slots": 3}, "copy_slots=3"),
    "coverage": (Model, {"coverage": True}, "coverage=True"),
    "ctc": (RnnSeq2SeqForSpeechSeq2Seq, {**VECTORS, "ctc_weight": 0.3}, "ctc_weight=0.3"),
    "crf": (RnnSeq2SeqForTokenClassification, {"use_crf": True}, "use_crf=True"),
    "regression": (RnnSeq2SeqForSequenceClassification, {"num_labels": 1}, "problem_type='regression'"),
}


@pytest.mark.parametrize("case", SMOOTHED_ALONE)
def test_smoothing_of_the_trainer_is_refused_where_it_would_lose_part_of_the_loss(case: str, tmp_path: Path) -> None:
    kind, options, told = SMOOTHED_ALONE[case]
    model = kind(tiny_config("luong", **options))
    before = copy.deepcopy(model.state_dict())
    rows = pairs(4)
    if kind is RnnSeq2SeqForSpeechSeq2Seq:
        rows = [{"input_features": torch.randn(5, 3), "decoder_input_ids": [2, *row["labels"][:-1]],
                 "labels": row["labels"]} for row in rows]  # fmt: skip
    elif kind is RnnSeq2SeqForTokenClassification:
        rows = [{**row, "labels": [0] * 5} for row in rows]
    elif kind is RnnSeq2SeqForSequenceClassification:
        rows = [{**row, "labels": [1.0] * options["num_labels"]} for row in rows]
    else:
        rows = [{**row, "decoder_input_ids": [2, *row["labels"][:-1]]} for row in rows]
    args = TrainingArguments(output_dir=str(tmp_path), **QUIET, max_steps=1, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match=f"label_smoothing_factor.*{told}.*set label_smoothing of the model"):
        Trainer(model, args, train_dataset=rows, eval_dataset=rows).train()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_loss_without_classes_is_not_left_to_smoothing() -> None:
    # Trainer itself leaves out the smoothing here, if the configuration says what the problem is.
    model = RnnSeq2SeqForSequenceClassification(
        tiny_config("luong", num_labels=3, problem_type="multi_label_classification")
    )
    with pytest.raises(ValueError, match=r"label_smoothing_factor.*problem_type='multi_label_classification'"):
        model(random_ids(2, 4), num_items_in_batch=6)


def test_smoothing_of_the_trainer_is_refused_with_scheduled_sampling() -> None:
    model = Model(tiny_config("luong")).train()
    model.teacher_forcing_ratio = 0.5
    batch = batch_of(model)
    del batch["labels"]
    with pytest.raises(ValueError, match=r"label_smoothing_factor.*teacher_forcing_ratio=0.5"):
        model(**batch, num_items_in_batch=20)


def test_smoothing_of_the_trainer_needs_decoder_inputs(tmp_path: Path) -> None:
    args = Seq2SeqTrainingArguments(output_dir=str(tmp_path), **QUIET, max_steps=1, label_smoothing_factor=0.1)
    collator = DataCollatorForSeq2Seq(tiny_tokenizer())  # without the model
    trainer = Seq2SeqTrainer(Model(tiny_config("luong")), args, collator, train_dataset=pairs(4))
    with pytest.raises(ValueError, match=r"label_smoothing_factor.*DataCollatorForSeq2Seq\(tokenizer, model=model\)"):
        trainer.train()


@pytest.mark.parametrize("options", [{}, {"use_copy": True}])
def test_smoothing_of_the_trainer_is_right_elsewhere(options: dict[str, Any], tmp_path: Path) -> None:
    model = Model(tiny_config("luong", label_smoothing=0.1, **options)).train()
    batch = batch_of(model)
    model(**batch).loss.backward()
    wanted = gradients(model)
    trainer_of(model, tmp_path, label_smoothing_factor=0.1).compute_loss(model, dict(batch)).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


def test_a_training_batch_without_labels_is_taken_for_a_loss_of_the_callers_own() -> None:
    model = Model(tiny_config("luong", coverage=True)).train()
    batch = batch_of(model)
    del batch["labels"]
    assert model(**batch).logits.requires_grad


def is_made(output: Any) -> bool:
    return "tensor" in dict.get(output, "logits").__dict__


STEPS: dict[str, dict[str, Any]] = {
    **ALL, "copy": {"use_copy": True}, "slots": {"use_copy": True, "copy_slots": 3},
    "coverage": {"coverage": True},
}  # fmt: skip


@pytest.mark.parametrize("structure", STEPS)
def test_logits_of_a_training_step_are_there_for_who_reads_them(structure: str) -> None:
    options = STEPS[structure]
    model = (tiny_model(structure) if structure in ALL else tiny_model("luong", **options)).train()
    batch = batch_of(model)
    whole = model(**batch, skip_logits=False)
    whole.logits.square().mean().backward()
    wanted = gradients(model)
    readers: dict[str, Callable[[Any], Tensor]] = {
        "attribute": lambda output: output.logits,
        "key": lambda output: output["logits"],
        "number": lambda output: output[1],
        "slice": lambda output: output[:2][1],
        "tuple": lambda output: output.to_tuple()[1],
        "dict": lambda output: dict(output)["logits"],
    }
    for name, read in readers.items():
        output = model(**batch)
        torch.testing.assert_close(output.loss, whole.loss)
        assert output["loss"] is output[0] is output.loss and not is_made(output), name
        logits = read(output)
        assert logits is output.logits
        torch.testing.assert_close(logits, whole.logits)
        logits.square().mean().backward()
        for parameter, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, wanted[parameter], msg=f"{name}, {parameter}")
    assert model(**batch, return_dict=False)[1].shape == whole.logits.shape
    assert model(**batch, skip_logits=True).logits is None
    assert list(model(**batch)) == list(whole)
    seen = [value.detach() for key, value in model(**batch).items() if key == "logits"]
    torch.testing.assert_close(seen[0], whole.logits.detach())
    torch.testing.assert_close(
        torch.softmax(next(iter(list(model(**batch).values())[1:2])), -1), whole.logits.softmax(-1)
    )
    assert torch.equal(pickle.loads(pickle.dumps(model(**batch))).logits, whole.logits)


@pytest.mark.fast_path
def test_logits_of_a_training_step_are_those_of_its_weights() -> None:
    model = tiny_model("luong").train()
    batch = batch_of(model)
    output = model(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.logits, model(**batch, skip_logits=False).logits)
    for optimizer in (torch.optim.SGD, torch.optim.AdamW, lambda weights: torch.optim.Adam(weights, fused=True)):
        output = model(**batch)
        output.loss.backward()
        optimizer(model.parameters()).step()
        with pytest.raises(RuntimeError, match=r"read outputs.logits before the optimizer's step.*skip_logits=False"):
            output.logits.sum()


@pytest.mark.fast_path
def test_logits_under_autocast_are_made_under_it() -> None:
    model = tiny_model("luong", torch.float32).train()
    batch = batch_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        output, whole = model(**batch), model(**batch, skip_logits=False)
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits, whole.logits.float())


class ReadsLogits(Seq2SeqTrainer):
    """A loss of the user's own."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits.flatten(0, 1), inputs["labels"].flatten())
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("options", [{}, {"use_copy": True, "copy_slots": 3}, {"coverage": True}])
def test_a_trainer_with_a_loss_of_its_own_trains_and_scores(
    options: dict[str, Any], bf16: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Model(tiny_config("luong", **options))
    start = copy.deepcopy(model.state_dict())
    trainer = trainer_of(model, tmp_path, bf16=bf16, learning_rate=0.05)
    width = {"compute_metrics": lambda prediction: {"width": float(prediction.predictions[0].shape[-1])}}
    data = {"train_dataset": pairs(8), "eval_dataset": pairs(4)}
    own = ReadsLogits(model, trainer.args, trainer.data_collator, **data, **width)
    own.train()
    assert not torch.equal(model.lm_head.weight, start["lm_head.weight"])
    assert own.evaluate()["eval_width"] == 12 + options.get("copy_slots", 0)
    model.train()
    loss, predictions, labels = own.prediction_step(model, batch_of(model), prediction_loss_only=False)
    assert torch.isfinite(loss) and predictions[0].shape[:2] == labels.shape


@pytest.mark.parametrize("unused", ["used", "unused"])
def test_logits_are_read_behind_distributed_data_parallel(unused: str) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join(str(folder) for folder in (here, here.parent, here.parent / "properties"))
    command = [sys.executable, str(here / "logits_in_parallel.py"), unused]
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.stdout.endswith("equal\n"), run.stderr


def test_nothing_waits_where_nothing_learns() -> None:
    model = tiny_model("luong").train()
    batch = batch_of(model)
    with torch.no_grad():
        assert type(dict.get(model(**batch), "logits")) is Tensor
    assert type(dict.get(model.eval()(**batch), "logits")) is Tensor
