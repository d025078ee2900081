#!/usr/bin/env python
"""Write a saved model as a folder that runs without torch and transformers: ONNX graphs, tokenizers and a runtime.

python scripts/export.py runs/quickstart exported                  # 8-bit integers
python scripts/export.py runs/quickstart exported --quantize none  # single precision
python exported/rnn_seq2seq_runtime.py "some text"                 # needs onnxruntime, tokenizers and numpy
"""

from hf_rnn_seq2seq.recipes.command_line import export as main


if __name__ == "__main__":
    main()
