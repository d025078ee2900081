"""The processor that a recipe saves beside a model, so that one folder serves every program of transformers.

`AutoProcessor` and `AutoTokenizer` make of it what the model was trained with: both vocabularies, and sources
rewritten and reversed as in training. The files that folders had before are written too: older programs read them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerFast

from ..model.processing_rnn_seq2seq import RnnSeq2SeqProcessor
from ..model.tokenization_two_sides import RnnSeq2SeqTwoSidedTokenizer
from .preprocessing import Preprocessing
from .tokenizers import save_tokenizers, with_eos


if TYPE_CHECKING:
    from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor


def save_processor(
    directory: str | Path,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast | None = None,
    preprocessing: Preprocessing | None = None,
    feature_extractor: RnnSeq2SeqFeatureExtractor | None = None,
) -> None:
    """Save all that turns raw input into a model's, and its output into text, beside the model.

    Args:
        directory: the model's folder.
        source: the tokenizer of the sources, or the only one.
        target: that of the targets, if it is another.
        preprocessing: what is done to a source before; `None`: nothing is known of it, and no file says anything.
        feature_extractor: of a model that reads audio or frames.
    """
    save_tokenizers(directory, source, target)
    if preprocessing is not None:
        preprocessing.save(directory)
    options = preprocessing or Preprocessing()
    tokenizer: Any = source
    if (target is not None and target is not source) or options != Preprocessing():
        tokenizer = RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(
            source, None if target is None else with_eos(target), *dataclasses.astuple(options)
        )
    RnnSeq2SeqProcessor(tokenizer, feature_extractor).save_pretrained(directory)
