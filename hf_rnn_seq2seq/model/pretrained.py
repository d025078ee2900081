"""The base of all models of the family: initialisation, tied parameters, and what transformers has to know."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple as _can_return_tuple

from .attention import Attention
from .configuration_rnn_seq2seq import RnnSeq2SeqConfig
from .option_rules import made_with
from .recurrence import RecurrentStack
from .special_ids import SPECIAL_IDS, settle_special_ids
from .values import ValueScale


def can_return_tuple(forward: Callable[..., Any]) -> Callable[..., Any]:
    """
    Decorate a forward pass as transformers does, which alone knows `return_dict`, for good: accelerate's
    `unwrap_model(keep_fp32_wrapper=False)` takes off whatever says what it wraps.
    """
    decorated: Any = _can_return_tuple(forward)
    decorated.__signature__ = inspect.signature(forward)
    del decorated.__wrapped__
    return decorated


# Weights that a saved model may lack, such as those of another head.
_NEW_WEIGHTS = 10**8


class RnnSeq2SeqPreTrainedModel(PreTrainedModel):
    """Initialisation, tying and what transformers has to know, for all models of the family."""

    config_class = RnnSeq2SeqConfig
    config: RnnSeq2SeqConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # Those that have parameters of their own beside their parts' must stay in one place.
    _no_split_modules = ["RecurrentStack", "Attention", "AttentionPooling", "Bridge"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _can_compile_fullgraph = True
    _tied_weights_keys: dict[str, str] = {}  # target -> source; each model sets it as its configuration says
    _trained_with: list[Any] | None = None
    # What else loads of its folder where the package is not: Auto class -> class, and where its code is.
    _also_loads: dict[str, str] = {}
    # Pipelines whose code lies beside it, as the configuration of a folder names them.
    _ships_pipelines: dict[str, Any] = {}

    # An option that the class cannot be without: its name, why, and what it is.
    _needs: tuple[str, str, str] | None = None

    def __init__(self, config: RnnSeq2SeqConfig, *inputs: Any, **kwargs: Any):
        super().__init__(config, *inputs, **kwargs)
        if self._needs is not None and getattr(config, self._needs[0]) is None:
            name, why, what = self._needs
            raise ValueError(f"{why}, got {name}=None: give {what}")
        self._made_with = made_with(config)
        if config.input_feature_size is not None:
            self.main_input_name = "input_features"

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize all tables of the vocabulary."""
        table = super().resize_token_embeddings(*args, **kwargs)
        for part in self.modules():
            if isinstance(part, RnnSeq2SeqPreTrainedModel):
                part._made_with = made_with(part.config)
        return table

    def train(self, mode: bool = True) -> "RnnSeq2SeqPreTrainedModel":
        """Set the mode; Trainer calls this after it has set special ids by its tokenizer, which are looked at here."""
        settle_special_ids(self.config, getattr(self, "generation_config", None))
        if mode and self.base_model is not self:
            ids = [getattr(self.config, name) for name in (*SPECIAL_IDS, "vocab_size")]
            if ids != self._trained_with:
                self.config.validate_options()  # before any work, and not when a checkpoint is to be saved
                self._trained_with = ids
        super().train(mode)
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        as_torch, std = self.config.init_scheme == "torch", self.config.init_std
        if isinstance(module, RecurrentStack):
            module.reset_parameters(self.config.init_scheme)
        elif isinstance(module, nn.Embedding):
            default = 1.0 if as_torch else module.embedding_dim**-0.5
            init.normal_(module.weight, std=default if std is None else std)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            if std is not None:
                init.normal_(module.weight, std=std)
            elif as_torch:
                init.uniform_(module.weight, -bound, bound)
            else:
                init.xavier_uniform_(module.weight)
            if module.bias is not None and as_torch:
                init.uniform_(module.bias, -bound, bound)
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ValueScale):
            init.zeros_(module.mean)
            init.ones_(module.std)
        elif isinstance(module, nn.Conv1d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Attention) and hasattr(module, "coverage_weight"):
            # Zero, so that a trained model to which coverage is added is at first what it was.
            init.zeros_(module.coverage_weight)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Unlike the base class, sharing embeddings does not need a tied output."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return dict(self._tied_weights_keys)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save; where one of several tied tables was set apart, each is written as it is."""
        if self._auto_class is not None:
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), **self._also_loads}
        tied = self.get_expanded_tied_weights_keys(all_submodels=True)
        if any(_weight(self, target) is not _weight(self, source) for target, source in tied.items()):
            # Else a name left out, since its values are also there under another one, is tied to a third on loading.
            state = kwargs.get("state_dict") or self.state_dict()
            names = {*tied, *tied.values()} & state.keys()
            kwargs["state_dict"] = {**state, **{name: state[name].clone() for name in names}}
        named = {name: dict(entry) for name, entry in self._ships_pipelines.items()}
        before = getattr(self.config, "custom_pipelines", None)
        if named and self._auto_class is not None:
            self.config.custom_pipelines = {**(before or {}), **named}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            if before is None:
                self.config.__dict__.pop("custom_pipelines", None)

    @staticmethod
    def _load_pretrained_model(model: Any, state_dict: Any, checkpoint_files: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights; refuse, before memory is taken, a model that is far larger than the files of its weights."""
        if checkpoint_files:
            stored = sum(map(os.path.getsize, checkpoint_files))
            needed = sum(parameter.numel() for parameter in model.parameters())
            if needed > 2 * stored + _NEW_WEIGHTS:  # half a byte a weight is the least
                raise ValueError(
                    f"{checkpoint_files[0]}: {stored} bytes are too few for the {needed} weights of the configuration"
                )
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def check_labels_are_left(
        self, labels: Tensor | None, num_items_in_batch: Tensor | int | None, *decoder_inputs: Tensor | None
    ) -> None:
        """
        Refuse what Trainer does with `label_smoothing_factor` where the loss is not a matter of the logits alone, or
        none of `decoder_inputs`, if there can be any, is left: it takes the labels out of the batch, leaves their
        number, and makes the loss itself.
        """
        if labels is not None or num_items_in_batch is None:
            return
        taken = (
            "got num_items_in_batch without labels, as Trainer gives it with label_smoothing_factor or "
            "compute_loss_func, but this model must"
        )
        lost = self._loss_beyond_logits()
        if lost is not None:
            raise ValueError(
                f"{taken} make its loss itself with {lost}. Leave label_smoothing_factor at 0, and set "
                "label_smoothing of the model's configuration"
            )
        if decoder_inputs and all(given is None for given in decoder_inputs):
            raise ValueError(
                f"{taken} have labels or decoder_input_ids: let DataCollatorForSeq2Seq(tokenizer, model=model) make "
                "these, or set label_smoothing of the model's configuration in place of label_smoothing_factor"
            )

    def _loss_beyond_logits(self) -> str | None:
        """Return what a loss made of the logits alone would miss, or None."""
        return None

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """One vocabulary has up to three tables; the base class resizes the encoder's and the output layer's."""
        decoder = getattr(getattr(self, self.base_model_prefix, self), "decoder", None)
        if decoder is not None and self.config.decoder_vocab_size is not None:
            raise ValueError(
                "resize_token_embeddings cannot tell which of two vocabularies is meant: got "
                f"vocab_size={self.config.vocab_size} and decoder_vocab_size={self.config.decoder_vocab_size}"
            )
        source: nn.Embedding = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if hasattr(decoder, "embed_tokens") and self.config.input_feature_size is None:
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, source.num_embeddings, mean_resizing=mean_resizing
            )
        return source

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch of two short sources, for tools that only need some input."""
        input_ids = torch.tensor([[0, 2, 3], [2, 0, 3]], device=self.device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "decoder_input_ids": input_ids}
        if self.config.input_feature_size is not None:
            vectors = torch.zeros(*inputs.pop("input_ids").shape, self.config.input_feature_size, device=self.device)
            inputs = {"input_features": vectors, **inputs}
        if self.config.character_vocab_size is not None:
            inputs["character_ids"] = torch.zeros_like(input_ids).unsqueeze(-1)
        return inputs


def _weight(model: nn.Module, name: str) -> Any:
    """Return what stands under a parameter's name, be it a parameter or what is made of one."""
    module, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(module), attribute, None)
