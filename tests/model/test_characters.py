"""What the characters of a word say: against one word at a time, under padding, in every model, in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import LIVELY, PADDINGS, gradients, numpy_step, padded_batch, random_ids, randomize, tiny_config, trim
from torch import Tensor, nn

from hf_rnn_seq2seq import (
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForTokenClassification,
)
from hf_rnn_seq2seq.model.embedding import CharacterEncoder
from hf_rnn_seq2seq.model.fast_words import read_each_once


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
CELLS = ("lstm", "gru", "rnn_tanh")
PAD, CHARACTERS = 1, 11
LENGTHS, WIDTH = [5, 2, 7, 1], 7
OPTIONS: dict[str, Any] = {
    "character_vocab_size": CHARACTERS,
    "character_embedding_size": 3,
    "character_hidden_size": 4,
}
MODELS = {
    "tagger": (RnnSeq2SeqForTokenClassification, {"num_labels": 3, "use_crf": True}),
    "classifier": (RnnSeq2SeqForSequenceClassification, {"num_labels": 3}),
    "seq2seq": (RnnSeq2SeqForConditionalGeneration, {"rnn_type": "gru"}),
}


def model_of(kind: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    model_class, more = MODELS[kind]
    model = model_class(tiny_config(**{**OPTIONS, **more, **options}))
    randomize(model)
    return model.to(dtype).eval()


def random_words(rows: int, words: int, longest: int = 6, seed: int = 0) -> Tensor:
    """Characters (rows, words, longest + 2) of random words of 0 to `longest` characters, many of them equal."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.full((2 * words, longest + 2), PAD)
    for n, word in enumerate(known):
        length = n % (longest + 1)
        word[:length] = torch.randint(4, CHARACTERS, (length,), generator=generator)
    return known[torch.randint(len(known), (rows, words), generator=generator)]


def encoder_of(rnn_type: str = "lstm") -> CharacterEncoder:
    encoder = CharacterEncoder(rnn_type, CHARACTERS, 3, 4, PAD)
    randomize(encoder)
    return encoder.double()


@pytest.mark.parametrize("rnn_type", CELLS)
def test_a_word_is_its_last_states_of_both_directions(rnn_type: str) -> None:
    encoder, character_ids = encoder_of(rnn_type), random_words(3, 5)
    with torch.no_grad():
        vectors = encoder(character_ids, None).numpy()
    table = encoder.embed_characters.weight.detach().numpy()
    weights = [[w.detach().numpy() for w in encoder.rnn.weights(0, suffix)] for suffix in ("", "_reverse")]
    for row, col in np.ndindex(3, 5):
        word = [int(c) for c in character_ids[row, col] if c != PAD]
        wanted = []
        for direction, spelling in zip(weights, (word, word[::-1]), strict=True):
            state = [np.zeros(2)] * (2 if rnn_type == "lstm" else 1)
            for character in spelling:
                state = numpy_step(rnn_type, table[character], state, direction)
            wanted.append(state[0])
        np.testing.assert_allclose(vectors[row, col], np.concatenate(wanted), atol=1e-12)


def test_reading_each_distinct_word_once_changes_no_value_and_no_gradient() -> None:
    encoder, words = encoder_of(), random_words(4, 9).flatten(0, 1)
    results = []
    for once in (False, True):
        vectors = read_each_once(encoder._read, words, PAD) if once else encoder._read(words)
        (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2)).double()).sum().backward()
        results.append({"vectors": vectors.detach(), **gradients(encoder)})
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_a_trace_reads_other_words_than_it_was_made_with() -> None:
    encoder = encoder_of().eval()
    mask = torch.ones(2, 3, dtype=torch.bool)
    traced = torch.jit.trace(encoder, (random_words(2, 3), mask), check_trace=False)
    other, mask = random_words(3, 4, longest=9, seed=5), torch.rand(3, 4) < 0.7
    torch.testing.assert_close(traced(other, mask), encoder(other, mask), **TIGHT)


def forward(kind: str, model: nn.Module, **inputs: Any) -> Any:
    rows = len(inputs["input_ids"])
    if kind == "seq2seq":
        return model(**inputs, decoder_input_ids=random_ids(1, 4).expand(rows, -1)).logits
    return model(**inputs).logits


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_of_words_and_of_characters_changes_nothing(padding: str, kind: str) -> None:
    model, batch = model_of(kind), padded_batch(padding, LENGTHS, WIDTH)
    mask, character_ids = batch.attention_mask, random_words(len(LENGTHS), WIDTH)
    # At padded words there may be anything, as there may be in input_ids.
    logits = forward(kind, model, input_ids=batch.input_ids, attention_mask=mask, character_ids=character_ids)
    got = [logits[row, mask[row].bool()] if kind == "tagger" else logits[row] for row in range(len(LENGTHS))]
    sum((row**2).sum() for row in got).backward()
    together, alone = gradients(model), []
    for row, source in enumerate(batch.rows):
        own = character_ids[row, mask[row].bool()]
        own = own[None, :, : max(1, int((own != PAD).sum(-1).max()))]
        alone.append(forward(kind, model, input_ids=source, character_ids=own)[0])
        torch.testing.assert_close(got[row], alone[row], **TIGHT)
    sum((row**2).sum() for row in alone).backward()
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(together[name], wanted, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", MODELS)
def test_unknown_words_differ_by_their_characters(kind: str) -> None:
    model, unknown = model_of(kind), torch.zeros(1, 3, dtype=torch.long)
    first, second = (random_words(1, 3, seed=seed) for seed in (1, 2))
    logits = forward(kind, model, input_ids=unknown, character_ids=first)
    assert not torch.allclose(logits, forward(kind, model, input_ids=unknown, character_ids=second))
    assert torch.equal(logits, forward(kind, model, input_ids=unknown, character_ids=first.clone()))


def test_the_input_of_the_recurrence_is_the_embedding_beside_the_characters_and_dropout_falls_on_both() -> None:
    encoder = model_of("tagger", embedding_dropout=0.5).get_encoder()
    input_ids, character_ids = random_ids(2, 5), random_words(2, 5)
    options = {"input_ids": input_ids, "character_ids": character_ids, "output_hidden_states": True}
    embedded = encoder(**options).hidden_states[0]
    torch.testing.assert_close(embedded[..., :6], encoder.embed_tokens(input_ids))
    torch.testing.assert_close(embedded[..., 6:], encoder.character_encoder(character_ids, None))
    dropped = encoder.train()(**options).hidden_states[0]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * embedded[kept])
    for part in (dropped[..., :6], dropped[..., 6:]):
        assert 0 < (part == 0).double().mean() < 1


@pytest.mark.parametrize("kind", MODELS)
def test_missing_characters_are_named(kind: str) -> None:
    model = model_of(kind)
    with pytest.raises(ValueError, match=r"character_ids is missing.*character_vocab_size=11"):
        forward(kind, model, input_ids=random_ids(2, 3))
    for shape in ((2, 3), (2, 4, 5), (1, 3, 5), (2, 3, 0)):
        with pytest.raises(ValueError, match=r"character_ids has shape .* wanted \(2, 3, word_length\)"):
            forward(kind, model, input_ids=random_ids(2, 3), character_ids=torch.full(shape, 4))


def test_a_model_without_characters_does_not_read_them() -> None:
    model = model_of("tagger", character_vocab_size=None)
    logits = model(random_ids(2, 3)).logits
    torch.testing.assert_close(model(random_ids(2, 3), character_ids=random_words(2, 3)).logits, logits)
    assert not any("character" in name for name in model.state_dict())


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_reads_characters(beams: int) -> None:
    model, batch = model_of("seq2seq"), padded_batch("left", [4, 6], 6)
    character_ids = random_words(2, 6)
    options = {**LIVELY, "max_new_tokens": 6, "num_beams": beams}
    source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    got = model.generate(**source, character_ids=character_ids, **options)
    for row, alone in enumerate(batch.rows):
        own = character_ids[row, batch.attention_mask[row].bool()][None]
        assert trim(model.generate(alone, character_ids=own, **options)[0]) == trim(got[row])
    others = [model.generate(**source, character_ids=random_words(2, 6, seed=n), **options) for n in (1, 2, 3)]
    assert any(not torch.equal(got, other) for other in others)
    with pytest.raises(ValueError, match="character_ids is missing"):
        model.generate(**source, **options)


@pytest.mark.parametrize("kind", MODELS)
def test_a_saved_model_comes_back_and_its_encoder_fits_the_others(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, torch.float32, rnn_type="lstm")
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": random_ids(2, 5), "character_ids": random_words(2, 5)}
    for other, (model_class, _) in MODELS.items():
        loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not [name for name in report["missing_keys"] if "encoder" in name]
        wanted = model.get_encoder()(**inputs).last_hidden_state
        assert torch.equal(loaded.eval().get_encoder()(**inputs).last_hidden_state, wanted)
        if other == kind:
            assert not any(report.values())
    assert torch.isfinite(model(**model.dummy_inputs).logits).all()


def read_ids(model: nn.Module, **inputs: Any) -> Tensor:
    """The ids that the encoder's embedding table is asked for."""
    asked = []
    handle = model.get_encoder().embed_tokens.register_forward_hook(lambda _, args, __: asked.append(args[0]))
    model(**inputs)
    handle.remove()
    return asked[0]


@pytest.mark.parametrize("characters", [None, CHARACTERS])
def test_token_dropout_replaces_ids_by_the_unknown_one_in_training_only(characters: int | None) -> None:
    model = model_of("tagger", character_vocab_size=characters, token_dropout=0.2, unk_token_id=5)
    inputs = {"input_ids": random_ids(100, 100, 12).clamp(min=6), "character_ids": random_words(100, 100)}
    given = inputs["input_ids"].clone()
    assert torch.equal(read_ids(model, **inputs), given)
    asked = read_ids(model.train(), **inputs)
    changed = asked != given
    assert (asked[changed] == 5).all() and torch.equal(inputs["input_ids"], given)
    # 10,000 draws: four standard deviations are 0.016.
    assert abs(changed.double().mean() - 0.2) < 0.016
    model.config.token_dropout = 0.0
    assert torch.equal(read_ids(model, **inputs), given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"character_vocab_size": 0}, "character_vocab_size must be at least 1; got 0"),
        ({"character_embedding_size": 0}, "character_embedding_size must be at least 1"),
        ({"character_hidden_size": 0}, "character_hidden_size must be at least 1"),
        ({"character_vocab_size": 9, "character_hidden_size": 5}, "character_hidden_size=5.*make it even"),
        ({"character_vocab_size": 1}, "pad_token_id=1, character_vocab_size=1.*in both vocabularies"),
        ({"character_vocab_size": 9, "pad_token_id": None}, "pad_token_id=None"),
        ({"token_dropout": 1.0}, "token_dropout must be at least 0 and less than 1"),
        ({"token_dropout": 0.1, "unk_token_id": None}, "token_dropout=0.1.*give an unk_token_id"),
        ({"unk_token_id": 12}, "unk_token_id=12 is not in the vocabulary.*0 to 11"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=f"(?s){words}"):
        tiny_config(**options)
