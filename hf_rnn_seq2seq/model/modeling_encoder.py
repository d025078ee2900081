"""The encoder alone as a model: what reads the memory of another model, or stands under a classifier.

This file travels to the Hub: it imports only the standard library, torch and the flat files beside it.
"""

from typing import Any

from torch import nn

from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .encoder import RnnEncoderOutput, RnnSeq2SeqEncoder
from .pretrained import RnnSeq2SeqPreTrainedModel


# Where the class is that loads the encoder of any folder, and by which Auto class.
ENCODER_OF_FOLDER = {"AutoModelForTextEncoding": "modeling_encoder.RnnSeq2SeqEncoderModel"}
# Models that are an encoder, with a head or without: their folders hold no bridge and no decoder.
_ENCODER_ONLY = ("RnnSeq2SeqEncoderModel", "RnnSeq2SeqForTokenClassification", "RnnSeq2SeqForSequenceClassification")


class RnnSeq2SeqEncoderModel(RnnSeq2SeqPreTrainedModel):
    """The encoder alone, under the parameter names that it has in `RnnSeq2SeqModel`."""

    # What a whole model has beside the encoder. The classifiers inherit this from their part.
    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?(bridge|decoder)\.", r"^(lm|ctc)_head\."]
    _also_loads = {"AutoModel": "modeling_encoder.RnnSeq2SeqEncoderModel"}

    def __init__(self, config: RnnSeq2SeqConfig):
        super().__init__(config)
        self.encoder = RnnSeq2SeqEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's table; `NotImplementedError` if there is none, since the input is vectors."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.encoder.embed_tokens = value

    def forward(self, *args: Any, **kwargs: Any) -> RnnEncoderOutput:
        """Takes and returns what `RnnSeq2SeqEncoder.forward` does."""
        return self.encoder(*args, **kwargs)


class MayBeEncoder:
    """Loading of a whole model as `AutoModel` asks for it, of whatever a folder holds."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """Load the model; of a folder that holds an encoder and no decoder, the encoder."""
        saved = getattr(config, "architectures", None) or ()
        if any(name in _ENCODER_ONLY for name in saved):
            return RnnSeq2SeqEncoderModel.from_pretrained(
                pretrained_model_name_or_path, *args, config=config, **kwargs
            )
        inherited: Any = super()
        return inherited.from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)


__all__ = ["RnnSeq2SeqEncoderModel"]
