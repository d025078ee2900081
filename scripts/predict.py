#!/usr/bin/env python
"""Load a saved model in a fresh process and run it; `--help` says all that it reads and writes.

python scripts/predict.py MODEL_DIR TEXT [TEXT ...] [--num_return_sequences 3] [--attention picture.png]
torchrun --nproc_per_node 2 scripts/predict.py MODEL_DIR --input_file in.txt --output_file out.jsonl
"""

from hf_rnn_seq2seq.recipes.predict import main


if __name__ == "__main__":
    main()
