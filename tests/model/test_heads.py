"""The classifiers: loss by hand, padding, saving, encoders of whole models, pipelines, and that they learn."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import PADDINGS, SIZES, gradients, padded_batch, padding_mask, randomize, tiny_config, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForTokenClassification,
)
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
LENGTHS, WIDTH, LABELS = [5, 2, 7, 1], 7, 3
POOLINGS = ("last", "mean", "max", "attention")
CELLS = ("lstm", "gru", "rnn_tanh")
Tagger, Classifier = RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification


def tiny_tagger(dtype: torch.dtype = torch.float64, **options: Any) -> RnnSeq2SeqForTokenClassification:
    model = Tagger(tiny_config(num_labels=LABELS, **options))
    randomize(model)
    return model.to(dtype).eval()


def tiny_classifier(dtype: torch.dtype = torch.float64, **options: Any) -> RnnSeq2SeqForSequenceClassification:
    model = Classifier(tiny_config(**{"num_labels": LABELS, **options}))
    randomize(model)
    return model.to(dtype).eval()


def inputs_of(kind: str = "interior") -> dict[str, Tensor]:
    batch = padded_batch(kind, LENGTHS, WIDTH)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def token_labels(mask: Tensor, unknown: bool = True) -> Tensor:
    """Random labels; at padding ones that must not count; one real position of the first row without a label."""
    labels = torch.randint(0, LABELS, mask.shape, generator=torch.Generator().manual_seed(3))
    if unknown:
        labels[0, mask[0].nonzero()[1]] = -100
    return labels


@pytest.mark.parametrize("use_crf", [False, True])
@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_changes_no_label_loss_or_gradient_of_tokens(kind: str, use_crf: bool) -> None:
    model, batch = tiny_tagger(use_crf=use_crf), padded_batch(kind, LENGTHS, WIDTH)
    mask, labels = batch.attention_mask.bool(), token_labels(batch.attention_mask)
    out = model(batch.input_ids, batch.attention_mask, labels=labels)
    out.loss.backward()
    got = gradients(model)
    paths, probabilities = (f(batch.input_ids, batch.attention_mask) for f in (model.decode, model.probabilities))

    total = torch.zeros((), dtype=torch.float64)
    for row, source in enumerate(batch.rows):
        known = labels[row, mask[row]][None]
        alone = model(source, labels=known)
        torch.testing.assert_close(out.logits[row, mask[row]], alone.logits[0], **TIGHT)
        assert torch.equal(paths[row, mask[row]], model.decode(source)[0])
        torch.testing.assert_close(probabilities[row, mask[row]], model.probabilities(source)[0], **TIGHT)
        total = total + alone.loss * (known != -100).sum()
    loss = total / (labels[mask] != -100).sum()
    loss.backward()
    torch.testing.assert_close(out.loss, loss, **TIGHT)
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")
    assert (paths[~mask] == -100).all() and (probabilities[~mask] == 0).all()
    torch.testing.assert_close(probabilities.sum(-1), mask.double())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_changes_no_label_loss_or_gradient_of_sequences(kind: str, pooling: str) -> None:
    model, batch = tiny_classifier(classifier_pooling=pooling), padded_batch(kind, LENGTHS, WIDTH)
    labels = torch.tensor([0, 2, 1, -100])
    out = model(batch.input_ids, batch.attention_mask, labels=labels)
    out.loss.backward()
    got = gradients(model)
    alone = torch.cat([model(source).logits for source in batch.rows])
    torch.testing.assert_close(out.logits, alone, **TIGHT)
    F.cross_entropy(alone, labels).backward()
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("model", [tiny_tagger(use_crf=True), tiny_classifier(classifier_pooling="attention")])
def test_nan_in_padded_vectors_goes_nowhere(model: nn.Module) -> None:
    mask = padding_mask("interior", LENGTHS, WIDTH)
    clean = torch.randn(4, WIDTH, SIZES["embedding_size"], dtype=torch.float64)
    results = [
        model(inputs_embeds=clean.masked_fill(~mask.bool()[..., None], filling), attention_mask=mask).logits
        for filling in (0.0, float("nan"))
    ]
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_what_each_pooling_reads() -> None:
    inputs = inputs_of()
    mask = inputs["attention_mask"].bool()
    for pooling in POOLINGS:
        model = tiny_classifier(classifier_pooling=pooling)
        encoded = model.get_encoder()(**inputs)
        rows = []
        for row, real in enumerate(mask):
            memory = encoded.last_hidden_state[row, real]  # (S, D)
            if pooling == "last":
                half = memory.shape[1] // 2
                rows.append(torch.cat([memory[-1, :half], memory[0, half:]]))
            elif pooling == "attention":
                rows.append((memory @ model.pooling.query).softmax(0) @ memory)
            else:
                rows.append(memory.mean(0) if pooling == "mean" else memory.amax(0))
        torch.testing.assert_close(model(**inputs).logits, model.classifier(torch.stack(rows)), **TIGHT)


def test_attention_pooling_starts_as_the_mean() -> None:
    config = tiny_config(num_labels=LABELS)
    torch.manual_seed(1)
    mean = Classifier(RnnSeq2SeqConfig(**{**config.to_dict(), "classifier_pooling": "mean"})).eval()
    attention = Classifier(RnnSeq2SeqConfig(**{**config.to_dict(), "classifier_pooling": "attention"})).eval()
    attention.load_state_dict(mean.state_dict(), strict=False)
    torch.testing.assert_close(attention(**inputs_of()).logits, mean(**inputs_of()).logits)


def test_a_new_crf_is_a_softmax_at_each_position() -> None:
    model = Tagger(tiny_config(num_labels=LABELS, use_crf=True)).eval()
    labels = token_labels(inputs_of()["attention_mask"])
    loss = model(**inputs_of(), labels=labels).loss
    plain = Tagger(tiny_config(num_labels=LABELS)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(loss, plain(**inputs_of(), labels=labels).loss)


def test_the_logits_of_a_crf_are_scores_in_training_and_their_argmax_is_viterbis_path_in_evaluation() -> None:
    model, inputs = tiny_tagger(use_crf=True), inputs_of()
    mask = inputs["attention_mask"].bool()
    memory = model.get_encoder()(**inputs).last_hidden_state
    path, logits = model.decode(**inputs), model(**inputs).logits
    assert torch.equal(logits.argmax(-1)[mask], path[mask])
    torch.testing.assert_close(model.train()(**inputs).logits, model.classifier(memory), **TIGHT)
    assert not torch.equal(model(**inputs).logits.argmax(-1)[mask], path[mask])  # the chain has a say


@pytest.mark.parametrize("use_crf", [False, True])
def test_the_token_loss_divides_by_the_labels_or_by_what_the_trainer_says(use_crf: bool) -> None:
    model, inputs = tiny_tagger(use_crf=use_crf), inputs_of()
    labels = token_labels(inputs["attention_mask"]).masked_fill(inputs["attention_mask"] == 0, -100)
    loss = model(**inputs, labels=labels).loss
    for count in (7, torch.tensor(7)):
        scaled = model(**inputs, labels=labels, num_items_in_batch=count).loss
        torch.testing.assert_close(scaled, loss * (labels != -100).sum() / 7)
    assert model(**inputs, labels=torch.full_like(labels, -100)).loss == 0
    if not use_crf:
        torch.testing.assert_close(loss, F.cross_entropy(model(**inputs).logits.transpose(1, 2), labels))


def test_label_smoothing_is_for_training_only() -> None:
    inputs, labels = inputs_of(), torch.tensor([0, 2, 1, 1])
    model = tiny_classifier(label_smoothing=0.2)
    logits = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, labels=labels).loss, F.cross_entropy(logits, labels))
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(model.train()(**inputs, labels=labels).loss, smoothed)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type", "loss"),
    [
        (3, torch.tensor([0, 2, 1, 1]), "single_label_classification", F.cross_entropy),
        (3, torch.eye(4)[:, :3], "multi_label_classification", F.binary_cross_entropy_with_logits),
        (1, torch.tensor([0.5, -1.0, 3.0, 0.0]), "regression", F.mse_loss),
        (3, torch.randn(4, 3), "regression", F.mse_loss),
    ],
)
def test_problem_types_are_those_of_transformers(
    num_labels: int, labels: Tensor, problem_type: str, loss: Any
) -> None:
    inputs = inputs_of()
    given = problem_type if num_labels == 3 and problem_type == "regression" else None
    model = tiny_classifier(num_labels=num_labels, problem_type=given)
    out = model(**inputs, labels=labels)
    assert model.config.problem_type == problem_type
    wanted = labels.double() if labels.is_floating_point() else labels
    logits = out.logits.flatten() if num_labels == 1 else out.logits
    torch.testing.assert_close(out.loss, loss(logits, wanted))
    scaled = model(**inputs, labels=labels, num_items_in_batch=5).loss
    torch.testing.assert_close(scaled, out.loss * labels.numel() / 5)


@pytest.mark.parametrize(
    ("model", "labels", "words"),
    [
        (tiny_tagger(), torch.zeros(4, 6, dtype=torch.long), r"labels has shape \(4, 6\).*integers of shape \(4, 7\)"),
        (tiny_tagger(), torch.full((4, 7), 3), r"labels holds 3, wanted 0 to 2 \(num_labels=3\)"),
        (tiny_tagger(use_crf=True), torch.full((4, 7), -1), "labels holds -1, wanted 0 to 2"),
        (tiny_classifier(), torch.tensor([0, 1, 2, 3]), "labels holds 3, wanted 0 to 2"),
        (tiny_classifier(), torch.zeros(4, 3, dtype=torch.long), r"labels has shape \(4, 3\).*integers.*\(4,\)"),
        (tiny_classifier(), torch.zeros(4), r"labels has shape \(4,\).*numbers of shape \(4, 3\).*multi_label"),
        (tiny_classifier(problem_type="single_label_classification"), torch.zeros(4), "float32, wanted integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_words(model: nn.Module, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(**inputs_of("right"), labels=labels)


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(Tagger, {"use_crf": False}, id="softmax"),
        pytest.param(Tagger, {"use_crf": True}, id="crf"),
        *(pytest.param(Classifier, {"classifier_pooling": pooling}, id=pooling) for pooling in POOLINGS),
    ],
)
def test_a_head_learns_one_batch_by_heart(kind: type, options: dict[str, Any], rnn_type: str) -> None:
    model = kind(tiny_config(num_labels=LABELS, rnn_type=rnn_type, **options))
    inputs = inputs_of()
    tokens = token_labels(inputs["attention_mask"], unknown=False)
    labels = tokens.masked_fill(inputs["attention_mask"] == 0, -100) if kind is Tagger else torch.tensor([0, 2, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    model.eval()
    got = model.decode(**inputs) if kind is Tagger else model(**inputs).logits.argmax(-1)
    assert torch.equal(got, labels)


def test_dropout_of_the_classifier_is_for_training_only() -> None:
    model = tiny_classifier(classifier_dropout=0.5)
    inputs = inputs_of()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("auto", "model"),
    [
        (AutoModelForTokenClassification, tiny_tagger(torch.float32)),
        (AutoModelForTokenClassification, tiny_tagger(torch.float32, use_crf=True)),
        (AutoModelForSequenceClassification, tiny_classifier(torch.float32, classifier_pooling="attention")),
    ],
)
def test_a_saved_classifier_comes_back(auto: Any, model: nn.Module, tmp_path: Path) -> None:
    model.config.id2label = {0: "O", 1: "B-x", 2: "I-x"}
    model.save_pretrained(tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert type(loaded) is type(model) and loaded.config.id2label == model.config.id2label
    torch.testing.assert_close(loaded(**inputs_of()).logits, model(**inputs_of()).logits, rtol=0, atol=0)


@pytest.mark.parametrize("structure", ["everything", "luong", "textbook"])
@pytest.mark.parametrize("bare", [False, True])
def test_an_encoder_of_a_whole_model_loads_and_only_the_head_is_new(
    structure: str, bare: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tiny_model(structure, torch.float32)
    (whole.model if bare else whole).save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    try:
        with caplog.at_level(logging.WARNING, logger="transformers"):
            model, report = Tagger.from_pretrained(tmp_path, num_labels=4, use_crf=True, output_loading_info=True)
    finally:
        logging.getLogger("transformers").propagate = False
    head = {"classifier.weight", "classifier.bias", *(f"crf.{name}" for name, _ in model.crf.named_parameters())}
    assert report["missing_keys"] == head and not report["unexpected_keys"]
    assert all(name in caplog.text for name in head)
    assert "MISSING" in caplog.text and "UNEXPECTED" not in caplog.text and "lm_head" not in caplog.text
    wanted = whole.get_encoder()(**inputs_of())
    got = model.get_encoder()(**inputs_of())
    torch.testing.assert_close(got.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=0)
    # The configuration of the saved classifier names no class whose code is not saved with it.
    model.save_pretrained(tmp_path / "tagger")
    saved = json.loads((tmp_path / "tagger/config.json").read_text(encoding="utf-8"))["auto_map"]
    assert set(saved) == {"AutoConfig", "AutoModel", "AutoModelForTextEncoding", "AutoModelForTokenClassification"}
    assert all((tmp_path / "tagger" / f"{at.split('.')[0]}.py").is_file() for at in saved.values())


@pytest.mark.parametrize("options", [{}, {"decoder_vocab_size": 9}])
def test_the_vocabulary_of_a_classifier_can_grow(options: dict[str, Any]) -> None:
    model = tiny_tagger(torch.float32, **options)
    before = model(**inputs_of()).logits
    model.resize_token_embeddings(20)
    torch.testing.assert_close(model(**inputs_of()).logits, before, rtol=0, atol=0)
    assert model(torch.full((1, 3), 19)).logits.shape == (1, 3, LABELS) and model.config.vocab_size == 20


@pytest.mark.parametrize("model", [tiny_tagger(use_crf=True), tiny_classifier()])
def test_hidden_states_and_tuples_come_out_as_asked(model: nn.Module) -> None:
    out = model(**inputs_of(), output_hidden_states=True)
    encoded = model.get_encoder()(**inputs_of(), output_hidden_states=True)
    torch.testing.assert_close(out.hidden_states, encoded.hidden_states)
    (logits,) = model(**inputs_of(), return_dict=False)
    assert torch.equal(logits, out.logits)
    assert model(**model.dummy_inputs).logits.shape[0] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classifier_dropout": 1}, "classifier_dropout must be at least 0 and less than 1"),
        ({"classifier_pooling": "first"}, "classifier_pooling.*attention"),
        ({"use_crf": "yes"}, "use_crf"),
    ],
)
def test_options_of_the_heads_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=f"(?s){words}"):
        tiny_config(**options)


def test_the_encoder_of_a_classifier_loads_into_a_whole_model(tmp_path: Path) -> None:
    tagger = tiny_tagger(torch.float32)
    tagger.save_pretrained(tmp_path)
    whole = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path).eval()
    got, wanted = (model.get_encoder()(**inputs_of()).last_hidden_state for model in (whole, tagger))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


SENTENCES = ["anna sees paris", "new york sees bob", "bob flies to new york"]
TAGS = ["B-PER O B-LOC", "B-LOC I-LOC O B-PER", "B-PER O O B-LOC I-LOC"]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES, TokenizerOptions(type="word"))


def names_of(labels: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}


@pytest.fixture(scope="module", params=[False, True], ids=["softmax", "crf"])
def tagger_folder(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tagger that a stock Trainer has taught three sentences, saved with its tokenizer."""
    folder = tmp_path_factory.mktemp("tagger")
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "embedding_size": 16, "encoder_hidden_size": 16}
    model = Tagger(RnnSeq2SeqConfig(**{**sizes, "decoder_hidden_size": 16}, **names_of(NAMES), use_crf=request.param))
    data = []
    for sentence, tags in zip(SENTENCES, TAGS, strict=True):
        encoded = tokenizer(sentence)
        labels = [NAMES.index(tag) for tag in tags.split()]
        data.append({**encoded, "labels": [*labels, *[-100] * (len(encoded["input_ids"]) - len(labels))]})
    arguments = TrainingArguments(
        str(folder / "run"), max_steps=60, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        learning_rate=0.03, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, DataCollatorForTokenClassification(tokenizer), data, eval_dataset=data)
    trainer.train()
    prediction = trainer.predict(data)
    real = prediction.label_ids != -100
    assert (prediction.predictions.argmax(-1)[real] == prediction.label_ids[real]).all()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_the_token_pipeline_groups_entities(tagger_folder: Path, strategy: str) -> None:
    tag = pipeline("token-classification", model=str(tagger_folder), aggregation_strategy=strategy)
    found = [[(e["entity_group"], s[e["start"] : e["end"]]) for e in tag(s)] for s in SENTENCES]
    assert found == [
        [("PER", "anna"), ("LOC", "paris")],
        [("LOC", "new york"), ("PER", "bob")],
        [("PER", "bob"), ("LOC", "new york")],
    ]


def test_the_token_pipeline_gives_viterbis_path(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Random and large weights: here the best path is not the best label of each word.
    model = Tagger(tiny_config(vocab_size=len(tokenizer), **names_of(NAMES), use_crf=True)).eval()
    randomize(model, scale=1.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    try:
        tag = pipeline("token-classification", model=str(tmp_path), ignore_labels=[])
    finally:
        logging.getLogger("transformers").propagate = False
    assert "not supported" not in caplog.text
    sentences = [*SENTENCES, "york flies paris to anna", "to bob bob new"]
    differs = False
    for sentence, entities in zip(sentences, tag(sentences, batch_size=3), strict=True):
        inputs = tokenizer(sentence, return_tensors="pt")
        words = len(sentence.split())
        path = [NAMES[label] for label in model.decode(**inputs)[0, :words]]
        assert [entity["entity"] for entity in entities] == path
        scores = model.train()(**inputs).logits[0, :words].argmax(-1)
        model.eval()
        differs = differs or [NAMES[label] for label in scores] != path
    assert differs


def test_the_text_pipeline_classifies(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = Classifier(tiny_config(vocab_size=len(tokenizer), **names_of(["bad", "good", "so-so"]))).eval()
    randomize(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    for sentence, got in zip(SENTENCES, classify(SENTENCES, batch_size=3), strict=True):
        p = model(**tokenizer(sentence, return_tensors="pt")).logits[0].softmax(-1)
        assert got["label"] == model.config.id2label[int(p.argmax())]
        assert got["score"] == pytest.approx(p.max().item(), abs=1e-6)


def test_after_training_several_labels_the_text_pipeline_takes_sigmoids(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = Classifier(tiny_config(vocab_size=len(tokenizer), **names_of(["a", "b", "c"])))
    inputs = tokenizer(SENTENCES, return_tensors="pt", padding=True)
    model(**inputs, labels=torch.eye(3))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    got = pipeline("text-classification", model=str(tmp_path), top_k=None)(SENTENCES)
    for entries, logits in zip(got, model.eval()(**inputs).logits, strict=True):
        scores = {entry["label"]: entry["score"] for entry in entries}
        assert scores == pytest.approx(dict(zip("abc", logits.sigmoid().tolist(), strict=True)), abs=1e-6)


PROGRAM = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import numpy as np, torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
tokens, sequences = AutoModelForTokenClassification, AutoModelForSequenceClassification
for auto, name in ((tokens, "tagger"), (sequences, "classifier"), (tokens, "values"), (sequences, "value")):
    model = auto.from_pretrained(f"{sys.argv[1]}/{name}", trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules")
    with torch.no_grad():
        np.save(f"{sys.argv[1]}/{name}.npy", model(torch.arange(4, 12)[None]).logits.numpy())
    model.save_pretrained(f"{sys.argv[1]}/{name}/again")
"""


def test_saved_classifiers_carry_their_code(tmp_path: Path) -> None:
    models = {
        "tagger": tiny_tagger(torch.float32, use_crf=True),
        "classifier": tiny_classifier(torch.float32, classifier_pooling="attention"),
        "values": tiny_tagger(torch.float32, problem_type="regression"),
        "value": tiny_classifier(torch.float32, problem_type="regression"),
    }
    for name in ("values", "value"):
        models[name].output_scale.fit(torch.tensor([[1.0], [70.0]]).expand(2, LABELS))
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, model in models.items():
        with torch.no_grad():
            wanted = model(torch.arange(4, 12)[None]).logits.numpy()
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), wanted)
        files = {path.name for path in (tmp_path / name).glob("*.py")}
        assert {path.name for path in (tmp_path / name / "again").glob("*.py")} == files
