"""The command line of `predict`."""

import argparse
from pathlib import Path

from .arguments import file_to_write, folder_of_model, folder_to_write, picture_to_write, whole_number


def predict_parser(program: str | None, description: str | None) -> argparse.ArgumentParser:
    """Return the parser; `program` is the name that it calls itself."""
    parser = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model_dir", type=folder_of_model, help="a folder that save_pretrained wrote")
    parser.add_argument("texts", nargs="*", help="texts, or audio files")
    parser.add_argument("--num_beams", type=whole_number(1), help="default: as saved with the model")
    count = whole_number(1)
    parser.add_argument(
        "--num_return_sequences", type=count, default=1, help="hypotheses a text, at most --num_beams, or labels"
    )
    parser.add_argument("--batch_size", type=count, default=64, help="texts decoded at a time, of like length")
    parser.add_argument(
        "--attention",
        type=picture_to_write,
        metavar="PNG",
        help="draw the attention of the first text's best hypothesis",
    )
    parser.add_argument(
        "--reranker",
        metavar="FOLDER",
        help="orders the hypotheses of a beam search by their slots; default: `reranker` beside the model; none: no",
    )
    parser.add_argument("--sound", type=folder_to_write, metavar="FOLDER", help="where what a model says is written")
    files = parser.add_argument_group("a whole file")
    files.add_argument("--input_file", type=Path, help=".txt, .jsonl, .csv or .tsv; of frames .npz")
    files.add_argument("--output_file", type=file_to_write, help=".txt or .jsonl")
    files.add_argument(
        "--column",
        help="which field (default: source; text for a classifier, tokens for a tagger, audio for speech) or column "
        "(default: the first) has the inputs",
    )
    files.add_argument("--scores", action="store_true", help="log-probabilities too, for .jsonl")
    files.add_argument("--part_size", type=count, help="so many texts are lost by a kill at most (default: 1024)")
    files.add_argument(
        "--overwrite", action="store_true", help="start again where there is an output, or parts of one; a picture too"
    )
    return parser
