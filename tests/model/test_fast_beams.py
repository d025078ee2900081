"""`FewBeams` counts what `Beams`, which calls the rules of transformers, counts: equal scores and dead ends too."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_rnn_seq2seq.model.fast_beams import Beams, FewBeams, best_extensions


VOCAB, END, PROMPT, LONGEST = 13, 2, 1, 9


@pytest.mark.fast_path
@pytest.mark.parametrize("kind", ["all differ", "some are equal", "few are possible"])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize(("sources", "beams"), [(1, 2), (1, 5), (3, 3)])
def test_few_beams_are_those_of_the_rules(
    kind: str, early_stopping: Any, length_penalty: float, sources: int, beams: int
) -> None:
    handed_over = 0
    for seed in range(6):
        torch.manual_seed(seed)
        options: Any = SimpleNamespace(
            num_beams=beams, _eos_token_tensor=torch.tensor([END]), length_penalty=length_penalty,
            early_stopping=early_stopping, max_length=LONGEST,
        )  # fmt: skip
        search = (options, sources, PROMPT, VOCAB, torch.device("cpu"))
        plain, few = Beams(*search), FewBeams(*search, ends={END}, max_length=LONGEST)
        for length in range(PROMPT, LONGEST):
            scores = torch.randn(sources, beams, VOCAB).mul(2).log_softmax(-1)
            if kind == "some are equal":
                scores = scores.mul(2).round() / 2
            elif kind == "few are possible":
                scores[torch.rand_like(scores) < 0.8] = float("-inf")
            top, extensions = best_extensions(scores, plain.running_scores, plain.count)
            ended = (extensions % VOCAB == END) | (length + 1 >= LONGEST)
            goes_on = plain.advance(top, extensions, ended, length)
            assert few.advance(*best_extensions(scores, few.running_scores, few.count), None, length) == goes_on
            if not goes_on:
                break
            torch.testing.assert_close(few.running_scores, plain.running_scores, rtol=0, atol=0)
            (symbols, rows), (found, found_rows) = plain.going_on(), few.going_on()
            assert torch.equal(found, symbols) and (found_rows is None or torch.equal(found_rows, rows))
            assert found_rows is not None or torch.equal(rows, torch.arange(len(rows)))  # type: ignore[arg-type]
        handed_over += isinstance(few.history[-1], torch.Tensor)
        torch.testing.assert_close(few.best_scores, plain.best_scores, rtol=0, atol=0)
        for one, other in zip(few.found(beams, 0), plain.found(beams, 0)):
            assert torch.equal(one, other)
    assert (handed_over > 0) == (kind != "all differ")
