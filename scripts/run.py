#!/usr/bin/env python
"""Train, evaluate and predict as a recipe says, whatever its task.

    python scripts/run.py scripts/recipes/toy_reverse.yaml
    python scripts/run.py scripts/recipes/g2p_cmudict.yaml --data_dir DIR --set training.seed=2 --resume

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from hf_rnn_seq2seq.recipes.command import main


if __name__ == "__main__":
    main(None, __doc__)
