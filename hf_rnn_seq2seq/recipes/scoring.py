"""Scoring: decodes items, applies a recipe's metrics, and writes the predictions.

The metrics themselves are in `metrics.py`, the search in the model's `generate()`. Needs the extras `train` and
`metrics`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..data.files import PAIRS_HEADER, DataError, sentence, write_table
from ..data.pairs import encode_sources, evaluation_items
from ..data.preprocessing import Preprocessing
from ..data.slots import encode_with_slots, unknown_words
from ..data.splits import Dataset, evenly_taken
from ..data.tokenizers import normalized
from ..evaluation.decoding import Hypothesis, decode, target_log_probabilities
from ..evaluation.metrics import load_metric
from ..evaluation.reranker import SlotReranker
from .recipe import Recipe, RecipeError


# Metrics of which less is better; of the others more is.
ERROR_METRICS = frozenset(
    {"loss", "perplexity", "wer", "cer", "per", "g2p_wer", "mse", "rmse", "mae", "smape", "mase", "crps", "phm"}
)


def greater_is_better(recipe: Recipe) -> bool:
    """Whether `evaluation.best_metric` is a score (BLEU) and not an error rate or a loss."""
    best = recipe.evaluation.best_metric
    return best != "loss" and recipe.evaluation.metric_specs[best][0] not in ERROR_METRICS


def check_metrics(recipe: Recipe, predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse metrics that cannot count such references: before the training, not after it.

    Perplexity is not looked at, unless the predictions are labels. A DataError says what is wrong: entity F1 of labels
    that mark no entities, a word error rate of no words.
    """
    for reported, (name, options) in recipe.evaluation.metric_specs.items():
        if name == "perplexity" and predictions is not references:
            continue
        try:
            load_metric(name, **options).compute(predictions=predictions, references=references)
        except (TypeError, ValueError) as error:
            raise DataError(f"evaluation.metrics: {reported}: {error}") from error


def compute_metrics(
    recipe: Recipe,
    predictions: Sequence[Any],
    references: Sequence[Any],
    perplexity_inputs: Callable[[], tuple[Sequence[Any], Sequence[Any]]] | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Compute a recipe's metrics: reported name -> number, and what the metrics say besides (BLEU's signature).

    Args:
        recipe: names them.
        predictions, references: as the metrics take them.
        perplexity_inputs: what perplexity takes in their place, computed where it is asked for.
    """
    numbers: dict[str, float] = {}
    details: dict[str, str] = {}
    for reported, (name, options) in recipe.evaluation.metric_specs.items():
        got, wanted = predictions, references
        if name == "perplexity" and perplexity_inputs is not None:
            got, wanted = perplexity_inputs()
        for key, value in (load_metric(name, **options).compute(predictions=got, references=wanted) or {}).items():
            key = key.replace(name, reported, 1)
            if isinstance(value, str):
                details[key] = value
            else:
                numbers[key] = float(value)
    return numbers, details


@dataclass
class Scorer:
    """Decodes items and scores them with the recipe's metrics.

    Args:
        recipe: metrics, batch size, search and source reversal.
        model: an encoder-decoder with `generate()`.
        source_tokenizer, target_tokenizer: encode sources and references; the second decodes hypotheses.
        reranker: puts the hypotheses of `reranked` in order.
    """

    recipe: Recipe
    model: Any
    source_tokenizer: PreTrainedTokenizerBase
    target_tokenizer: PreTrainedTokenizerBase
    reranker: SlotReranker | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to sources and references; nothing to speech."""
        return getattr(self.recipe.data, "preprocessing", Preprocessing())

    def items(self, split: Dataset) -> tuple[list[Any], list[list[str]]]:
        """What of a split is decoded and scored: sources, and for each its references."""
        return evaluation_items(split, self.recipe.data.group_references)

    def encoded(self, sources: Sequence[Any]) -> list[Any]:
        """The model's inputs of sources."""
        texts = self.preprocessing.delexicalised(sources)
        return encode_sources(texts, self.source_tokenizer, self.recipe.data.reverse_source, self.model.config)

    def words(self, sources: Sequence[Any]) -> list[list[str]]:
        """The words that slots of the model stand for in each source; none unless it has `copy_slots`."""
        return unknown_words(self.preprocessing.delexicalised(sources), self.source_tokenizer, self.model.config)

    def search(self) -> GenerationConfig:
        """The model's generation configuration with the recipe's section `generation` on top."""
        search = copy.deepcopy(self.model.generation_config)
        # `update` leaves out what it does not know, such as the weight of CTC.
        for name, value in search.update(**self.recipe.generation).items():
            setattr(search, name, value)
        return search

    def greedy(self) -> GenerationConfig:
        """Greedy search, with the recipe's largest length."""
        greedy = self.search()
        # generate() fills what is None from the model's own configuration, so greedy search has to be said in full.
        greedy.update(num_beams=1, num_return_sequences=1, do_sample=False, length_penalty=1.0, early_stopping=False)
        return greedy

    def try_search(self, split: Dataset) -> None:
        """Decode two items with the recipe's search, and draw no random numbers that a training would miss."""
        sources, _ = self.items(split.select(range(min(2, len(split)))))
        training = self.model.training
        try:
            with torch.random.fork_rng(devices=[]):
                self.hypotheses(sources, self.search())
        except Exception as error:  # those of the many parts of generate() have nothing else in common
            raise RecipeError(
                f"generation: got {self.recipe.generation}, and that fails: {sentence(error)}"
            ) from error
        finally:
            self.model.train(training)

    def hypotheses(
        self, sources: Sequence[Any], search: GenerationConfig, with_scores: bool = False
    ) -> list[list[Hypothesis]]:
        """n-best lists of sources, which are as `items` gives them."""
        batch_size = self.recipe.evaluation.batch_size
        encoded, words, values = self.encoded(sources), self.words(sources), self.preprocessing.values(sources)
        return decode(self.model, encoded, self.target_tokenizer, search, batch_size, with_scores, words, values)

    def reranked(self, sources: Sequence[str]) -> list[list[Hypothesis]]:
        """n-best lists of the recipe's search, with scores, and in the reranker's order if there is one."""
        search = self.search()
        number = search.num_return_sequences or 1
        if self.reranker is None:
            return self.hypotheses(sources, search, with_scores=True)
        search.num_return_sequences = search.num_beams
        ranked = self.reranker(sources, self.hypotheses(sources, search, with_scores=True), search.length_penalty)
        return [hypotheses[:number] for hypotheses in ranked]

    def normalized(self, references: Sequence[Sequence[str]]) -> list[list[str]]:
        """References in the form that hypotheses have: that which the target tokenizer gives a text.

        Otherwise a model that is right would be wrong: NFD never equals NFC, and lower case not what has capitals.
        """
        return [normalized(items, self.target_tokenizer) for items in references]

    def metrics(
        self, sources: Sequence[Any], references: Sequence[Sequence[str]], predictions: Sequence[str]
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Return the recipe's metrics, and what they say besides.

        The best hypotheses are compared with the references in the form that the target tokenizer gives both. Only
        perplexity looks at the sources, and it is that of the first references.
        """

        def perplexity_inputs() -> tuple[list[list[float]], list[list[int]]]:
            first = self.preprocessing.delexicalised(sources, [items[0] for items in references])
            words, config = self.words(sources), self.model.config
            bare = encode_with_slots(first, self.target_tokenizer, words, config, add_special_tokens=False)
            targets = [[*ids, self.target_tokenizer.eos_token_id] for ids in bare]
            encoded, batch_size = self.encoded(sources), self.recipe.evaluation.batch_size
            return target_log_probabilities(self.model, encoded, targets, batch_size), targets

        wanted, got = self.normalized(references), normalized(predictions, self.target_tokenizer)
        return compute_metrics(self.recipe, got, wanted, perplexity_inputs)

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        """What a trainer calls at each evaluation: greedy decoding of `evaluation.validation_samples`, if any."""
        if not self.recipe.evaluation.metric_specs or self.recipe.evaluation.validation_samples == 0:
            return None
        all_sources, all_references = self.items(validation)
        taken = evenly_taken(len(all_sources), self.recipe.evaluation.validation_samples)
        sources, references = [all_sources[item] for item in taken], [all_references[item] for item in taken]

        def score() -> dict[str, float]:
            predictions = [ranked[0].text for ranked in self.hypotheses(sources, self.greedy())]
            return self.metrics(sources, references, predictions)[0]

        return score


def write_predictions(
    path: str | Path,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[Hypothesis]],
) -> None:
    """Write a tab-separated file with a header, one line a hypothesis: source, rank, score, prediction, references.

    Ranks count from 1, the score is the log-probability, references are joined by " | ".
    """
    rows = [
        (source, str(rank), "" if found.score is None else f"{found.score:.4f}", found.text, " | ".join(wanted))
        for source, wanted, ranked in zip(sources, references, hypotheses, strict=True)
        for rank, found in enumerate(ranked, start=1)
    ]
    write_table(path, PAIRS_HEADER, rows)
