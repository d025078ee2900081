"""Reranking by slots: what leaves one out or makes one up goes behind, and ties stay as the search had them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import randomize

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForSequenceClassification
from hf_rnn_seq2seq.data import DataError, Preprocessing, TokenizerOptions, train_tokenizer
from hf_rnn_seq2seq.evaluation import Hypothesis, SlotReranker


LABELS = ["name X", "food Thai", "food French", "area river"]
TEXTS = ["X serves Thai food", "X serves food by the river", "X", "Thai food by the river at X serves French food"]
TOKENIZER = train_tokenizer(TEXTS, TokenizerOptions("word"))
SLOTS = Preprocessing(delexicalised_slots={"X": r"\bname ([^,]+)"})


def classifier(**options: Any) -> RnnSeq2SeqForSequenceClassification:
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: n for n, label in enumerate(LABELS)}}
    sizes = {"vocab_size": len(TOKENIZER), "embedding_size": 6, "encoder_hidden_size": 8, "encoder_layers": 1}
    options = {"problem_type": "multi_label_classification", "classifier_pooling": "max", **names, **options}
    model = RnnSeq2SeqForSequenceClassification(RnnSeq2SeqConfig(**sizes, **options))
    randomize(model, scale=1.0)
    return model


class ByWords(SlotReranker):
    """Finds what a text says literally, so that what is wanted is known."""

    def found(self, texts: Sequence[str]) -> list[frozenset[str]]:
        return [frozenset(label for label in LABELS if label.split()[1] in text) for text in texts]


def hypotheses(*texts_and_scores: tuple[str, float]) -> list[Hypothesis]:
    return [Hypothesis(text, (5,) * len(text.split()), score) for text, score in texts_and_scores]


def order(reranker: SlotReranker, source: str, *given: tuple[str, float], **options: Any) -> list[str]:
    return [found.text for found in reranker([source], [hypotheses(*given)], **options)[0]]


def test_a_hypothesis_that_leaves_a_slot_out_or_makes_one_up_is_beaten() -> None:
    reranker = ByWords(classifier(), TOKENIZER, "[^,]+(?<! )", preprocessing=SLOTS)
    reranker.slots = r"(\w+) ([^,]+)"
    source = "name The Eagle, food Thai, area river, price high"  # the last is no label, and is not looked at
    right, out, made_up = (
        "The Eagle has Thai by the river",
        "The Eagle has Thai",
        "Eagle has Thai, French by the river",
    )
    ranked = hypotheses((made_up, -0.1), (out, -0.2), (right, -30.0))
    assert reranker.distances([source], [ranked]) == [[2, 1, 0]]
    assert order(reranker, source, (made_up, -0.1), (out, -0.2), (right, -30.0)) == [right, out, made_up]
    reranker.penalty = 0.01  # too small for a hypothesis that is so much likelier
    assert order(reranker, source, (made_up, -0.1), (out, -0.2), (right, -30.0))[0] != right
    reranker.penalty = 0.0
    assert order(reranker, source, (out, -0.2), (right, -0.3)) == [right, out]  # a symbol of it is likelier
    assert order(reranker, source, (out, -0.2), (right, -0.3), length_penalty=0.0) == [out, right]


def test_ties_stay_and_lists_are_of_any_length() -> None:
    reranker = ByWords(classifier(), TOKENIZER, "[^,]+", preprocessing=SLOTS)
    lists = [hypotheses(("b", -1.0), ("a", -1.0), ("c", -1.0)), [], hypotheses(("Thai", -2.0))]
    assert reranker(["name A", "food Thai", "food Thai"], lists) == lists
    assert reranker([], []) == []


def test_a_text_has_the_same_slots_whatever_stands_beside_it() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        reranker = SlotReranker(classifier(), TOKENIZER, "[^,]+", batch_size=3)
        together = reranker.found([*TEXTS, "", TEXTS[0]])
        assert together == [reranker.found([text])[0] for text in [*TEXTS, "", TEXTS[0]]]
        assert together[4] == frozenset()
        with torch.no_grad():
            for text, slots in zip(TEXTS, together):
                scores = reranker.model(**TOKENIZER(text, return_tensors="pt")).logits[0]
                assert slots == {LABELS[n] for n in range(4) if scores[n].sigmoid() > 0.5}


def test_a_saved_reranker_is_the_same(tmp_path: Path) -> None:
    reranker = SlotReranker(classifier(), TOKENIZER, "(x)|[^,]+", 7.5, SLOTS)
    reranker.save_pretrained(tmp_path)
    loaded = SlotReranker.from_pretrained(tmp_path)
    assert (loaded.slots, loaded.penalty, loaded.preprocessing) == ("(x)|[^,]+", 7.5, SLOTS)
    assert loaded.found(TEXTS) == reranker.found(TEXTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds no reranker\.json"),
        ({"slots": "a"}, "wanted slots, a regular expression, and penalty, a number"),
        ({"slots": "(", "penalty": 1}, r"reranker\.json: slots: got '\('"),
        ({"slots": 3, "penalty": 1}, "wanted slots"),
        ([], r"reranker\.json"),
    ],
)
def test_a_folder_of_something_else_is_refused_by_name(content: Any, message: str, tmp_path: Path) -> None:
    SlotReranker(classifier(), TOKENIZER, "a").save_pretrained(tmp_path)
    (tmp_path / "reranker.json").unlink()
    if content is not None:
        (tmp_path / "reranker.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        SlotReranker.from_pretrained(tmp_path)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="problem_type is 'single_label_classification', wanted 'multi_label"):
        SlotReranker(classifier(problem_type="single_label_classification"), TOKENIZER, "a")
    with pytest.raises(ValueError, match="has no score, wanted those of decode"):
        SlotReranker(classifier(), TOKENIZER, "a")(["a"], [[Hypothesis("X", (5,))]])
