"""`model.alignments`: the attention of returned hypotheses is the one that generate() used to write them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import ATTENDING, LIVELY, padded_batch, random_ids, tiny_model
from torch import Tensor


def inputs_of() -> dict[str, Tensor]:
    batch = padded_batch("left", [5, 2, 7], 7)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def attention_while_decoding(out: Any, prompt_length: int = 1) -> Tensor:
    """(N, T, S) of each returned hypothesis, gathered through its beam's history; zero behind its end."""
    steps = [step[0][:, 0, -1] for step in out.cross_attentions]  # of (rows, S)
    rows = torch.zeros(out.sequences.shape[0], out.sequences.shape[1] - prompt_length, steps[0].shape[-1])
    for n in range(rows.shape[0]):
        for t in range(rows.shape[1]):
            beam = n if getattr(out, "beam_indices", None) is None else int(out.beam_indices[n, t])
            if beam >= 0 and out.sequences[n, t + prompt_length] != 1:
                rows[n, t] = steps[t][beam]
    return rows


@pytest.mark.parametrize("structure", ATTENDING)
@pytest.mark.parametrize(("beams", "returned"), [(1, 1), (4, 1), (5, 3)])
@pytest.mark.parametrize("sampled", [False, True], ids=["search", "sampled"])
def test_alignments_are_the_attention_used_while_decoding(
    structure: str, beams: int, returned: int, sampled: bool
) -> None:
    model, inputs = tiny_model(structure), inputs_of()
    options = {**LIVELY, "do_sample": sampled, "num_beams": beams, "num_return_sequences": returned}
    out = model.generate(
        **inputs, **options, max_new_tokens=7, output_attentions=True, return_dict_in_generate=True, output_scores=True
    )
    alignments = model.alignments(out.sequences, **inputs)
    assert alignments.shape == (3 * returned, out.sequences.shape[1] - 1, 7)
    torch.testing.assert_close(alignments.float(), attention_while_decoding(out), atol=1e-6, rtol=0)


@pytest.mark.parametrize("structure", ATTENDING)
def test_a_row_is_a_distribution_over_the_real_source_and_zero_behind_the_end(structure: str) -> None:
    model, inputs = tiny_model(structure), inputs_of()
    sequences = torch.cat([torch.full((3, 1), 2), random_ids(3, 4)], dim=1)
    sequences[1, 3:] = 1
    alignments = model.alignments(sequences, **inputs)
    written = sequences[:, 1:] != 1
    torch.testing.assert_close(alignments.sum(-1), written.double())
    assert (alignments.masked_select((inputs["attention_mask"] == 0)[:, None]) == 0).all()
    assert alignments[0].std(dim=0).max() > 1e-3  # it is another one at each step


@pytest.mark.parametrize("structure", ATTENDING)
def test_references_are_aligned_as_in_training(structure: str) -> None:
    model, inputs, labels = tiny_model(structure), inputs_of(), random_ids(3, 4)
    weights = model(**inputs, labels=labels, output_attentions=True).cross_attentions[0][:, 0]
    sequences = torch.cat([torch.full((3, 1), 2), labels], dim=1)
    torch.testing.assert_close(model.alignments(sequences, **inputs), weights)
    encoder_outputs = model.get_encoder()(**inputs)
    given = model.alignments(sequences, encoder_outputs=encoder_outputs, attention_mask=inputs["attention_mask"])
    torch.testing.assert_close(given, weights)
    # Without a mask, padding symbols are padding.
    padded = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 1)
    torch.testing.assert_close(model.alignments(sequences, padded), weights)


def test_without_a_padding_symbol_every_row_is_kept() -> None:
    model = tiny_model("luong", pad_token_id=None)
    alignments = model.alignments(torch.tensor([[2, 4, 1, 1]]), random_ids(1, 5))
    torch.testing.assert_close(alignments.sum(-1), torch.ones(1, 3, dtype=torch.float64))


def test_alignments_need_no_gradient_and_leave_the_encoder_outputs_alone() -> None:
    model, inputs = tiny_model("luong"), inputs_of()
    encoder_outputs = model.get_encoder()(**inputs)
    before = encoder_outputs.last_hidden_state.clone()
    sequences = torch.cat([torch.full((6, 1), 2), random_ids(6, 3)], dim=1)
    alignments = model.alignments(sequences, encoder_outputs=encoder_outputs)
    assert not alignments.requires_grad
    torch.testing.assert_close(encoder_outputs.last_hidden_state, before, rtol=0, atol=0)
    assert encoder_outputs.last_hidden_state.shape[0] == 3


def test_what_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(ValueError, match="attention_type='none'"):
        tiny_model("sutskever").alignments(random_ids(2, 3), random_ids(2, 4))
    with pytest.raises(ValueError, match="5 rows, wanted a multiple of the 2 sources"):
        tiny_model("luong").alignments(random_ids(5, 3), random_ids(2, 4))
