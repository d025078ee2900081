"""Finds the example scripts of the installed transformers: in a checkout, or from its repository.

The released archives of transformers have no `examples/`. `TRANSFORMERS_CHECKOUT` names the folder of a checkout, of
any version near enough; otherwise the scripts of the installed version are downloaded once into the user's cache.
"""

import os
import urllib.request
from pathlib import Path

import transformers


# Where a version's files are, one by one.
FILES = "https://raw.githubusercontent.com/huggingface/transformers/v{version}/examples/pytorch"
SCRIPTS = {
    "run_translation": "translation/run_translation.py",
    "run_translation_no_trainer": "translation/run_translation_no_trainer.py",
    "run_summarization": "summarization/run_summarization.py",
    "run_ner": "token-classification/run_ner.py",
    "run_classification": "text-classification/run_classification.py",
    "run_speech_recognition_seq2seq": "speech-recognition/run_speech_recognition_seq2seq.py",
}


def example_script(name: str) -> Path:
    """Returns the path of a script, unchanged.

    Raises:
        FileNotFoundError: The checkout has no such script.
        OSError: It can be neither found in the cache nor downloaded.
    """
    checkout = os.environ.get("TRANSFORMERS_CHECKOUT")
    if checkout:
        path = Path(checkout) / "examples" / "pytorch" / SCRIPTS[name]
        if not path.is_file():
            raise FileNotFoundError(f"TRANSFORMERS_CHECKOUT: {checkout} has no examples/pytorch/{SCRIPTS[name]}")
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "hf_rnn_seq2seq" / f"examples-{transformers.__version__}" / Path(SCRIPTS[name]).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"{FILES.format(version=transformers.__version__)}/{SCRIPTS[name]}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)  # whole or not at all
    return path
