"""Run a saved model on inputs given on the command line, or one a line on stdin; its folder says what it predicts.

    ... MODEL_DIR TEXT [TEXT ...] [--num_return_sequences 3] [--attention picture.png]

A text-to-text model reads texts, a speech model audio files (or an .npz of frames): printed are the hypotheses, best
first, with their log-probabilities (natural, summed over the symbols and the end). A classifier of texts gives its
labels with theirs, a tagger each word with its label. A blank line for a blank input. A model that speaks writes what
it says to each text into the folder --sound, as NAME.wav and NAME.npz, and prints the name.
A whole file, by as many processes as there are; the same command goes on after a kill:

    ... MODEL_DIR --input_file in.txt --output_file out.jsonl
    torchrun --nproc_per_node 2 scripts/predict.py MODEL_DIR --input_file in.csv --column text --output_file out.txt

The input has one text a line (.txt), in a field of each object (.jsonl) or in a column (.csv, .tsv), gzipped or not.
Words for a tagger are parted by blanks, or a list in .jsonl; names of audio files are relative to the file that names
them. A blank input gets no hypothesis. The output has a line for each input, in their order: the best hypothesis, or
the labels of the words (.txt), or {"source": ..., "predictions": [...]}, best first, of a tagger {"tokens": [...],
"tags": [...]} (.jsonl). A model of values reads a table of series as it was trained on (.csv, .tsv, .jsonl, .parquet,
.npz), and gives a line a series: {"id": ..., "rows": [...], and the values by their names} (.jsonl). So does a
forecaster: {"id": ..., "times": [...], "forecast": {column: [...]}, "quantiles": {"0.1": ..., "0.9": ...}}.
"""

import argparse
import copy
import hashlib
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import (
    DataError,
    check_text,
    input_lines,
    json_columns,
    on_one_line,
    printable,
    reading,
    split_blanks,
    table_columns,
    text_lines,
)
from ..data.outputs import check_output_file
from ..data.pairs import encode_sources
from ..data.preprocessing import PREPROCESSING_FILE, Preprocessing
from ..data.slots import tokens_with_slots, unknown_words
from ..data.speech import Utterance, read_audio, read_frames
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER, load_tokenizers
from ..evaluation.decoding import Hypothesis, decode
from ..evaluation.reranker import RERANKER_FOLDER, SlotReranker
from ..evaluation.saved_model import load_model, saved_classes
from ..evaluation.work_in_parts import start_processes, work_in_parts
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from ..model.modeling_spectrogram import RnnSeq2SeqForTextToSpectrogram
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from .arguments import (
    one_sentence,
    start_logging,
)
from .labelling import Labeller
from .predict_options import predict_parser
from .predict_series import predict_series_file, reads_series
from .predict_values import predict_value_file, reads_tables
from .speaking import speak, write_spoken


class Predictor(ABC):
    """A saved model with what reads its inputs; `args` has `model_dir`, and the options of the command line."""

    # The field of .jsonl that has the inputs, if --column does not say.
    field: ClassVar[str] = "source"
    # Options that mean nothing to such models.
    refused: ClassVar[tuple[str, ...]] = ("sound", "reranker")
    model: Any

    def __init__(self, args: argparse.Namespace) -> None:
        for name in self.refused:
            got = getattr(args, name)
            if got is True or got not in (None, False, 1):  # what they are where they are not given
                raise DataError(
                    f"--{name}: got {got}, but the model in {args.model_dir} has no such thing; leave it out"
                )
        self.args = args

    @classmethod
    def item(cls, value: Any, place: str) -> Any:
        """Return an input as it was read from a file, or from the command line.

        Raises:
            DataError: it is none.
        """
        if not isinstance(value, str):
            raise DataError(f"{place}: got {value!r}, wanted a text")
        return value

    def is_blank(self, item: Any) -> bool:
        """Whether nothing is left of an input for the model to read."""
        return not item.strip()

    @abstractmethod
    def __call__(self, items: Sequence[Any], with_scores: bool) -> list[list[Hypothesis]]:
        """Return the n-best list of each input, none of which is blank."""

    def record(self, item: Any, ranked: Sequence[Hypothesis]) -> dict[str, Any]:
        """Return the object of an input in a .jsonl file."""
        record: dict[str, Any] = {"source": item, "predictions": [hypothesis.text for hypothesis in ranked]}
        if self.args.scores:
            record["scores"] = [round(hypothesis.score or 0.0, 4) for hypothesis in ranked]
        return record

    def printed(self, item: Any, ranked: Sequence[Hypothesis], width: int) -> Iterator[str]:
        """Return the lines that are printed of an input, which stands in a column of a width."""
        for rank, hypothesis in enumerate(ranked):
            shown = on_one_line(item) if rank == 0 else ""
            yield f"{shown:{width}}  {hypothesis.score:8.3f}  {on_one_line(hypothesis.text)}"


class _Searching(Predictor):
    """A model with `generate()`."""

    def __init__(self, args: argparse.Namespace, model_class: Any) -> None:
        super().__init__(args)
        self.source_tokenizer, self.target_tokenizer = load_tokenizers(args.model_dir)
        self.model = load_model(model_class, args.model_dir).eval()
        self.search: GenerationConfig = copy.deepcopy(self.model.generation_config)
        if args.num_beams is not None:
            self.search.num_beams = args.num_beams
        self.search.num_return_sequences = args.num_return_sequences
        beams = self.search.num_beams or 1
        if args.num_return_sequences > beams and not self.search.do_sample:
            got = args.num_return_sequences
            raise DataError(f"--num_return_sequences: got {got}, wanted at most the {beams} of --num_beams")


class TextPredictor(_Searching):
    """A text for each text."""

    refused = ("sound",)

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, AutoModelForSeq2SeqLM)
        self.preprocessing = Preprocessing.load(args.model_dir) or Preprocessing()
        self.reranker = self._reranker(args)
        if args.attention and getattr(self.model.config, "attention_type", None) == "none":
            raise DataError(f"--attention: the model in {args.model_dir} has no attention (attention_type none)")
        if args.attention:
            from ..evaluation.attention_plot import plot_attention  # needs matplotlib, and says so before the work

            self.plot = plot_attention

    def _reranker(self, args: argparse.Namespace) -> SlotReranker | None:
        """Return what `--reranker` names, or lies beside the model, where there are hypotheses to choose from."""
        folder = Path(args.model_dir) / RERANKER_FOLDER if args.reranker is None else Path(args.reranker)
        if args.reranker == "none" or (args.reranker is None and not folder.is_dir()):
            return None
        if (self.search.num_beams or 1) > 1:
            return SlotReranker.from_pretrained(folder)
        if args.reranker is not None:
            raise DataError(f"--reranker: got {folder}, but of a search by one beam there is nothing to choose from")
        return None

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[str]]]:
        """Return the source ids of rewritten texts, and for each the words that its slots stand for (`copy_slots`)."""
        tokenizer, config = self.source_tokenizer, self.model.config
        texts, reverse = self.preprocessing.delexicalised(texts), self.preprocessing.reverse_source
        return encode_sources(texts, tokenizer, reverse, config), unknown_words(texts, tokenizer, config)

    def is_blank(self, item: str) -> bool:
        return not self.preprocessing.text(item).strip()

    def __call__(self, items: Sequence[str], with_scores: bool) -> list[list[Hypothesis]]:
        texts = [self.preprocessing.text(item) for item in items]
        search = copy.deepcopy(self.search)
        if self.reranker is not None:
            search.num_return_sequences, with_scores = search.num_beams, True
        sources, words = self.encode(texts)
        options = self.target_tokenizer, search, self.args.batch_size, with_scores
        ranked = decode(self.model, sources, *options, words, self.preprocessing.values(texts))
        if self.reranker is not None:
            ranked = self.reranker(texts, ranked, search.length_penalty)
        return [hypotheses[: self.search.num_return_sequences] for hypotheses in ranked]

    def draw_attention(self, text: str, best: Hypothesis, path: Path) -> None:
        """Draw the attention of a text's hypothesis."""
        (source,), (words,) = self.encode([self.preprocessing.text(text)])
        tokens = [*best.tokens, self.target_tokenizer.eos_token_id]
        sequence = torch.tensor([[self.model.config.decoder_start_token_id, *tokens]])
        self.plot(
            self.model.alignments(sequence, input_ids=torch.tensor([source]))[0],
            tokens_with_slots(source, self.source_tokenizer, words, self.model.config),
            tokens_with_slots(tokens, self.target_tokenizer, words, self.model.config),
            path=path,
            title=text,
        )


_FRAMES = re.compile(r"(?P<file>.+\.npz)\[(?P<number>\d+)\]")


class SpeechPredictor(_Searching):
    """What is said in an audio file, or in the frames `FILE.npz[number]`.

    Every utterance is normalised as one of a speaker of its own.
    """

    field = "audio"
    refused = ("attention", "sound", "reranker")

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, RnnSeq2SeqForSpeechSeq2Seq)
        self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(args.model_dir)
        self.folder = args.input_file.parent if args.input_file else Path()
        self.frames: dict[str, list[Utterance]] = {}

    def _read(self, item: str) -> np.ndarray:
        """Return the samples (N,) or frames (S, F) of an input."""
        stored = _FRAMES.fullmatch(item)
        if (stored is not None) != (self.extractor.feature_type == "none"):
            wanted = "frames in an .npz file" if stored is None else "audio files"
            raise DataError(f"{item}: the model in {self.args.model_dir} reads {wanted}")
        if stored is None:
            utterance = _utterance(item)
            read_audio([utterance], self.folder, self.extractor.sampling_rate)
            return utterance.input
        file = stored["file"]
        if file not in self.frames:
            self.frames = {file: [_utterance(name) for name in frames_in(Path(file))]}
            read_frames(self.frames[file], Path(file))
        if int(stored["number"]) >= len(self.frames[file]):
            raise DataError(f"{item}: the file has the utterances 0 to {len(self.frames[file]) - 1}")
        return self.frames[file][int(stored["number"])].input

    def __call__(self, items: Sequence[str], with_scores: bool) -> list[list[Hypothesis]]:
        inputs, rate = [self._read(item) for item in items], self.extractor.sampling_rate
        features = self.extractor(inputs, sampling_rate=rate, padding=False)["input_features"]
        return decode(
            self.model, list(features), self.target_tokenizer, self.search, self.args.batch_size, with_scores
        )


def _utterance(name: str) -> Utterance:
    return Utterance(name, None, name, "", "", name, np.empty(0, np.float32))


def frames_in(path: Path) -> list[str]:
    """Return the names of the utterances of an npz file: `FILE.npz[0]` and so on."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with reading(path, "an npz file with the arrays feats and offsets", any_error=True), np.load(path) as arrays:
        return [f"{path}[{number}]" for number in range(len(arrays["offsets"]) - 1)]


class _Labels(Labeller, Predictor):
    """A classifier."""

    refused: ClassVar[tuple[str, ...]] = ("num_beams", "attention", "sound", "reranker")
    model_class: ClassVar[Any]

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.tokenizer = load_tokenizers(args.model_dir)[0]
        self.model = load_model(self.model_class, args.model_dir).eval()
        self.batch_size = args.batch_size


class ClassPredictor(_Labels):
    """The likeliest labels of a text."""

    field = "text"
    model_class = RnnSeq2SeqForSequenceClassification

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if args.num_return_sequences > len(self.id2label):
            wanted = f"at most the {len(self.id2label)} labels of the model"
            raise DataError(f"--num_return_sequences: got {args.num_return_sequences}, wanted {wanted}")

    def __call__(self, items: Sequence[str], with_scores: bool) -> list[list[Hypothesis]]:
        ranked = self.classes(items, self.args.num_return_sequences)
        return [[Hypothesis(label, (), score) for label, score in labels] for labels in ranked]


class TagPredictor(_Labels):
    """A label for each word of a sentence, which is a list of words. There are no lists of the best, and no scores."""

    field = "tokens"
    refused = ("num_beams", "attention", "num_return_sequences", "scores", "sound", "reranker")
    model_class = RnnSeq2SeqForTokenClassification

    @classmethod
    def item(cls, value: Any, place: str) -> list[str]:
        if isinstance(value, str):
            return split_blanks(value)
        if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
            raise DataError(f"{place}: got {value!r}, wanted words, as a list or parted by blanks")
        return value

    def is_blank(self, item: Sequence[str]) -> bool:
        return not item

    def __call__(self, items: Sequence[Sequence[str]], with_scores: bool) -> list[list[Hypothesis]]:
        return [[Hypothesis(label, ()) for label in labels] for labels in self.tags(items)]

    def record(self, item: Any, ranked: Sequence[Hypothesis]) -> dict[str, Any]:
        return {"tokens": item, "tags": [label.text for label in ranked]}

    def printed(self, item: Any, ranked: Sequence[Hypothesis], width: int) -> Iterator[str]:
        yield " ".join(f"{word}/{label.text}" for word, label in zip(item, ranked, strict=True))


class SoundPredictor(Predictor):
    """The sound of a text, or its vectors if these are no sound: a file's name for each text."""

    field = "text"
    refused = ("num_beams", "attention", "num_return_sequences", "scores", "reranker")

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if args.sound is None:
            raise DataError(f"--sound: the model in {args.model_dir} speaks, wanted the folder that its sound goes to")
        self.tokenizer = load_tokenizers(args.model_dir)[0]
        self.model = load_model(RnnSeq2SeqForTextToSpectrogram, args.model_dir).eval()
        self.extractor = None
        if (Path(args.model_dir) / FEATURE_EXTRACTOR_NAME).is_file():
            self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(args.model_dir)

    def __call__(self, items: Sequence[str], with_scores: bool) -> list[list[Hypothesis]]:
        # One by one: the dropout of the pre-net is then the same whatever stands beside a text.
        spoken = [speak(self.model, self.tokenizer, [text], 1, seed=0)[0] for text in items]
        paths = [write_spoken(self.args.sound, text, said, self.extractor) for text, said in zip(items, spoken)]
        return [[Hypothesis(str(path), ())] for path in paths]

    def record(self, item: Any, ranked: Sequence[Hypothesis]) -> dict[str, Any]:
        return {"text": item, "sound": ranked[0].text if ranked else None}

    def printed(self, item: Any, ranked: Sequence[Hypothesis], width: int) -> Iterator[str]:
        yield f"{on_one_line(item):{width}}  {ranked[0].text}"


# What a model's folder says that it holds -> what runs it. Of other classes, all are taken for text to text.
PREDICTORS: dict[str, type[Predictor]] = {
    "RnnSeq2SeqForSpeechSeq2Seq": SpeechPredictor,
    "RnnSeq2SeqForTextToSpectrogram": SoundPredictor,
    "RnnSeq2SeqForSequenceClassification": ClassPredictor,
    "RnnSeq2SeqForTokenClassification": TagPredictor,
}


def predictor_class(model_dir: str | Path) -> type[Predictor]:
    """Return what runs the model in a folder; whether there is one is found out when it is loaded."""
    with suppress(OSError, ValueError):
        return next((PREDICTORS[name] for name in saved_classes(Path(model_dir)) if name in PREDICTORS), TextPredictor)
    return TextPredictor


def read_inputs(path: Path, column: str | None, kind: type[Predictor]) -> list[Any]:
    """Return the inputs of a file, made of its values by a `kind`. `column` is the name of the field or column, or
    its number from 1 on; `None`: the kind's field of objects, the first of columns.
    """
    rows: Iterator[tuple[int, list[Any]]]
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "npz" and kind is SpeechPredictor:
        return frames_in(path)
    if ending == "jsonl":
        rows = json_columns(path, {"--column": column or kind.field})
    elif ending in ("csv", "tsv"):
        number_or_name = int(column) if column and re.fullmatch("-?[0-9]+", column) else column or 1
        rows = table_columns(path, ending, {"--column": number_or_name}, header=None)
    elif ending == "txt":
        rows = ((number, [line]) for number, line in enumerate(text_lines(path), start=1))
    else:
        raise DataError(f"--input_file: got {path}, wanted a name that ends in .txt, .jsonl, .csv or .tsv")
    items = [kind.item(value, f"{path}, line {number}") for number, (value,) in rows]
    if not items:
        raise DataError(f"{path}: holds no input")
    return items


def predict_file(args: argparse.Namespace) -> None:
    """Predict for every input of `--input_file`."""
    device = start_processes()
    plain = args.output_file.suffix == ".txt"
    kind = predictor_class(args.model_dir)
    items = read_inputs(args.input_file, args.column, kind)
    predictor = kind(args)
    predictor.model.to(device)

    def work(chunk: Sequence[Any]) -> list[str]:
        filled = [item for item in chunk if not predictor.is_blank(item)]
        ranked = iter(predictor(filled, args.scores) if filled else [])
        lines: list[str] = []
        for item in chunk:
            hypotheses = [] if predictor.is_blank(item) else next(ranked)
            if plain:
                best = hypotheses if isinstance(predictor, TagPredictor) else hypotheses[:1]
                lines.append(on_one_line(" ".join(hypothesis.text for hypothesis in best)))
            else:
                lines.append(json.dumps(predictor.record(item, hypotheses), ensure_ascii=False))
        return lines

    job = {
        name: getattr(args, name) for name in ("num_beams", "num_return_sequences", "batch_size", "scores", "reranker")
    }
    job |= {"model": _digest(Path(args.model_dir)), "sound": None if args.sound is None else str(args.sound)}
    work_in_parts(items, work, args.output_file, job=job, part_size=args.part_size, overwrite=args.overwrite)


def _digest(model_dir: Path) -> str:
    """Return what changes with any file of a model that its predictions depend on."""
    folders = (model_dir, model_dir / TARGET_TOKENIZER_FOLDER, model_dir / RERANKER_FOLDER)
    patterns = ("*.safetensors", "*config.json", "tokenizer.json", PREPROCESSING_FILE, "reranker.json", "recipe.yaml")
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for pattern in patterns for file in folder.glob(pattern)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def predict_texts(args: argparse.Namespace, texts: list[str]) -> None:
    """Predict for texts, and print it: a blank line for a blank text."""
    kind = predictor_class(args.model_dir)
    if kind is SpeechPredictor:
        texts = [name for text in texts for name in (frames_in(Path(text)) if text.endswith(".npz") else [text])]
    predictor = kind(args)
    items = [kind.item(text, "the text") for text in texts]
    filled = [item for item, text in zip(items, texts, strict=True) if text.strip()]
    for item in filled:
        if predictor.is_blank(item):
            raise DataError(f"the model's source_replacements leave nothing of the text {item!r}")
    results = predictor(filled, True) if filled else []
    width = max(len(text) for text in texts)
    ranked = iter(results)
    for item, text in zip(items, texts, strict=True):
        lines = predictor.printed(item, next(ranked), width) if text.strip() else [""]
        sys.stdout.writelines(printable(f"{line}\n") for line in lines)
    if args.attention and filled and isinstance(predictor, TextPredictor):
        predictor.draw_attention(filled[0], results[0][0], args.attention)
        sys.stdout.write(f"attention of {filled[0]!r} drawn to {args.attention}\n")


def table_program(model_dir: str | Path, otherwise: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what predicts for the tables that the model in a folder reads, or something else if it reads none."""
    if reads_series(model_dir):
        return predict_series_file
    return predict_value_file if reads_tables(model_dir) else otherwise


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run the command line.

    `arguments` is what follows the program's name; `None`: as this process was started, likewise `program`.
    """
    parser = predict_parser(program, __doc__)
    args = parser.parse_args(arguments)
    if (args.input_file is None) != (args.output_file is None):
        parser.error("--input_file and --output_file need each other")
    if args.input_file is not None:
        if args.texts or args.attention:
            parser.error("--input_file: leave out texts and --attention")
        if args.output_file.suffix not in (".txt", ".jsonl"):
            parser.error(f"--output_file: got {args.output_file}, wanted a name that ends in .txt or .jsonl")
        if args.output_file.suffix == ".txt" and (args.scores or args.num_return_sequences > 1):
            parser.error("--output_file: a .txt has the best hypotheses alone; name a .jsonl")
        if args.column is not None and args.input_file.name.removesuffix(".gz").endswith((".txt", ".npz")):
            parser.error(f"--column: got {args.column!r}, but {args.input_file} has no columns; leave it out")
        if args.column == "":
            parser.error("--column: got '', wanted a name, or a number from 1 on")
        if args.output_file.resolve() == args.input_file.resolve():
            parser.error(f"--output_file: got {args.output_file}, which is the input file; name another one")
        args.part_size = args.part_size or 1024
        start_logging()
        with one_sentence(ValueError):
            table_program(args.model_dir, predict_file)(args)
        return
    for option in ("column", "scores", "part_size", *(() if args.attention else ("overwrite",))):
        if getattr(args, option):
            parser.error(f"--{option} is for --input_file; leave it out, or name a file")
    with one_sentence(ValueError):
        table_program(args.model_dir, lambda args: None)(args)  # which refuses what is no file
        texts = [check_text(text, "the text") for text in args.texts] or list(input_lines())
        if not texts:
            parser.error("no text given, neither on the command line nor on stdin")
        if args.attention:
            check_output_file(args.attention, "--attention", args.overwrite)
        predict_texts(args, texts)
