"""Vectors as input: the pyramid against a plain restatement, padding, and every head."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tiny import (
    LIVELY,
    PADDINGS,
    gradients,
    padding_mask,
    random_ids,
    randomize,
    tiny_config,
    tiny_model,
    trim,
)
from torch import Tensor, nn
from torch.nn import functional as F

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqEncoder,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)
from hf_rnn_seq2seq.model.subsampling import reduced_mask, reduction_plan


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
LENGTHS, WIDTH, STEPS, SIZE = [5, 2, 11, 1, 8], 11, 4, 3
# One without attention, one that reads all of the memory at once, one of everything that can go with vectors.
KINDS = ["sutskever", "every_step_mean", "luong", "everything"]
HEADS: list[type] = [
    RnnSeq2SeqModel,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqForSequenceClassification,
]


def vector_options(structure: str | None = None, **options: Any) -> dict[str, Any]:
    shared = {"share_embeddings": False} if structure == "everything" else {}
    return {"structure": structure, "input_feature_size": SIZE, **shared, **options}


def vector_model(structure: str | None = None, **options: Any) -> RnnSeq2SeqForConditionalGeneration:
    return tiny_model(**vector_options(structure, **options))


def features(kind: str, filling: float = float("nan")) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Vectors (5, 11, 3) with `filling` in the padding, their mask, and each source alone."""
    mask = padding_mask(kind, LENGTHS, WIDTH)
    clean = torch.randn(5, WIDTH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [row[real.bool()][None] for row, real in zip(clean, mask, strict=True)]
    return clean.masked_fill(mask[..., None] == 0, filling), mask, rows


@pytest.mark.parametrize(
    ("factor", "layers", "plan"),
    [(1, 3, (1, 1, 1)), (2, 1, (2,)), (2, 3, (1, 2, 1)), (4, 3, (1, 2, 2)), (8, 3, (2, 2, 2)), (8, 2, (4, 2))],
)
def test_pairs_from_the_second_layer_on_and_the_rest_before_the_first(
    factor: int, layers: int, plan: tuple[int, ...]
) -> None:
    assert reduction_plan(factor, layers) == plan


def pairs(x: Tensor, times: int) -> Tensor:
    """Of (S, D), neighbours side by side, `times` in all; zeros where the last group is not full."""
    missing = -len(x) % times
    x = torch.cat([x, x.new_zeros(missing, x.shape[1])])
    return torch.stack([torch.cat(list(x[i : i + times])) for i in range(0, len(x), times)])


@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize(("factor", "layers"), [(1, 2), (2, 2), (4, 2), (4, 3), (8, 3), (2, 1)])
def test_the_pyramid_equals_torchs_layers_on_pairs(rnn_type: str, factor: int, layers: int) -> None:
    config = tiny_config(rnn_type=rnn_type, time_reduction=factor, encoder_layers=layers, input_feature_size=SIZE)
    encoder = RnnSeq2SeqEncoder(config)
    randomize(encoder)
    encoder = encoder.double().eval()
    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}[rnn_type]
    x, mask, rows = features("right")
    out = encoder(input_features=x, attention_mask=mask)
    assert out.last_hidden_state.shape[:2] == out.mask.shape == (5, -(-WIDTH // factor))
    for row, alone in enumerate(rows):
        states = alone[0]
        for k, times in enumerate(reduction_plan(factor, layers)):
            states = pairs(states, times)
            layer = kind(states.shape[1], 4, bidirectional=True).double()
            layer.load_state_dict(
                {name: encoder.rnn.get_parameter(name.replace("l0", f"l{k}")) for name in layer.state_dict()}
            )
            states, final = layer(states)
            hidden = final[0] if rnn_type == "lstm" else final
            torch.testing.assert_close(out.final_hidden[row, k], hidden.flatten(), **TIGHT)
        assert out.mask[row].tolist() == [i < len(states) for i in range(out.mask.shape[1])]
        torch.testing.assert_close(out.last_hidden_state[row, : len(states)], states, **TIGHT)
        assert (out.last_hidden_state[row, len(states) :] == 0).all()


def test_the_reduced_mask_counts_what_is_real() -> None:
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert reduced_mask(mask, 2).int().tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(reduced_mask(reduced_mask(mask, 2), 2), reduced_mask(mask, 4))


@pytest.mark.parametrize("structure", KINDS)
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("factor", [1, 4])
def test_padding_and_nan_in_it_change_no_logits_loss_or_gradients(structure: str, kind: str, factor: int) -> None:
    model = vector_model(structure, time_reduction=factor)
    (x, mask, rows), labels = features(kind), random_ids(5, STEPS)
    out = model(input_features=x.requires_grad_(), attention_mask=mask, labels=labels)
    out.loss.backward()
    assert torch.isfinite(x.grad).all() and (x.grad[mask == 0] == 0).all()
    got = gradients(model)
    for row, source in enumerate(rows):
        alone = model(input_features=source, labels=labels[row : row + 1], num_items_in_batch=labels.numel())
        torch.testing.assert_close(out.logits[row], alone.logits[0], **TIGHT)
        alone.loss.backward()  # adds up over the rows
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("structure", KINDS)
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("beams", [1, 3])
def test_padding_changes_no_generated_symbol(structure: str, kind: str, beams: int) -> None:
    model, (x, mask, rows) = vector_model(structure, time_reduction=2), features(kind)
    options = {"num_beams": beams, "max_new_tokens": 6, **LIVELY}
    together = model.generate(x, attention_mask=mask, **options)
    encoder_outputs = model.get_encoder()(input_features=x, attention_mask=mask)
    for given in ({"attention_mask": mask}, {}):  # the output carries the mask of the memory
        again = model.generate(encoder_outputs=type(encoder_outputs)(**encoder_outputs), **given, **options)
        assert again.tolist() == together.tolist()
    for row, source in enumerate(rows):
        assert trim(together[row]) == trim(model.generate(input_features=source, **options)[0])


def test_alignments_are_over_the_positions_of_the_memory() -> None:
    model, (x, mask, _) = vector_model("luong", time_reduction=4), features("interior")
    sequences = model.generate(x, attention_mask=mask, num_beams=2, num_return_sequences=2, max_new_tokens=5, **LIVELY)
    weights = model.alignments(sequences, input_features=x, attention_mask=mask)
    assert weights.shape == (10, sequences.shape[1] - 1, 3)
    reduced = torch.tensor([[i < -(-n // 4) for i in range(3)] for n in LENGTHS]).repeat_interleave(2, 0)
    assert (weights[:, 0][~reduced] == 0).all() and (weights[:, 0][reduced] > 0).all()


@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("use_crf", [False, True])
def test_each_vector_gets_a_label(kind: str, use_crf: bool) -> None:
    model = RnnSeq2SeqForTokenClassification(tiny_config(input_feature_size=SIZE, num_labels=3, use_crf=use_crf))
    randomize(model)
    model = model.double().eval()
    (x, mask, rows), labels = features(kind), torch.randint(0, 3, (5, WIDTH))
    out = model(input_features=x, attention_mask=mask, labels=labels)
    decoded = model.decode(input_features=x, attention_mask=mask)
    total = torch.zeros((), dtype=torch.float64)
    for row, source in enumerate(rows):
        real = mask[row].bool()
        alone = model(input_features=source, labels=labels[row : row + 1, real])
        torch.testing.assert_close(out.logits[row, real], alone.logits[0], **TIGHT)
        assert decoded[row, real].tolist() == model.decode(input_features=source)[0].tolist()
        total = total + alone.loss * int(real.sum())
    torch.testing.assert_close(out.loss, total / mask.sum(), **TIGHT)


@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_a_sequence_of_vectors_gets_one_label(kind: str, pooling: str) -> None:
    config = tiny_config(input_feature_size=SIZE, time_reduction=4, num_labels=3, classifier_pooling=pooling)
    model = RnnSeq2SeqForSequenceClassification(config)
    randomize(model)
    model, (x, mask, rows) = model.double().eval(), features(kind)
    logits = model(input_features=x, attention_mask=mask).logits
    for row, source in enumerate(rows):
        torch.testing.assert_close(logits[row], model(input_features=source).logits[0], **TIGHT)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_names_its_inputs_and_runs_on_its_dummy_ones(head: type) -> None:
    # Trainer drops the columns that a signature does not name; generate() and Trainer ask for main_input_name.
    assert {"input_features", "attention_mask"} <= set(inspect.signature(head.forward).parameters)
    model = head(tiny_config(input_feature_size=SIZE))
    assert model.main_input_name == "input_features"
    model(**model.dummy_inputs)
    if head is not RnnSeq2SeqForSpeechSeq2Seq:
        assert head(tiny_config()).main_input_name == "input_ids"


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("factor", [1, 4])
def test_activation_checkpointing_gives_equal_gradients(reentrant: bool, factor: int) -> None:
    model, (x, mask, _), labels = vector_model(time_reduction=factor).train(), features("left"), random_ids(5, STEPS)
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        loss = model(input_features=x, attention_mask=mask, labels=labels).loss
        loss.backward()
        results.append({"loss": loss.detach(), **gradients(model)})
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT)
    assert results[1]["model.encoder.rnn.weight_ih_l0"].abs().sum() > 0


def test_hidden_states_come_out_in_the_length_of_their_layer() -> None:
    model, (x, mask, _) = vector_model(time_reduction=4), features("interior", 0.0)
    states = model.get_encoder()(input_features=x, attention_mask=mask, output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in states] == [(5, 11, 3), (5, 6, 8), (5, 3, 8)]


def test_one_vocabulary_is_the_targets() -> None:
    model = vector_model()
    assert model.get_input_embeddings() is model.get_decoder().embed_tokens
    assert not any("embed_tokens" in name for name in model.get_encoder().state_dict())
    model.resize_token_embeddings(15)
    assert model.config.vocab_size == 15
    assert model.get_decoder().embed_tokens.num_embeddings == model.lm_head.out_features == 15
    with pytest.raises(NotImplementedError):
        RnnSeq2SeqForSequenceClassification(model.config).get_input_embeddings()


def test_an_encoder_of_vectors_goes_into_a_classifier(tmp_path: Any) -> None:
    whole = vector_model()
    whole.save_pretrained(tmp_path)
    part, info = RnnSeq2SeqForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"} and not info["unexpected_keys"]
    x, mask, _ = features("left")
    wanted = whole.get_encoder()(input_features=x, attention_mask=mask).last_hidden_state
    got = part.double().get_encoder()(input_features=x, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_feature_size": 0}, "input_feature_size must be at least 1; got 0"),
        (
            {"time_reduction": 2},
            "time_reduction=2.*vectors is made shorter: give input_feature_size",
        ),
        ({"input_feature_size": 3, "time_reduction": 6}, "time_reduction must be 1, 2, 4, 8 .*; got 6"),
        ({"input_feature_size": 3, "time_reduction": 0}, "time_reduction must be 1, 2, 4, 8 .*; got 0"),
        ({"input_feature_size": 3, "ctc_weight": 1.5}, "ctc_weight must be at least 0 and at most 1; got 1.5"),
        ({"ctc_weight": 0.5}, "ctc_weight=0.5.*for a model that reads vectors"),
        ({"input_feature_size": 3, "ctc_weight": 0.5, "pad_token_id": None}, "needs a blank, which is pad_token_id"),
        (
            {"input_feature_size": 3, "share_embeddings": True},
            "share_embeddings=True.*leave share_embeddings out",
        ),
        ({"input_feature_size": 3, "use_copy": True}, "use_copy=True.*leave use_copy out"),
    ],
)
def test_options_that_cannot_work_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        RnnSeq2SeqConfig(**options)


def test_wrong_inputs_are_refused_by_name() -> None:
    model, x, ids = vector_model(), torch.randn(2, 4, SIZE, dtype=torch.float64), random_ids(2, 3)
    with pytest.raises(ValueError, match=r"reads vectors \(input_feature_size=3\): give it input_features"):
        model(ids, decoder_input_ids=ids)
    with pytest.raises(ValueError, match=r"input_features has shape \(2, 4, 5\), wanted \(batch, length, 3\)"):
        model(input_features=F.pad(x, (0, 2)), decoder_input_ids=ids)
    with pytest.raises(ValueError, match="the source is empty"):
        model(input_features=x[:, :0], decoder_input_ids=ids)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\), wanted \(2, 4\)"):
        model(input_features=x, attention_mask=torch.ones(2, 3), decoder_input_ids=ids)
    with pytest.raises(ValueError, match="got input_features, but the model reads token ids"):
        tiny_model()(input_features=x, decoder_input_ids=ids)
    with pytest.raises(ValueError, match=r"one label per input vector needs .* set time_reduction=1"):
        RnnSeq2SeqForTokenClassification(tiny_config(input_feature_size=SIZE, time_reduction=2))
