"""Ensembles of speech models: joint decoding by the mean of the members' scores, against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from test_ctc import all_texts
from test_speech_model import END, SIZE, SUPPRESS, batch, speech_model
from tiny import randomize, trim
from torch import Tensor

from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqSpeechEnsemble
from hf_rnn_seq2seq.model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq


def team(**options: float) -> list[RnnSeq2SeqForSpeechSeq2Seq]:
    """Two models that reduce time by different factors."""
    models = [speech_model(**options), speech_model(**options, time_reduction=1, rnn_type="gru", encoder_layers=1)]
    randomize(models[1], seed=1)
    return models


def attention_log_p(models: list[RnnSeq2SeqForSpeechSeq2Seq], source: Tensor, text: tuple[int, ...]) -> float:
    target = torch.tensor([[2, *text, END]])
    p = [model(input_features=source, decoder_input_ids=target[:, :-1]).logits.softmax(-1) for model in models]
    return torch.stack(p).mean(0).log().gather(-1, target[:, 1:, None]).sum().item()


@pytest.mark.parametrize("weight", [0.3, 1.0])
@torch.no_grad()
def test_a_wide_beam_finds_what_exhaustive_search_finds(weight: float) -> None:
    models = team(vocab_size=6, ctc_weight=weight)
    source = torch.randn(1, 5, SIZE, dtype=torch.float64)
    # A text's score is the members' mean: that of its prefixes telescopes.
    memories = [model.get_encoder()(input_features=source).last_hidden_state[0] for model in models]
    ctc = [all_texts(model.ctc_head(memory)) for model, memory in zip(models, memories, strict=True)]
    scores = {}
    for length in range(4):  # three positions of the shorter memory write three symbols at most
        for text in itertools.product([4, 5], repeat=length):
            if all(texts[text] > 0 for texts in ctc):
                joint = sum(float(np.log(texts[text])) for texts in ctc) / 2
                scores[text] = weight * joint + (1 - weight) * attention_log_p(models, source, text)
    wanted = sorted(scores.items(), key=lambda item: -item[1])[:6]
    found = RnnSeq2SeqSpeechEnsemble(models).generate(
        source, num_beams=20, num_return_sequences=6, max_new_tokens=6, length_penalty=0.0, early_stopping="never",
        return_dict_in_generate=True, output_scores=True, **SUPPRESS,
    )  # fmt: skip
    assert [tuple(trim(s)[1:-1]) for s in found.sequences] == [text for text, _ in wanted]
    torch.testing.assert_close(found.sequences_scores.tolist(), [score for _, score in wanted], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"ctc_weight": 0.7}, {"ctc_weight": 0.0}, {"num_beams": 1}])
def test_an_ensemble_of_one_and_of_copies_is_the_model(options: dict[str, float]) -> None:
    (inputs, _), model = batch("interior"), speech_model()
    model.generation_config.ctc_weight = 0.4
    search = {"num_beams": 3, "max_new_tokens": 6, **options}
    wanted = model.generate(**inputs, **search)
    for copies in (1, 2):
        ensemble = RnnSeq2SeqSpeechEnsemble([model, speech_model()][:copies])
        assert torch.equal(ensemble.generate(**inputs, **search), wanted)


def test_what_makes_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a CTC branch all or none, got ctc_weight \[0\.3, 0\.0\]"):
        RnnSeq2SeqSpeechEnsemble([speech_model(), speech_model(ctc_weight=0.0)])
    with pytest.raises(ValueError, match="agree on input_feature_size"):
        RnnSeq2SeqSpeechEnsemble([speech_model(), speech_model(input_feature_size=5)])
    with pytest.raises(ValueError, match="ctc_weight must be at least 0 and at most 1; got 2"):
        RnnSeq2SeqSpeechEnsemble([speech_model()]).generate(**batch()[0], ctc_weight=2)
