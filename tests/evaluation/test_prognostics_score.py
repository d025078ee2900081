"""The score of the PHM 2008 challenge, by its formula."""

import math

import numpy as np
import pytest

from hf_rnn_seq2seq.evaluation.metrics import load_metric


def test_a_life_promised_too_long_costs_more() -> None:
    truth, guesses = [100.0, 50.0, 20.0], [87.0, 60.0, 20.0]
    score = load_metric("phm").compute(predictions=guesses, references=truth)
    assert score == {"phm": pytest.approx((math.e - 1) + (math.e - 1) + 0)}
    late, early = (load_metric("phm").compute(predictions=[100 + d], references=[100.0])["phm"] for d in (20, -20))
    assert late == pytest.approx(math.exp(2) - 1) and early == pytest.approx(math.exp(20 / 13) - 1) and late > early


def test_it_is_a_sum_over_what_was_observed() -> None:
    truth = [np.array([[10.0], [np.nan]]), np.array([[3.0]])]
    guesses = [np.array([[20.0], [1e9]]), np.array([[13.0]])]
    assert load_metric("phm").compute(predictions=guesses, references=truth)["phm"] == pytest.approx(2 * math.e - 2)
