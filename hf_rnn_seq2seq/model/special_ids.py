"""Special ids of a model with two vocabularies: they are the target's, whatever tokenizer a Trainer is given.

Trainer sets `eos_token_id`, `bos_token_id` and `pad_token_id` by its `processing_class`, which is mostly the source's
tokenizer, in `config.get_text_config()` and then in the generation configuration. In the former a model with two
vocabularies only takes note of them, and undoes the latter.
"""

import copy
from typing import Any

from transformers.utils import logging


logger = logging.get_logger(__name__)

SPECIAL_IDS = ("eos_token_id", "bos_token_id", "pad_token_id")


class KeepsSpecialIds:
    """The part of a configuration that can be shielded: its special ids then stay, and what was tried is noted."""

    # In slots: no attributes that are saved or compared.
    __slots__ = ("changes", "foreign_ids", "shielded_config")
    changes: int  # how often an option was set
    foreign_ids: dict[str, Any]
    shielded_config: Any  # of a shield: whose it is

    def __setattr__(self, name: str, value: Any) -> None:
        whole = getattr(self, "shielded_config", None)
        if whole is not None and name in SPECIAL_IDS:
            whole.foreign_ids[name] = value
            return
        if whole is not None and name not in KeepsSpecialIds.__slots__:
            setattr(whole, name, value)
        if name not in KeepsSpecialIds.__slots__:
            super().__setattr__("changes", getattr(self, "changes", 0) + 1)
        super().__setattr__(name, value)

    def shield(self) -> Any:
        """Return what stands for this configuration, but cannot set its special ids."""
        shield = self.plain_copy()
        if not hasattr(self, "foreign_ids"):
            self.foreign_ids = {}
        shield.shielded_config = self
        return shield

    def plain_copy(self) -> Any:
        """Return a copy that stands for itself."""
        copied = copy.copy(self)
        copied.shielded_config = None
        return copied


def settle_special_ids(config: KeepsSpecialIds, generation_config: Any) -> None:
    """Set the generation configuration, if there is one, back where ids were tried that are not the model's."""
    foreign = getattr(config, "foreign_ids", {})
    if not foreign:
        return
    config.foreign_ids = {}
    own = {name: getattr(config, name) for name in foreign}
    logger.warning(
        f"The model has two vocabularies, and keeps the special ids of the target's: {own}, not those of the "
        f"processing_class, {foreign}. If they are wrong, set them in model.config and model.generation_config."
    )
    if generation_config is None:
        return
    for name, value in foreign.items():
        if name != "eos_token_id":
            setattr(generation_config, name, own[name])
            continue
        # Trainer put it before the ids that were there, here and in what it tried to set.
        tried = set(as_list(value)) - set(as_list(own[name]))
        ends = [end for end in as_list(generation_config.eos_token_id) if end not in tried]
        generation_config.eos_token_id = ends if len(ends) > 1 else own[name]


def as_list(value: int | list[int] | None) -> list[int]:
    """Return None, one or several ids as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]
