#!/usr/bin/env python
"""Write a saved model as a folder that runs without torch and transformers: ONNX graphs, tokenizers and a runtime.

python scripts/export.py runs/quickstart exported                  # 8-bit integers
python scripts/export.py runs/quickstart exported --quantize none  # single precision
python exported/rnn_seq2seq_runtime.py "some text"                 # needs onnxruntime, tokenizers and numpy
"""

from __future__ import annotations

import argparse

from hf_rnn_seq2seq.recipes.arguments import folder_to_write, one_sentence
from hf_rnn_seq2seq.sharing.export import export_model


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="a folder that save_pretrained wrote")
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
        print(f"{file.stat().st_size:>12,}  {file}")


if __name__ == "__main__":
    main()
