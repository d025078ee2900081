"""What transformers' `generate()` leaves to an encoder-decoder: sources without a mask, and two vocabularies."""

import pytest
import torch
from tiny import ALL, ATTENDING, LIVELY, padded_batch, random_ids, tiny_model

from hf_rnn_seq2seq.evaluation import RnnSeq2SeqEnsemble


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("structure", sorted(ALL))
def test_padding_symbols_without_a_mask_are_padding_for_generate_too(structure: str, num_beams: int) -> None:
    model = tiny_model(structure)
    options = {**LIVELY, "num_beams": num_beams, "num_return_sequences": num_beams, "max_new_tokens": 6}
    batch = padded_batch("right", [5, 2, 4], width=5)
    input_ids = batch.input_ids.masked_fill(batch.attention_mask == 0, model.config.pad_token_id)
    expected = model.generate(input_ids, attention_mask=batch.attention_mask, **options)
    torch.testing.assert_close(model.generate(input_ids, **options), expected)


@pytest.mark.parametrize("beams", [None, 3])
@pytest.mark.parametrize("is_ensemble", [False, True])
def test_a_count_that_is_none_is_not_given(beams: int | None, is_ensemble: bool) -> None:
    """Programs hand on None for a flag that was not given: then the saved configuration says how many."""
    model = RnnSeq2SeqEnsemble([tiny_model("luong")] * 2) if is_ensemble else tiny_model("luong")
    model.generation_config.num_beams = beams
    source = padded_batch("right", [5, 2, 4], width=5).input_ids
    got = model.generate(source, num_beams=None, num_return_sequences=None, **LIVELY)
    torch.testing.assert_close(got, model.generate(source, num_beams=beams or 1, **LIVELY))


@pytest.mark.parametrize("structure", ATTENDING)
def test_encoder_outputs_bring_their_mask_along(structure: str) -> None:
    model = tiny_model(structure)
    batch = padded_batch("interior", [5, 2, 4], width=6)
    encoder_outputs = model.get_encoder()(batch.input_ids, batch.attention_mask)
    as_tuple = model.get_encoder()(batch.input_ids, batch.attention_mask, return_dict=False)
    target = random_ids(3, 4)
    expected = model(batch.input_ids, batch.attention_mask, decoder_input_ids=target).logits
    for given in (encoder_outputs, as_tuple):
        torch.testing.assert_close(model(encoder_outputs=given, decoder_input_ids=target).logits, expected)


@pytest.mark.parametrize("decoder_vocab_size", [9, 17])  # fewer and more symbols than the source's 12
@pytest.mark.parametrize("num_beams", [1, 3])
def test_transition_scores_are_the_log_probabilities_of_the_symbols(decoder_vocab_size: int, num_beams: int) -> None:
    model = tiny_model("luong", decoder_vocab_size=decoder_vocab_size)
    batch = padded_batch("right", [5, 2, 4], width=5)
    out = model.generate(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        do_sample=False,
        max_new_tokens=5,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = model.compute_transition_scores(
        out.sequences, out.scores, out.get("beam_indices"), normalize_logits=num_beams == 1
    )
    sources = [tensor.repeat_interleave(num_beams, 0) for tensor in (batch.input_ids, batch.attention_mask)]
    logits = model(*sources, decoder_input_ids=out.sequences[:, :-1]).logits
    expected = logits.log_softmax(-1).gather(2, out.sequences[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(scores, expected.to(scores.dtype))
