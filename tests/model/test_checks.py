"""What enters a forward is looked at: a wrong tensor or keyword is refused by its name, before any kernel sees it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import SIZES, random_ids, randomize
from torch import Tensor, nn

from hf_rnn_seq2seq import (
    RnnEncoderOutput,
    RnnSeq2SeqConfig,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
)
from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqEnsemble
from hf_rnn_seq2seq.model.padding import Padding
from hf_rnn_seq2seq.model.recurrence import RecurrentStack
from hf_rnn_seq2seq.model.state import new_cache


CELLS = ("lstm", "gru", "rnn_tanh")
ATTENTIONS = ("none", "dot", "general", "additive")
B, S, T = 3, 5, 4


def config(cell: str, attention: str = "general", **options: Any) -> RnnSeq2SeqConfig:
    return RnnSeq2SeqConfig(**{**SIZES, "rnn_type": cell, "attention_type": attention, **options})


def built(kind: type, *args: Any, **options: Any) -> Any:
    model = kind(config(*args, **options))
    randomize(model)
    return model.eval()


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ATTENTIONS)
def attention(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["whole", "training", "inner", "ensemble"])
def model(request: pytest.FixtureRequest, cell: str, attention: str) -> Any:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention)
    if request.param == "ensemble":
        return RnnSeq2SeqEnsemble([model, built(RnnSeq2SeqForConditionalGeneration, cell, "dot")])
    if request.param == "training":
        return model.train()
    return model.model if request.param == "inner" else model


def right_inputs() -> dict[str, Any]:
    ones = torch.ones(B, S, dtype=torch.long)
    return {"input_ids": random_ids(B, S), "attention_mask": ones, "decoder_input_ids": random_ids(B, T)}


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.long)


E, D, H, L = (
    SIZES["embedding_size"],
    SIZES["encoder_hidden_size"],
    SIZES["decoder_hidden_size"],
    SIZES["decoder_layers"],
)
NOT_B, NOT_S, NOT_T = B - 1, S + 1, T + 1
EMBEDDED: dict[str, Any] = {"input_ids": None}
DECODER_EMBEDDED: dict[str, Any] = {"decoder_input_ids": None}
# The argument that is wrong, and what else it needs to be there.
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "ids of one axis": ("input_ids", {"input_ids": ones(S), "attention_mask": None}),
    "ids of three axes": ("input_ids", {"input_ids": ones(B, S, 2), "attention_mask": None}),
    "mask of another batch": ("attention_mask", {"attention_mask": ones(NOT_B, S)}),
    "mask of another length": ("attention_mask", {"attention_mask": ones(B, NOT_S)}),
    "mask of three axes": ("attention_mask", {"attention_mask": ones(B, S, S)}),
    "vectors of another width": ("inputs_embeds", {**EMBEDDED, "inputs_embeds": floats(B, S, E + 1)}),
    "vectors of two axes": ("inputs_embeds", {**EMBEDDED, "inputs_embeds": floats(B, S)}),
    "targets of fewer rows": ("decoder_input_ids", {"decoder_input_ids": ones(NOT_B, T)}),
    "targets of one row": ("decoder_input_ids", {"decoder_input_ids": ones(1, T)}),
    "targets of more rows": ("decoder_input_ids", {"decoder_input_ids": ones(40, T)}),
    "targets of one axis": ("decoder_input_ids", {"decoder_input_ids": ones(B)}),
    "no targets": ("decoder_input_ids", {"decoder_input_ids": ones(B, 0)}),
    "target mask of another batch": ("decoder_attention_mask", {"decoder_attention_mask": ones(NOT_B, T)}),
    "target mask that is longer": ("decoder_attention_mask", {"decoder_attention_mask": ones(B, NOT_T)}),
    "target mask that is shorter": ("decoder_attention_mask", {"decoder_attention_mask": ones(B, T - 1)}),
    "target vectors of another width": (
        "decoder_inputs_embeds", {**DECODER_EMBEDDED, "decoder_inputs_embeds": floats(B, T, E + 1)},
    ),
    "target vectors of another batch": (
        "decoder_inputs_embeds", {**DECODER_EMBEDDED, "decoder_inputs_embeds": floats(40, T, E)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_tensor_that_does_not_fit_is_refused_by_its_name(model: Any, case: str) -> None:
    name, change = WRONG[case]
    model(**right_inputs())
    with pytest.raises(ValueError, match=f"^{name} "):
        model(**{**right_inputs(), **change})


LABELS: dict[str, Tensor] = {
    "fewer rows": ones(NOT_B, T),
    "one row": ones(1, T),
    "more rows": ones(40, T),
    "one axis": ones(B),
    "no step": ones(B, 0),
    "no symbol": torch.full((B, T), SIZES["vocab_size"]),
    "negative": torch.full((B, T), -1),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_do_not_fit_are_refused(model: Any, case: str) -> None:
    if not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        with pytest.raises(TypeError, match="no argument 'labels'"):
            model(**right_inputs(), labels=LABELS[case])
        return
    inputs = right_inputs()
    given = inputs.pop("decoder_input_ids")
    model(**inputs, labels=given)
    with pytest.raises(ValueError, match=r"^labels[ \[]"):
        model(**inputs, labels=LABELS[case])
    with pytest.raises(ValueError, match=r"^labels[ \[]"):
        model(input_ids=None, inputs_embeds=floats(B, S, E), labels=LABELS[case])
    with pytest.raises(ValueError, match=r"^labels[ \[]"):
        model(**inputs, decoder_input_ids=given, labels=random_ids(B, NOT_T))


def outputs_of(model: Any, **change: Any) -> RnnEncoderOutput:
    outputs = model.get_encoder()(random_ids(B, S), ones(B, S), return_dict=True)
    return RnnEncoderOutput(**{**outputs, **change})


FIELDS: dict[str, tuple[str, Any]] = {
    "memory of another batch": ("last_hidden_state", floats(NOT_B, S, D)),
    "memory of another length": ("last_hidden_state", floats(B, NOT_S, D)),
    "memory of another width": ("last_hidden_state", floats(B, S, D + 1)),
    "memory of two axes": ("last_hidden_state", floats(B, D)),
    "states of another batch": ("final_hidden", floats(NOT_B, SIZES["encoder_layers"], D)),
    "states of fewer layers": ("final_hidden", floats(B, SIZES["encoder_layers"] - 1, D)),
    "states of another width": ("final_hidden", floats(B, SIZES["encoder_layers"], D - 2)),
    "cells of another batch": ("final_cell", floats(40, SIZES["encoder_layers"], D)),
    "mask of another batch": ("mask", ones(NOT_B, S).bool()),
    "mask of another length": ("mask", ones(B, NOT_S).bool()),
    "ids of another length": ("source_ids", ones(B, NOT_S)),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_of_encoder_outputs_that_does_not_fit_is_refused(cell: str, attention: str, case: str) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention)
    name, value = FIELDS[case]
    options = {"max_new_tokens": 3, "do_sample": False}
    wanted = model.generate(encoder_outputs=outputs_of(model), **options)
    assert wanted.tolist() == model.generate(random_ids(B, S), **options).tolist()
    with pytest.raises(ValueError, match=r"^encoder_outputs\."):
        model(encoder_outputs=outputs_of(model, **{name: value}), decoder_input_ids=random_ids(B, T))
    for fast in (True, False):
        model.use_fast_generation = fast
        with pytest.raises(ValueError, match=r"^encoder_outputs\."):
            model.generate(encoder_outputs=outputs_of(model, **{name: value}), **options)


def test_encoder_outputs_and_what_stands_beside_them(cell: str, attention: str) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention)
    outputs, ids = outputs_of(model), random_ids(B, T)
    with pytest.raises(ValueError, match=r"^decoder_input_ids "):
        model(encoder_outputs=outputs, decoder_input_ids=random_ids(40, T))
    with pytest.raises(ValueError, match=r"^labels[ \[]"):
        model(encoder_outputs=outputs, labels=random_ids(40, T))
    with pytest.raises(ValueError, match=r"^attention_mask "):
        model(encoder_outputs=outputs, attention_mask=ones(B, NOT_S), decoder_input_ids=ids)
    with pytest.raises(ValueError, match=r"^input_ids "):
        model(random_ids(NOT_B, S), encoder_outputs=outputs, decoder_input_ids=ids)
    with pytest.raises(TypeError, match="encoder_outputs is list"):
        model(encoder_outputs=[1, 2], decoder_input_ids=ids)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_prompt_of_another_batch_is_refused(cell: str, attention: str, fast: bool, beams: int) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention)
    model.use_fast_generation = fast
    options = {"decoder_input_ids": ones(7, 1) * 2, "max_new_tokens": 3, "num_beams": beams, "do_sample": False}
    with pytest.raises(ValueError, match="decoder_input_ids "):
        model.generate(random_ids(B, S), **options)
    with pytest.raises(ValueError, match="attention_mask "):
        model.generate(random_ids(B, S), attention_mask=ones(B, NOT_S), max_new_tokens=3, num_beams=beams)


def test_a_cache_of_another_batch_or_model_is_refused(cell: str, attention: str) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention)
    other = built(
        RnnSeq2SeqForConditionalGeneration, cell, attention, decoder_hidden_size=H + 2, encoder_hidden_size=10
    )
    deeper = built(RnnSeq2SeqForConditionalGeneration, cell, attention, decoder_layers=L + 1)
    inputs = right_inputs()
    for maker, rows in ((model, 40), (other, B), (deeper, B)):
        cache = new_cache(maker.config)
        maker(random_ids(rows, S), decoder_input_ids=random_ids(rows, T), past_key_values=cache)
        with pytest.raises(ValueError, match=r"^(cache|past_key_values)[ :]"):
            model(**inputs, past_key_values=cache)
    cache = new_cache(model.config)
    model(**inputs, past_key_values=cache)
    with pytest.raises(ValueError, match=r"^attention_mask "):
        model(attention_mask=ones(NOT_B, S), decoder_input_ids=random_ids(B, 1), past_key_values=cache)


def test_the_decoder_by_itself(cell: str, attention: str) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention).model
    state, source = model._read_source(outputs_of(model), None, None, needs_state=True)
    ids = random_ids(B, T)
    model.decoder(ids, state, source)

    def refused(name: str, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(ValueError, match=name):
            model.decoder(*args, **kwargs)

    refused("^state.layers ", random_ids(40, T), state, source)
    refused("^state.layers ", random_ids(1, T), state, source)
    refused("^state.layers ", ids, state._replace(layers=state.layers[:1]), source)
    wide = tuple(tuple(floats(B, H + 1) for _ in layer) for layer in state.layers)
    refused("^state.layers ", ids, state._replace(layers=wide), source)
    refused("^input_ids ", ids[0], state, source)
    refused("^attention_mask ", ids, state, source, attention_mask=ones(B, T - 1))
    refused("^inputs_embeds ", None, state, source, inputs_embeds=floats(B, T, E + 1))
    refused("give one of input_ids and inputs_embeds", None, state, source)
    if attention != "none":
        refused("^source.memory ", ids, state, source._replace(memory=floats(NOT_B, S, D)))
        refused("^source.keys ", ids, state, source._replace(keys=source.keys[:, :-1]))
        refused("^source.mask ", ids, state, source._replace(mask=ones(B, NOT_S).bool()))
    with pytest.raises(TypeError, match="no argument 'labels'"):
        model.decoder(ids, state, source, labels=ids)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_recurrence_by_itself(cell: str, training: bool, bidirectional: bool) -> None:
    stack = RecurrentStack(cell, E, H, L, bidirectional=bidirectional).train(training)
    randomize(stack)
    x, padding = floats(B, S, E), Padding.from_mask(torch.tensor([[1] * S, [1] * 2 + [0] * (S - 2), [1] * S]))
    states = stack.zero_states(x)
    for places in (None, padding):
        stack(x, states, padding=places)
        with pytest.raises(ValueError, match=r"^the recurrence's input has width 7, wanted 6"):
            stack(floats(B, S, E + 1), states, padding=places)
        for rows in (1, NOT_B, 40):
            with pytest.raises(ValueError, match=r"^states has shape"):
                stack(x, stack.zero_states(floats(rows, S, E)), padding=places)
        with pytest.raises(ValueError, match=r"^states has 1 layers, wanted 2"):
            stack(x, states[:1], padding=places)
    with pytest.raises(ValueError, match=r"^padding has shape"):
        stack(floats(B, NOT_S, E), padding=padding)
    with pytest.raises(ValueError, match=r"^x has shape"):
        stack(floats(E))
    # What is not looked at before, is looked at where the kernels are called.
    weights = [stack.weights(0, suffix) for suffix in stack.suffixes]
    for rows in (1, NOT_B, 40):
        state = stack.zero_states(floats(rows, E))[0]
        with pytest.raises(ValueError, match=r"^the recurrence's state has shape"):
            stack.layers[0](x, *state, weights=weights, padding=None)
    if not bidirectional:
        with pytest.raises(ValueError, match=r"^states has shape"):
            stack.step(floats(B, E), stack.zero_states(floats(1, E)))


HEADS = (RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_the_classifiers(kind: type, cell: str, training: bool) -> None:
    model = built(kind, cell, num_labels=4).train(training)
    right = {"input_ids": random_ids(B, S), "attention_mask": ones(B, S)}
    labels = ones(B, S) if kind is RnnSeq2SeqForTokenClassification else ones(B)
    model(**right, labels=labels)
    for name in ("ids of one axis", "ids of three axes", "mask of another batch", "mask of another length",
                 "vectors of another width", "vectors of two axes"):  # fmt: skip
        wrong, change = WRONG[name]
        with pytest.raises(ValueError, match=f"^{wrong} "):
            model(**{**right, **change})
    for wrong_labels in (labels[:-1], torch.cat([labels, labels]), labels.unsqueeze(-1), labels + 9):
        with pytest.raises(ValueError, match=r"^labels[ \[]"):
            model(**right, labels=wrong_labels)
    with pytest.raises(TypeError, match=r"no argument 'output_attention'; did you mean 'output_attentions'"):
        model(**right, output_attention=True)
    with pytest.raises(TypeError, match="no argument 'decoder_input_ids'"):
        model(**right, decoder_input_ids=right["input_ids"])


def test_the_speech_model(cell: str) -> None:
    model = built(
        RnnSeq2SeqForSpeechSeq2Seq, cell, input_feature_size=3, ctc_weight=0.3, time_reduction=2, encoder_layers=2
    )
    right = {"input_features": floats(B, S, 3), "attention_mask": ones(B, S)}
    model(**right, labels=random_ids(B, 2))
    outputs = model.get_encoder()(**right)
    model(encoder_outputs=outputs, attention_mask=ones(B, S), labels=random_ids(B, 2))
    for change, name in (
        ({"input_features": floats(B, S, 4)}, "input_features"),
        ({"input_features": floats(S, 3)}, "input_features"),
        ({"attention_mask": ones(B, NOT_S)}, "attention_mask"),
        ({"attention_mask": ones(S)}, "attention_mask"),
        ({"attention_mask": ones(1, B, S)}, "attention_mask"),
        ({"labels": random_ids(40, 2)}, "labels"),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            model(**{**right, "labels": random_ids(B, 2), **change})
    for mask in (ones(B, S + 2), ones(NOT_B, S), ones(B, S - 1)):
        with pytest.raises(ValueError, match=r"^attention_mask "):
            model(encoder_outputs=outputs, attention_mask=mask, labels=random_ids(B, 2))
        with pytest.raises(ValueError, match=r"^attention_mask "):
            model.ctc_decode(encoder_outputs=outputs, attention_mask=mask)


@pytest.mark.parametrize("name", ["output_attention", "labls", "token_type_ids", "head_mask"])
def test_an_unknown_keyword_is_refused_by_its_name(model: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"no argument '{name}'"):
        model(**right_inputs(), **{name: None})
    with pytest.raises(TypeError, match=f"no argument '{name}'"):
        model.get_encoder()(random_ids(B, S), **{name: None})


def test_what_transformers_and_peft_pass_is_taken(model: Any) -> None:
    common = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
    model(**right_inputs(), **common, use_cache=False)
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        model(random_ids(B, S), labels=random_ids(B, T), num_items_in_batch=torch.tensor(5), **common)
    for kind in HEADS:
        built(kind, "gru", num_labels=2)(random_ids(B, S), **common, num_items_in_batch=3)


def wrap(model: nn.Module) -> Callable[..., Tensor]:
    return lambda ids, mask, decoder_ids: model(ids, mask, decoder_input_ids=decoder_ids, use_cache=False).logits


def test_nothing_is_looked_at_in_a_trace(cell: str, attention: str) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, cell, attention).requires_grad_(False)
    inputs = tuple(right_inputs().values())
    wanted = wrap(model)(*inputs)
    with warnings.catch_warnings(record=True) as caught:  # the trace says which shapes it takes for fixed
        warnings.simplefilter("always")
        traced = torch.jit.trace(wrap(model), inputs, check_trace=False)
    assert [warning for warning in caught if "checks.py" in warning.filename] == []
    torch.testing.assert_close(traced(*inputs), wanted)


CRASHES = {
    "labels of more rows than the source": "labels=torch.full((40, 3), 5)",
    "target vectors of another batch": "decoder_inputs_embeds=torch.randn(40, 3, 6)",
    "encoder_outputs of another batch": "decoder_input_ids=torch.full((40, 3), 5), input_ids=None, "
    "encoder_outputs=model.get_encoder()(torch.full((2, 4), 5))",
    "vectors of another width": "input_ids=None, inputs_embeds=torch.randn(2, 4, 7), labels=torch.full((2, 3), 5)",
}
PROGRAM = """
import torch
from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
for attention in ("none", "general"):
    for cell in ("lstm", "gru", "rnn_tanh"):
        model = RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(vocab_size=12, embedding_size=6,
            encoder_hidden_size=8, decoder_hidden_size=8, rnn_type=cell, attention_type=attention)).train()
        for _ in range(50):
            try:
                model(**{{"input_ids": torch.full((2, 4), 5), **dict({arguments})}}).loss.backward()
            except ValueError:
                continue
            raise SystemExit("not refused")
"""


@pytest.mark.parametrize("case", CRASHES)
def test_what_corrupted_memory_is_an_error(case: str) -> None:
    program = PROGRAM.format(arguments=CRASHES[case])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_export_keeps_a_free_batch() -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, "gru", encoder_layers=1, decoder_layers=1).requires_grad_(False)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, mask: Tensor, decoder_ids: Tensor) -> Tensor:
            return wrap(self.model)(ids, mask, decoder_ids)

    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    inputs = tuple(part[:, :2] for part in right_inputs().values())  # a graph has every step
    program = torch.export.export(Whole(), inputs, dynamic_shapes=(batch, batch, batch), strict=False)
    other = tuple(torch.cat([part, part.flip(0)]) for part in inputs)
    torch.testing.assert_close(program.module()(*other), wrap(model)(*other))


NO_TENSORS = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")


@pytest.mark.parametrize("name", NO_TENSORS)
@pytest.mark.parametrize("value", [[[4, 5]], "word", ones(B, S).numpy()], ids=["list", "text", "array"])
def test_what_is_no_tensor_is_refused_by_its_name(model: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} is .*, wanted a tensor"):
        model(**{**right_inputs(), "attention_mask": ones(B, S), name: value})


@pytest.mark.parametrize("name", ["input_ids", "decoder_input_ids"])
@pytest.mark.parametrize("training", [True, False])
def test_ids_of_no_symbol_are_refused(model: Any, name: str, training: bool) -> None:
    shape = (B, S) if name == "input_ids" else (B, T)
    for wrong, said in ((-1, "holds the id -1"), (12, "holds the id 12"), (0.5, "has type torch.float32")):
        ids = random_ids(*shape)
        ids = ids + 0.5 if wrong == 0.5 else ids.index_put((torch.tensor([1]), torch.tensor([1])), torch.tensor(wrong))
        with pytest.raises(ValueError, match=rf"^{name} (\(or labels\) )?{said}"):
            model.train(training)(**{**right_inputs(), name: ids})


def test_characters_and_classes_of_no_kind_are_refused() -> None:
    options = {"character_vocab_size": 7, "character_embedding_size": 4, "character_hidden_size": 6}
    model: Any = built(RnnSeq2SeqForConditionalGeneration, "gru", **options)
    inputs = {"input_ids": random_ids(B, S), "labels": random_ids(B, T), "attention_mask": ones(B, S)}
    inputs["attention_mask"][0, -1] = 0
    characters = ones(B, S, 3)
    characters[0, -1] = 99  # in the padding all is well
    model(**inputs, character_ids=characters)
    for wrong, said in ((characters - 2, "holds"), (characters + 6, "holds"), (characters + 0.5, "has type")):
        with pytest.raises(ValueError, match=f"^character_ids {said}"):
            model(**inputs, character_ids=wrong)
    with pytest.raises(TypeError, match=r"^character_ids is list"):
        model(**inputs, character_ids=[[[1]]])
    for kind in (RnnSeq2SeqForTokenClassification, RnnSeq2SeqForSequenceClassification):
        with pytest.raises(TypeError, match=r"^labels is list"):
            built(kind, "gru", num_labels=3)(random_ids(B, S), labels=[1] * B)


@pytest.mark.parametrize("training", [True, False])
def test_labels_are_integers(training: bool) -> None:
    model = built(RnnSeq2SeqForConditionalGeneration, "gru").train(training)
    with pytest.raises(ValueError, match=r"^labels has type torch.float32, wanted integers"):
        model(random_ids(B, S), labels=random_ids(B, T).float())
    with pytest.raises(TypeError, match=r"^labels is list, wanted a tensor"):
        model(random_ids(B, S), labels=[[4, 5]] * B)
