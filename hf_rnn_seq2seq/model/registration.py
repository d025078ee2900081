"""Tokenizers, feature extractor, processor and pipeline, made known to transformers by whoever loads a model.

A program that loads a folder without this package (`trust_remote_code=True`) asks for the parts beside the model by
their names, and not always with that option again. This file travels to the Hub: it imports only the standard library,
transformers and the flat files beside it.
"""

from typing import Any

import transformers
from transformers import AutoFeatureExtractor, AutoModelForTextEncoding, AutoProcessor, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from .modeling_encoder import RnnSeq2SeqEncoderModel
from .pipeline_rnn_seq2seq import GENERATION_MODELS, GENERATION_TASK, RnnSeq2SeqGenerationPipeline
from .processing_rnn_seq2seq import RnnSeq2SeqProcessor
from .tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer
from .tokenization_two_sides import RnnSeq2SeqTwoSidedTokenizer
from .tokenization_words import RnnSeq2SeqWordTokenizer


for tokenizer_class in (RnnSeq2SeqWordTokenizer, RnnSeq2SeqTwoSidedTokenizer, RnnSeq2SeqTokenizer):
    AutoTokenizer.register(RnnSeq2SeqConfig, tokenizer_class, exist_ok=True)
AutoFeatureExtractor.register(RnnSeq2SeqConfig, RnnSeq2SeqFeatureExtractor, exist_ok=True)
AutoProcessor.register(RnnSeq2SeqConfig, RnnSeq2SeqProcessor, exist_ok=True)
AutoModelForTextEncoding.register(RnnSeq2SeqConfig, RnnSeq2SeqEncoderModel, exist_ok=True)

# What is saved carries its code along. A plain tokenizer needs none: anything reads its `tokenizer.json`.
RnnSeq2SeqEncoderModel.register_for_auto_class("AutoModelForTextEncoding")
RnnSeq2SeqFeatureExtractor.register_for_auto_class()
RnnSeq2SeqProcessor.register_for_auto_class()
RnnSeq2SeqTwoSidedTokenizer.register_for_auto_class()
RnnSeq2SeqWordTokenizer.register_for_auto_class()

if GENERATION_TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        GENERATION_TASK,
        RnnSeq2SeqGenerationPipeline,
        pt_model=tuple(getattr(transformers, name) for name in GENERATION_MODELS),
        type="multimodal",
    )


def pipelines_of_folder() -> dict[str, Any]:
    """Return what the configuration of a saved model says of the pipeline whose code lies beside it."""
    impl = f"{RnnSeq2SeqGenerationPipeline.__module__.split('.')[-1]}.{RnnSeq2SeqGenerationPipeline.__name__}"
    return {GENERATION_TASK: {"impl": impl, "pt": list(GENERATION_MODELS), "type": "multimodal"}}


__all__ = ["pipelines_of_folder"]
