"""Models of every kind with small inputs, and all that they answer: for tests of what is done to their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tiny import ALL, padded_batch, random_ids, randomize, tiny_config, tiny_model
from torch import Tensor, nn

from hf_rnn_seq2seq import (
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
)


# Beside the structures, all of which generate.
GENERATING: dict[str, dict[str, Any]] = {
    **ALL,
    "copying": {**ALL["luong"], "use_copy": True, "coverage": True},
    "coverage": {**ALL["everything"], "coverage": True},
    "characters": {"character_vocab_size": 7, "character_embedding_size": 4, "character_hidden_size": 6},
}
OTHERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "speech": (RnnSeq2SeqForSpeechSeq2Seq, {"input_feature_size": 5, "time_reduction": 2, "ctc_weight": 0.3}),
    "tagger": (RnnSeq2SeqForTokenClassification, {"num_labels": 4, "rnn_type": "gru"}),
    "crf": (RnnSeq2SeqForTokenClassification, {"num_labels": 4, "use_crf": True}),
    "values": (RnnSeq2SeqForTokenClassification, {"num_labels": 2, "problem_type": "regression"}),
    "classifier": (
        RnnSeq2SeqForSequenceClassification,
        {"num_labels": 3, "classifier_pooling": "attention", "problem_type": "single_label_classification"},
    ),
}
KINDS = [*GENERATING, *OTHERS]


def model_of(kind: str) -> Any:
    """A random model in single precision and evaluation mode."""
    if kind in GENERATING:
        return tiny_model(dtype=torch.float32, **GENERATING[kind])
    model_class, options = OTHERS[kind]
    model = model_class(tiny_config(**options))
    randomize(model)
    if kind == "values":
        model.output_scale.fit(torch.tensor([[1.0, -20.0], [7.0, 50.0]]))
    return model.eval()


def inputs_of(kind: str) -> dict[str, Tensor]:
    """Three sources with labels."""
    batch, generator = padded_batch("right", [4, 6, 2], 6), torch.Generator().manual_seed(0)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": random_ids(3, 5)}
    if kind == "speech":
        inputs["input_features"] = torch.randn(3, 6, 5, generator=generator)
        del inputs["input_ids"]
    elif kind == "values":
        inputs["labels"] = torch.randn(3, 6, 2, generator=generator)
    elif kind == "characters":
        inputs["character_ids"] = torch.randint(2, 7, (3, 6, 3), generator=generator)
    elif kind in ("tagger", "crf"):
        inputs["labels"] = random_ids(3, 6) % 4
    elif kind == "classifier":
        inputs["labels"] = torch.tensor([0, 1, 2])
    return inputs


def answers(model: Any, kind: str) -> dict[str, Tensor]:
    """The loss in evaluation and in training, and what the model generates or says of its labels."""
    inputs, found = inputs_of(kind), {}
    for training in (True, False):
        with torch.no_grad():
            found[f"loss {training}"] = model.train(training)(**inputs).loss
    if kind in OTHERS and kind != "speech":
        labels = inputs.pop("labels")
        found["logits"] = model(**inputs).logits
        if kind not in ("classifier", "values"):
            found["probabilities"] = model.probabilities(**inputs)
            found["decoded"] = model.decode(**inputs)
        assert len(labels) == 3
        return found
    del inputs["labels"]
    for beams in (1, 3):
        found[f"beams {beams}"] = model.generate(**inputs, num_beams=beams, max_new_tokens=6, do_sample=False)
    prompt = {"decoder_input_ids": random_ids(3, 3), "max_new_tokens": 4, "do_sample": False}
    found["prompt"] = model.generate(**inputs, **prompt)
    if model.model.decoder.attends:
        found["alignments"] = model.alignments(found["prompt"], **inputs)
    if kind == "speech":
        found["ctc"] = model.ctc_decode(**inputs)
    return found


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """All ids are equal, all numbers close."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=tolerance, msg=_named(name))


def _named(name: str) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"


def with_weights_of(kind: str, model: nn.Module) -> Any:
    """A plain model whose weights are those that another one computes with, whatever they are made of."""
    plain, parts = model_of(kind), dict(model.named_modules())
    for part in parts.values():
        for hook in part._forward_pre_hooks.values():  # the attributes that it sets are those of the last call
            hook(part, ())
    for name, part in plain.named_modules():
        for parameter in [name for name, _ in part.named_parameters(recurse=False)]:
            value = getattr(parts[name], parameter)
            value = value.detach() if type(value) in (Tensor, nn.Parameter) else value.dequantize().detach()
            part._parameters[parameter] = nn.Parameter(value.clone())  # tied ones may differ by now
    return plain
