"""The model that speaks: losses by loops, padding, the cached step, stopping, bad input, saving, the stock Trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import ATTENDING, PADDINGS, STRUCTURES, gradients, padded_batch, randomize, tiny_config
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForTextToSpectrogram, Trainer, TrainingArguments, pipeline

from hf_rnn_seq2seq import RnnSeq2SeqForTextToSpectrogram
from hf_rnn_seq2seq.model.modeling_spectrogram import RnnSeq2SeqSpectrogramOutput


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
BANDS, LENGTHS, STEPS = 4, [3, 5, 2], [7, 4, 9]
SYMBOLIC = {"share_embeddings": False, "tie_word_embeddings": False}
POSTNET = {"speech_decoder_postnet_layers": 2, "speech_decoder_postnet_units": 5, "speech_decoder_postnet_kernel": 3}
# Beside the structures: coverage, and what reads the locations attended to so far.
KINDS: dict[str, dict[str, Any]] = {
    **STRUCTURES,
    "location": {**STRUCTURES["bahdanau"], "coverage": True, "location_filters": 3, "location_width": 3},
    "location_luong": {**STRUCTURES["luong"], "coverage": True, "location_filters": 3, "location_width": 5},
}


def speaking(kind: str = "location", dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A random model without dropout, whose scale is not the identity."""
    quiet = {"speech_decoder_prenet_dropout": 0.0} if KINDS[kind].get("feed_previous_token", True) else {}
    config = tiny_config(**{**KINDS[kind], **SYMBOLIC, **quiet, "num_mel_bins": BANDS, **options})
    model = RnnSeq2SeqForTextToSpectrogram(config)
    randomize(model)
    for layer in getattr(getattr(model, "prenet", None), "layers", []):
        layer.bias.data.abs_()  # else all of its few units may be silent
    model.scale.fit(torch.arange(5.0 * BANDS).view(5, BANDS).square())
    return model.to(dtype).eval()


def spectrograms(missing: float = -100.0) -> Tensor:
    """Labels (3, 9, BANDS) of the lengths `STEPS`, with one number that nobody observed."""
    labels = 3 * torch.randn(3, 9, BANDS, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 10
    for row, length in enumerate(STEPS):
        labels[row, length:] = missing
    labels[0, 2, 1] = float("nan")
    return labels


def plain_loss(model: Any, output: RnnSeq2SeqSpectrogramOutput, labels: Tensor, kind: str) -> Tensor:
    """The loss number by number, in loops."""
    errors, stops = [], []
    wanted = (labels - model.scale.mean) / model.scale.std
    got = (output.spectrogram - model.scale.mean) / model.scale.std
    for row, length in enumerate(STEPS):
        for t in range(length):
            for band in range(BANDS):
                if not wanted[row, t, band].isnan():
                    difference = got[row, t, band] - wanted[row, t, band]
                    errors.append(difference.square() if kind == "squared" else difference.abs())
            ends = torch.tensor(float(t == length - 1), dtype=torch.float64)
            stops.append(F.binary_cross_entropy_with_logits(output.stop_logits[row, t], ends))
    return torch.stack(errors).mean() + 0.7 * torch.stack(stops).mean()


@pytest.mark.parametrize("kind", ["squared", "absolute"])
@pytest.mark.parametrize("factor", [1, 3])
def test_the_loss_is_the_mean_over_what_is_observed(kind: str, factor: int) -> None:
    model = speaking(regression_loss=kind, reduction_factor=factor, stop_loss_weight=0.7)
    batch, labels = padded_batch("right", LENGTHS, 5), spectrograms()
    output = model(batch.input_ids, batch.attention_mask, labels=labels)
    assert output.spectrogram.shape == labels.shape and output.stop_logits.shape == labels.shape[:2]
    torch.testing.assert_close(output.loss, plain_loss(model, output, labels, kind), **TIGHT)
    ends = torch.full((3, 9), -100.0)
    for row, length in enumerate(STEPS):
        ends[row, :length] = (torch.arange(length) == length - 1).float()
    told = model(batch.input_ids, batch.attention_mask, labels=labels, stop_labels=ends)
    torch.testing.assert_close(told.loss, output.loss, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("factor", [1, 2])
def test_padding_changes_neither_loss_nor_gradients(kind: str, padding: str, factor: int) -> None:
    options = POSTNET if factor == 2 else {}
    guided = {"guided_attention_loss_scale": 2.0} if KINDS[kind]["attention_type"] != "none" else {}
    model = speaking(kind, reduction_factor=factor, **options, **guided).train()
    if options:
        model.postnet.dropout = 0.0
    batch, labels = padded_batch(padding, LENGTHS, 5), spectrograms()
    count = int((~labels.isnan() & (labels != -100)).sum())
    model(batch.input_ids, batch.attention_mask, labels=labels, num_items_in_batch=count).loss.backward()
    together = gradients(model)
    total = torch.zeros((), dtype=torch.float64)
    for source, row, length in zip(batch.rows, labels, STEPS, strict=True):
        loss = model(source, labels=row[None, :length], num_items_in_batch=count).loss
        loss.backward()
        total = total + loss.detach()
    whole = model(batch.input_ids, batch.attention_mask, labels=spectrograms(float("nan")), num_items_in_batch=count)
    torch.testing.assert_close(whole.loss.detach(), total, **TIGHT)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, together[name], **TIGHT, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 3])
def test_one_step_after_the_other_equals_all_at_once(kind: str, factor: int) -> None:
    model, batch = speaking(kind, reduction_factor=factor), padded_batch("interior", LENGTHS, 5)
    values = torch.randn(3, 4, BANDS, dtype=torch.float64)
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    whole = model(**source, decoder_input_values=values)
    cache, parts, stops = None, [], []
    for t in range(4):
        step = model(**source, decoder_input_values=values[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        parts.append(step.spectrogram)
        stops.append(step.stop_logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole.spectrogram, **TIGHT)
    torch.testing.assert_close(torch.cat(stops, 1), whole.stop_logits, **TIGHT)
    assert whole.spectrogram.shape == (3, 4 * factor, BANDS)


def spoken_plainly(model: Any, source: Tensor, threshold: float, most: int) -> Tensor:
    """What a model says to one source (1, S), all of it computed anew at each step."""
    before = torch.zeros(1, 1, BANDS, dtype=torch.float64)
    for _ in range(max(1, most)):
        output = model(source, decoder_input_values=before, use_cache=False)
        left = 1.0
        for t, logit in enumerate(output.stop_logits[0]):
            left *= 1 - float(logit.sigmoid())
            if 1 - left >= threshold:
                return output.spectrogram[0, : t + 1]
        before = torch.cat([before, output.spectrogram[:, -1:]], dim=1)
    return output.spectrogram[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 2])
def test_speaking_equals_steps_computed_anew_and_padding_changes_nothing(kind: str, factor: int) -> None:
    model, batch = speaking(kind, reduction_factor=factor), padded_batch("left", LENGTHS, 5)
    ending = {"threshold": 0.8, "maxlenratio": 4.0}
    wanted = [
        spoken_plainly(model, row, 0.8, 4 * length // factor) for row, length in zip(batch.rows, LENGTHS, strict=True)
    ]
    got, lengths = model.generate_speech(batch.input_ids, batch.attention_mask, return_output_lengths=True, **ending)
    assert lengths == [len(rows) for rows in wanted]
    for row, rows in enumerate(wanted):
        torch.testing.assert_close(got[row, : len(rows)], rows, **TIGHT)
        assert not got[row, len(rows) :].any()
        torch.testing.assert_close(model.generate_speech(batch.rows[row], **ending), rows, **TIGHT)


def test_the_postnet_reads_what_is_spoken_and_nothing_behind_it() -> None:
    model = speaking("location", **POSTNET)
    model.prob_out.bias.data.fill_(-3.0)  # not at once
    batch, ending = padded_batch("right", LENGTHS, 5), {"threshold": 0.9, "maxlenratio": 4.0}
    got, lengths = model.generate_speech(batch.input_ids, batch.attention_mask, return_output_lengths=True, **ending)
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        torch.testing.assert_close(got[row, :length], model.generate_speech(batch.rows[row], **ending), **TIGHT)


def test_speaking_ends_as_the_call_or_the_configuration_says() -> None:
    model, ids = speaking("location", reduction_factor=2), padded_batch("right", [4], 4).input_ids
    model.prob_out.bias.data.fill_(-50.0)  # never by itself
    assert len(model.generate_speech(ids)) == 80  # 20 a symbol: SpeechT5's default
    assert len(model.generate_speech(ids, maxlenratio=1.6)) == 6  # whole steps
    model.generation_config.maxlenratio = 3.0
    assert len(model.generate_speech(ids)) == 12
    model.prob_out.bias.data.fill_(50.0)  # at once
    assert len(model.generate_speech(ids)) == 1
    assert len(model.generate_speech(ids, minlenratio=2.0)) == 7  # the first vector of the step after three others
    assert len(model.generate_speech(ids, vocoder=lambda rows: rows.flatten())) == BANDS
    waves, lengths = model.generate_speech(
        ids.repeat(2, 1), vocoder=lambda rows: rows.flatten(), return_output_lengths=True
    )
    assert waves.shape == (2, BANDS) and lengths == [BANDS, BANDS]


@pytest.mark.parametrize("kind", ["location", *(name for name in ATTENDING if name in STRUCTURES)])
def test_the_attention_of_what_is_spoken(kind: str) -> None:
    model, batch = speaking(kind, reduction_factor=2), padded_batch("right", LENGTHS, 5)
    model.prob_out.bias.data.fill_(-50.0)
    got, weights = model.generate_speech(
        batch.input_ids, batch.attention_mask, maxlenratio=2.0, output_cross_attentions=True
    )
    assert got.shape == (3, 10, BANDS) and weights.shape == (3, 1, 1, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 1, 5, dtype=torch.float64))
    assert not weights[2, :, :, :, 2:].any()
    alone = model.generate_speech(batch.rows[2], maxlenratio=2.0, output_cross_attentions=True)[1]
    torch.testing.assert_close(alone[0, 0], weights[2, 0, 0, : alone.shape[2], :2], **TIGHT)


def test_dropout_of_the_prenet_when_speaking() -> None:
    model, ids = speaking(speech_decoder_prenet_dropout=0.5), padded_batch("right", [4], 4).input_ids
    model.prob_out.bias.data.fill_(-50.0)
    first, second = model.generate_speech(ids), model.generate_speech(ids)
    assert not torch.equal(first, second)
    model.config.prenet_dropout_in_generation = False
    assert torch.equal(model.generate_speech(ids), model.generate_speech(ids))
    labels = spectrograms()[:1, :7]
    assert model(ids, labels=labels).loss == model(ids, labels=labels).loss  # never in an evaluation loss


def test_attention_near_the_diagonal_costs_nothing() -> None:
    """Tachibana 2017, eq. 6: sum_nt A_nt (1 - exp(-(n/N - t/T)^2 / 2 g^2)), here by loops."""
    options = {"guided_attention_loss_scale": 3.0, "guided_attention_loss_sigma": 0.3, "reduction_factor": 2}
    model, plain = speaking("location", **options).train(), speaking("location", reduction_factor=2).train()
    batch, labels = padded_batch("right", LENGTHS, 5), spectrograms()
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
    output = model(**source, output_attentions=True)
    cost, count = torch.zeros((), dtype=torch.float64), 0
    for row, (symbols, length) in enumerate(zip(LENGTHS, STEPS, strict=True)):
        steps = -(-length // 2)
        for frame in range(length):
            for n in range(symbols):
                far = torch.tensor(n / symbols - (frame // 2) / steps, dtype=torch.float64).square()
                weight = output.cross_attentions[0][row, 0, frame // 2, n]
                cost = cost + weight * (1 - torch.exp(-far / (2 * 0.3**2)))
            count += 1
    torch.testing.assert_close(output.loss - plain(**source).loss, 3 * cost / count, **TIGHT)
    torch.testing.assert_close(model.eval()(**source).loss, plain.eval()(**source).loss, **TIGHT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(3, 9, BANDS + 1)}, rf"labels has shape \(3, 9, 5\), wanted \(3, length, {BANDS}\)"),
        ({"labels": torch.zeros(2, 9, BANDS)}, "one for each source"),
        ({"labels": torch.zeros(3, 9, BANDS, dtype=torch.long)}, "wanted floating-point numbers"),
        ({"labels": torch.zeros(3, 0, BANDS)}, "at least one vector"),
        ({"labels": torch.full((3, 9, BANDS), -100.0)}, r"labels\[0\] is all padding"),
        ({"labels": torch.full((3, 9, BANDS), float("inf"))}, r"labels\[0, 0, 0\] is infinite"),
        ({"stop_labels": torch.zeros(3, 8)}, r"stop_labels has shape \(3, 8\), wanted \(3, 9\): as labels"),
        ({"stop_labels": torch.full((3, 9), 0.5)}, r"stop_labels\[0, 0\] is 0.5, wanted 0, 1"),
        ({"labels": None}, "give decoder_input_values or labels"),
        ({"labels": None, "decoder_input_values": torch.zeros(3, 2, 1)}, "decoder_input_values has shape"),
    ],
)
def test_bad_labels_are_refused(changes: dict[str, Any], message: str) -> None:
    model, batch = speaking(dtype=torch.float32), padded_batch("right", LENGTHS, 5)
    inputs = {"input_ids": batch.input_ids, "labels": spectrograms().float(), **changes}
    with pytest.raises(ValueError, match=message):
        model(**inputs)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ({"threshold": 0.0}, "threshold must be more than 0"),
        ({"threshold": 1.5}, "threshold must be more than 0 and at most 1; got 1.5"),
        ({"minlenratio": 3.0, "maxlenratio": 2.0}, "minlenratio=3.0 must be from 0 to maxlenratio=2.0"),
        ({"maxlenratio": 0.0}, "and that more than 0"),
    ],
)
def test_an_ending_out_of_range_is_refused(ending: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        speaking().generate_speech(padded_batch("right", [4], 4).input_ids, **ending)


def test_what_has_no_attention_cannot_show_it() -> None:
    with pytest.raises(ValueError, match="has no attention"):
        speaking("cho").generate_speech(padded_batch("right", [4], 4).input_ids, output_cross_attentions=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction_factor": 2}, "the output is symbols: give num_mel_bins, or leave reduction_factor out"),
        ({"num_mel_bins": 0}, "num_mel_bins must be at least 1"),
        ({"num_mel_bins": 4, "tie_word_embeddings": True}, "leave tie_word_embeddings out"),
        ({"num_mel_bins": 4, "use_copy": True}, "leave use_copy out"),
        ({"num_mel_bins": 4, "input_feature_size": 3}, "what speaks reads symbols"),
        ({"num_mel_bins": 4, "speech_decoder_postnet_units": 8}, "there is no post-net"),
        ({"num_mel_bins": 4, "speech_decoder_postnet_layers": 1, "speech_decoder_postnet_kernel": 4}, "an odd number"),
        ({"num_mel_bins": 4, "feed_previous_token": False, "speech_decoder_prenet_layers": 3}, "vector before"),
        ({"num_mel_bins": 4, "guided_attention_loss_sigma": 0.2}, "there is no guided attention loss"),
        ({"num_mel_bins": 4, "attention_type": "none", "guided_attention_loss_scale": 1.0}, "no attention to guide"),
        ({"num_mel_bins": 4, "coverage": True, "coverage_loss_weight": 0.5}, "there is no coverage loss"),
        ({"location_filters": 4}, "set coverage=True, or location_filters=0"),
        ({"coverage": True, "location_width": 3}, "there are no filters"),
        ({"coverage": True, "location_filters": 4, "location_width": 4}, "location_width must be an odd number"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**options)


def test_a_model_without_a_vector_size_is_refused() -> None:
    with pytest.raises(ValueError, match="num_mel_bins=None"):
        RnnSeq2SeqForTextToSpectrogram(tiny_config())


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: str) -> None:
    model, batch = speaking(kind, **POSTNET).train(), padded_batch("right", LENGTHS, 5)
    model(batch.input_ids, batch.attention_mask, labels=spectrograms()).loss.backward()
    assert not [name for name, gradient in gradients(model).items() if not gradient.any()]


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    model = speaking("location", dtype=torch.float32, reduction_factor=2, **POSTNET)
    model.prob_out.bias.data.fill_(-50.0)  # never by itself
    model.generation_config.maxlenratio = 3.0
    model.save_pretrained(tmp_path)
    ids = padded_batch("right", [4], 4).input_ids
    assert len(model.generate_speech(ids)) == 12
    loaded = AutoModelForTextToSpectrogram.from_pretrained(tmp_path)
    assert type(loaded) is RnnSeq2SeqForTextToSpectrogram
    torch.testing.assert_close(loaded.generate_speech(ids), model.generate_speech(ids), atol=1e-3, rtol=1e-3)
    torch.save(model.generate_speech(ids), tmp_path / "said.pt")
    program = (
        "import sys, torch\n"
        "from transformers import AutoModelForTextToSpectrogram\n"
        f"model = AutoModelForTextToSpectrogram.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
        "assert 'hf_rnn_seq2seq' not in sys.modules\n"
        f"said = model.generate_speech(torch.tensor({ids.tolist()}))\n"
        f"torch.testing.assert_close(said, torch.load({str(tmp_path / 'said.pt')!r}), atol=1e-3, rtol=1e-3)\n"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path, timeout=250)


def test_the_pipeline_speaks() -> None:
    from tiny import tiny_tokenizer

    class Vocoder(torch.nn.Module):
        """Of one sample a vector."""

        class config:
            sampling_rate = 100

        def forward(self, rows: Tensor) -> Tensor:
            return rows.mean(-1)

    model = speaking(dtype=torch.float32)
    model.generation_config.maxlenratio = 2.0
    say = pipeline("text-to-speech", model=model, tokenizer=tiny_tokenizer(), vocoder=Vocoder())
    sound = say("abc")
    ids = tiny_tokenizer()("abc", return_tensors="pt").input_ids
    assert sound["sampling_rate"] == 100
    torch.testing.assert_close(torch.tensor(sound["audio"]), model.generate_speech(ids).mean(-1))


def trained(folder: Path, batch_size: int, accumulation: int) -> dict[str, Tensor]:
    """The weights after an epoch of the stock Trainer."""
    model = speaking("location", reduction_factor=2)
    rows = [
        {"input_ids": ids[0], "labels": spectrograms()[row % 3, : STEPS[row % 3]].nan_to_num(1.0)}
        for row, ids in enumerate(padded_batch("right", [3, 5, 2, 4], 5).rows)
    ]

    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        pad = torch.nn.utils.rnn.pad_sequence
        ids = [item["input_ids"] for item in items]
        return {
            "input_ids": pad(ids, batch_first=True, padding_value=1),
            "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": pad([item["labels"] for item in items], batch_first=True, padding_value=-100.0),
        }

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.01,
        optim="sgd",
        max_grad_norm=0.0,
        report_to="none",
        save_strategy="no",
        eval_strategy="epoch",
        label_names=["labels"],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, data_collator=collate)
    trainer.train()
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_the_stock_trainer_accumulates_exactly(tmp_path: Path) -> None:
    at_once, in_parts = trained(tmp_path / "a", 4, 1), trained(tmp_path / "b", 1, 4)
    for name, weight in at_once.items():
        torch.testing.assert_close(in_parts[name], weight, atol=1e-7, rtol=1e-6, msg=name)
