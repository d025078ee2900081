"""Starts an example script of transformers, as it is, with stand-ins for what a machine without the Hub lacks.

    python start.py [--without-package] SCRIPT ARGUMENTS

`evaluate.load` downloads the code of a metric: here it is computed by the library that this code would call. `nltk`
downloads its splitter of sentences: a text counts as one. `datasets` reads audio with torchcodec: here soundfile
does.
"""

import importlib.util
import io
import runpy
import sys
import types
from collections import Counter
from typing import Any


class Hidden:
    """Lets nobody import the package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)


def bleu(predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
    import sacrebleu

    score = sacrebleu.corpus_bleu(predictions, [list(column) for column in zip(*references, strict=True)])
    return {"score": score.score}


def rouge(predictions: list[str], references: list[str], **options: Any) -> dict[str, float]:
    """ROUGE-1's F measure of words."""
    values = []
    for text, reference in zip(predictions, references, strict=True):
        common = (Counter(text.split()) & Counter(reference.split())).total()
        values.append(2 * common / max(1, len(text.split()) + len(reference.split())))
    return {"rouge1": sum(values) / len(values)}


def wer(predictions: list[str], references: list[str], **options: Any) -> float:
    import jiwer

    return float(jiwer.wer(references, predictions))


def accuracy(predictions: Any, references: Any, **options: Any) -> dict[str, float]:
    same = [a == b for a, b in zip(list(predictions), list(references), strict=True)]
    return {"accuracy": sum(same) / len(same)}


def spans(predictions: Any, references: Any, **options: Any) -> dict[str, float]:
    from seqeval import metrics

    names = {"precision": "precision_score", "recall": "recall_score", "f1": "f1_score", "accuracy": "accuracy_score"}
    return {f"overall_{name}": float(getattr(metrics, at)(references, predictions)) for name, at in names.items()}


METRICS = {"sacrebleu": bleu, "rouge": rouge, "wer": wer, "accuracy": accuracy, "seqeval": spans}


class Metric:
    """What `evaluate.load` returns."""

    def __init__(self, name: str, *args: Any, **options: Any):
        self.compute_all, self.predictions, self.references = METRICS[name], [], []

    def add_batch(self, predictions: Any, references: Any) -> None:
        self.predictions += list(predictions)
        self.references += list(references)

    def compute(self, predictions: Any = None, references: Any = None, **options: Any) -> Any:
        if predictions is None:
            predictions, references, self.predictions, self.references = self.predictions, self.references, [], []
        return self.compute_all(predictions, references, **options)


def encode_audio(self: Any, value: Any) -> dict[str, Any]:
    return {"bytes": None, "path": value["path"] if isinstance(value, dict) else str(value)}


def decode_audio(self: Any, value: dict[str, Any], token_per_repo_id: Any = None) -> dict[str, Any]:
    import soundfile

    source = value["path"] if value.get("bytes") is None else io.BytesIO(value["bytes"])
    samples, rate = soundfile.read(source, dtype="float32")
    return {"array": samples, "sampling_rate": rate, "path": value["path"]}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] == "--without-package":
        arguments = arguments[1:]
        sys.meta_path.insert(0, Hidden())
    else:
        import hf_rnn_seq2seq  # noqa: F401 - makes the models known to the Auto classes
    import datasets
    import evaluate

    evaluate.load = Metric
    datasets.Audio.encode_example, datasets.Audio.decode_example = encode_audio, decode_audio
    if importlib.util.find_spec("nltk") is None:
        nltk: Any = types.ModuleType("nltk")
        nltk.__spec__ = importlib.util.spec_from_loader("nltk", None)
        nltk.data = types.SimpleNamespace(find=lambda name: name)
        nltk.sent_tokenize = lambda text: [text]
        sys.modules["nltk"] = nltk
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
