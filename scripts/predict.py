#!/usr/bin/env python
"""Load a saved model in a fresh process and run it on texts given on the command line, or one a line on stdin.

    python scripts/predict.py MODEL_DIR TEXT [TEXT ...] [--num_return_sequences 3] [--attention picture.png]

Prints each text's hypotheses, best first, with their log-probabilities (natural, summed over the symbols and the end);
a blank line for a blank text.
A whole file, by as many processes as there are; the same command goes on after a kill:

    python scripts/predict.py MODEL_DIR --input_file in.txt --output_file out.jsonl
    torchrun --nproc_per_node 2 scripts/predict.py MODEL_DIR --input_file in.csv --column text --output_file out.txt

The input has one text a line (.txt), in a field of each object (.jsonl) or in a column (.csv, .tsv), gzipped or not; a
blank text gets no hypothesis. The output has a line for each text, in their order: the best hypothesis (.txt), or
{"source": ..., "predictions": [...]}, best first (.jsonl).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

import hf_rnn_seq2seq  # noqa: F401 - makes the model known to the Auto classes
from hf_rnn_seq2seq.data.files import DataError, check_text, input_lines, json_columns, table_columns, text_lines
from hf_rnn_seq2seq.data.outputs import check_output_file, replacing
from hf_rnn_seq2seq.data.pairs import encode_sources
from hf_rnn_seq2seq.data.preprocessing import PREPROCESSING_FILE, Preprocessing
from hf_rnn_seq2seq.data.slots import tokens_with_slots, unknown_words
from hf_rnn_seq2seq.data.tokenizers import TARGET_TOKENIZER_FOLDER, load_tokenizers
from hf_rnn_seq2seq.evaluation.attention_plot import plot_attention
from hf_rnn_seq2seq.evaluation.decoding import Hypothesis, decode
from hf_rnn_seq2seq.evaluation.saved_model import load_model
from hf_rnn_seq2seq.evaluation.work_in_parts import start_processes, work_in_parts
from hf_rnn_seq2seq.recipes.arguments import file_to_write, one_sentence, picture_to_write, whole_number


class Predictor:
    """A saved model with its tokenizers and its search.

    Args:
        args: `model_dir`, and `num_beams` and `num_return_sequences` where they differ from what was saved.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.source_tokenizer, self.target_tokenizer = load_tokenizers(args.model_dir)
        self.model = load_model(AutoModelForSeq2SeqLM, args.model_dir).eval()
        self.preprocessing = Preprocessing.load(args.model_dir) or Preprocessing()
        self.search: GenerationConfig = copy.deepcopy(self.model.generation_config)
        if args.num_beams is not None:
            self.search.num_beams = args.num_beams
        self.search.num_return_sequences = args.num_return_sequences
        beams = self.search.num_beams or 1
        if args.num_return_sequences > beams and not self.search.do_sample:
            got = args.num_return_sequences
            raise DataError(f"--num_return_sequences: got {got}, wanted at most the {beams} of --num_beams")
        if args.attention and getattr(self.model.config, "attention_type", None) == "none":
            raise DataError(f"--attention: the model in {args.model_dir} has no attention (attention_type none)")

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[str]]]:
        """The model's source ids of texts, and for each the words that its slots stand for (`copy_slots`)."""
        tokenizer, config = self.source_tokenizer, self.model.config
        texts, reverse = [self.preprocessing.text(text) for text in texts], self.preprocessing.reverse_source
        return encode_sources(texts, tokenizer, reverse, config), unknown_words(texts, tokenizer, config)

    def is_blank(self, text: str) -> bool:
        """Whether nothing is left of a text for the model to read."""
        return not self.preprocessing.text(text).strip()

    def __call__(self, texts: Sequence[str], batch_size: int, with_scores: bool) -> list[list[Hypothesis]]:
        """The n-best list of each text."""
        if not texts:  # all of a part are blank
            return []
        sources, words = self.encode(texts)
        return decode(self.model, sources, self.target_tokenizer, self.search, batch_size, with_scores, words)

    def draw_attention(self, text: str, best: Hypothesis, path: Path) -> None:
        """Draw the attention of a text's hypothesis."""
        (source,), (words,) = self.encode([text])
        tokens = [*best.tokens, self.target_tokenizer.eos_token_id]
        sequence = torch.tensor([[self.model.config.decoder_start_token_id, *tokens]])
        plot_attention(
            self.model.alignments(sequence, input_ids=torch.tensor([source]))[0],
            tokens_with_slots(source, self.source_tokenizer, words, self.model.config),
            tokens_with_slots(tokens, self.target_tokenizer, words, self.model.config),
            path=path,
            title=text,
        )


def read_texts(path: Path, column: str | None) -> list[str]:
    """The texts of an input file.

    Args:
        path: the file.
        column: name of the field or column, or the column's number from 1 on; `None`: `source` of objects, the first
            of columns.
    """
    rows: Iterator[tuple[int, list[Any]]]
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        rows = json_columns(path, {"--column": column or "source"})
    elif kind in ("csv", "tsv"):
        number_or_name = int(column) if column and re.fullmatch("-?[0-9]+", column) else column or 1
        rows = table_columns(path, kind, {"--column": number_or_name}, header=None)
    elif kind == "txt":
        rows = ((number, [line]) for number, line in enumerate(text_lines(path), start=1))
    else:
        raise DataError(f"--input_file: got {path}, wanted a name that ends in .txt, .jsonl, .csv or .tsv")
    texts: list[str] = []
    for number, (text,) in rows:
        if not isinstance(text, str):
            raise DataError(f"{path}, line {number}: got {text!r}, wanted a text")
        texts.append(text)
    return texts


def on_one_line(text: str) -> str:
    """The text with a blank for each line end: an output file has one line for each line of the input."""
    return text.translate({ord("\r"): " ", ord("\n"): " "})


def predict_file(args: argparse.Namespace) -> None:
    """Predict for every text of `--input_file`."""
    device = start_processes()
    plain = args.output_file.suffix == ".txt"
    texts = read_texts(args.input_file, args.column)
    predictor = Predictor(args)
    predictor.model.to(device)

    def work(chunk: Sequence[str]) -> list[str]:
        filled = [text for text in chunk if not predictor.is_blank(text)]
        ranked = iter(predictor(filled, args.batch_size, args.scores))
        lines: list[str] = []
        for text in chunk:
            hypotheses = [] if predictor.is_blank(text) else next(ranked)
            if plain:
                lines.append(on_one_line(hypotheses[0].text) if hypotheses else "")
                continue
            record: dict[str, Any] = {"source": text, "predictions": [hypothesis.text for hypothesis in hypotheses]}
            if args.scores:
                record["scores"] = [round(hypothesis.score or 0.0, 4) for hypothesis in hypotheses]
            lines.append(json.dumps(record, ensure_ascii=False))
        return lines

    model_dir = Path(args.model_dir)
    folders = (model_dir, model_dir / TARGET_TOKENIZER_FOLDER)
    patterns = ("*.safetensors", "*config.json", "tokenizer.json", PREPROCESSING_FILE, "recipe.yaml")
    files = sorted(file for folder in folders for pattern in patterns for file in folder.glob(pattern))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    job: dict[str, Any] = {
        "model": digest.hexdigest(),
        **{name: getattr(args, name) for name in ("num_beams", "num_return_sequences", "batch_size", "scores")},
    }
    work_in_parts(texts, work, args.output_file, job=job, part_size=args.part_size, overwrite=args.overwrite)


def predict_texts(args: argparse.Namespace, texts: list[str]) -> None:
    """Predict for texts, and print it: a blank line for a blank text."""
    predictor = Predictor(args)
    filled = [text for text in texts if text.strip()]
    for text in filled:
        if predictor.is_blank(text):
            raise DataError(f"the model's source_replacements leave nothing of the text {text!r}")
    results = predictor(filled, args.batch_size, with_scores=True)
    width = max(len(text) for text in texts)
    ranked = iter(results)
    for text in texts:
        if not text.strip():
            print()
            continue
        for rank, hypothesis in enumerate(next(ranked)):
            shown = on_one_line(text) if rank == 0 else ""
            print(f"{shown:{width}}  {hypothesis.score:8.3f}  {on_one_line(hypothesis.text)}")
    if args.attention and filled:
        with replacing(args.attention) as picture:
            predictor.draw_attention(filled[0], results[0][0], picture)
        print(f"attention of {filled[0]!r} drawn to {args.attention}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="a folder that save_pretrained wrote")
    parser.add_argument("texts", nargs="*", help="source texts")
    parser.add_argument("--num_beams", type=whole_number(1), help="default: as saved with the model")
    count = whole_number(1)
    parser.add_argument("--num_return_sequences", type=count, default=1, help="hypotheses a text, at most --num_beams")
    parser.add_argument("--batch_size", type=count, default=64, help="texts decoded at a time, of like length")
    parser.add_argument(
        "--attention",
        type=picture_to_write,
        metavar="PNG",
        help="draw the attention of the first text's best hypothesis",
    )
    files = parser.add_argument_group("a whole file")
    files.add_argument("--input_file", type=Path, help=".txt, .jsonl, .csv or .tsv")
    files.add_argument("--output_file", type=file_to_write, help=".txt or .jsonl")
    files.add_argument("--column", help="which field (default: source) or column (default: the first) has the texts")
    files.add_argument("--scores", action="store_true", help="log-probabilities too, for .jsonl")
    files.add_argument("--part_size", type=count, default=1024, help="so many texts are lost by a kill at most")
    files.add_argument(
        "--overwrite", action="store_true", help="start again where there is an output, or parts of one; a picture too"
    )
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
        if args.column is not None and args.input_file.name.removesuffix(".gz").endswith(".txt"):
            parser.error(f"--column: got {args.column!r}, but {args.input_file} has no columns; leave it out")
        if args.column == "":
            parser.error("--column: got '', wanted a name, or a number from 1 on")
        if args.output_file.resolve() == args.input_file.resolve():
            parser.error(f"--output_file: got {args.output_file}, which is the input file; name another one")
        level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=level)
        with one_sentence(ValueError):
            predict_file(args)
        return
    for option in ("column", "scores"):
        if getattr(args, option):
            parser.error(f"--{option} is for --input_file; leave it out, or name a file")
    with one_sentence(ValueError):
        texts = [check_text(text, "the text") for text in args.texts] or list(input_lines())
        if not texts:
            parser.error("no text given, neither on the command line nor on stdin")
        if args.attention:
            check_output_file(args.attention, "--attention", args.overwrite)
        predict_texts(args, texts)


if __name__ == "__main__":
    main()
