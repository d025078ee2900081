"""Metrics as `evaluate.Metric` objects that need no network, with arguments that are checked.

BLEU and chrF are sacrebleu's (Post 2018, "A Call for Clarity in Reporting BLEU Scores"), edit distances rapidfuzz's,
the kernel inside jiwer; entities are found and counted by seqeval, which gives the numbers of the CoNLL-2000 script
(Tjong Kim Sang & Buchholz 2000); macro F1 is scikit-learn's. Values are in percent, except perplexity. Those of
forecast values are in value_metrics.py. A metric sees text, labels and numbers only. Needs the extra `metrics`.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any


try:
    import evaluate
    import sacrebleu
    from datasets import Features, Value
    from datasets import Sequence as SequenceFeature
    from rapidfuzz.distance import Levenshtein
    from seqeval.metrics import f1_score as entity_f1_score
    from seqeval.metrics import precision_score, recall_score
    from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2
    from sklearn.metrics import f1_score
except ImportError as error:
    raise ImportError(f"metrics: {error}; they need pip install 'hf_rnn_seq2seq[metrics]'") from error
from .decoding import IGNORE_INDEX
from .offline_metric import TEXTS, OfflineMetric, check_same_length, show, strings
from .value_metrics import VALUE_METRICS


_SCHEMES = {scheme.__name__: scheme for scheme in (IOB1, IOB2, IOE1, IOE2, IOBES, BILOU)}
# The prefixes of each scheme, and of conlleval. BILOU is picked by itself: L and U are in no other one.
_PREFIXES = {"IOB1": "BIO", "IOB2": "BIO", "IOE1": "EIO", "IOE2": "EIO", "IOBES": "BEIOS", "BILOU": "BILOU"}
_PREFIXES["conlleval"] = "BEIOS"


class _Sacrebleu(OfflineMetric):
    _scorer: sacrebleu.metrics.base.Metric
    _result_name: str

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        # One list for each reference number; None, where an item has fewer, is documented but not annotated.
        streams: list[Any] = [list(stream) for stream in zip_longest(*references)]
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
    """

    _result_name = "bleu"

    def __init__(self, *, tokenize: str = "13a", lowercase: bool = False, **base_options: Any) -> None:
        if tokenize not in sacrebleu.BLEU.TOKENIZERS:
            raise ValueError(f"tokenize must be one of {', '.join(sacrebleu.BLEU.TOKENIZERS)}, got {tokenize!r}")
        try:
            # force: tokenize="none" says that the text is tokenized; sacrebleu would warn all the same.
            self._scorer = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
            self._scorer.corpus_score(["a"], [["a"]])  # some tokenizers load, or fetch, what they need when first used
        except Exception as error:  # RuntimeError, ImportError, and what a failed download raises
            raise ValueError(
                f"tokenize: got {tokenize!r}, which does not work here: {' '.join(str(error).split())}"
            ) from error
        super().__init__(**base_options)


class Chrf(_Sacrebleu):
    """Corpus chrF of sacrebleu (Popovic 2015), or chrF++ with `word_order=2`.

    Result: `{"chrf": percent, "chrf_signature": "nrefs:1|case:mixed|..."}`.

    Args:
        word_order (`int`, *optional*, defaults to 0): longest word n-gram that is counted beside the characters.
        lowercase (`bool`, *optional*, defaults to False): compare without case.
    """

    _result_name = "chrf"

    def __init__(self, *, word_order: int = 0, lowercase: bool = False, **base_options: Any) -> None:
        if word_order < 0:
            raise ValueError(f"word_order must be 0 or more, got {word_order}")
        self._scorer = sacrebleu.CHRF(word_order=word_order, lowercase=lowercase)
        super().__init__(**base_options)


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
            closest = [self._units(reference) for reference in alternatives]
            distance, length = min((Levenshtein.distance(predicted, units), -len(units)) for units in closest)
            total_distance += distance
            total_length -= length
        if total_length == 0:
            raise ValueError(f"{self.name}: references hold no {self._unit} at all, so the rate is undefined")
        return {self._result_name: 100.0 * total_distance / total_length}


class WordErrorRate(_EditRate):
    """Word error rate of sentences, as in speech recognition and as `jiwer.wer` gives it; white space splits words.

    Result: `{"wer": percent}`. This is *not* what grapheme-to-phoneme papers call WER: see [`StringErrorRate`].
    """

    _result_name, _unit = "wer", "word"


class CharErrorRate(_EditRate):
    """Character error rate, as `jiwer.cer` gives it: code points, spaces inside the text included, its ends stripped.

    Result: `{"cer": percent}`.
    """

    _result_name, _unit = "cer", "character"

    def _units(self, text: str) -> Sequence[str]:
        return text.strip()


class PhoneErrorRate(_EditRate):
    """Phone error rate of grapheme-to-phoneme conversion; phones are separated by white space, "HH AH0 L OW1".

    Result: `{"per": percent}`. A word with several pronunciations is compared with the closest of them, as in
    Yao & Zweig (2015) and Toshniwal & Livescu (2016).
    """

    _result_name, _unit = "per", "phone"


class ExactMatch(OfflineMetric):
    """Percentage of predictions that equal one of their references, token for token (white space only separates).

    Result: `{"exact_match": percent}`.
    """

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        matches = sum(
            prediction.split() in [reference.split() for reference in alternatives]
            for prediction, alternatives in zip(predictions, references, strict=True)
        )
        return {"exact_match": 100.0 * (matches / len(predictions))}


class StringErrorRate(ExactMatch):
    """Percentage of items whose prediction equals none of its references: 100 - exact match.

    Result: `{"g2p_wer": percent}`. Grapheme-to-phoneme papers call this the word error rate, since an item there is
    one word: the share of words whose whole phone string is wrong. The WER of sentences counts edited words inside a
    text and is another thing: [`WordErrorRate`].
    """

    def _compute(self, **items: Any) -> dict[str, Any]:
        return {"g2p_wer": 100.0 - super()._compute(**items)["exact_match"]}


class TokenAccuracy(OfflineMetric):
    """Percentage of positions that hold the reference's token; no alignment, position i is compared with position i.

    Items are strings, split at white space, or token ids, where positions whose reference is -100 are not counted (so
    a Trainer's predicted ids and labels can be given). A missing or surplus token is an error: an item counts as many
    positions as the longer of the two. Of several references the one with the most right positions counts.

    Result: `{"token_accuracy": percent}`.
    """

    _features = Features({"predictions": TEXTS, "references": SequenceFeature(TEXTS)})

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        return (
            [_tokens(item, f"predictions[{index}]") for index, item in enumerate(predictions)],
            [_token_references(item, f"references[{index}]") for index, item in enumerate(references)],
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
    """Return tokens as strings; an ignored label becomes "", which no split at white space can give."""
    if isinstance(item, str):
        return item.split()
    try:
        # int(): elements of torch and numpy arrays; the comparison refuses 1.5, which int() would cut to 1.
        elements = list(item)
        ids = [int(element) for element in elements]
        if not all(number == element for number, element in zip(ids, elements)):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a string or a list of token ids, got {show(item)}") from None
    return ["" if number == IGNORE_INDEX else str(number) for number in ids]


def _token_references(item: Any, name: str) -> list[list[str]]:
    if isinstance(item, str) or not isinstance(item, Iterable):
        return [_tokens(item, name)]
    elements = list(item)
    if not elements:
        raise ValueError(f"{name} must hold at least one reference or token, got an empty list")
    # A token id may be an array's element, which has an ndim of 0.
    if any(isinstance(element, (str, list, tuple)) or getattr(element, "ndim", 0) > 0 for element in elements):
        return [_tokens(element, f"{name}[{number}]") for number, element in enumerate(elements)]
    return [_tokens(elements, name)]


def _matching_positions(prediction: list[str], reference: list[str]) -> tuple[int, int]:
    right = positions = 0
    for predicted, expected in zip_longest(prediction, reference):
        # "" is an ignored label; past the reference's end a "" of the prediction is the padding of a gathered batch.
        if expected != "" and not (expected is None and predicted == ""):
            positions += 1
            right += expected == predicted
    return right, positions


class Perplexity(OfflineMetric):
    """exp of the mean negative log-probability of the reference tokens, over all items together. Not a percentage.

    Predictions are the natural log-probabilities of the reference tokens, references their ids, of the same shape;
    positions with -100 are not counted. `decoding.target_log_probabilities` gives the log-probabilities. exp of a
    validation loss is the same number only if that loss is the mean over tokens and knows no label smoothing.

    Result: `{"perplexity": number}`.
    """

    _features = Features(
        {"predictions": SequenceFeature(Value("float64")), "references": SequenceFeature(Value("int64"))}
    )

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        log_probabilities = [[float(value) for value in item] for item in predictions]
        labels = [[int(label) for label in item] for item in references]
        for index, (values, ids) in enumerate(zip(log_probabilities, labels, strict=True)):
            check_same_length(f"item {index}", len(values), len(ids), "log-probabilities", "token ids")
            # Written so that NaN is refused too.
            wrong = [value for value, label in zip(values, ids) if label != IGNORE_INDEX and not value <= 0.0]
            if wrong:
                raise ValueError(f"item {index}: got {wrong[0]}, wanted natural log-probabilities, at most 0")
        return log_probabilities, labels

    def _compute(self, *, predictions: list[list[float]], references: list[list[int]]) -> dict[str, Any]:
        pairs = zip(chain(*predictions), chain(*references), strict=True)
        counted = [value for value, label in pairs if label != IGNORE_INDEX]
        if not counted:
            raise ValueError(f"{self.name}: references hold no token that counts, all are empty or {IGNORE_INDEX}")
        try:
            return {"perplexity": math.exp(-math.fsum(counted) / len(counted))}
        except OverflowError:
            return {"perplexity": math.inf}


class _LabelMetric(OfflineMetric):
    """A metric of labels: an item is one, or those of a sequence; a reference has as many as its prediction."""

    _features = Features({"predictions": TEXTS, "references": TEXTS})

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        wanted = "a label, which is a string, or a list of labels"
        predicted = [strings(item, f"predictions[{index}]", wanted) for index, item in enumerate(predictions)]
        expected = [strings(item, f"references[{index}]", wanted) for index, item in enumerate(references)]
        for index, (got, given) in enumerate(zip(predicted, expected)):
            check_same_length(f"item {index}", len(got), len(given), "predicted labels", "labels")
        return predicted, expected

    def _flat(self, predictions: list[list[str]], references: list[list[str]]) -> tuple[list[str], list[str]]:
        """Return all labels in one list each."""
        if not any(references):
            raise ValueError(f"{self.name}: references hold no label at all")
        return list(chain(*predictions)), list(chain(*references))


class Accuracy(_LabelMetric):
    """Percentage of labels that equal the reference's; of sequences, every position counts the same.

    Result: `{"accuracy": percent}`.
    """

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        predicted, expected = self._flat(predictions, references)
        right = sum(got == wanted for got, wanted in zip(predicted, expected, strict=True))
        return {"accuracy": 100.0 * right / len(expected)}


class MacroF1(_LabelMetric):
    """F1 of each label that occurs among references or predictions, and their plain mean: rare labels count in full.

    Result: `{"macro_f1": percent}`.
    """

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        predicted, expected = self._flat(predictions, references)
        return {"macro_f1": 100.0 * float(f1_score(expected, predicted, average="macro", zero_division=0.0))}


class EntityF1(_LabelMetric):
    """F1 of whole entities: type, first and last position must all be right (CoNLL).

    Result: `{"entity_f1": percent, "entity_f1_precision": percent, "entity_f1_recall": percent}`. Without entities to
    divide by a number is 0.

    Args:
        scheme (`str`, *optional*): how entities are tagged: IOB1, IOB2, IOE1, IOE2, IOBES or BILOU; tags that break
            the scheme begin no entity. Default: BILOU where a label begins with L or U, otherwise as conlleval reads
            them, with B, I, E and S prefixes, where an I without a B before it begins an entity.
    """

    def __init__(self, *, scheme: str | None = None, **base_options: Any) -> None:
        if scheme is not None and scheme not in _SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(_SCHEMES)} or None, got {scheme!r}")
        self._scheme = scheme
        super().__init__(**base_options)

    def _scheme_of(self, labels: Iterable[str]) -> str | None:
        """Return the scheme in which labels are counted, `None` for conlleval's; refuse those that no scheme has."""
        prefixes = {label: label.partition("-")[0] for label in sorted(set(labels))}
        scheme = self._scheme or ("BILOU" if {"L", "U"} & set(prefixes.values()) else None)
        known = _PREFIXES[scheme or "conlleval"]
        for label, prefix in prefixes.items():
            if len(prefix) != 1 or prefix not in known or (prefix == "O") != (label == "O"):
                wanted = ", ".join(f"{letter}-" for letter in known if letter != "O")
                raise ValueError(
                    f"entity_f1 got the label {label!r}, wanted O or labels that begin with {wanted} "
                    f"({scheme or 'conlleval'}); option scheme: one of {', '.join(_SCHEMES)}, or "
                    "use the metric accuracy or macro_f1"
                )
        return scheme

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        for index, item in enumerate([*predictions, *references]):
            if isinstance(item, str):
                raise TypeError(f"item {index % len(predictions)} must be a list of labels, got {show(item)}")
        return super()._normalize(predictions, references)

    def _compute(self, *, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Any]:
        scheme = self._scheme_of(chain(*predictions, *references))
        how = {} if scheme is None else {"mode": "strict", "scheme": _SCHEMES[scheme]}
        scores = {"": entity_f1_score, "_precision": precision_score, "_recall": recall_score}
        return {
            f"entity_f1{name}": 100.0 * float(score(references, predictions, average="micro", zero_division=0, **how))
            for name, score in scores.items()
        }


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
    **VALUE_METRICS,
}


# Of which kinds of output each can count; those of values have a table of their own.
TEXT_METRICS = ("bleu", "chrf", "wer", "cer", "per", "exact_match", "g2p_wer", "token_accuracy", "perplexity")
LABEL_METRICS = ("accuracy", "macro_f1", "entity_f1")


def load_metric(name: str, **options: Any) -> evaluate.Metric:
    """Return the metric of a recipe name (a key of `METRICS`) as an `evaluate.Metric`.

    The options are the arguments of the metric's class, such as `tokenize` and `lowercase` of [`Bleu`]; the result
    holds the value under the same name.
    """
    if name not in METRICS:
        raise ValueError(f"name must be one of {', '.join(METRICS)}, got {name!r}")
    return METRICS[name](**options)
