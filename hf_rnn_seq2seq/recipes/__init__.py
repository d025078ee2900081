"""Recipes: one YAML file, one run. Also the command line.

`run_recipe(load_task("toy_reverse.yaml"), data_dir, output_dir)` is what `hf-rnn-seq2seq run toy_reverse.yaml` does.
"""

from ..data.doors import door


__all__, __getattr__ = door(
    __name__,
    {
        "library": "copy_recipe recipe_sentences",
        "task": "load_task",
        "run": "run_recipe",
    },
)
