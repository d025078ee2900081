"""RNN encoder-decoders as first-class Hugging Face models."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTimeSeriesPrediction,
    AutoModelForTokenClassification,
)

from .model.configuration_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig
from .model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from .model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .model.modeling_encoder import RnnSeq2SeqEncoderModel
from .model.modeling_rnn_seq2seq import (
    RnnEncoderOutput,
    RnnSeq2SeqDecoder,
    RnnSeq2SeqEncoder,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqModel,
    RnnSeq2SeqPreTrainedModel,
)
from .model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from .model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from .model.pipeline_rnn_seq2seq import RnnSeq2SeqGenerationPipeline
from .model.processing_rnn_seq2seq import RnnSeq2SeqProcessor
from .model.tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer
from .model.tokenization_two_sides import RnnSeq2SeqTwoSidedTokenizer
from .model.tokenization_words import RnnSeq2SeqWordTokenizer


__version__ = "0.1.0"

# The Auto classes know the models once this package is imported (the parts beside a model: model/registration.py) ...
AutoConfig.register(RnnSeq2SeqConfig.model_type, RnnSeq2SeqConfig, exist_ok=True)
AutoModel.register(RnnSeq2SeqConfig, RnnSeq2SeqModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, exist_ok=True)
AutoModelForSequenceClassification.register(RnnSeq2SeqConfig, RnnSeq2SeqForSequenceClassification, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(RnnSeq2SeqConfig, RnnSeq2SeqForSpeechSeq2Seq, exist_ok=True)
AutoModelForTimeSeriesPrediction.register(RnnSeq2SeqConfig, RnnSeq2SeqForTimeSeriesPrediction, exist_ok=True)
AutoModelForTokenClassification.register(RnnSeq2SeqConfig, RnnSeq2SeqForTokenClassification, exist_ok=True)

# ... and a saved model carries its code along, for those who have not installed it (trust_remote_code=True).
RnnSeq2SeqConfig.register_for_auto_class()
RnnSeq2SeqModel.register_for_auto_class("AutoModel")
RnnSeq2SeqForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
RnnSeq2SeqForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
RnnSeq2SeqForSpeechSeq2Seq.register_for_auto_class("AutoModelForSpeechSeq2Seq")
RnnSeq2SeqForTimeSeriesPrediction.register_for_auto_class("AutoModelForTimeSeriesPrediction")
RnnSeq2SeqForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")

__all__ = [
    "PRESETS",
    "RnnEncoderOutput",
    "RnnSeq2SeqConfig",
    "RnnSeq2SeqDecoder",
    "RnnSeq2SeqEncoder",
    "RnnSeq2SeqEncoderModel",
    "RnnSeq2SeqFeatureExtractor",
    "RnnSeq2SeqForConditionalGeneration",
    "RnnSeq2SeqForSequenceClassification",
    "RnnSeq2SeqForSpeechSeq2Seq",
    "RnnSeq2SeqForTimeSeriesPrediction",
    "RnnSeq2SeqForTokenClassification",
    "RnnSeq2SeqGenerationPipeline",
    "RnnSeq2SeqModel",
    "RnnSeq2SeqPreTrainedModel",
    "RnnSeq2SeqProcessor",
    "RnnSeq2SeqTokenizer",
    "RnnSeq2SeqTwoSidedTokenizer",
    "RnnSeq2SeqWordTokenizer",
]
