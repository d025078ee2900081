"""RNN encoder-decoders as first-class Hugging Face models."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_rnn_seq2seq import PRESETS, RnnSeq2SeqConfig
from .modeling_heads import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .modeling_rnn_seq2seq import (
    RnnEncoderOutput,
    RnnSeq2SeqDecoder,
    RnnSeq2SeqEncoder,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqModel,
    RnnSeq2SeqPreTrainedModel,
)


__version__ = "0.1.0"

# The Auto classes know the models once this package is imported ...
AutoConfig.register(RnnSeq2SeqConfig.model_type, RnnSeq2SeqConfig, exist_ok=True)
AutoModel.register(RnnSeq2SeqConfig, RnnSeq2SeqModel, exist_ok=True)
AutoModelForSeq2SeqLM.register(RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, exist_ok=True)
AutoModelForSequenceClassification.register(RnnSeq2SeqConfig, RnnSeq2SeqForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(RnnSeq2SeqConfig, RnnSeq2SeqForTokenClassification, exist_ok=True)

# ... and a saved model carries its code along, for those who have not installed it (trust_remote_code=True).
RnnSeq2SeqConfig.register_for_auto_class()
RnnSeq2SeqModel.register_for_auto_class("AutoModel")
RnnSeq2SeqForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
RnnSeq2SeqForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
RnnSeq2SeqForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")

__all__ = [
    "PRESETS",
    "RnnEncoderOutput",
    "RnnSeq2SeqConfig",
    "RnnSeq2SeqDecoder",
    "RnnSeq2SeqEncoder",
    "RnnSeq2SeqForConditionalGeneration",
    "RnnSeq2SeqForSequenceClassification",
    "RnnSeq2SeqForTokenClassification",
    "RnnSeq2SeqModel",
    "RnnSeq2SeqPreTrainedModel",
]
