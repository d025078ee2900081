"""The speech model: both losses, joint decoding against exhaustive search, padding, saving, and that it learns."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_ctc import all_texts
from tiny import PADDINGS, gradients, padding_mask, random_ids, randomize, tiny_config, trim
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSpeechSeq2Seq, GenerationConfig

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForSpeechSeq2Seq


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
LENGTHS, WIDTH, SIZE, END = [9, 4, 13, 6], 13, 3, 3
SUPPRESS = {"suppress_tokens": [0, 1, 2]}


def speech_model(dtype: torch.dtype = torch.float64, **options: Any) -> RnnSeq2SeqForSpeechSeq2Seq:
    config = tiny_config(**{"input_feature_size": SIZE, "time_reduction": 2, "ctc_weight": 0.3, **options})
    model = RnnSeq2SeqForSpeechSeq2Seq(config)
    randomize(model)
    return model.to(dtype).eval()


def batch(kind: str = "right", dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Sources with NaN in their padding, and each of them alone."""
    mask = padding_mask(kind, LENGTHS, WIDTH)
    clean = torch.randn(4, WIDTH, SIZE, dtype=dtype, generator=torch.Generator().manual_seed(0))
    rows = [row[real.bool()][None] for row, real in zip(clean, mask, strict=True)]
    return {"input_features": clean.masked_fill(mask[..., None] == 0, float("nan")), "attention_mask": mask}, rows


def texts() -> Tensor:
    """Labels of one to three symbols with their end symbol; short enough for the shortest source."""
    labels = random_ids(4, 4)
    for row, length in enumerate([3, 1, 2, 3]):
        labels[row, length], labels[row, length + 1 :] = END, -100
    labels[0, :3] = torch.tensor([4, 5, 4])
    return labels


@pytest.mark.parametrize("training", [False, True])
def test_the_loss_is_the_weighted_sum_of_attention_and_ctc(training: bool) -> None:
    model, (inputs, rows), labels = speech_model().train(training), batch("interior"), texts()
    attention = RnnSeq2SeqForConditionalGeneration.forward(speech_model(ctc_weight=0.0), **inputs, labels=labels).loss
    total = torch.zeros((), dtype=torch.float64)
    for source, text in zip(rows, labels, strict=True):
        memory = model.get_encoder()(input_features=source).last_hidden_state[0]
        symbols = text[(text != -100) & (text != END)]
        log_probs = model.ctc_head(memory).log_softmax(-1)
        total = total + F.ctc_loss(log_probs, symbols, [len(memory)], [len(symbols)], blank=1, reduction="sum")
    for count in (None, 50):
        loss = model(**inputs, labels=labels, num_items_in_batch=count).loss
        scale = int((labels != -100).sum())
        wanted = 0.7 * attention * scale / (count or scale) + 0.3 * total / (count or scale)
        torch.testing.assert_close(loss, wanted, **TIGHT)


@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_changes_no_loss_and_no_gradient(kind: str) -> None:
    model, (inputs, rows), labels = speech_model(), batch(kind), texts()
    model(**inputs, labels=labels).loss.backward()
    got = gradients(model)
    for row, source in enumerate(rows):
        real = labels[row] != -100
        alone = model(
            input_features=source, labels=labels[row : row + 1, real], num_items_in_batch=(labels != -100).sum()
        )
        alone.loss.backward()  # adds up over the rows
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(got[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")
    assert got["ctc_head.weight"].abs().sum() > 0


@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("beams", [1, 4])
def test_padding_changes_no_decoded_symbol(kind: str, reduction: int, beams: int) -> None:
    model, (inputs, rows) = speech_model(time_reduction=reduction), batch(kind)
    options = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 6, **SUPPRESS}
    together, decoded = model.generate(**inputs, **options), model.ctc_decode(**inputs)
    for row, source in enumerate(rows):
        alone = model.generate(source, **options)
        found = [trim(sequence) for sequence in together[row * beams : (row + 1) * beams]]
        assert found == [trim(sequence) for sequence in alone]
        assert trim(decoded[row]) == trim(model.ctc_decode(source)[0])


def joint_scores(model: RnnSeq2SeqForSpeechSeq2Seq, source: Tensor, weight: float, longest: int) -> dict[Any, float]:
    """The joint score of each text of at most `longest` symbols over {4, 5}, by the sum over all paths."""
    memory = model.get_encoder()(input_features=source).last_hidden_state[0]
    ctc = all_texts(model.ctc_head(memory))
    scores = {}
    for length in range(longest + 1):
        for text in itertools.product([4, 5], repeat=length):
            target = torch.tensor([[2, *text, END]])
            log_probs = model(input_features=source, decoder_input_ids=target[:, :-1]).logits.log_softmax(-1)
            attention = log_probs.gather(-1, target[:, 1:, None]).sum().item()
            if ctc[text] > 0:
                scores[text] = (1 - weight) * attention + weight * float(np.log(ctc[text]))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("weight", [0.3, 0.8, 1.0])
@torch.no_grad()
def test_a_beam_as_wide_as_the_space_finds_what_exhaustive_search_finds(weight: float) -> None:
    model = speech_model(vocab_size=6, ctc_weight=weight)
    sources = [torch.randn(1, length, SIZE, dtype=torch.float64) for length in (8, 5)]
    for source in sources:
        found = model.generate(
            source,
            num_beams=40,
            num_return_sequences=6,
            max_new_tokens=6,
            length_penalty=0.0,
            early_stopping="never",
            return_dict_in_generate=True,
            output_scores=True,
            **SUPPRESS,
        )
        # The space is finite: four positions of memory write four symbols at most.
        wanted = list(joint_scores(model, source, weight, longest=4).items())[:6]
        assert [tuple(trim(s)[1:-1]) for s in found.sequences] == [text for text, _ in wanted]
        torch.testing.assert_close(
            found.sequences_scores.tolist(), [score for _, score in wanted], atol=1e-4, rtol=1e-4
        )


def test_weight_one_is_ctc_alone_and_zero_is_attention_alone() -> None:
    model, (inputs, _) = speech_model(), batch()
    plain = RnnSeq2SeqForConditionalGeneration(model.config).double().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    options = {"num_beams": 3, "max_new_tokens": 6}
    wanted = plain.generate(**inputs, **options).tolist()
    assert model.generate(**inputs, **options, ctc_weight=0.0).tolist() == wanted
    assert model.generate(**inputs, **options).tolist() != wanted
    before = model.generate(**inputs, **options, ctc_weight=1.0).tolist()
    torch.nn.init.normal_(model.lm_head.weight)
    assert model.generate(**inputs, **options, ctc_weight=1.0).tolist() == before


def test_the_weight_of_the_call_goes_before_that_of_its_configuration_and_of_the_model() -> None:
    model, (inputs, _) = speech_model(ctc_weight=0.2), batch()

    def scores(**options: Any) -> Tensor:
        out = model.generate(**inputs, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **options)
        return out.scores[0]

    by_call = {weight: scores(ctc_weight=weight) for weight in (0.2, 0.5)}
    assert not torch.allclose(by_call[0.2], by_call[0.5])
    assert torch.equal(scores(), by_call[0.2])
    assert torch.equal(
        scores(generation_config=GenerationConfig(ctc_weight=0.5, max_new_tokens=1, output_scores=True)), by_call[0.5]
    )
    model.generation_config.ctc_weight = 0.5
    assert torch.equal(scores(), by_call[0.5]) and torch.equal(scores(ctc_weight=0.2), by_call[0.2])


def test_sampling_and_prompts_go_with_ctc() -> None:
    model, (inputs, _) = speech_model(), batch("left")
    prompts = torch.tensor([[2, 4], [2, 5], [2, 4], [2, 6]])
    generated = model.generate(
        **inputs, decoder_input_ids=prompts, do_sample=True, num_return_sequences=3, max_new_tokens=5
    )
    assert generated.shape[0] == 12 and torch.equal(generated[::3, :2], prompts)
    # The blank is nothing to write: it only stands behind the end.
    for sequence in generated:
        assert 1 not in trim(sequence)


def test_a_saved_model_comes_back_with_its_weight(tmp_path: Path) -> None:
    model, (inputs, _) = speech_model(torch.float32), batch("interior", torch.float32)
    model.generation_config.ctc_weight = 0.6
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    assert type(loaded) is RnnSeq2SeqForSpeechSeq2Seq
    assert loaded.config.ctc_weight == 0.3 and loaded.generation_config.ctc_weight == 0.6
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))
    options = {"num_beams": 3, "max_new_tokens": 6}
    assert loaded.generate(**inputs, **options).tolist() == model.generate(**inputs, **options).tolist()


PROGRAM = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import torch
from transformers import AutoModelForSpeechSeq2Seq
model = AutoModelForSpeechSeq2Seq.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules")
features = torch.linspace(-2, 2, 33).view(1, 11, 3)
found = model.generate(features, num_beams=3, max_new_tokens=6), model.ctc_decode(features)
print(json.dumps([ids.tolist() for ids in found]))
"""


def test_a_saved_model_carries_its_code(tmp_path: Path) -> None:
    model = speech_model(torch.float32)
    model.save_pretrained(tmp_path / "model")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    features = torch.linspace(-2, 2, 33).view(1, 11, 3)
    wanted = [model.generate(features, num_beams=3, max_new_tokens=6).tolist(), model.ctc_decode(features).tolist()]
    assert done.stdout.splitlines()[-1] == str(wanted)


def test_the_vocabulary_can_grow() -> None:
    model, (inputs, _) = speech_model(), batch()
    model.resize_token_embeddings(14)
    assert model.ctc_head.out_features == model.lm_head.out_features == 14
    assert torch.isfinite(model(**inputs, labels=texts().clamp(max=13)).loss)
    model.generate(**inputs, max_new_tokens=3)


def test_bfloat16_runs_and_stays_close() -> None:
    model, (inputs, _), labels = speech_model(torch.float32), batch(dtype=torch.float32), texts()
    wanted = model(**inputs, labels=labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        out = model.train()(**inputs, labels=labels)
        out.loss.backward()
        assert model.eval().generate(**inputs, num_beams=2, max_new_tokens=3).shape[0] == 4
    assert out.loss.dtype == torch.float32
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    torch.testing.assert_close(out.loss, wanted, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_gives_equal_gradients(reentrant: bool) -> None:
    model, (inputs, _), labels = speech_model().train(), batch("left"), texts()
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model(**inputs, labels=labels).loss.backward()
        results.append(gradients(model))
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT)


def test_it_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    config = tiny_config(
        input_feature_size=SIZE, time_reduction=2, ctc_weight=0.5, encoder_hidden_size=32, decoder_hidden_size=32
    )
    model, (inputs, _), labels = RnnSeq2SeqForSpeechSeq2Seq(config), batch("right", torch.float32), texts()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    model.eval()
    wanted = [[symbol for symbol in row.tolist() if symbol not in (-100, END)] for row in labels]
    assert [trim(row) for row in model.ctc_decode(**inputs)] == wanted
    for weight in (0.0, 0.5, 1.0):
        found = model.generate(**inputs, num_beams=3, max_new_tokens=6, ctc_weight=weight)
        assert [trim(row)[1:-1] for row in found] == wanted


def test_scripts_of_other_speech_models_can_freeze_the_encoder() -> None:
    model, (inputs, _), gradients = speech_model().train(), batch(), []
    model.freeze_feature_encoder()  # what comes before the encoder has no weights
    for freeze in (lambda: None, model.freeze_encoder):
        freeze()
        model.zero_grad()
        model(**inputs, labels=texts()).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    kept = gradients[0].keys() - gradients[1].keys()
    assert kept == {f"model.encoder.{name}" for name, _ in model.get_encoder().named_parameters()}
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradient, gradients[0][name], **TIGHT)


def test_what_cannot_be_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="a speech model reads vectors, got input_feature_size=None"):
        RnnSeq2SeqForSpeechSeq2Seq(tiny_config())
    model, (inputs, _) = speech_model(ctc_weight=0.0), batch()
    assert not any("ctc" in name for name in model.state_dict())
    model.generate(**inputs, max_new_tokens=3)
    for decode in (
        lambda: model.generate(**inputs, ctc_weight=0.3, max_new_tokens=3),
        lambda: model.ctc_decode(**inputs),
    ):
        with pytest.raises(ValueError, match="no CTC branch: it was made with ctc_weight=0"):
            decode()
    with pytest.raises(ValueError, match=r"ctc_weight must be at least 0 and at most 1; got 2"):
        speech_model().generate(**inputs, ctc_weight=2, max_new_tokens=3)
