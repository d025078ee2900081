#!/usr/bin/env python
"""Load a saved model in a fresh process and run it on texts given on the command line, or one a line on stdin.

    python scripts/predict.py MODEL_DIR TEXT [TEXT ...] [--num_return_sequences 3] [--attention picture.png]

Prints each text's hypotheses, best first, with their log-probabilities (natural, summed over the symbols and the end).
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hf_rnn_seq2seq  # noqa: F401 - makes the model known to the Auto classes
from hf_rnn_seq2seq.data import encode_sources
from hf_rnn_seq2seq.decoding import decode
from hf_rnn_seq2seq.tokenization import TARGET_TOKENIZER_FOLDER
from hf_rnn_seq2seq.visualize import plot_attention


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="a folder that save_pretrained wrote")
    parser.add_argument("texts", nargs="*", help="source texts")
    parser.add_argument("--num_beams", type=int, help="default: as saved with the model")
    parser.add_argument("--num_return_sequences", type=int, default=1, help="hypotheses a text, at most --num_beams")
    parser.add_argument("--attention", metavar="PNG", help="draw the attention of the first text's best hypothesis")
    args = parser.parse_args(arguments)
    texts = args.texts or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        parser.error("no text given, neither on the command line nor on stdin")

    source_tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    two_vocabularies = (Path(args.model_dir) / TARGET_TOKENIZER_FOLDER).is_dir()
    target_tokenizer = (
        AutoTokenizer.from_pretrained(args.model_dir, subfolder=TARGET_TOKENIZER_FOLDER)
        if two_vocabularies
        else source_tokenizer
    )
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model_dir).eval()
    generation_config = copy.deepcopy(model.generation_config)
    generation_config.num_beams = args.num_beams or generation_config.num_beams
    generation_config.num_return_sequences = args.num_return_sequences

    sources = encode_sources(texts, source_tokenizer)
    results = decode(model, sources, target_tokenizer, generation_config, with_scores=True)
    width = max(len(text) for text in texts)
    for text, hypotheses in zip(texts, results, strict=True):
        for rank, hypothesis in enumerate(hypotheses):
            print(f"{text if rank == 0 else '':{width}}  {hypothesis.score:8.3f}  {hypothesis.text}")

    if args.attention:
        best = [*results[0][0].tokens, target_tokenizer.eos_token_id]
        sequence = torch.tensor([[model.config.decoder_start_token_id, *best]])
        weights = model.alignments(sequence, input_ids=torch.tensor([sources[0]]))[0]
        plot_attention(
            weights,
            source_tokenizer.convert_ids_to_tokens(sources[0]),
            target_tokenizer.convert_ids_to_tokens(best),
            path=args.attention,
            title=texts[0],
        )
        print(f"attention of {texts[0]!r} drawn to {args.attention}")


if __name__ == "__main__":
    main()
