"""Names in a configuration: a misspelt option is refused, but what was once saved is read again.

An unknown name is refused where a user makes a configuration, and kept, with one warning, where a saved one is read:
there it is a note of the user's (`config.language_pair = "de-en"`) or an option of another version. This file travels
to the Hub: it imports only the standard library and transformers.
"""

import difflib
from typing import Any

from transformers import PreTrainedConfig
from transformers.generation import GenerationConfig
from transformers.utils import logging


logger = logging.get_logger(__name__)

# What PreTrainedConfig itself takes beside its fields.
_FOREIGN_KEYWORDS = frozenset(
    "_name_or_path _commit_hash _output_attentions _attn_implementation _attn_implementation_internal "
    "_experts_implementation _experts_implementation_internal attn_implementation auto_map custom_pipelines "
    "finetuning_task model_type name_or_path num_labels output_attentions per_layer_config quantization_config "
    "task_specific_params tie_encoder_decoder tie_last_hidden_states tokenizer_class torch_dtype torchscript "
    "use_return_dict cross_attention_hidden_size add_cross_attention is_decoder prefix".split()
)


class CheckedNames:
    """The part of a configuration that looks at the names of its options."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; the dictionary is what was saved, whether or not it says so."""
        saved = {"model_type": cls.model_type, **config_dict}  # type: ignore[attr-defined]
        return super().from_dict(saved, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """As in transformers: of a saved file."""
        return cls.from_dict(cls._dict_from_json_file(json_file))  # type: ignore[attr-defined]

    def check_names(self, names: dict[str, Any]) -> None:
        """
        Look at the names of what is not a field of the configuration.

        What is saved, be it in another configuration, names its type or the version that wrote it; a user does not.

        Raises:
            ValueError: A name is unknown, and the configuration is not read from what was saved.
        """
        assert isinstance(self, PreTrainedConfig)
        generation = GenerationConfig._get_default_generation_params()
        unknown = [
            name
            for name in names
            if not (name in _FOREIGN_KEYWORDS or name in generation or name in self.attribute_map)
        ]
        if not unknown:
            return
        kind, options = type(self).__name__, list(type(self).__dataclass_fields__)
        near = {name: difflib.get_close_matches(name, options, n=1) for name in unknown}
        if "model_type" in names or self.transformers_version is not None:
            told = ", ".join(repr(name) + (f" (near {near[name][0]!r})" if near[name] else "") for name in unknown)
            logger.warning(f"{kind} has no option {told}: kept as an attribute, without effect on the model")
            return
        hint = f"; did you mean {near[unknown[0]][0]!r}?" if near[unknown[0]] else ""
        raise ValueError(f"{kind} has no option {unknown[0]!r}{hint}")
