"""BPE-dropout: what it may change of a text's ids, and what not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.training.augmentation import BpeDropout


TEXTS = ["the lower the newest widest tower", "lower, newer; it's wider - and don't they know?", "zwölf weiße hunde ."]


def trained(**options: Any) -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, TokenizerOptions(**{"type": "bpe", "vocab_size": 400, **options}))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return trained()


@given(text=st.one_of(st.text(max_size=40), st.text("lowertnsid ',.-\n", max_size=40)))
def test_without_dropout_it_cuts_as_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    rows = tokenizer([text, TEXTS[1]])["input_ids"]
    assert BpeDropout(tokenizer, 0.0)(rows) == rows


@given(text=st.text("lowertnsid ',.-\n", max_size=40), reverse=st.booleans())
def test_the_text_stays_the_same_and_so_do_special_tokens(
    tokenizer: PreTrainedTokenizerFast, text: str, reverse: bool
) -> None:
    ids = tokenizer(text)["input_ids"]
    row = [2, *(ids[-2::-1] if reverse else ids[:-1]), 3]
    (cut,) = BpeDropout(tokenizer, 0.5)([row], reverse)
    assert cut[0] == 2 and cut[-1] == 3 and not {2, 3} & set(cut[1:-1])
    assert tokenizer.decode(cut[-2:0:-1] if reverse else cut[1:-1]) == text


def test_a_merge_is_left_out_as_often_as_asked() -> None:
    tokenizer = train_tokenizer(["ab"], TokenizerOptions(type="bpe", vocab_size=261))
    rows = tokenizer(["ab"] * 4000, add_special_tokens=False)["input_ids"]
    assert {len(row) for row in rows} == {1}
    cut = BpeDropout(tokenizer, 0.25)(rows)
    # the standard deviation of the share is 0.007
    assert sum(len(row) == 2 for row in cut) / 4000 == pytest.approx(0.25, abs=0.03)


def test_it_draws_from_torchs_generator(tokenizer: PreTrainedTokenizerFast) -> None:
    dropout, rows = BpeDropout(tokenizer, 0.3), tokenizer(TEXTS * 5)["input_ids"]
    torch.manual_seed(3)
    first, second = dropout(rows), dropout(rows)
    torch.manual_seed(3)
    assert dropout(rows) == first != second


def test_other_tokenizers_have_no_merges() -> None:
    with pytest.raises(ValueError, match="tokenizer: got the type Unigram, wanted BPE, which has merges"):
        BpeDropout(trained(type="unigram"), 0.1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("add_eos", [False, True])
def test_training_batches_are_cut_anew(reverse: bool, both: bool, add_eos: bool) -> None:
    content: dict[str, Any] = {
        "data": {
            "dataset_name": "toy:reverse",
            "toy": {"train": 200, "validation": 5, "test": 5, "max_length": 12},
            "source_bpe_dropout": 0.4,
            "target_bpe_dropout": 0.4 if both else 0.0,
            "reverse_source": reverse,
        },
        "tokenizer": {
            "source": {"type": "bpe", "vocab_size": 330, "add_eos": add_eos},
            "target": {"type": "bpe", "vocab_size": 300},
        },
        "model": {"embedding_size": 8, "encoder_hidden_size": 8, "decoder_hidden_size": 8},
    }
    task = Seq2SeqTask(build_recipe(content, "tiny"))
    data = task.load_data(".")
    task.build(data)
    rows = task.encode(data["train"], "train").to_list()
    batch = dict(task.collate(rows))
    augmented = task.augment(batch)
    assert augmented["input_ids"].shape[1] > batch["input_ids"].shape[1]
    assert torch.equal(augmented["labels"], batch["labels"]) != both
    assert torch.equal(
        augmented["attention_mask"].bool(), augmented["input_ids"] != task.source_tokenizer.pad_token_id
    )

    def source_texts(ids: torch.Tensor) -> list[str]:
        special = set(task.source_tokenizer.all_special_ids)
        bare = [[number for number in row if number not in special] for row in ids.tolist()]
        return [task.source_tokenizer.decode(row[::-1] if reverse else row) for row in bare]

    assert source_texts(augmented["input_ids"]) == source_texts(batch["input_ids"]) == data["train"]["source"][:]
    labels = augmented["labels"].masked_fill(augmented["labels"] == -100, task.target_tokenizer.pad_token_id)
    assert task.target_tokenizer.batch_decode(labels, skip_special_tokens=True) == data["train"]["target"][:]
    assert (augmented["labels"] == task.target_tokenizer.eos_token_id).sum(-1).eq(1).all()
    assert task.model(**augmented).loss > 0


def test_without_the_option_batches_stay_as_they_are() -> None:
    task = Seq2SeqTask(build_recipe({"data": {"dataset_name": "toy:copy"}}, "tiny"))
    batch = {"input_ids": torch.ones(1, 1)}
    assert task.augment(batch) is batch
