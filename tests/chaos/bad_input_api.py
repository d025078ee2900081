"""Bad input to the models: every class, every tensor, every kind of badness; options, requests, processors.

python tests/chaos/bad_input_api.py
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np
import pytest
import torch
from bad_input import Case, of_the_api, tried
from several_kinds import GENERATING, OTHERS, inputs_of, model_of
from tiny import random_ids, randomize, tiny_config
from torch import Tensor

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqEncoderModel,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTextToSpectrogram,
    RnnSeq2SeqForTimeSeriesPrediction,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)


NAN, INF = math.nan, math.inf
B, S, T, V = 3, 6, 5, 12


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def spectrogram_model() -> Any:
    model = RnnSeq2SeqForTextToSpectrogram(tiny_config(num_mel_bins=4, reduction_factor=2))
    randomize(model)
    return model.eval()


def forecaster(**options: Any) -> Any:
    sizes = {
        "input_feature_size": 2,
        "prediction_length": 4,
        "context_length": 6,
        "num_time_features": 2,
        "num_static_real_features": 1,
        "num_static_categorical_features": 1,
        "cardinality": [3],
        **options,
    }
    model = RnnSeq2SeqForTimeSeriesPrediction(tiny_config(**sizes))
    randomize(model)
    return model.eval()


def _kind(name: str) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def made() -> tuple[Any, dict[str, Any]]:
        inputs: dict[str, Any] = dict(inputs_of(name))
        if name in GENERATING:
            inputs["decoder_input_ids"] = random_ids(B, T)
            inputs["decoder_attention_mask"] = torch.ones(B, T, dtype=torch.long)
        return model_of(name), inputs

    return made


def _bare() -> tuple[Any, dict[str, Any]]:
    model, inputs = RnnSeq2SeqModel(tiny_config()).eval(), _kind("luong")()[1]
    del inputs["labels"]
    return model, inputs


def _encoder() -> tuple[Any, dict[str, Any]]:
    inputs = inputs_of("luong")
    return RnnSeq2SeqEncoderModel(tiny_config()).eval(), {n: inputs[n] for n in ("input_ids", "attention_mask")}


def _speaking() -> tuple[Any, dict[str, Any]]:
    inputs = inputs_of("luong")
    return spectrogram_model(), {
        **{name: inputs[name] for name in ("input_ids", "attention_mask")},
        "labels": floats(B, 7, 4),
        "stop_labels": torch.zeros(B, 7).index_fill(1, torch.tensor([6]), 1.0),
    }


def _series() -> dict[str, Any]:
    return {
        "past_values": floats(B, 6, 2).abs(), "past_observed_mask": torch.ones(B, 6, 2),
        "past_time_features": floats(B, 6, 2), "future_time_features": floats(B, 4, 2),
        "future_values": floats(B, 4, 2).abs(), "future_observed_mask": torch.ones(B, 4, 2),
        "static_real_features": floats(B, 1), "static_categorical_features": torch.tensor([[0], [1], [2]]),
    }  # fmt: skip


MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "luong": _kind("luong"), "bahdanau": _kind("bahdanau"), "every_step_mean": _kind("every_step_mean"),
    "copying": _kind("copying"), "characters": _kind("characters"),
    **{name: _kind(name) for name in OTHERS},
    "bare": _bare, "encoder": _encoder, "spectrogram": _speaking,
    "forecaster": lambda: (forecaster(), _series()),
    "distribution": lambda: (forecaster(distribution_output="normal"), _series()),
}  # fmt: skip
IDS = {"input_ids", "decoder_input_ids", "character_ids", "static_categorical_features"}
MASKS = {"attention_mask", "decoder_attention_mask", "past_observed_mask", "future_observed_mask"}


def _set(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x.view(-1)[1] = value
    return x


def bad_shapes(x: Tensor) -> Iterator[tuple[str, Any]]:
    yield "a list", x.tolist()
    yield "a string", "text"
    yield "a number", 3
    yield "numpy", x.numpy()
    yield "an axis less", x[0]
    yield "an axis more", x.unsqueeze(-1).expand(*x.shape, 2)
    yield "fewer rows", x[:-1]
    yield "more rows", torch.cat([x, x])
    yield "no rows", x[:0]
    yield "no axis", x.flatten()[0]
    if x.dim() > 1:
        yield "longer", torch.cat([x, x[:, :1]], 1)
        yield "empty", x[:, :0]
    if x.dim() > 2:
        yield "wider", torch.cat([x, x[..., :1]], -1)
    yield "complex", x.to(torch.complex64)


def bad_values(name: str, x: Tensor, kind: str) -> Iterator[tuple[str, Any]]:
    if name in IDS or (name == "labels" and not x.is_floating_point()):
        yield "too large", _set(x, 1000)
        yield "negative", _set(x, -1)
        yield "very negative", _set(x, -101)
        yield "floats", x.float()
        yield "NaN ids", _set(x.float(), NAN)
        yield "booleans", x.bool()
    elif name in MASKS:
        yield (
            "additive",
            (1.0 - x.float())
            .masked_fill(x == 0, -INF)
            .masked_fill(x > 0, 0.0)
            .index_fill(1, torch.tensor([x.shape[1] - 1]), -INF),
        )
        yield (
            "additive, finite",
            torch.zeros_like(x, dtype=torch.float32).index_fill(
                1, torch.tensor([x.shape[1] - 1]), torch.finfo(torch.float32).min
            ),
        )
        yield "NaN", _set(x.float(), NAN)
        yield "two", _set(x, 2)
        yield "minus one", _set(x, -1)
        yield "a half", _set(x.float(), 0.5)
        yield "infinite", _set(x.float(), INF)
    else:
        if name not in ("past_values", "future_values", "stop_labels"):  # numbers all the same
            yield "integers", x.long()
        yield "infinite", _set(x, INF)
        yield "minus infinity", _set(x, -INF)
        if not (name in ("labels",) and kind in ("values", "spectrogram")) and name != "stop_labels":
            yield "NaN", _set(x, NAN)


# What is right although it looks wrong: a shape that is another number of steps or of whole series, and the like.
FINE = {
    ("decoder_attention_mask", "longer"),  # of the steps that a state has read, too: refused with no state below
    *((name, "longer") for name in ("decoder_input_ids",)),
}
# Names that an error may call a tensor by, beside its own: the first that does not fit is named.
ALSO = {
    "labels": ("labels", "decoder_input_ids"), "decoder_input_ids": ("decoder_input_ids", "labels"),
}  # fmt: skip


def tensors() -> Iterator[Case]:
    for kind, made in MODELS.items():
        model, inputs = made()
        for name, tensor in inputs.items():
            base = dict(inputs)
            if name == "decoder_input_ids":
                base = {n: v for n, v in base.items() if n != "labels"}
            if name == "labels":
                base = {n: v for n, v in base.items() if not n.startswith("decoder")}
            # With another batch or length, whatever stands beside it may be named.
            others = tuple(base)
            for what, value in (*bad_shapes(tensor), *bad_values(name, tensor, kind)):
                loose = what in ("fewer rows", "more rows", "no rows", "longer", "empty", "an axis less")
                if what == "longer" and name == "labels" and tensor.dim() > 1 and kind in GENERATING:
                    continue  # another target, and right
                if what == "longer" and name in ("labels",) and kind in ("speech",):
                    continue
                if what == "wider" and name == "character_ids":
                    continue
                if what == "booleans" and name in MASKS:
                    continue
                words = others if loose else ALSO.get(name, (name,))

                def run(base: Any = base, name: str = name, value: Any = value, model: Any = model) -> Any:
                    model.eval()
                    return model(**{**base, name: value})

                yield Case(f"{kind}({name}={what})", words, run)


def _with(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def embedded() -> Iterator[Case]:
    for kind in ("luong", "bare", "encoder", "tagger", "classifier"):
        model, inputs = MODELS[kind]()
        width = model.config.embedding_size
        for name, ids in (("inputs_embeds", "input_ids"), ("decoder_inputs_embeds", "decoder_input_ids")):
            if ids not in inputs:
                continue
            right = floats(*inputs[ids].shape, width)
            base = _with(inputs, **{ids: None, "labels": None})
            bad = [*bad_shapes(right), *bad_values(name, right, kind)]
            for what, value in bad:
                loose = ("fewer rows", "more rows", "no rows", "longer", "empty", "an axis less")
                words = (name, *base) if what in loose else (name,)
                yield Case(f"{kind}({name}={what})", words, lambda b=base, n=name, v=value, m=model: m(**b, **{n: v}))
            yield Case(
                f"{kind}({name} and {ids})", (name, ids), lambda b=inputs, n=name, v=right, m=model: m(**b, **{n: v})
            )


def losses() -> Iterator[Case]:
    """Labels that say nothing, and how inputs are chosen in training."""
    for kind in ("luong", "copying", "speech", "tagger", "crf", "classifier"):
        model, inputs = MODELS[kind]()
        ignored = torch.full_like(inputs["labels"], -100)
        base = {n: v for n, v in inputs.items() if not n.startswith("decoder")}

        def run(model: Any = model, base: Any = base, ignored: Tensor = ignored) -> Any:
            loss = model(**{**base, "labels": ignored}).loss
            # 0 and no NaN, as documented; CTC still learns that nothing is said
            if float(loss) == 0 or (model.config.ctc_weight > 0 and torch.isfinite(loss)):
                raise ValueError("labels are all -100")

        yield Case(f"{kind}(labels all -100)", ("labels",), run)
    for kind in ("luong", "forecaster"):
        for attribute, values in (
            ("teacher_forcing_ratio", (2, -0.1, NAN, INF, "half", None)),
            ("teacher_forcing_unit", ("word", None, 3)),
        ):
            for value in values:

                def run(kind: str = kind, attribute: str = attribute, value: Any = value) -> Any:
                    model, inputs = MODELS[kind]()
                    if attribute == "teacher_forcing_unit":
                        model.teacher_forcing_ratio = 0.5
                    setattr(model, attribute, value)
                    return model.train()(**{n: v for n, v in inputs.items() if not n.startswith("decoder")})

                yield Case(f"{kind}.{attribute}={value!r}", (attribute,), run)


def caches() -> Iterator[Case]:
    """A state of another source, batch or model."""
    for kind in ("luong", "bahdanau", "every_step_mean", "copying"):
        model, inputs = MODELS[kind]()
        source = {n: inputs[n] for n in ("input_ids", "attention_mask")}
        first = random_ids(B, 1)

        def filled(model: Any = model, source: Any = source, first: Tensor = first) -> Any:
            return model(**source, decoder_input_ids=first, use_cache=True).past_key_values

        other_batch = {n: v[:2] for n, v in source.items()}
        longer = {n: torch.cat([v, v[:, :1]], 1) for n, v in source.items()}
        changed = {**source, "input_ids": random_ids(B, S, seed=9)}
        for what, given, ids in (
            ("another batch", other_batch, first[:2]),
            ("one row", {n: v[:1] for n, v in source.items()}, first[:1]),
            ("a longer source", longer, first),
            ("another source", changed, first),
        ):
            if what == "a longer source" and not model.model.decoder.attends:
                continue

            def run(model: Any = model, given: Any = given, ids: Tensor = ids, filled: Any = filled) -> Any:
                return model(**given, decoder_input_ids=ids, past_key_values=filled())

            yield Case(
                f"{kind}(past_key_values of {what})", ("cache", "past_key_values", "attention_mask", "input_ids"), run
            )
        other = model_of("dot" if kind != "dot" else "luong")
        for what, cache in (
            (
                "another model",
                lambda other=other, f=first, s=source: other(**s, decoder_input_ids=f, use_cache=True).past_key_values,
            ),
            ("a list", lambda: [1, 2]),
            ("a tuple", lambda: ((floats(3, 8),),)),
            ("a tensor", lambda: floats(3, 8)),
            ("a string", lambda: "cache"),
        ):
            yield Case(
                f"{kind}(past_key_values={what})",
                ("cache", "past_key_values"),
                lambda m=model, s=source, f=first, c=cache: m(**s, decoder_input_ids=f, past_key_values=c()),
            )
    model, inputs = MODELS["luong"]()
    source = {n: inputs[n] for n in ("input_ids", "attention_mask")}
    for what, change in (
        ("another batch", lambda o: o[:2]),
        ("NaN", lambda o: o * NAN),
        ("integers", lambda o: o.long()),
        ("two axes", lambda o: o[:, 0]),
        ("a list", lambda o: o.tolist()),
        ("wider", lambda o: torch.cat([o, o], -1)),
    ):

        def run(change: Any = change) -> Any:
            outputs = model.get_encoder()(**source, return_dict=True)
            outputs["last_hidden_state"] = change(outputs.last_hidden_state)
            return model(encoder_outputs=outputs, decoder_input_ids=random_ids(B, 2))

        yield Case(f"luong(encoder_outputs.last_hidden_state={what})", ("encoder_outputs",), run)
    for value in ("text", 3, [1], {}, (), floats(B, S, 8)):
        yield Case(
            f"luong(encoder_outputs={str(value)[:10]!r})",
            ("encoder_outputs",),
            lambda value=value: model(encoder_outputs=value, decoder_input_ids=random_ids(B, 2)),
        )


FLAGS = {
    "use_cache": ("yes", 2), "output_attentions": ("yes",), "output_hidden_states": ("yes",),
    "logits_to_keep": (-1, "all", 1.5), "num_items_in_batch": (0, -1, "all", NAN), "skip_logits": ("yes",),
    }  # fmt: skip


def flags() -> Iterator[Case]:
    model, inputs = MODELS["luong"]()
    base = {n: v for n, v in inputs.items() if not n.startswith("decoder")}
    for name, values in FLAGS.items():
        for value in values:
            yield Case(f"luong({name}={value!r})", (name,), lambda n=name, v=value: model(**base, **{n: v}))
    for kind, made in MODELS.items():
        model, inputs = made()
        yield Case(f"{kind}()", ("give", "missing", "input", "past_values"), lambda m=model: m())
        yield Case(f"{kind}(unknown=1)", ("unknown",), lambda m=model, i=inputs: m(**i, unknown=1))


GENERATION: dict[str, tuple[Any, ...]] = {
    "num_beams": (0, -1, 1.5, "3", NAN), "max_new_tokens": (0, -1, 1.5, "3", NAN),
    "min_new_tokens": (-1, "1"), "max_length": (0, -1, "3"), "min_length": (-1,),
    "num_return_sequences": (0, -1, 4, "2", 1.5), "temperature": (0.0, -1.0, NAN, INF, "hot"),
    "top_k": (-1, 1.5, "3"), "top_p": (-0.1, 1.1, NAN, "x"), "min_p": (-0.1, 1.1, NAN), "typical_p": (0.0, -1.0, 1.5,
        NAN),
    "epsilon_cutoff": (-0.1, 1.0, NAN), "eta_cutoff": (-0.1, 1.1, NAN),
    "repetition_penalty": (0.0, -1.0, NAN, "x"), "encoder_repetition_penalty": (0.0, -1.0, NAN),
    "length_penalty": (NAN, INF, "x"), "no_repeat_ngram_size": (-1, 1.5, "x"),
    "encoder_no_repeat_ngram_size": (-1, 1.5), "eos_token_id": (-1, 1000, [3, 1000], "x", 1.5),
    "pad_token_id": (-1, 1000, "x"), "bos_token_id": (-2, 1000), "decoder_start_token_id": (-1, 1000, "x"),
    "forced_bos_token_id": (-1, 1000), "forced_eos_token_id": (-1, 1000, "x"),
    "bad_words_ids": ([], [[]], [[1000]], [[-1]], "x", 3), "suppress_tokens": ([1000], [-1], "x"),
    "begin_suppress_tokens": ([1000], [-1]), "early_stopping": ("sometimes", 3), "max_time": (-1.0, NAN, 0.0),
    "num_beam_groups": (2,), "diversity_penalty": (0.5,), "penalty_alpha": (0.5,),
    "do_sample": ("yes", 2), "stop_strings": (["x"],), "renormalize_logits": ("yes",),
    "unknown_option": (1,), "guidance_scale": (NAN, -1.0), "sequence_bias": ({}, "x", [[[1000], 1.0]]),
    "exponential_decay_length_penalty": ((1,), "x", (-1, 0.5)), "prompt_lookup_num_tokens": (-1, 0, "x"),
    "cache_implementation": ("nonsense",), "use_cache": ("yes",), "ctc_weight": (),
    "output_scores": ("yes",), "return_dict_in_generate": ("yes",), "constraints": ([1],), "force_words_ids": ([[1]],),
}  # fmt: skip


# transformers' own sentences, which say what is missing.
TRANSFORMERS = {
    "penalty_alpha": ("Contrastive Search",), "constraints": ("Constrained Beam Search",),
    "force_words_ids": ("Constrained Beam Search",), "stop_strings": ("stop strings",), "sequence_bias": ("biased",),
}  # fmt: skip


def requests() -> Iterator[Case]:
    model, inputs = MODELS["luong"]()
    source = {n: inputs[n] for n in ("input_ids", "attention_mask")}
    sampled = {"temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"}

    def generate(options: dict[str, Any]) -> Any:
        more: dict[str, Any] = {"max_new_tokens": 4} if "max_length" not in options else {}
        if options.keys() & {"num_return_sequences", "length_penalty", "early_stopping"}:
            more["num_beams"] = 3
        if options.keys() & sampled:
            more["do_sample"] = True
        return model.generate(**source, **{**more, **options})

    for name, values in GENERATION.items():
        for value in values:
            if value is not None:
                yield Case(
                    f"generate({name}={value!r})",
                    (name, *TRANSFORMERS.get(name, ())),
                    lambda n=name, v=value: generate({n: v}),
                )
        for value in values:
            if value is not None and name in ("num_beams", "max_new_tokens", "temperature", "top_p", "eos_token_id"):

                def stored(name: str = name, value: Any = value) -> Any:
                    own = model_of("luong")
                    setattr(own.generation_config, name, value)
                    if name in sampled:
                        own.generation_config.do_sample = True
                    return own.generate(**source, **({} if name == "max_new_tokens" else {"max_new_tokens": 4}))

                yield Case(f"generation_config.{name}={value!r}, generate()", (name,), stored)
    ids, mask = source["input_ids"], source["attention_mask"]
    for what, value in (*bad_shapes(ids), *bad_values("input_ids", ids, "luong")):
        yield Case(
            f"generate(input_ids={what})",
            ("input_ids", "attention_mask", "inputs"),
            lambda v=value: model.generate(input_ids=v, attention_mask=mask, max_new_tokens=3),
        )
    for what, value in (*bad_shapes(mask), *bad_values("attention_mask", mask, "luong")):
        yield Case(
            f"generate(attention_mask={what})",
            ("input_ids", "attention_mask"),
            lambda v=value: model.generate(input_ids=ids, attention_mask=v, max_new_tokens=3),
        )
    prompt = random_ids(B, 2)
    for what, value in (*bad_shapes(prompt), *bad_values("decoder_input_ids", prompt, "luong")):
        if what != "longer":
            yield Case(
                f"generate(decoder_input_ids={what})",
                ("decoder_input_ids",),
                lambda v=value: model.generate(**source, decoder_input_ids=v, max_new_tokens=3),
            )
    speech, inputs = MODELS["speech"]()
    features = {n: inputs[n] for n in ("input_features", "attention_mask")}
    for value in (-0.1, 1.1, NAN, "x", INF):
        yield Case(
            f"speech.generate(ctc_weight={value!r})",
            ("ctc_weight",),
            lambda v=value: speech.generate(**features, ctc_weight=v, max_new_tokens=3),
        )
    real = features["input_features"]
    for what, value in (*bad_shapes(real), *bad_values("input_features", real, "speech")):
        for method in ("generate", "ctc_decode"):
            yield Case(
                f"speech.{method}(input_features={what})",
                ("input_features", "attention_mask"),
                lambda v=value, m=method: getattr(speech, m)(v, attention_mask=features["attention_mask"]),
            )
    spoken, inputs = MODELS["spectrogram"]()
    text = {n: inputs[n] for n in ("input_ids", "attention_mask")}
    for name, values in {
        "threshold": (0, -1, 1.5, NAN, "x"),
        "minlenratio": (-1, NAN, "x", INF, 30.0),
        "maxlenratio": (0, -1, NAN, "x", INF),
        "vocoder": (3, "x"),
        "output_cross_attentions": ("yes",),
        "return_output_lengths": ("yes",),
    }.items():
        for value in values:
            yield Case(
                f"generate_speech({name}={value!r})",
                (name,),
                lambda n=name, v=value: spoken.generate_speech(**text, **{n: v}),
            )
    for what, value in (*bad_shapes(ids), *bad_values("input_ids", ids, "luong")):
        yield Case(
            f"generate_speech(input_ids={what})",
            ("input_ids", "attention_mask"),
            lambda v=value: spoken.generate_speech(v, attention_mask=mask, maxlenratio=1.0),
        )
    drawer, inputs = MODELS["distribution"]()
    past = {n: v for n, v in inputs.items() if n not in ("future_values", "future_observed_mask")}
    for value in (0, -1, 1.5, "x", NAN):
        yield Case(
            f"distribution.generate(num_parallel_samples={value!r})",
            ("num_parallel_samples",),
            lambda v=value: drawer.generate(**past, num_parallel_samples=v),
        )
    yield Case(
        "forecaster.generate(num_parallel_samples=0)",
        ("num_parallel_samples",),
        lambda: MODELS["forecaster"]()[0].generate(**past, num_parallel_samples=0),
    )
    for name in past:
        for what, value in (*bad_shapes(past[name]), *bad_values(name, past[name], "forecaster")):
            loose = what in ("fewer rows", "more rows", "no rows", "longer", "empty", "an axis less")
            yield Case(
                f"distribution.forecast({name}={what})",
                tuple(past) if loose else (name,),
                lambda n=name, v=value: drawer.forecast(**{**past, n: v}),
            )
    for sequences in (random_ids(2, 4), random_ids(3, 1)[:, :0], floats(3, 4), random_ids(3, 4) + 100, [[1, 2]], "x"):
        yield Case(
            f"alignments({str(sequences)[:24]!r})", ("sequences",), lambda v=sequences: model.alignments(v, **source)
        )


CONFIG_VALUES: tuple[Any, ...] = (-1, 0, 1.5, NAN, INF, -INF, "text", "", [1], {}, True, None)
# What is right for an option although it is among the values above.
RIGHT: dict[str, tuple[Any, ...]] = {}


def _is_right(name: str, value: Any) -> bool:
    """Whether a value is one that an option takes: not a matter of this harness."""
    field = RnnSeq2SeqConfig.__dataclass_fields__[name]
    kind = str(field.type)
    if value is None:
        return "None" in kind or "Optional" in kind
    if value is True:
        return "bool" in kind
    if isinstance(value, float) and value == 1.5:
        return "float" in kind and "dropout" not in name and name not in ("label_smoothing", "ctc_weight")
    if value == 0 and not isinstance(value, bool):
        if "float" in kind:
            return name != "guided_attention_loss_sigma"
        return name.endswith("token_id") or name in (
            "copy_slots",
            "alignment_order",
            "location_filters",
            "speech_decoder_postnet_layers",
            "num_time_features",
            "num_static_real_features",
            "num_static_categorical_features",
        )
    if value == [1]:
        return "list" in kind
    return False


def options() -> Iterator[Case]:
    names = [n for n in RnnSeq2SeqConfig.__annotations__ if n in RnnSeq2SeqConfig.__dataclass_fields__]
    for name in names:
        if name in ("model_type", "keys_to_ignore_at_inference", "attribute_map"):
            continue
        for value in CONFIG_VALUES:
            if not _is_right(name, value):
                yield Case(f"config({name}={value!r})", (name,), lambda n=name, v=value: tiny_config(**{n: v}))
    for name in ("num_labels", "problem_type", "id2label", "label2id"):
        for value in (-1, "text", 1.5, [1]):

            def run(name: str = name, value: Any = value) -> Any:
                return RnnSeq2SeqForSequenceClassification(tiny_config(**{name: value}))

            yield Case(f"config({name}={value!r})", (name, "num_labels"), run)
    # After the model was made.
    for name, value in (
        ("hidden_dropout", 1.5), ("hidden_dropout", NAN), ("hidden_dropout", -1.0), ("label_smoothing", 2.0),
        ("label_smoothing", NAN), ("output_dropout", 1.0), ("embedding_dropout", -0.5), ("token_dropout", 1.5),
        ("recurrent_dropout", "x"), ("coverage_loss_weight", -1.0), ("pad_token_id", 1000), ("eos_token_id", -5),
        ("decoder_start_token_id", 1000), ("vocab_size", -1), ("vocab_size", 5),
        ("vocab_size", 50), ("attention_type", "nonsense"), ("attention_type", "none"), ("attention_type", "dot"),
        ("rnn_type", "gru"), ("rnn_type", "x"), ("encoder_layers", 3), ("encoder_layers", 0), ("decoder_layers", 1),
        ("decoder_layers", 3), ("encoder_hidden_size", 16), ("decoder_hidden_size", 4), ("embedding_size", 3),
        ("bridge_type", "mlp"), ("context_feeding", "every_step"), ("context_vector", "median"),
        ("input_feeding", False), ("use_copy", True), ("coverage", True), ("copy_slots", 5), ("readout_type", "x"),
        ("bidirectional_encoder", False), ("layer_norm", True), ("input_feature_size", 3), ("time_reduction", 2),
        ("ctc_weight", 0.5), ("num_mel_bins", 4), ("feed_previous_token", False), ("character_vocab_size", 5),
        ("classifier_dropout", 1.0), ("location_filters", 2), ("share_embeddings", True),
    ):  # fmt: skip
        for method in ("forward", "generate", "train"):

            def run(name: str = name, value: Any = value, method: str = method) -> Any:
                model, inputs = MODELS["luong"]()
                setattr(model.config, name, value)
                source = {n: inputs[n] for n in ("input_ids", "attention_mask")}
                if method == "forward":
                    return model(**source, labels=inputs["labels"])
                if method == "train":
                    return model.train()(**source, labels=inputs["labels"])
                return model.generate(**source, max_new_tokens=3)

            yield Case(f"config.{name}={value!r}, then {method}", (name,), run)
    for kind, changes in (
        ("tagger", (("num_labels", 9), ("problem_type", "x"), ("use_crf", True))),
        ("classifier", (("problem_type", "x"), ("classifier_pooling", "x"),
                                                            ("classifier_dropout", 1.0), ("num_labels", 9))),
        ("speech", (("ctc_weight", 1.5), ("ctc_weight", NAN), ("input_feature_size", 9),
                                                ("time_reduction", 3))),
        ("spectrogram", (("num_mel_bins", 9), ("reduction_factor", 3),
                                                        ("speech_decoder_prenet_dropout", 1.0),
                                                        ("stop_loss_weight", -1.0), ("regression_loss", "x"))),
        ("forecaster", (("prediction_length", 9), ("context_length", 0),
                                                           ("window_normalization", "x"), ("cardinality", [9]),
                                                           ("input_feature_size", 3), ("segment_length", 2))),
    ):  # fmt: skip
        for name, value in changes:

            def run(kind: str = kind, name: str = name, value: Any = value) -> Any:
                model, inputs = MODELS[kind]()
                setattr(model.config, name, value)
                return model(**inputs)

            yield Case(f"{kind}.config.{name}={value!r}, then forward", (name,), run)
    for class_ in (
        RnnSeq2SeqForConditionalGeneration,
        RnnSeq2SeqForTokenClassification,
        RnnSeq2SeqModel,
        RnnSeq2SeqForSpeechSeq2Seq,
        RnnSeq2SeqForTimeSeriesPrediction,
        RnnSeq2SeqForTextToSpectrogram,
    ):
        for value in ("text", None, {}, 3):
            yield Case(f"{class_.__name__}({value!r})", ("config", "RnnSeq2SeqConfig"), lambda c=class_, v=value: c(v))
    yield Case("from_preset('x')", ("name",), lambda: RnnSeq2SeqConfig.from_preset("x"))
    yield Case("from_preset(3)", ("name",), lambda: RnnSeq2SeqConfig.from_preset(3))  # type: ignore[arg-type]
    yield Case("from_preset([])", ("name",), lambda: RnnSeq2SeqConfig.from_preset([]))  # type: ignore[arg-type]


EXTRACTOR = {
    "feature_type": ("x", 3, None), "sampling_rate": (0, -1, 1.5, "x", NAN), "num_mel_bins": (0, -1, 1.5, "x"),
    "num_cepstra": (0, -1, 99, "x"), "frame_size": (0, 5, "x"), "frame_length": (0, -1, NAN, "x", INF),
    "frame_shift": (0, -1, NAN, "x"), "low_frequency": (-1, NAN, 9000, "x"), "high_frequency": (0, 99999, NAN, "x"),
    "preemphasis": (1, -0.1, NAN, "x"), "dither": (-1, NAN, INF, "x"), "delta_order": (3, -1, 1.5, "x"),
    "delta_window": (0, -1, 1.5, "x"), "normalization": ("x", 3), "stack": (0, -1, 1.5, "x"),
    "mean": ([1.0], "x"), "unknown": (1,), "padding_value": (NAN, "x"),
}  # fmt: skip


def processors() -> Iterator[Case]:
    for name, values in EXTRACTOR.items():
        for value in values:
            more = {"feature_type": "mfcc"} if name == "num_cepstra" else {}
            yield Case(
                f"extractor({name}={value!r})",
                (name,),
                lambda n=name, v=value, m=more: RnnSeq2SeqFeatureExtractor(**m, **{n: v}),
            )
    extractor, sound = RnnSeq2SeqFeatureExtractor(), np.random.default_rng(0).standard_normal(4000).astype("float32")
    frames = RnnSeq2SeqFeatureExtractor(feature_type="none", frame_size=4)
    for what, value in (
        ("a text", "file.wav"),
        ("None", None),
        ("a dict", {}),
        ("nothing", []),
        ("empty", sound[:0]),
        ("two axes", sound.reshape(2, -1)),
        ("integers", (sound * 100).astype("int16")),
        ("NaN", sound * NAN),
        ("infinite", sound + INF),
        ("list of texts", ["a", "b"]),
        ("objects", np.array([None, 1])),
        ("ragged", [[0.1, 0.2], ["x"]]),
        ("complex", sound.astype("complex64")),
        ("a number", 0.5),
        ("a list of None", [None]),
        ("bytes", b"RIFF"),
    ):
        yield Case(f"extractor({what})", ("raw_speech",), lambda v=value: extractor(v))
        yield Case(f"extractor.fit({what})", ("raw_speech",), lambda v=value: extractor.fit(v))
        yield Case(f"frames({what})", ("raw_speech",), lambda v=value: frames(v))
    for name, values in {
        "sampling_rate": (8000, -1, "x"),
        "padding": ("x", 3),
        "return_tensors": ("x", 3),
        "speaker": (["a", "b"], 3),
        "unknown": (1,),
        "max_length": (-1, "x"),
    }.items():
        for value in values:
            words = (name, "PaddingStrategy", "TensorType")
            own = RnnSeq2SeqFeatureExtractor(normalization="speaker") if name == "speaker" else extractor
            more = {"padding": "max_length"} if name == "max_length" else {}
            yield Case(
                f"extractor(sound, {name}={value!r})",
                words,
                lambda n=name, v=value, o=own, m=more: o(sound, **m, **{n: v}),
            )


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "tensors": tensors, "embedded": embedded, "losses": losses, "caches": caches, "flags": flags,
    "requests": requests, "options": options, "processors": processors,
}  # fmt: skip


def all_cases() -> list[Case]:
    return [case for cases in CASES.values() for case in cases()]


@pytest.mark.chaos
def test_all() -> None:
    assert not tried(all_cases(), of_the_api)


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(CASES)
    torch.set_num_threads(1)
    for part in chosen:
        tried(CASES[part](), of_the_api)
