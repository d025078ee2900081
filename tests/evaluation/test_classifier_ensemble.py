"""Ensembles of classifiers: the mean of probabilities, and for CRFs the mean of the log p of all label sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_crf import all_sequences, log_probabilities
from test_heads import LABELS, inputs_of, tiny_classifier, tiny_tagger
from tiny import randomize
from torch import Tensor

from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, save_tokenizers, train_tokenizer
from hf_rnn_seq2seq.evaluation.ensemble import (
    RnnSeq2SeqSequenceClassificationEnsemble,
    RnnSeq2SeqTokenClassificationEnsemble,
)
from hf_rnn_seq2seq.evaluation.saved_model import average_models, load_ensemble


OTHER: dict[str, Any] = {"rnn_type": "gru", "encoder_layers": 1, "encoder_hidden_size": 6}


def team(make: Any, **options: Any) -> list[Any]:
    """Two models of other sizes, cells and weights."""
    models = [make(**options), make(**options, **OTHER)]
    randomize(models[1], seed=1)
    return models


def probabilities(model: Any) -> Tensor:
    return model(**inputs_of()).logits.softmax(-1)


@torch.no_grad()
def test_the_probabilities_of_taggers_are_averaged() -> None:
    models, mask = team(tiny_tagger), inputs_of()["attention_mask"].bool()
    ensemble = RnnSeq2SeqTokenClassificationEnsemble(models)
    wanted = (probabilities(models[0]) + probabilities(models[1])) / 2
    torch.testing.assert_close(ensemble.probabilities(**inputs_of())[mask], wanted[mask])
    labels = ensemble.decode(**inputs_of())
    assert torch.equal(labels[mask], wanted.argmax(-1)[mask]) and bool((labels[~mask] == -100).all())
    assert not any(torch.equal(labels, model.decode(**inputs_of())) for model in models)


@torch.no_grad()
def test_taggers_with_a_crf_take_the_mean_log_probability_of_label_sequences() -> None:
    models, inputs = team(tiny_tagger, use_crf=True), inputs_of()
    ensemble = RnnSeq2SeqTokenClassificationEnsemble(models)
    labels, marginals = ensemble.decode(**inputs), ensemble.probabilities(**inputs)
    differs = False
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        length = min(int(mask.sum()), 5)
        ids = inputs["input_ids"][row][mask][:length][None]
        log_p = [
            log_probabilities(model.crf, model.classifier(model.model(ids).last_hidden_state)[0]) for model in models
        ]
        mean = torch.stack(log_p).mean(0).log_softmax(0)  # of all label sequences
        sequences = torch.tensor(all_sequences(length, LABELS))
        best = sequences[mean.argmax()]
        assert torch.equal(ensemble.decode(ids)[0], best)
        wanted = torch.stack([(sequences == label).double().T @ mean.exp() for label in range(LABELS)], dim=1)
        torch.testing.assert_close(ensemble.probabilities(ids)[0], wanted)
        differs = differs or any(not torch.equal(best, sequences[p.argmax()]) for p in log_p)
        if length == mask.sum():  # and padding changes nothing
            assert torch.equal(labels[row][mask], best) and bool((labels[row][~mask] == -100).all())
            torch.testing.assert_close(marginals[row][mask], wanted)
            assert not marginals[row][~mask].any()
    assert differs


@torch.no_grad()
def test_the_probabilities_of_classifiers_are_averaged() -> None:
    models = team(tiny_classifier)
    wanted = (probabilities(models[0]) + probabilities(models[1])) / 2
    torch.testing.assert_close(RnnSeq2SeqSequenceClassificationEnsemble(models)(**inputs_of()).logits.exp(), wanted)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "ensemble"),
    [
        (tiny_tagger, RnnSeq2SeqTokenClassificationEnsemble),
        (tiny_classifier, RnnSeq2SeqSequenceClassificationEnsemble),
    ],
)
def test_values_are_averaged_in_the_users_units(kind: Any, ensemble: Any) -> None:
    models = team(kind, problem_type="regression")
    for number, model in enumerate(models):
        model.output_scale.fit(torch.tensor([[1.0], [3.0 + number]]).expand(2, LABELS))
    wanted = (models[0](**inputs_of()).logits + models[1](**inputs_of()).logits) / 2
    torch.testing.assert_close(ensemble(models)(**inputs_of()).logits, wanted)
    with pytest.raises(TypeError, match="labels: an ensemble of classifiers has no loss"):
        ensemble(models)(**inputs_of(), labels=wanted)


@pytest.mark.parametrize("use_crf", [False, True])
def test_an_ensemble_of_one_is_the_model(use_crf: bool) -> None:
    model = tiny_tagger(use_crf=use_crf)
    ensemble = RnnSeq2SeqTokenClassificationEnsemble([model])
    assert torch.equal(ensemble.decode(**inputs_of()), model.decode(**inputs_of()))
    torch.testing.assert_close(ensemble.probabilities(**inputs_of()), model.probabilities(**inputs_of()))
    assert ensemble.num_parameters() == model.num_parameters()


def test_what_makes_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="models: got none"):
        RnnSeq2SeqTokenClassificationEnsemble([])
    with pytest.raises(ValueError, match=r"agree on use_crf: models\[0\] has False, models\[1\] has True"):
        RnnSeq2SeqTokenClassificationEnsemble([tiny_tagger(), tiny_tagger(use_crf=True)])
    other = tiny_classifier()
    other.config.id2label = {number: f"other {number}" for number in range(LABELS)}
    with pytest.raises(ValueError, match=r"agree on id2label: models\[0\] has .*models\[1\] has .*other 0"):
        RnnSeq2SeqSequenceClassificationEnsemble([tiny_classifier(), other])
    several = {"problem_type": "multi_label_classification"}
    with pytest.raises(ValueError, match="gives one label a sequence or values, got models of several labels"):
        RnnSeq2SeqSequenceClassificationEnsemble([tiny_classifier(**several)])
    with pytest.raises(ValueError, match="gives each vector one label or values, got models of several labels"):
        RnnSeq2SeqTokenClassificationEnsemble([tiny_tagger(**several)])
    with pytest.raises(ValueError, match="forward is for members that give values"):
        RnnSeq2SeqTokenClassificationEnsemble([tiny_tagger()])(**inputs_of())
    with pytest.raises(NotImplementedError, match="save its members"):
        RnnSeq2SeqSequenceClassificationEnsemble([tiny_classifier()]).save_pretrained("anywhere")


def test_saved_classifiers_are_loaded_as_an_ensemble_or_averaged(tmp_path: Path) -> None:
    models = [tiny_tagger(torch.float32, use_crf=True) for _ in range(2)]
    randomize(models[1], seed=1)
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, model in zip(folders, models, strict=True):
        model.save_pretrained(str(folder))
        save_tokenizers(folder, train_tokenizer(["a b c d e f g h"], TokenizerOptions("word")), None)
    ensemble = load_ensemble(folders, RnnSeq2SeqTokenClassificationEnsemble)
    wanted = RnnSeq2SeqTokenClassificationEnsemble(models).decode(**inputs_of())
    assert torch.equal(ensemble.decode(**inputs_of()), wanted)
    mean = average_models(folders, tmp_path / "mean", type(models[0]))
    for name, parameter in type(models[0]).from_pretrained(str(tmp_path / "mean")).named_parameters():
        torch.testing.assert_close(parameter, (models[0].get_parameter(name) + models[1].get_parameter(name)) / 2)
    assert type(mean) is type(models[0])
    models[1].config.id2label = {number: f"other {number}" for number in range(LABELS)}
    models[1].save_pretrained(str(folders[1]))
    with pytest.raises(ValueError, match=r"has id2label=.*only checkpoints of one model have a mean"):
        average_models(folders, tmp_path / "none", type(models[0]))
