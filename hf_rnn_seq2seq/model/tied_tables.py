"""Embedding tables and the output layer of a model that generates: who shares one weight, and who follows a new one.

With `share_embeddings` the two tables are one (in `RnnSeq2SeqModel`), with `tie_word_embeddings` the output matrix is
the decoder's table (Press & Wolf 2017). This file travels to the Hub: it imports only torch.
"""

from typing import Any

from torch import nn


class TiedTables:
    """The part of a model with `model` and `lm_head` that gets and sets tables."""

    config: Any
    model: Any
    lm_head: nn.Linear

    @property
    def _tied_weights_keys(self) -> dict[str, str]:  # of transformers
        if not self.config.tie_word_embeddings:
            return {}
        side = "encoder" if self.config.share_embeddings else "decoder"
        return {"lm_head.weight": f"model.{side}.embed_tokens.weight"}

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """With `tie_word_embeddings` its weight becomes that of the tables too."""
        self.lm_head = value
        if self.config.tie_word_embeddings:
            _take_weight(self.model.decoder.embed_tokens, value)
            if self.config.share_embeddings:
                _take_weight(self.model.encoder.embed_tokens, value)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the inner model's table; with `tie_word_embeddings` the output layer follows the decoder's."""
        self.model.set_input_embeddings(value)
        if self.config.tie_word_embeddings and self.model.decoder.embed_tokens is value:
            _take_weight(self.lm_head, value)


def _take_weight(module: nn.Module, other: nn.Module) -> None:
    """Share the weight of another table or output layer; not while a vocabulary is being resized, part by part."""
    plain = isinstance(module, nn.Embedding | nn.Linear) and isinstance(other, nn.Embedding | nn.Linear)
    if plain and module.weight.shape == other.weight.shape:
        module.weight = other.weight
