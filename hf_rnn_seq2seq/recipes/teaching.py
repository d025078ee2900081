"""Distillation: a student learns from what trained models answer (Kim & Rush 2016, sequence-level).

The teachers, one saved model or several as an ensemble, decode the sources of the training data by beam search; their
answers are training pairs of the student, beside the references or in their place. Needs the extra `train`.
"""

import copy
import logging

from ..data.pairs import encode_sources
from ..data.preprocessing import Preprocessing
from ..data.slots import unknown_words
from ..data.splits import Dataset
from ..data.tokenizers import load_tokenizers
from ..evaluation.decoding import decode
from ..evaluation.saved_model import load_ensemble, load_model
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from .other_models import TeacherOptions
from .recipe import Recipe, RecipeError
from .task import to_accelerator


logger = logging.getLogger(__name__)


# So many sources are answered between two messages.
_PART = 5000


def taught(train: Dataset, recipe: Recipe, options: TeacherOptions) -> Dataset:
    """Return training pairs (columns `source` and `target`) with the teachers' n best answers to each source.

    Args:
        train: the references; a source that has several is answered once.
        recipe: its data say how sources are rewritten, which the teachers must have learnt alike.
        options: who they are, and how they search.

    Raises:
        RecipeError: a teacher reads its sources otherwise than the student.
        DataError: a folder holds no whole model of text to text.
    """
    first = options.models[0]
    reading = Preprocessing.load(first) or Preprocessing()
    for name in recipe.data.preprocessing.differences(reading):
        if name != "reverse_source":
            raise RecipeError(
                f"training.teacher.models: {first} was trained with {name} {getattr(reading, name)!r}, the recipe's "
                f"data have {getattr(recipe.data.preprocessing, name)!r}; wanted a teacher of the same"
            )
    source_tokenizer, target_tokenizer = load_tokenizers(first)
    model = (
        load_model(RnnSeq2SeqForConditionalGeneration, first)
        if len(options.models) == 1
        else load_ensemble(options.models)
    )
    to_accelerator(model, recipe)
    search = copy.deepcopy(model.generation_config)
    search.num_beams, search.num_return_sequences = options.num_beams, options.num_return_sequences
    sources = list(dict.fromkeys(train["source"]))
    logger.info("the teacher answers %d training sources", len(sources))
    pairs = list(zip(train["source"], train["target"], strict=True)) if options.keep_references else []
    for start in range(0, len(sources), _PART):
        part = sources[start : start + _PART]
        texts, size = reading.delexicalised(part), recipe.evaluation.batch_size
        encoded = encode_sources(texts, source_tokenizer, reading.reverse_source, model.config)
        words = unknown_words(texts, source_tokenizer, model.config)
        answers = decode(model, encoded, target_tokenizer, search, size, words=words, values=reading.values(part))
        pairs += [(source, found.text) for source, ranked in zip(part, answers) for found in ranked if found.tokens]
        logger.info("answered: %d of %d", start + len(part), len(sources))
    return Dataset.from_dict({"source": [source for source, _ in pairs], "target": [target for _, target in pairs]})
