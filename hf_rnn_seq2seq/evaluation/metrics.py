"""Metrics as `evaluate.Metric` objects that need no network: BLEU, chrF, WER, CER, PER, exact match and more.

BLEU and chrF are sacrebleu's (Post 2018, "A Call for Clarity in Reporting BLEU Scores"); edit distances are
rapidfuzz's, the kernel inside jiwer. Values are in percent, except perplexity. Nothing of the model files is
imported here: a metric sees text and numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


try:
    import evaluate
    import sacrebleu
    from datasets import Features, Value
    from datasets import Sequence as SequenceFeature
    from rapidfuzz.distance import Levenshtein
except ImportError as error:
    raise ImportError(
        f"hf_rnn_seq2seq.evaluation.metrics: {error}; install what it needs with pip install 'hf_rnn_seq2seq[metrics]'"
    ) from error
from .classification_metrics import Accuracy, EntityF1, MacroF1
from .offline_metric import OfflineMetric, show


# Labels that are not counted, as everywhere in torch and transformers.
IGNORE_INDEX = -100


class _Sacrebleu(OfflineMetric):
    _scorer: sacrebleu.metrics.base.Metric
    _result_name: str

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        # One list for each reference number, with None where an item has fewer references: sacrebleu documents None
        # for this, but its annotations say `str` only.
        most = max(map(len, references))
        streams: list[list[Any]] = [[item[i] if i < len(item) else None for item in references] for i in range(most)]
        score = self._scorer.corpus_score(predictions, streams)
        name = self._result_name
        return {name: float(score.score), f"{name}_signature": str(self._scorer.get_signature())}


class Bleu(_Sacrebleu):
    """Corpus BLEU of sacrebleu (Papineni et al. 2002; Post 2018), with the signature that makes it comparable.

    Result: `{"bleu": percent, "bleu_signature": "nrefs:1|case:mixed|..."}`.

    Args:
        tokenize (`str`, *optional*, defaults to "13a"): one of sacrebleu's tokenizers; "none" for text that is
            tokenized already, "char" for characters, "zh", "intl", and those that need more packages.
        lowercase (`bool`, *optional*, defaults to False): compare without case.
        **process_options: see the base class; the same for all metrics.
    """

    _description = "Corpus BLEU in percent, computed by sacrebleu."
    _result_name = "bleu"
    _citation = "Post (2018). A Call for Clarity in Reporting BLEU Scores. WMT."

    def __init__(self, *, tokenize: str = "13a", lowercase: bool = False, **process_options: Any) -> None:
        if tokenize not in sacrebleu.BLEU.TOKENIZERS:
            raise ValueError(f"tokenize must be one of {', '.join(sacrebleu.BLEU.TOKENIZERS)}, got {tokenize!r}")
        try:
            # force: a user who scores tokenized text has said so by tokenize="none"; sacrebleu would warn all the
            # same.
            self._scorer = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
            self._scorer.corpus_score(["a"], [["a"]])  # some tokenizers load, or fetch, what they need when first used
        except Exception as error:
            # RuntimeError, ImportError, and what a failed download raises.
            raise ValueError(
                f"tokenize: got {tokenize!r}, which does not work here: {' '.join(str(error).split())}"
            ) from error
        super().__init__(**process_options)


class Chrf(_Sacrebleu):
    """Corpus chrF of sacrebleu (Popovic 2015), or chrF++ with `word_order=2`.

    Result: `{"chrf": percent, "chrf_signature": "nrefs:1|case:mixed|..."}`.

    Args:
        word_order (`int`, *optional*, defaults to 0): longest word n-gram that is counted beside the characters.
        lowercase (`bool`, *optional*, defaults to False): compare without case.
        **process_options: see the base class; the same for all metrics.
    """

    _description = "Corpus chrF in percent, computed by sacrebleu."
    _result_name = "chrf"
    _citation = "Popovic (2015). chrF: character n-gram F-score for automatic MT evaluation. WMT."

    def __init__(self, *, word_order: int = 0, lowercase: bool = False, **process_options: Any) -> None:
        if word_order < 0:
            raise ValueError(f"word_order must be 0 or more, got {word_order}")
        self._scorer = sacrebleu.CHRF(word_order=word_order, lowercase=lowercase)
        super().__init__(**process_options)


class _EditRate(OfflineMetric):
    """100 * (sum of edit distances to the closest reference) / (sum of the lengths of that reference).

    The closest reference has the smallest edit distance; of several the longest, which gives the lowest rate and does
    not depend on their order. The rate can exceed 100 when predictions are too long.
    """

    _result_name: str
    _unit: str

    def _units(self, text: str) -> Sequence[str]:
        return text.split()

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        total_distance = total_length = 0
        for prediction, alternatives in zip(predictions, references, strict=True):
            predicted = self._units(prediction)
            distance, negative_length = min(
                (Levenshtein.distance(predicted, reference), -len(reference))
                for reference in map(self._units, alternatives)
            )
            total_distance += distance
            total_length -= negative_length
        if total_length == 0:
            raise ValueError(
                f"{self.name}: references hold no {self._unit} at all, a rate over zero {self._unit}s is undefined"
            )
        return {self._result_name: 100.0 * total_distance / total_length}


class WordErrorRate(_EditRate):
    """Word error rate of sentences, as in speech recognition and as `jiwer.wer` gives it; white space splits words.

    Result: `{"wer": percent}`. This is *not* what grapheme-to-phoneme papers call WER: see [`StringErrorRate`].
    """

    _description = "Word error rate of sentences in percent, closest of several references."
    _result_name = "wer"
    _unit = "word"


class CharErrorRate(_EditRate):
    """Character error rate, as `jiwer.cer` gives it: code points, spaces inside the text included, its ends stripped.

    Result: `{"cer": percent}`.
    """

    _description = "Character error rate in percent, closest of several references."
    _result_name = "cer"
    _unit = "character"

    def _units(self, text: str) -> Sequence[str]:
        return text.strip()


class PhoneErrorRate(_EditRate):
    """Phone error rate of grapheme-to-phoneme conversion; phones are separated by white space, "HH AH0 L OW1".

    Result: `{"per": percent}`. A word with several pronunciations is compared with the closest of them, as in
    Yao & Zweig (2015) and Toshniwal & Livescu (2016).
    """

    _description = "Phone error rate in percent, closest of several pronunciations."
    _result_name = "per"
    _unit = "phone"


def _share_matching(predictions: list[str], references: list[list[str]]) -> float:
    """Share of items equal to one of their references; how much white space stands between tokens does not matter."""
    matches = sum(
        prediction.split() in [reference.split() for reference in alternatives]
        for prediction, alternatives in zip(predictions, references, strict=True)
    )
    return matches / len(predictions)


class ExactMatch(OfflineMetric):
    """Percentage of predictions that equal one of their references, token for token (white space only separates).

    Result: `{"exact_match": percent}`.
    """

    _description = "Percentage of predictions equal to one of their references."

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        return {"exact_match": 100.0 * _share_matching(predictions, references)}


class StringErrorRate(OfflineMetric):
    """Percentage of items whose prediction equals none of its references: 100 - exact match.

    Result: `{"g2p_wer": percent}`. Grapheme-to-phoneme papers call this the word error rate, since an item there is
    one word: the share of words whose whole phone string is wrong. The WER of sentences counts edited words inside a
    text and is another thing: [`WordErrorRate`].
    """

    _description = (
        "Percentage of predictions equal to none of their references (the WER of grapheme-to-phoneme papers)."
    )

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        return {"g2p_wer": 100.0 - 100.0 * _share_matching(predictions, references)}


class TokenAccuracy(OfflineMetric):
    """Percentage of positions that hold the reference's token; no alignment, position i is compared with position i.

    Items are strings, split at white space, or sequences of token ids, where positions whose reference is -100 are not
    counted (so a Trainer's predicted ids and labels can be given as they are). A missing or surplus token is an error:
    an item counts as many positions as the longer of the two. Of several references the one with the highest share of
    right positions counts.

    Result: `{"token_accuracy": percent}`.
    """

    _description = "Percentage of positions whose token equals the reference's."
    _inputs = """
Args:
    predictions (`list[str]` or `list[list[int]]`): tokens separated by white space, or token ids.
    references: the same, or a list of several references for each item.
"""

    def _features(self) -> Features:
        tokens = SequenceFeature(Value("string"))
        return Features({"predictions": tokens, "references": SequenceFeature(tokens)})

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        return (
            [_tokens(item, f"predictions[{index}]") for index, item in enumerate(predictions)],
            [_token_references(item, index) for index, item in enumerate(references)],
        )

    def _compute(self, *, predictions: list[list[str]], references: list[list[list[str]]]) -> dict[str, Any]:
        total_right = total_positions = 0
        for prediction, alternatives in zip(predictions, references, strict=True):
            counts = [_matching_positions(prediction, reference) for reference in alternatives]
            # An item without any counted position has a share of 1: nothing in it is wrong.
            right, positions = max(counts, key=lambda count: (count[0] / count[1] if count[1] else 1.0, count[1]))
            total_right += right
            total_positions += positions
        if total_positions == 0:
            raise ValueError(f"{self.name}: references hold no token that counts, all are empty or {IGNORE_INDEX}")
        return {"token_accuracy": 100.0 * total_right / total_positions}


def _tokens(item: Any, name: str) -> list[str]:
    """Tokens as strings; an ignored label becomes "", which no split at white space can give."""
    if isinstance(item, str):
        return item.split()
    if not isinstance(item, Iterable):
        raise TypeError(f"{name} must be a string or a list of token ids, got {show(item)}")
    tokens = []
    for token in item:
        try:
            # int(): elements of torch and numpy arrays; the comparison refuses 1.5, which int() would cut to 1.
            identifier = int(token)
            if identifier != token:
                raise TypeError
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a string or a list of token ids, got {show(item)}") from None
        tokens.append("" if identifier == IGNORE_INDEX else str(identifier))
    return tokens


def _is_sequence(element: Any) -> bool:
    # A token id may be an array's element, which has an ndim of 0.
    return isinstance(element, (str, list, tuple)) or getattr(element, "ndim", 0) > 0


def _token_references(item: Any, index: int) -> list[list[str]]:
    name = f"references[{index}]"
    if isinstance(item, str):
        return [item.split()]
    if not isinstance(item, Iterable):
        raise TypeError(f"{name} must be a string, a list of token ids or a list of these, got {show(item)}")
    elements = list(item)
    if any(_is_sequence(element) for element in elements):
        return [_tokens(element, f"{name}[{number}]") for number, element in enumerate(elements)]
    if not elements:
        raise ValueError(f"{name} must hold at least one reference or token, got an empty list")
    return [_tokens(elements, name)]


def _matching_positions(prediction: list[str], reference: list[str]) -> tuple[int, int]:
    right = positions = 0
    for position in range(max(len(prediction), len(reference))):
        expected = reference[position] if position < len(reference) else None
        predicted = prediction[position] if position < len(prediction) else None
        # "" is an ignored label; past the reference's end a "" of the prediction is the padding of a gathered batch.
        if expected == "" or (expected is None and predicted == ""):
            continue
        positions += 1
        right += expected == predicted
    return right, positions


class Perplexity(OfflineMetric):
    """exp of the mean negative log-probability of the reference tokens, over all items together. Not a percentage.

    Result: `{"perplexity": number}`.

    `decoding.target_log_probabilities` gives the log-probabilities. exp of a validation loss is the same number only
    if that loss is the mean over tokens and knows no label smoothing.
    """

    _description = "exp of the mean negative log-probability of the reference tokens."
    _inputs = """
Args:
    predictions (`list[list[float]]`): natural log-probability of each reference token.
    references (`list[list[int]]`): the token ids, of the same shape; positions with -100 are not counted.
"""

    def _features(self) -> Features:
        return Features(
            {"predictions": SequenceFeature(Value("float64")), "references": SequenceFeature(Value("int64"))}
        )

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        log_probabilities = [[float(value) for value in item] for item in predictions]
        labels = [[int(label) for label in item] for item in references]
        for index, (values, ids) in enumerate(zip(log_probabilities, labels, strict=True)):
            if len(values) != len(ids):
                raise ValueError(
                    f"predictions[{index}] and references[{index}] must have the same length, "
                    f"got {len(values)} log-probabilities and {len(ids)} token ids"
                )
            for position, (value, label) in enumerate(zip(values, ids, strict=True)):
                # Written so that NaN is refused too.
                if label != IGNORE_INDEX and not value <= 0.0:
                    raise ValueError(
                        f"predictions[{index}][{position}] must be a natural log-probability, at most 0, got {value}"
                    )
        return log_probabilities, labels

    def _compute(self, *, predictions: list[list[float]], references: list[list[int]]) -> dict[str, Any]:
        counted = [
            value
            for log_probabilities, labels in zip(predictions, references, strict=True)
            for value, label in zip(log_probabilities, labels, strict=True)
            if label != IGNORE_INDEX
        ]
        if not counted:
            raise ValueError(f"{self.name}: references hold no token that counts, all are empty or {IGNORE_INDEX}")
        try:
            return {"perplexity": math.exp(-math.fsum(counted) / len(counted))}
        except OverflowError:
            return {"perplexity": math.inf}


METRICS: dict[str, type[OfflineMetric]] = {
    "bleu": Bleu,
    "chrf": Chrf,
    "wer": WordErrorRate,
    "cer": CharErrorRate,
    "per": PhoneErrorRate,
    "exact_match": ExactMatch,
    "g2p_wer": StringErrorRate,
    "token_accuracy": TokenAccuracy,
    "perplexity": Perplexity,
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
    "entity_f1": EntityF1,
}


def load_metric(name: str, **options: Any) -> evaluate.Metric:
    """The metric of that recipe name, as an `evaluate.Metric`; its result holds the value under the same name.

    Args:
        name (`str`): bleu, chrf, wer, cer, per, exact_match, g2p_wer, token_accuracy, perplexity,
            accuracy, macro_f1 or entity_f1.
        **options: the arguments of the metric's class, such as `tokenize` and `lowercase` of [`Bleu`].
    """
    if name not in METRICS:
        raise ValueError(f"name must be one of {', '.join(METRICS)}, got {name!r}")
    return METRICS[name](**options)
