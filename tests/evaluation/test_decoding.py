"""Decoding a split: batches change nothing, scores are the model's own, texts are what the ids say."""

import copy

import pytest
import torch
from tiny import tiny_model
from transformers import GenerationConfig, PreTrainedTokenizerFast

from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.evaluation.decoding import Hypothesis, decode, target_log_probabilities


SOURCES = [[4, 5, 3], [6, 3], [7, 8, 9, 10, 3], [5, 5, 5, 3], [11, 4, 3]]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    # Ids 4 to 11, as the tiny models have.
    return train_tokenizer(["a b c d e f g h"], TokenizerOptions("word"))


def search(**options: object) -> GenerationConfig:
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    return GenerationConfig(**{"max_new_tokens": 6, **ids, **options})


def test_the_batch_size_changes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("luong")
    options = search(num_beams=3, num_return_sequences=3)
    together, alone = (decode(model, SOURCES, tokenizer, options, size, with_scores=True) for size in (5, 1))
    assert [[h.text for h in ranked] for ranked in together] == [[h.text for h in ranked] for ranked in alone]
    for ranked, same in zip(together, alone, strict=True):
        assert [h.score for h in ranked] == pytest.approx([h.score for h in same])


@pytest.mark.parametrize("number", [1, 3])
def test_hypotheses_are_those_of_generate_in_the_order_of_the_sources(
    number: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model("bahdanau")
    options = search(num_beams=3, num_return_sequences=number)
    found = decode(model, SOURCES, tokenizer, options, batch_size=2)
    for source, ranked in zip(SOURCES, found, strict=True):
        sequences = model.generate(torch.tensor([source]), generation_config=copy.deepcopy(options))
        expected = [tokenizer.decode(row, skip_special_tokens=True) for row in sequences]
        # These models never emit <unk>, <pad> or <s> here; if they did, our text would show it.
        assert [" ".join(t for t in h.text.split() if not t.startswith("<")) for h in ranked] == expected
        assert all(h.score is None for h in ranked)


def test_scores_of_beam_search_are_its_sequence_scores(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("luong")
    model.get_output_embeddings().bias.data[3] += 2  # random models hardly ever end by themselves
    options = search(num_beams=4, num_return_sequences=4, max_new_tokens=12)
    (ranked,) = decode(model, SOURCES[:1], tokenizer, options, with_scores=True)
    options.update(output_scores=True, return_dict_in_generate=True)
    output = model.generate(torch.tensor(SOURCES[:1]), generation_config=options)
    ended = [row for row in range(4) if 3 in output.sequences[row]]
    assert ended
    for row in ended:
        # generate() divides the sum by the number of generated tokens, the end included.
        assert ranked[row].score == pytest.approx(output.sequences_scores[row].item() * (len(ranked[row].tokens) + 1))


def test_log_probabilities_of_targets_are_those_of_one_pass_each() -> None:
    model = tiny_model("cho")
    targets = [[4, 3], [5, 6, 7, 3], [3], [8, 8, 3], [9, 3]]
    found = target_log_probabilities(model, SOURCES, targets, batch_size=3)
    for source, target, scores in zip(SOURCES, targets, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[2, *target[:-1]]])).logits
        expected = logits[0].log_softmax(-1)[range(len(target)), target]
        assert scores == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_mode_of_the_model_is_left_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("luong", hidden_dropout=0.5).train()
    first, second = (decode(model, SOURCES, tokenizer, search()) for _ in range(2))
    assert first == second and model.training
    decode(model.eval(), SOURCES, tokenizer, search())
    assert not model.training


class Scripted:
    """Stands for a model whose `generate()` returns given ids."""

    device = torch.device("cpu")
    training = False

    def __init__(self, sequences: list[list[int]]) -> None:
        self.sequences, self.config = sequences, search()

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def generate(self, **inputs: object) -> torch.Tensor:
        return torch.tensor(self.sequences)


def test_start_end_and_padding_are_cut_but_unknowns_are_shown(tokenizer: PreTrainedTokenizerFast) -> None:
    model = Scripted([[2, 4, 0, 5, 3, 1, 1], [2, 2, 4, 3, 5, 1, 1], [2, 3, 1, 1, 1, 1, 1]])
    found = decode(model, [[4]] * 3, tokenizer, search())
    assert [ranked[0] for ranked in found] == [
        Hypothesis("a <unk> b", (4, 0, 5)),
        Hypothesis("<s> a", (2, 4)),
        Hypothesis("", ()),
    ]
