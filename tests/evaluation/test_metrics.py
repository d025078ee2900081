"""The metrics against sacrebleu, jiwer, torch and a Levenshtein distance written out here."""

from __future__ import annotations

import math
import multiprocessing
import random
import socket

import evaluate
import jiwer
import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_rnn_seq2seq.evaluation.metrics import METRICS, Bleu, Chrf, StringErrorRate, load_metric
from hf_rnn_seq2seq.evaluation.value_metrics import VALUE_METRICS


PREDICTIONS = ["The cat sat on mat.", "A Dog barks", "nothing in common", ""]
REFERENCES = ["The cat sat on the mat.", "a dog barks loudly", "quite another text", "silence"]
RAGGED = [["The cat sat on the mat.", "On the mat sat the cat."], ["A dog barks"], ["x", "y", "z"], ["silence"]]

phones = st.lists(st.sampled_from(["AH", "B", "K", "IY1", "T"]), max_size=6).map(" ".join)
# Each item: a prediction and one to three references, the first of them not empty so that the rate is defined.
items = st.lists(
    st.tuples(phones, phones.map(lambda text: f"AH {text}".strip()), st.lists(phones, max_size=2)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(autouse=True)
def no_metrics_cache(tmp_path, monkeypatch):
    # A path under a file: whatever is made there fails.
    (tmp_path / "file").touch()
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "file" / "metrics")


def levenshtein(a: list[str], b: list[str]) -> int:
    """The textbook's table (Wagner & Fischer 1974)."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
    return table[-1][-1]


@pytest.mark.parametrize("options", [{}, {"tokenize": "none"}, {"tokenize": "char", "lowercase": True}])
def test_bleu_is_sacrebleus_with_its_signature(options):
    expected = sacrebleu.BLEU(**options)
    score = expected.corpus_score(PREDICTIONS, [REFERENCES]).score
    result = Bleu(**options).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result == {"bleu": score, "bleu_signature": str(expected.get_signature())}


@pytest.mark.parametrize("options", [{}, {"word_order": 2}, {"lowercase": True}])
def test_chrf_is_sacrebleus_with_its_signature(options):
    expected = sacrebleu.CHRF(**options)
    score = expected.corpus_score(PREDICTIONS, [REFERENCES]).score
    result = Chrf(**options).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result == {"chrf": score, "chrf_signature": str(expected.get_signature())}


@pytest.mark.parametrize(("name", "scorer"), [("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())])
def test_items_may_have_different_numbers_of_references(name, scorer):
    streams = [
        ["The cat sat on the mat.", "A dog barks", "x", "silence"],
        ["On the mat sat the cat.", None, "y", None],
        [None, None, "z", None],
    ]
    result = load_metric(name).compute(predictions=PREDICTIONS, references=RAGGED)
    assert result[name] == scorer.corpus_score(PREDICTIONS, streams).score
    assert "nrefs:var" in result[f"{name}_signature"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.text("abc 1é中"), st.text("abc 1é中").map(lambda text: "a" + text)), min_size=1, max_size=4)
)
def test_wer_and_cer_are_jiwers(pairs):
    predictions, references = map(list, zip(*pairs, strict=True))
    for name, function in (("wer", jiwer.wer), ("cer", jiwer.cer)):
        result = load_metric(name).compute(predictions=predictions, references=references)
        assert result == {name: pytest.approx(100 * function(references, predictions))}


@settings(deadline=None, max_examples=50)
@given(items, st.randoms())
def test_per_takes_the_closest_pronunciation(items: list, shuffler: random.Random):
    predictions = [prediction for prediction, _, _ in items]
    references = [[first, *others] for _, first, others in items]
    distance = length = 0
    for prediction, alternatives in zip(predictions, references, strict=True):
        best = min(levenshtein(prediction.split(), reference.split()) for reference in alternatives)
        distance += best
        length += max(
            len(reference.split())
            for reference in alternatives
            if levenshtein(prediction.split(), reference.split()) == best
        )
    metric = load_metric("per")
    if length:
        expected = {"per": pytest.approx(100 * distance / length)}
        assert metric.compute(predictions=predictions, references=references) == expected
        for alternatives in references:
            shuffler.shuffle(alternatives)
        assert metric.compute(predictions=predictions, references=references) == expected
    else:
        with pytest.raises(ValueError, match="no phone at all"):
            metric.compute(predictions=predictions, references=references)


def test_per_by_hand():
    # HELLO: one insertion against the second pronunciation, of four phones; ABC: right.
    result = load_metric("per").compute(
        predictions=["HH AH L L OW", "EY B IY"], references=[["HH EH L UH", "HH AH L OW"], "EY B IY"]
    )
    assert result == {"per": pytest.approx(100 * 1 / 7)}


@settings(deadline=None, max_examples=30)
@given(items)
def test_g2p_wer_is_the_share_of_words_equal_to_no_reference(items):
    predictions = [prediction for prediction, _, _ in items]
    references = [[first, *others] for _, first, others in items]
    wrong = sum(p not in r for p, r in zip(predictions, references, strict=True))
    assert StringErrorRate().compute(predictions=predictions, references=references) == {
        "g2p_wer": pytest.approx(100 * wrong / len(items))
    }
    assert load_metric("exact_match").compute(predictions=predictions, references=references) == {
        "exact_match": pytest.approx(100 - 100 * wrong / len(items))
    }


def test_the_wer_of_sentences_and_of_words_are_different_things():
    words = {"predictions": ["HH AH L OW", "K AE"], "references": ["HH AH L OW", "K AE T"]}
    assert load_metric("wer").compute(**words) == {"wer": pytest.approx(100 / 7)}
    assert load_metric("g2p_wer").compute(**words) == {"g2p_wer": 50.0}


def test_exact_match_does_not_mind_how_tokens_are_separated():
    result = load_metric("exact_match").compute(predictions=["  a  b\n", "ab"], references=["a b", "a b"])
    assert result == {"exact_match": 50.0}


@pytest.mark.parametrize(
    ("predictions", "references", "right", "positions"),
    [
        (["a b c"], ["a x c"], 2, 3),
        (["a b"], ["a b c"], 2, 3),  # a missing token
        (["a b c d"], ["a b"], 2, 4),  # surplus tokens
        (["a b"], [["x y", "a y", "b"]], 1, 2),  # the best of several references
        ([[5, 6, 7]], [[5, 0, 7]], 2, 3),
        ([[5, 6, 7, 9]], [[5, -100, 0, -100]], 1, 2),  # ignored labels
        ([[5, 6, -100, -100]], [[5, 6]], 2, 2),  # the padding of gathered predictions
        ([torch.tensor([5, 6])], [[torch.tensor([0, 0]), torch.tensor([5, 0])]], 1, 2),
        ([[5], "a"], [[5], "b"], 1, 2),
    ],
)
def test_token_accuracy_by_hand(predictions, references, right, positions):
    result = load_metric("token_accuracy").compute(predictions=predictions, references=references)
    assert result == {"token_accuracy": pytest.approx(100 * right / positions)}


def test_token_accuracy_of_predicted_ids_is_the_share_of_equal_labels():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 3, (7, 9), generator=generator)
    labels = torch.randint(0, 3, (7, 9), generator=generator)
    labels[torch.rand(7, 9, generator=generator) < 0.3] = -100
    counted = labels != -100
    result = load_metric("token_accuracy").compute(predictions=predicted.numpy(), references=labels.numpy())
    share = (predicted[counted] == labels[counted]).float().mean().item()
    assert result == {"token_accuracy": pytest.approx(100 * share)}


def test_perplexity_is_exp_of_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 5), generator=generator)
    labels[1, 2:] = -100
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    log_probabilities = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    result = load_metric("perplexity").compute(predictions=log_probabilities.numpy(), references=labels.numpy())
    assert result["perplexity"] == pytest.approx(math.exp(loss.item()), rel=1e-6)


def test_perplexity_weighs_tokens_not_items():
    result = load_metric("perplexity").compute(
        predictions=[[math.log(0.5)], [math.log(0.25)] * 3], references=[[4], [4, 5, 6]]
    )
    assert result["perplexity"] == pytest.approx(2 ** ((1 + 3 * 2) / 4))


def test_batches_add_up_and_a_refused_batch_leaves_nothing_behind():
    metric = load_metric("wer")
    assert isinstance(metric, evaluate.Metric)
    metric.add(prediction="a b", reference=["a c", "a b c"])
    with pytest.raises(TypeError):
        metric.add_batch(predictions=["a", "b"], references=["a", ["b", 3]])
    metric.add_batch(predictions=["x"], references=["y"])
    # Both references of the first item are one edit away; the longer one counts.
    assert metric.compute() == {"wer": pytest.approx(100 * 2 / 4)}
    assert metric.compute(predictions=["a"], references=["a"]) == {"wer": 0.0}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "error", "message"),
    [
        ("per", ["a"], ["a", "b"], ValueError, "1 predictions and 2 references"),
        ("bleu", [], [], ValueError, "at least one item, got an empty list"),
        ("bleu", None, None, ValueError, "nothing to compute"),
        ("chrf", ["a"], None, TypeError, "references must be a list, got NoneType"),
        ("cer", "abc", ["abc"], TypeError, "predictions must be a list, got str: 'abc'"),
        ("wer", ["a", "b"], [["a"], []], ValueError, r"references\[1\] must hold at least one reference"),
        ("exact_match", ["a", 3], ["a", "b"], TypeError, r"predictions\[1\] must be a string, got int: 3"),
        ("g2p_wer", ["a"], [3], TypeError, r"references\[0\] must be a string or a list of strings"),
        ("cer", ["a"], [" "], ValueError, "no character at all"),
        ("token_accuracy", [[1.5]], [[1]], TypeError, r"predictions\[0\] must be a string or a list of token ids"),
        ("token_accuracy", [[1]], [[]], ValueError, r"references\[0\] must hold at least one reference or token"),
        ("token_accuracy", [[1]], [[-100]], ValueError, "no token that counts"),
        ("perplexity", [[-1.0, -1.0]], [[4]], ValueError, r"2 log-probabilities and 1 token ids"),
        (
            "perplexity",
            [[-1.0, 0.5]],
            [[4, 4]],
            ValueError,
            r"item 0: got 0.5, wanted natural log-probabilities",
        ),
        ("perplexity", [[math.nan]], [[4]], ValueError, "got nan"),
    ],
)
def test_bad_input_is_named(name, predictions, references, error, message):
    with pytest.raises(error, match=message):
        load_metric(name).compute(predictions=predictions, references=references)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"name must be one of bleu, .*, got 'blue'"):
        load_metric("blue")
    with pytest.raises(ValueError, match=r"tokenize must be one of .*13a.*, got 'moses'"):
        load_metric("bleu", tokenize="moses")
    with pytest.raises(ValueError, match="word_order must be 0 or more, got -1"):
        load_metric("chrf", word_order=-1)
    with pytest.raises(ValueError, match="num_process=2 needs an experiment_id"):
        load_metric("per", num_process=2)


@pytest.mark.parametrize("name", METRICS)
def test_no_metric_needs_the_network(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a metric must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    text = {"predictions": ["a b", "c d"], "references": [["a b"], ["c d", "c"]]}
    numbers = {"predictions": [[0.0, 0.0], [0.0]], "references": [[4, 5], [6]]}
    labels = {"predictions": [["B-x", "O"], ["O"]], "references": [["B-x", "O"], ["O"]]}
    values = {"predictions": [[[1.0], [2.0]]], "references": [[[1.0], [2.0]]]}
    samples = {"predictions": [[[1.0, 2.0], [1.0, 2.0]]], "references": [[1.0, 2.0]]}
    with_past = {"predictions": [[[1.0], [2.0]]], "references": [[[0.0], [5.0], [1.0], [2.0]]]}
    items = {"perplexity": numbers, "accuracy": labels, "macro_f1": labels, "entity_f1": labels}
    items |= dict.fromkeys(VALUE_METRICS, values) | {"mase": with_past, "crps": samples, "coverage": samples}
    result = load_metric(name).compute(**items.get(name, text))
    least = {**dict.fromkeys(("wer", "cer", "per", "g2p_wer", "bleu", *VALUE_METRICS), 0), "perplexity": 1}
    best = {**least, "coverage": 100}.get(name, 100)  # BLEU: no 4-gram
    assert result[name] == pytest.approx(best)


def _compute_repeatedly(wrong: int, cache_dir: str, queue: multiprocessing.Queue) -> None:
    evaluate.config.HF_METRICS_CACHE = cache_dir
    references = [["a b c d", "x"]] * 10
    predictions = ["a b c d"] * (10 - wrong) + ["no"] * wrong
    metric = load_metric("g2p_wer")
    queue.put((wrong, [metric.compute(predictions=predictions, references=references)["g2p_wer"] for _ in range(10)]))


def _compute_share(process_id: int, cache_dir: str, queue: multiprocessing.Queue) -> None:
    metric = load_metric(
        "per", num_process=2, process_id=process_id, experiment_id="one_evaluation", cache_dir=cache_dir
    )
    shares = [(["a b", "c"], [["a x", "z"], ["c"]]), (["d e f"], ["d e f g"])]
    predictions, references = shares[process_id]
    queue.put((process_id, metric.compute(predictions=predictions, references=references)))


def _run_in_processes(target, arguments: list[int], cache_dir) -> dict:
    # fork: a spawned process would import torch again, which takes longer than all of this file.
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=target, args=(value, str(cache_dir), queue)) for value in arguments]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return results


def test_processes_do_not_disturb_each_other(tmp_path):
    results = _run_in_processes(_compute_repeatedly, [0, 3, 7], tmp_path)
    assert results == {wrong: [pytest.approx(10.0 * wrong)] * 10 for wrong in (0, 3, 7)}


def test_processes_can_share_one_evaluation(tmp_path):
    assert _run_in_processes(_compute_share, [0, 1], tmp_path) == {0: {"per": pytest.approx(100 * 2 / 7)}, 1: None}
