"""The command `hf-rnn-seq2seq`: run a recipe, predict with a saved model, export, serve, show or publish it.

    hf-rnn-seq2seq recipes                               # the recipes that come with the package
    hf-rnn-seq2seq recipes copy g2p_cmudict .            # one to change
    hf-rnn-seq2seq run g2p_cmudict.yaml --data_dir DIR   # the model in runs/g2p_cmudict
    hf-rnn-seq2seq predict runs/g2p_cmudict encoder
    hf-rnn-seq2seq export runs/g2p_cmudict exported
    hf-rnn-seq2seq pronounce exported encoder            # a lexicon first, then the model, and how sure it is
    hf-rnn-seq2seq serve exported                        # over HTTP
    hf-rnn-seq2seq demo runs/g2p_cmudict                 # a page to try it
    hf-rnn-seq2seq push runs/g2p_cmudict USER/NAME       # on the Hub

Each has its own --help. `scripts/` has the same programs for a checkout.
"""

import argparse
import sys
from collections.abc import Sequence

from ..data.files import printable
from .arguments import folder_of_model, folder_to_write, one_sentence
from .library import copy_recipe, library_folder, recipe_sentences


PROGRAM = "hf-rnn-seq2seq"
COMMANDS = ("run", "predict", "export", "pronounce", "serve", "demo", "push", "recipes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(
        PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=COMMANDS)
    first, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = parser.parse_args([first]).command
    program = f"{PROGRAM} {command}"
    try:
        # Each needs other extras, so none is imported before it is asked for.
        if command == "run":
            from .command import main as run

            run(None, "Train, evaluate and predict as a recipe says, whatever its task.", rest, program)
        elif command == "predict":
            from .predict import main as predict

            predict(rest, program)
        elif command == "export":
            export(rest, program)
        elif command == "pronounce":
            from ..sharing.pronounce import main as pronounce

            pronounce(rest, program)
        elif command == "serve":
            from ..sharing.server import main as serve

            serve(rest, program)
        elif command == "demo":
            from ..sharing.demo import main as demo

            demo(rest, program)
        elif command == "push":
            from ..sharing.hub import main as push

            push(rest, program)
        else:
            recipes(rest, program)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        sys.exit(f"error: {error}")


def export(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Write a saved model as a folder that runs without torch and transformers: ONNX graphs, tokenizers, a runtime."""
    from ..sharing.export import export_model

    description = (export.__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(program, description=description, allow_abbrev=False)
    parser.add_argument("model_dir", type=folder_of_model, help="a folder that save_pretrained wrote")
    parser.add_argument("output_dir", type=folder_to_write, help="the folder to write")
    parser.add_argument("--quantize", choices=["int8", "none"], default="int8", help="default: int8")
    parser.add_argument(
        "--reverse_source",
        action=argparse.BooleanOptionalAction,
        help="whether it was trained on reversed sources, if its folder does not say",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in output_dir")
    args = parser.parse_args(arguments)
    quantize = None if args.quantize == "none" else args.quantize
    with one_sentence(ValueError):
        folder = export_model(args.model_dir, args.output_dir, quantize, args.reverse_source, args.overwrite)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        sys.stdout.write(printable(f"{file.stat().st_size:>12,}  {file}\n"))


def recipes(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """List the recipes that come with the package, or copy one."""
    parser = argparse.ArgumentParser(
        program, description="List the recipes that come with the package, or copy one.", allow_abbrev=False
    )
    copy = parser.add_subparsers(dest="action").add_parser("copy", help="copy a recipe, to change and run it")
    copy.add_argument("name", help="of the recipe")
    copy.add_argument("folder", type=folder_to_write, help="where the copy goes")
    args = parser.parse_args(arguments)
    with one_sentence():
        if args.action == "copy":
            sys.stdout.write(f"{copy_recipe(args.name, args.folder)}\n")
            return
        for name, sentence in recipe_sentences().items():
            sys.stdout.write(f"{name}\n    {sentence}\n")
        sys.stdout.write(f"what data each needs: {library_folder() / 'README.md'}\n")
