"""Ensembles against their members' distributions averaged here, and the mean of several checkpoints' weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from tiny import ALL, LIVELY, padded_batch, random_ids, tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, load_tokenizers, save_tokenizers, train_tokenizer
from hf_rnn_seq2seq.evaluation.decoding import decode, target_log_probabilities
from hf_rnn_seq2seq.evaluation.ensemble import RnnSeq2SeqEnsemble
from hf_rnn_seq2seq.evaluation.saved_model import average_models, load_ensemble


Model = RnnSeq2SeqForConditionalGeneration
# Other cells, sizes, depths and structures: structure 1 with attention, LSTM with GRU, input feeding with none.
TEAMS = [("sutskever", "bahdanau"), ("luong", "cho", "dot"), ("everything", "textbook")]
AVERAGES = ("probability", "log_probability")


def team(structures: tuple[str, ...], **options: int) -> list[Model]:
    return [tiny_model(structure, seed=seed, **options) for seed, structure in enumerate(structures)]


def inputs_of() -> dict[str, Tensor]:
    batch = padded_batch("left", [5, 2, 7], 7)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def mean_log_probabilities(models: list[Model], average: str, inputs: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Log of the mean distribution at every position, (B, T, V): whole runs of each member, without a cache."""
    with torch.no_grad():
        logits = [model(**inputs, decoder_input_ids=ids, use_cache=False).logits.float() for model in models]
    if average == "probability":
        return torch.stack([scores.softmax(-1) for scores in logits]).mean(0).log()
    # The geometric mean of distributions is the distribution of the mean logits.
    return torch.stack(logits).mean(0).log_softmax(-1)


@pytest.mark.parametrize("structure", ALL)
def test_an_ensemble_of_one_is_the_model(structure: str) -> None:
    model = tiny_model(structure)
    ensemble = RnnSeq2SeqEnsemble([model])
    options = {**inputs_of(), **LIVELY, "max_new_tokens": 8, "return_dict_in_generate": True, "output_logits": True}
    wanted, got = (m.generate(**options) for m in (model, ensemble))
    assert torch.equal(got.sequences, wanted.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(wanted.logits).log_softmax(-1))
    options |= {"num_beams": 4, "num_return_sequences": 3, "output_scores": True}
    wanted, got = (m.generate(**options) for m in (model, ensemble))
    assert torch.equal(got.sequences, wanted.sequences)
    torch.testing.assert_close(got.sequences_scores, wanted.sequences_scores)
    scores = [
        m.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
        for m, out in ((model, wanted), (ensemble, got))
    ]
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("structures", TEAMS, ids="-".join)
def test_each_step_takes_the_mean_distribution(structures: tuple[str, ...], average: str) -> None:
    models = team(structures)
    ensemble = RnnSeq2SeqEnsemble(models, average)
    inputs = inputs_of()
    out = ensemble.generate(**inputs, do_sample=False, max_new_tokens=7, eos_token_id=None,
                            return_dict_in_generate=True, output_logits=True)  # fmt: skip
    wanted = mean_log_probabilities(models, average, inputs, out.sequences[:, :-1])
    torch.testing.assert_close(torch.stack(out.logits, dim=1), wanted)
    assert torch.equal(out.sequences[:, 1:], wanted.argmax(-1))
    alone = [model.generate(**inputs, do_sample=False, max_new_tokens=7, eos_token_id=None) for model in models]
    assert not any(torch.equal(out.sequences, sequences) for sequences in alone)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("beams", [1, 4])
def test_copies_of_a_model_change_nothing(average: str, beams: int) -> None:
    model, copy = tiny_model("luong"), tiny_model("luong")
    options = {**inputs_of(), **LIVELY, "num_beams": beams, "max_new_tokens": 8}
    assert torch.equal(RnnSeq2SeqEnsemble([model, copy], average).generate(**options), model.generate(**options))


@pytest.mark.parametrize("structures", TEAMS, ids="-".join)
@pytest.mark.parametrize("beams", [1, 4])
def test_the_cache_changes_no_symbol(structures: tuple[str, ...], beams: int) -> None:
    ensemble = RnnSeq2SeqEnsemble(team(structures))
    options = {**inputs_of(), **LIVELY, "num_beams": beams, "max_new_tokens": 12}
    cached = ensemble.generate(**options)
    assert cached.shape[1] > 4
    assert torch.equal(ensemble.generate(**options, use_cache=False), cached)
    assert torch.equal(ensemble.generate(**options, cache_implementation="static"), cached)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("structures", TEAMS, ids="-".join)
def test_a_beam_that_holds_everything_is_exhaustive_search(structures: tuple[str, ...], average: str) -> None:
    symbols, steps = 5, 3
    models = team(structures, vocab_size=symbols)
    source = torch.tensor([[4, 0, 4, 2]])
    inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
    # All targets of full length in one run; those with an end symbol inside stand for the shorter one.
    targets = torch.tensor(list(itertools.product(range(symbols), repeat=steps)))
    rows = {name: value.expand(len(targets), -1) for name, value in inputs.items()}
    ids = torch.cat([torch.full((len(targets), 1), 2), targets[:, :-1]], dim=1)
    symbol_scores = mean_log_probabilities(models, average, rows, ids).gather(-1, targets[..., None]).squeeze(-1)
    hypotheses = {}
    for target, scores in zip(targets.tolist(), symbol_scores.tolist(), strict=True):
        length = target.index(3) + 1 if 3 in target else steps
        hypotheses[(*target[:length], *[1] * (steps - length))] = sum(scores[:length])
    ranked = sorted(hypotheses, key=lambda target: -hypotheses[target])

    out = RnnSeq2SeqEnsemble(models, average).generate(
        **inputs, num_beams=symbols**steps, num_return_sequences=len(ranked), max_new_tokens=steps,
        length_penalty=0.0, early_stopping="never", do_sample=False, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    torch.testing.assert_close(
        out.sequences_scores, torch.tensor([hypotheses[target] for target in ranked]), atol=1e-5, rtol=0
    )
    assert [tuple(row) for row in out.sequences[:20, 1:].tolist()] == ranked[:20]


def test_steps_can_be_undone() -> None:
    # Prompt-lookup decoding guesses symbols that stood in the source, and crops the cache where they were wrong.
    ensemble = RnnSeq2SeqEnsemble(team(("sutskever", "luong")))
    source = random_ids(1, 9)
    options = {"input_ids": source, "attention_mask": torch.ones_like(source), "do_sample": False}
    wanted = ensemble.generate(**options, max_new_tokens=20)
    assert torch.equal(ensemble.generate(**options, max_new_tokens=20, prompt_lookup_num_tokens=3), wanted)


def test_samples_have_the_mean_distribution() -> None:
    models, source = team(("luong", "cho")), random_ids(1, 5)
    drawn = RnnSeq2SeqEnsemble(models).generate(
        source, do_sample=True, top_k=0, num_return_sequences=4000, max_new_tokens=1
    )[:, 1]
    wanted = mean_log_probabilities(models, "probability", {"input_ids": source}, torch.tensor([[2]]))[0, 0].exp()
    torch.testing.assert_close(drawn.bincount(minlength=12) / 4000, wanted, atol=0.03, rtol=0)


def test_generation_goes_on_from_a_cache() -> None:
    ensemble, inputs = RnnSeq2SeqEnsemble(team(("sutskever", "bahdanau"))), inputs_of()
    options = {**inputs, "do_sample": False, "eos_token_id": None}
    first = ensemble.generate(**options, max_new_tokens=4, return_dict_in_generate=True)
    both = ensemble.generate(
        **options, decoder_input_ids=first.sequences, past_key_values=first.past_key_values, max_new_tokens=4
    )
    assert torch.equal(both, ensemble.generate(**options, max_new_tokens=8))


@pytest.mark.parametrize("average", AVERAGES)
def test_loss_and_logits_with_labels_are_those_of_the_mean_distribution(average: str) -> None:
    models, inputs = team(("sutskever", "bahdanau")), inputs_of()
    ensemble = RnnSeq2SeqEnsemble(models, average)
    labels = random_ids(3, 4)
    ids = torch.cat([torch.full((3, 1), 2), labels[:, :-1]], dim=1)
    wanted = mean_log_probabilities(models, average, inputs, ids)
    symbol_scores = wanted.gather(-1, labels[..., None]).squeeze(-1)
    labels[1, 2:] = -100
    output = ensemble(**inputs, labels=labels)
    torch.testing.assert_close(output.logits[[0, 2]].float(), wanted[[0, 2]])
    torch.testing.assert_close(output.loss.float(), -symbol_scores[labels != -100].mean())
    torch.testing.assert_close(ensemble(**inputs, labels=labels, num_items_in_batch=5).loss, output.loss * 10 / 5)
    torch.testing.assert_close(output.logits.exp().sum(-1), torch.ones(3, 4, dtype=torch.float64))


def test_a_split_is_decoded_and_scored_as_by_a_model() -> None:
    models = team(("luong", "cho"))
    ensemble = RnnSeq2SeqEnsemble(models)
    sources = [[4, 5, 3], [6, 3], [7, 8, 9, 10, 3]]
    search = GenerationConfig(num_beams=4, num_return_sequences=2, max_new_tokens=6, length_penalty=0.0,
                              pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2)  # fmt: skip
    together, alone = (decode(ensemble, sources, tiny_tokenizer(), search, size, with_scores=True) for size in (3, 1))
    for source, ranked, same in zip(sources, together, alone, strict=True):
        assert [h.tokens for h in ranked] == [h.tokens for h in same]
        assert [h.score for h in ranked] == pytest.approx([h.score for h in same])
        for hypothesis in ranked:
            target = [*hypothesis.tokens, 3]
            rows = mean_log_probabilities(
                models, "probability", {"input_ids": torch.tensor([source])}, torch.tensor([[2, *hypothesis.tokens]])
            )[0]
            wanted = rows[range(len(target)), target]
            assert hypothesis.score == pytest.approx(wanted.sum().item(), abs=1e-4)
            (scores,) = target_log_probabilities(ensemble, [source], [target])
            assert scores == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "name", "first", "second"),
    [
        ({"vocab_size": 14, "decoder_vocab_size": 12}, "vocab_size", "12", "14"),
        ({"decoder_vocab_size": 9}, "target_vocab_size", "12", "9"),
        ({"eos_token_id": 4}, "eos_token_id", "3", "4"),
        ({"pad_token_id": 0}, "pad_token_id", "1", "0"),
    ],
)
def test_members_of_other_vocabularies_are_refused(
    options: dict[str, int], name: str, first: str, second: str
) -> None:
    models = [tiny_model("luong"), tiny_model("luong"), tiny_model("cho", **options)]
    message = rf"agree on {name}: models\[0\] has {first}, models\[2\] has {second}"
    with pytest.raises(ValueError, match=message):
        RnnSeq2SeqEnsemble(models)


def test_what_makes_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="models: got none"):
        RnnSeq2SeqEnsemble([])
    with pytest.raises(ValueError, match="'probability' or 'log_probability'; got 'median'"):
        RnnSeq2SeqEnsemble([tiny_model()], "median")  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="save its members"):
        RnnSeq2SeqEnsemble([tiny_model()]).save_pretrained("anywhere")


def saved(directory: Path, model: Model, texts: str = "a b c d e f g h", target: str | None = None) -> Path:
    """A model's folder with tokenizers of twelve entries."""
    model.save_pretrained(str(directory))
    source_tokenizer, target_tokenizer = (
        None if words is None else train_tokenizer([words], TokenizerOptions("word")) for words in (texts, target)
    )
    assert source_tokenizer is not None
    save_tokenizers(directory, source_tokenizer, target_tokenizer)
    return directory


def test_saved_models_are_loaded_as_an_ensemble(tmp_path: Path) -> None:
    models = [model.float() for model in team(("sutskever", "bahdanau"))]
    models[0].generation_config.num_beams = 3
    folders = [saved(tmp_path / str(number), model) for number, model in enumerate(models)]
    # A call with padding leaves its mark in the tokenizer; that is no difference.
    tokenizer, _ = load_tokenizers(folders[1])
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=9)
    tokenizer.save_pretrained(folders[1])
    ensemble = load_ensemble(folders, average="log_probability")
    assert ensemble.average == "log_probability" and ensemble.generation_config.num_beams == 3
    assert ensemble.num_parameters() == sum(model.num_parameters() for model in models)
    options = {**inputs_of(), **LIVELY, "max_new_tokens": 8}
    wanted = RnnSeq2SeqEnsemble(models, "log_probability").generate(**options)
    assert torch.equal(ensemble.generate(**options), wanted)


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", tiny_model("luong"), target="a b c d e f g h")
    with pytest.raises(ValueError, match="directories: got none"):
        load_ensemble([])
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no config\.json"):
        load_ensemble([first, tmp_path / "nowhere"])
    larger = saved(tmp_path / "larger", tiny_model("luong", vocab_size=14), target="a b c d e f g h")
    with pytest.raises(ValueError, match=r"models\[0\] \(.*first\) has 12, models\[1\] \(.*larger\) has 14"):
        load_ensemble([first, larger])
    other_target = saved(tmp_path / "target", tiny_model("luong"), target="b a c d e f g i")
    one_tokenizer = saved(tmp_path / "one", tiny_model("luong"))
    for function in (load_ensemble, lambda folders: average_models(folders, tmp_path / "mean")):
        with pytest.raises(ValueError, match=r"target has another target_tokenizer.tokenizer.json than .*model"):
            function([first, other_target])
        with pytest.raises(ValueError, match=r"one has another target_tokenizer.tokenizer.json than .*first"):
            function([first, one_tokenizer])


def test_the_mean_of_weights_is_saved_as_a_model(tmp_path: Path) -> None:
    # "everything" shares embeddings and ties the output: one table under three names.
    models = [tiny_model("everything", dtype=torch.float32, seed=seed, hidden_dropout=seed / 10) for seed in range(3)]
    models[0].generation_config.num_beams = 3
    folders = [saved(tmp_path / str(number), model) for number, model in enumerate(models)]
    returned = average_models(folders, tmp_path / "mean")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "mean"))
    for model in (returned, loaded):
        parameters = dict(model.named_parameters())
        assert parameters.keys() == dict(models[0].named_parameters()).keys()
        for name, parameter in parameters.items():
            wanted = torch.stack([dict(member.named_parameters())[name].double() for member in models]).mean(0)
            torch.testing.assert_close(parameter.double(), wanted)
        assert model.generation_config.num_beams == 3
        torch.testing.assert_close(model.lm_head.weight, model.model.encoder.embed_tokens.weight)
    source, target = load_tokenizers(tmp_path / "mean")
    assert source is target and source.get_vocab() == load_tokenizers(folders[0])[0].get_vocab()


def test_only_checkpoints_of_one_model_have_a_mean(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", tiny_model("luong"))
    # The same parameters, but not the same model.
    other = saved(tmp_path / "other", tiny_model("luong", residual=True))
    with pytest.raises(ValueError, match=r"other has residual=True, .*first has False"):
        average_models([first, other], tmp_path / "mean")
    with pytest.raises(ValueError, match=r"output_dir: .*first is one of the models"):
        average_models([first, first], tmp_path / "first")
    assert not (tmp_path / "mean").exists()
