"""Copying words from outside the vocabulary: what the model makes of slots. Eq. 9 itself is in `test_copying.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import gradients, random_ids, tiny_model
from torch import Tensor
from torch.nn import functional as F

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqEnsemble


Model = RnnSeq2SeqForConditionalGeneration
TIGHT = {"atol": 1e-10, "rtol": 1e-8}
STRUCTURES: dict[str, dict[str, Any]] = {
    "pointer": {"rnn_type": "gru", "attention_type": "general", "readout_type": "none"},
    "see": {"rnn_type": "lstm", "attention_type": "additive", "coverage": True},
    "fed": {"rnn_type": "gru", "attention_type": "general", "attention_query": "previous_state",
            "input_feeding": True, "context_feeding": "both", "share_embeddings": True, "tie_word_embeddings": True,
            "readout_type": "maxout"},
}  # fmt: skip


def known(ids: Tensor) -> Tensor:
    return ids.masked_fill(ids >= 9, 0)


def slotted(structure: str = "pointer", **options: Any) -> Model:
    """A model whose ids 9, 10 and 11 are slots."""
    return tiny_model(**{"use_copy": True, "vocab_size": 9, "copy_slots": 3, **STRUCTURES[structure], **options})


SOURCES = torch.tensor([[5, 9, 10, 9, 3, 1, 1], [11, 8, 11, 4, 6, 7, 3], [4, 5, 3, 1, 1, 1, 1]])
LABELS = torch.tensor([[9, 9, 5, 10, 3], [8, 0, 11, 3, -100], [4, 0, 3, -100, -100]])


def test_a_slot_that_its_source_does_not_have_is_impossible_whatever_stands_in_the_padding() -> None:
    model, target = slotted("see"), random_ids(3, 4, vocab_size=9)
    mask = (SOURCES != 1).long()
    logits = model(SOURCES.masked_fill(mask == 0, 10), mask, decoder_input_ids=target).logits
    torch.testing.assert_close(logits, model(SOURCES, decoder_input_ids=target).logits, **TIGHT)
    possible = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    assert torch.equal(logits[..., 9:].exp() > 0, possible[:, None].expand(3, 4, 3))
    assert torch.isfinite(logits).all() and logits.shape == (3, 4, 12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_slot_is_read_as_the_unknown_symbol_and_takes_what_that_would_get(structure: str) -> None:
    model, target = slotted(structure), random_ids(3, 4)
    plain = slotted(structure, copy_slots=0)
    plain.load_state_dict(model.state_dict())  # slots have no weights
    got = model(SOURCES, decoder_input_ids=target).logits.exp()
    wanted = plain(known(SOURCES), decoder_input_ids=known(target)).logits.exp()
    torch.testing.assert_close(got[..., 1:9], wanted[..., 1:], **TIGHT)
    torch.testing.assert_close(got[..., 0] + got[..., 9:].sum(-1), wanted[..., 0], **TIGHT)
    assert (got[:2, :, 9:].sum(-1) > 0).all()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_that_are_slots_train_the_same_in_chunks_and_padded(structure: str, smoothing: float) -> None:
    model = slotted(structure, label_smoothing=smoothing, coverage=False).train()
    out = model(SOURCES, labels=LABELS, skip_logits=False)
    real = LABELS != -100
    rows = out.logits[real]
    right = rows.gather(1, LABELS[real][:, None]).sum()
    wanted = -((1 - smoothing) * right + smoothing * rows[:, :9].mean(-1).sum()) / real.sum()
    torch.testing.assert_close(out.loss, wanted, **TIGHT)
    out.loss.backward()
    grads = gradients(model)
    assert all((grads[name] != 0).any() for name in grads if "generation_gate" in name or "attention" in name)
    model(SOURCES, labels=LABELS).loss.backward()
    for name, got in gradients(model).items():
        torch.testing.assert_close(got, grads[name], **TIGHT, msg=lambda text, name=name: f"{name}: {text}")
    wide = F.pad(SOURCES, (2, 1), value=11)  # a slot in the padding
    mask = F.pad((SOURCES != 1).long(), (2, 1))
    torch.testing.assert_close(model(wide, mask, labels=LABELS).loss, wanted, **TIGHT)


def test_training_on_drawn_slots_has_finite_gradients() -> None:
    model = slotted("fed").train()
    model.teacher_forcing_ratio = 0.0
    with torch.no_grad():
        model.model.decoder.generation_gate.bias.fill_(-60)  # it copies
    read: list[Tensor] = []
    model.model.decoder.embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0]))
    loss = model(torch.tensor([[9, 10]]), labels=torch.tensor([[4, 10, 9, 5]])).loss
    loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    assert [ids.tolist() for ids in read[1:]] == [[[0]]] * 3


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("beams", [1, 3])
def test_slots_are_generated_as_by_transformers(structure: str, beams: int) -> None:
    model = slotted(structure)
    with torch.no_grad():
        model.model.decoder.generation_gate.bias.fill_(-3)
    options = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 8, "return_dict_in_generate": True,
               "output_scores": True, "do_sample": False}  # fmt: skip
    ours = model.generate(SOURCES, **options)
    model.use_fast_generation = False
    stock = model.generate(SOURCES, **options)
    assert torch.equal(ours.sequences, stock.sequences)
    torch.testing.assert_close(ours.scores, stock.scores, **TIGHT)
    for row, sequence in enumerate(ours.sequences):
        slots = set(sequence.tolist()) & {9, 10, 11}
        assert slots <= set(SOURCES[row // beams].tolist())
    assert (ours.sequences >= 9).any()
    prompts = torch.tensor([[2, 9], [2, 11], [2, 4]])
    wanted = model.generate(SOURCES, decoder_input_ids=prompts, **options).sequences
    model.use_fast_generation = True
    assert torch.equal(model.generate(SOURCES, decoder_input_ids=prompts, **options).sequences, wanted)


def test_a_trained_model_can_be_given_slots_and_another_vocabulary(tmp_path: Path) -> None:
    trained = slotted(copy_slots=0)
    trained.save_pretrained(tmp_path)
    model = Model.from_pretrained(tmp_path, copy_slots=3, dtype=torch.float64)
    ids = random_ids(2, 5, vocab_size=9)
    logits = model(ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(logits[..., :9], trained(ids, decoder_input_ids=ids).logits, **TIGHT)
    assert (logits[..., 9:].exp() == 0).all()
    model.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).config.copy_slots == 3
    model.resize_token_embeddings(20)
    copied = model(torch.tensor([[5, 20, 21]]), decoder_input_ids=torch.tensor([[2, 20]])).logits.exp()
    assert copied.shape == (1, 2, 23) and (copied[..., [20, 21]] > 0).all() and (copied[..., 22] == 0).all()
    torch.testing.assert_close(copied.sum(-1), torch.ones(1, 2, dtype=torch.float64), **TIGHT)


def test_an_ensemble_copies_unknown_words_if_all_members_do() -> None:
    members = [slotted("see"), slotted("fed", seed=1)]
    target = random_ids(3, 4)
    for average in ("probability", "log_probability"):
        logits = RnnSeq2SeqEnsemble(members, average)(SOURCES, decoder_input_ids=target).logits
        torch.testing.assert_close(logits.exp().sum(-1), torch.ones(3, 4, dtype=torch.float64), **TIGHT)
        assert (logits[2, :, 9:].exp() == 0).all() and (logits[0, :, 9:11].exp() > 0).all()
    sequences = RnnSeq2SeqEnsemble(members).generate(SOURCES, num_beams=2, max_new_tokens=6)
    assert sequences.shape[0] == 3 and (sequences < 12).all()
    with pytest.raises(ValueError, match=r"agree on copy_slots: .* has 3, .* has 0"):
        RnnSeq2SeqEnsemble([members[0], slotted(copy_slots=0)])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[5, 12]]}, r"input_ids holds the id 12, wanted less than 12: vocab_size=9 and copy_slots=3"),
        ({"decoder_input_ids": [[2, 14]]}, r"decoder_input_ids \(or labels\) holds the id 14"),
        ({"labels": [[5, 9]]}, r"labels\[0, 1\] is 9, a slot .* does not occur in input_ids\[0\].*unk_token_id=0"),
        ({"labels": [[10, 12]]}, r"labels\[0, 1\] is 12"),
    ],
)
def test_ids_that_stand_for_nothing_are_refused(inputs: dict[str, Any], message: str) -> None:
    given = {"input_ids": torch.tensor([[5, 10]]), **{name: torch.tensor(ids) for name, ids in inputs.items()}}
    if "labels" not in given:
        given.setdefault("decoder_input_ids", torch.tensor([[2, 5]]))
    with pytest.raises(ValueError, match=message):
        slotted()(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_copy": True, "copy_slots": -1}, "copy_slots must be at least 0; got -1"),
        ({"copy_slots": 2}, "copy_slots=2, use_copy=False: .* set use_copy=True, or copy_slots=0"),
        ({"use_copy": True, "copy_slots": 2, "unk_token_id": None}, "unk_token_id=None: .* give an unk_token_id"),
    ],
)
def test_slots_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError) as refused:
        RnnSeq2SeqConfig(**options)
    assert re.search(message, str(refused.value.__cause__))
