"""The models as modules: cache, paths, outputs, checkpointing, precision, tying, resizing, saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import ALL, ATTENDING, STRUCTURES, gradients, padded_batch, random_ids, tiny_config, tiny_model
from transformers import AutoModel, AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from hf_rnn_seq2seq import (
    RnnEncoderOutput,
    RnnSeq2SeqConfig,
    RnnSeq2SeqEncoder,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqModel,
)


TIGHT = {"atol": 1e-10, "rtol": 1e-8}
LENGTHS, WIDTH = [5, 2, 7], 7


def inputs_of(kind: str = "interior") -> dict[str, torch.Tensor]:
    batch = padded_batch(kind, LENGTHS, WIDTH)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1], [3, 1, 1], [2, 3]], ids=str)
def test_steps_from_the_cache_equal_the_whole_run(structure: str, chunks: list[int]) -> None:
    model, inputs, target = tiny_model(structure), inputs_of(), random_ids(3, 5)
    whole = model(**inputs, decoder_input_ids=target, use_cache=False)
    assert whole.past_key_values is None
    cache, logits, mask = None, [], inputs["attention_mask"]
    for part in target.split(chunks, dim=1):
        # The source is given once; afterwards the cache has all that a step reads of it.
        source = inputs if cache is None else {"attention_mask": mask}
        out = model(**source, decoder_input_ids=part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), whole.logits, **TIGHT)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_one_step_after_the_other_equals_all_at_once(structure: str, padded: bool) -> None:
    # A rule that always chooses the reference makes the decoder step; without it it runs at once where it can.
    model, inputs, target = tiny_model(structure), inputs_of(), random_ids(3, 5)
    mask = padded_batch("interior", [5, 3, 4], 5).attention_mask if padded else None
    results = []
    for choose in (None, lambda t, *_: target[:, t]):
        out = model.model(**inputs, decoder_input_ids=target, decoder_attention_mask=mask, choose_input=choose)
        real = out.last_hidden_state if mask is None else out.last_hidden_state[mask.bool()]
        real.pow(3).sum().backward()
        results.append({"output": real, **gradients(model)})
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT)


@pytest.mark.parametrize("structure", ALL)
def test_given_encoder_outputs_stand_for_the_source(structure: str) -> None:
    model, inputs, target = tiny_model(structure), inputs_of("left"), random_ids(3, 4)
    wanted = model(**inputs, decoder_input_ids=target).logits
    mask = inputs["attention_mask"]
    encoder_outputs = model.get_encoder()(**inputs)
    assert isinstance(encoder_outputs, RnnEncoderOutput)
    as_tuple = model.get_encoder()(**inputs, return_dict=False)
    with_layers = model.get_encoder()(**inputs, output_hidden_states=True, return_dict=False)
    for given in (encoder_outputs, as_tuple, with_layers):
        out = model(encoder_outputs=given, attention_mask=mask, decoder_input_ids=target)
        torch.testing.assert_close(out.logits, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("kind", ["right", "left", "interior", None])
def test_the_last_state_is_found_in_a_plain_memory_where_that_is_possible(bidirectional: bool, kind: Any) -> None:
    model = tiny_model("bahdanau", bidirectional_encoder=bidirectional)
    inputs = {"input_ids": random_ids(3, 5)} if kind is None else inputs_of(kind)
    target, mask = random_ids(3, 4), inputs.get("attention_mask")
    plain = BaseModelOutput(last_hidden_state=model.get_encoder()(**inputs).last_hidden_state)
    got = model(encoder_outputs=plain, attention_mask=mask, decoder_input_ids=target).logits
    torch.testing.assert_close(got, model(**inputs, decoder_input_ids=target).logits, **TIGHT)


def test_a_plain_memory_without_the_cells_is_refused() -> None:
    model, inputs = tiny_model("luong"), inputs_of()
    plain = BaseModelOutput(last_hidden_state=model.get_encoder()(**inputs).last_hidden_state)
    with pytest.raises(ValueError, match="final_hidden"):
        model(encoder_outputs=plain, decoder_input_ids=random_ids(3, 2))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_hidden_states_and_attentions_come_out_when_asked_for(structure: str) -> None:
    model, inputs, target = tiny_model(structure), inputs_of(), random_ids(3, 4)
    config = model.config
    quiet = model(**inputs, decoder_input_ids=target)
    assert quiet.cross_attentions is quiet.decoder_hidden_states is quiet.encoder_hidden_states is None
    out = model(**inputs, decoder_input_ids=target, output_hidden_states=True, output_attentions=True)
    assert len(out.encoder_hidden_states) == config.encoder_layers + 1
    assert len(out.decoder_hidden_states) == config.decoder_layers + 1
    torch.testing.assert_close(out.encoder_hidden_states[-1], out.encoder_last_hidden_state)
    torch.testing.assert_close(model.lm_head(out.decoder_hidden_states[-1]), out.logits)
    if structure in ATTENDING:
        assert [weights.shape for weights in out.cross_attentions] == [(3, 1, 4, WIDTH)]
    else:
        assert out.cross_attentions == ()
    for layer in range(config.encoder_layers):
        # The layer's outputs over an unpadded row are its hidden states.
        row = out.encoder_hidden_states[layer + 1][2]
        assert row.shape == (WIDTH, config.encoder_hidden_size) and row.abs().sum() > 0


def test_logits_to_keep() -> None:
    model, inputs, target = tiny_model("luong"), inputs_of(), random_ids(3, 5)
    every = model(**inputs, decoder_input_ids=target).logits
    last_two = model(**inputs, decoder_input_ids=target, logits_to_keep=2).logits
    chosen = model(**inputs, decoder_input_ids=target, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(last_two, every[:, -2:])
    torch.testing.assert_close(chosen, every[:, [0, 3]])


def test_wrong_inputs_are_refused_by_name() -> None:
    model, ids, target = tiny_model("luong"), random_ids(2, 3), random_ids(2, 2)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(decoder_input_ids=target)
    with pytest.raises(ValueError, match=r"exactly one of decoder_input_ids \(or labels\) and decoder_inputs_embeds"):
        model(ids)
    with pytest.raises(ValueError, match=r"source is empty.*\(2, 0\)"):
        model(ids[:, :0], decoder_input_ids=target)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 4\), wanted \(2, 3\)"):
        model(ids, torch.ones(2, 4), decoder_input_ids=target)
    with pytest.raises(ValueError, match=r"labels has shape \(2, 3\)"):
        model(ids, decoder_input_ids=target, labels=random_ids(2, 3))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not_reentrant"])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_activation_checkpointing_gives_equal_gradients(structure: str, reentrant: bool) -> None:
    model, inputs, labels = tiny_model(structure).train(), inputs_of(), random_ids(3, 4)
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
            assert model.is_activation_checkpointing
        out = model(**inputs, labels=labels)
        out.loss.backward()
        results.append({"loss": out.loss.detach(), **gradients(model)})
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_bfloat16_runs_and_stays_close(structure: str) -> None:
    inputs, labels = inputs_of(), random_ids(3, 4)
    model = tiny_model(structure, torch.float32)
    wanted = model(**inputs, labels=labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        out = model.train()(**inputs, labels=labels)
        out.loss.backward()
        generated = model.eval().generate(**inputs, max_new_tokens=3)
    assert out.loss.dtype == torch.float32 and generated.shape[0] == 3
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    torch.testing.assert_close(out.loss, wanted, rtol=0.03, atol=0.03)
    half = model.to(torch.bfloat16)
    torch.testing.assert_close(half(**inputs, labels=labels).loss, wanted, rtol=0.05, atol=0.05)
    assert half.generate(**inputs, max_new_tokens=3).shape[0] == 3


@pytest.mark.parametrize("option", ["embedding_dropout", "hidden_dropout", "output_dropout", "recurrent_dropout"])
@pytest.mark.parametrize("structure", ["both_max", "luong"])
def test_dropout_acts_in_training_only(structure: str, option: str) -> None:
    inputs, target = inputs_of(), random_ids(3, 4)
    model, plain = tiny_model(structure, **{option: 0.4}), tiny_model(structure)
    wanted = plain(**inputs, decoder_input_ids=target).logits
    torch.testing.assert_close(model(**inputs, decoder_input_ids=target).logits, wanted, rtol=0, atol=0)
    model.train()
    first, second = (model(**inputs, decoder_input_ids=target).logits for _ in range(2))
    assert not torch.allclose(first, second)
    plain.train()
    torch.testing.assert_close(plain(**inputs, decoder_input_ids=target).logits, wanted, **TIGHT)


def test_dropout_before_the_output_is_that_between_the_layers_unless_said() -> None:
    inputs = {**inputs_of(), "decoder_input_ids": random_ids(3, 4)}
    wanted, kept, dropped = (
        tiny_model("luong", hidden_dropout=hidden, output_dropout=output).train()
        for hidden, output in ((0, None), (0.4, 0), (0, 0.4))
    )
    for model in (kept, dropped):
        model.model.encoder = wanted.model.encoder  # no dropout there
    plain = wanted(**inputs).logits
    assert not torch.allclose(dropped(**inputs).logits, plain)
    kept.model.decoder.rnn.dropout = 0.0  # what is left is before the output
    torch.testing.assert_close(kept(**inputs).logits, plain, **TIGHT)
    assert tiny_model("luong", hidden_dropout=0.4).model.decoder.output_dropout == 0.4


TYING = {
    "none": ({}, 3),
    "embeddings": ({"share_embeddings": True}, 2),
    "output": ({"tie_word_embeddings": True}, 2),
    "three_way": ({"share_embeddings": True, "tie_word_embeddings": True}, 1),
}


def tables(model: RnnSeq2SeqForConditionalGeneration) -> set[int]:
    """The storages of the two embeddings and the output matrix; what is tied is tied to the right one."""
    parts = (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens, model.lm_head)
    encoder, decoder, output = (part.weight.data_ptr() for part in parts)
    assert (encoder == decoder) == model.config.share_embeddings
    assert (output == decoder) == model.config.tie_word_embeddings
    return {encoder, decoder, output}


@pytest.mark.parametrize("tying", TYING)
def test_tied_tables_are_one_in_memory_on_disk_and_after_loading(tying: str, tmp_path: Any) -> None:
    options, count = TYING[tying]
    torch.manual_seed(0)
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(**options))
    inputs, target = inputs_of(), random_ids(3, 4)
    assert len(tables(model)) == count
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = [name for name in file.keys() if "embed_tokens" in name or name == "lm_head.weight"]  # noqa: SIM118
    assert len(saved) == count
    loaded = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert len(tables(loaded)) == count
    got, wanted = (m.eval()(**inputs, decoder_input_ids=target).logits for m in (loaded, model))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)

    # One update moves all that is tied, and only that.
    loaded.train()
    loaded(**inputs, labels=target).loss.backward()
    torch.optim.SGD(loaded.parameters(), lr=0.5).step()
    assert len(tables(loaded)) == count
    parts = [loaded.model.encoder.embed_tokens, loaded.model.decoder.embed_tokens, loaded.lm_head]
    assert len({tuple(part.weight.flatten().tolist()) for part in parts}) == count


@pytest.mark.parametrize("tying", TYING)
@pytest.mark.parametrize("size", [15, 9])
def test_resizing_one_vocabulary_resizes_all_its_tables(tying: str, size: int, tmp_path: Any) -> None:
    options, count = TYING[tying]
    model = tiny_model("luong", **options)
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.arange(12))
    source, target = random_ids(2, 5, 9), random_ids(2, 4, 9)
    with torch.no_grad():
        before = model(source, decoder_input_ids=target).logits
    model.resize_token_embeddings(size)
    assert model.config.vocab_size == model.config.target_vocab_size == size
    assert model.model.encoder.embed_tokens.num_embeddings == model.model.decoder.embed_tokens.num_embeddings == size
    assert model.lm_head.weight.shape[0] == model.lm_head.bias.shape[0] == model.lm_head.out_features == size
    assert len(tables(model)) == count
    kept = min(12, size)
    after = model(source, decoder_input_ids=target).logits
    assert after.shape[-1] == size
    torch.testing.assert_close(after[..., :kept], before[..., :kept])

    model(torch.full((1, 2), size - 1), labels=torch.full((1, 2), size - 1)).loss.backward()
    assert model.generate(source, max_new_tokens=3).shape[0] == 2
    model.save_pretrained(tmp_path)
    loaded = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(loaded(source, decoder_input_ids=target).logits, after)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_saved_model_comes_back_bit_by_bit(structure: str, tmp_path: Any) -> None:
    model, inputs, target = tiny_model(structure, torch.float32), inputs_of(), random_ids(3, 4)
    model.save_pretrained(tmp_path)
    wanted = model(**inputs, decoder_input_ids=target)
    for loaded in (
        RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path),
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path),
    ):
        assert type(loaded) is RnnSeq2SeqForConditionalGeneration
        got = loaded.eval()(**inputs, decoder_input_ids=target)
        torch.testing.assert_close(got.logits, wanted.logits, rtol=0, atol=0)
        options = {**inputs, "num_beams": 2, "max_new_tokens": 5}
        assert torch.equal(loaded.generate(**options), model.generate(**options))
    bare = AutoModel.from_pretrained(tmp_path).eval()
    assert type(bare) is RnnSeq2SeqModel
    output = bare(**inputs, decoder_input_ids=target).last_hidden_state
    torch.testing.assert_close(model.lm_head(output), wanted.logits, rtol=0, atol=0)
    encoder = RnnSeq2SeqEncoder(model.config)
    encoder.load_state_dict(model.get_encoder().state_dict())
    memory = encoder.eval()(**inputs).last_hidden_state
    torch.testing.assert_close(memory, wanted.encoder_last_hidden_state, rtol=0, atol=0)


def test_resizing_refuses_to_guess_which_of_two_vocabularies_is_meant() -> None:
    model = tiny_model("luong", decoder_vocab_size=20)
    with pytest.raises(ValueError, match="vocab_size=12 and decoder_vocab_size=20"):
        model.resize_token_embeddings(15)


def test_two_vocabularies_have_tables_of_their_own_size() -> None:
    model = tiny_model("luong", vocab_size=9, decoder_vocab_size=20)
    assert model.model.encoder.embed_tokens.num_embeddings == 9
    assert model.model.decoder.embed_tokens.num_embeddings == model.lm_head.out_features == 20
    assert model(random_ids(2, 3, 9), labels=torch.tensor([[19, 3], [10, 3]])).logits.shape == (2, 2, 20)


def test_initialisation_is_reproducible_and_neither_zero_nor_wild() -> None:
    config = RnnSeq2SeqConfig(vocab_size=50, attention_type="additive")
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(RnnSeq2SeqForConditionalGeneration(config))
    for (name, first), second in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
        assert torch.isfinite(first).all() and first.abs().max() < 5, name
        assert first.any() or "bias" in name, name
    embedding = models[0].model.encoder.embed_tokens.weight
    assert 0.8 < embedding.std() * config.embedding_size**0.5 < 1.2


def test_weights_can_begin_as_those_of_torchs_modules_do() -> None:
    sizes = {"vocab_size": 50, "embedding_size": 40, "encoder_hidden_size": 60, "decoder_hidden_size": 60}
    options = {"attention_type": "none", "bidirectional_encoder": False, "encoder_layers": 1, "decoder_layers": 1}
    model = RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(**sizes, **options, init_scheme="torch"))
    pairs = [
        (model.model.encoder.embed_tokens, torch.nn.Embedding(50, 40)),
        (model.model.encoder.rnn, torch.nn.LSTM(40, 60)),
        (model.model.decoder.rnn, torch.nn.LSTM(40, 60)),
        (model.lm_head, torch.nn.Linear(60, 50)),
    ]
    for ours, theirs in pairs:
        found, wanted = dict(ours.named_parameters()), dict(theirs.named_parameters())
        assert found.keys() == wanted.keys()
        for name, parameter in wanted.items():
            assert found[name].std().item() == pytest.approx(parameter.std().item(), rel=0.25), name
            if not isinstance(ours, torch.nn.Embedding):
                assert found[name].abs().max().item() == pytest.approx(parameter.abs().max().item(), rel=0.1), name
