"""The tokenizer of this package: what a user adds is recognised in a text, and "</s>" typed by a user is text.

Both are special tokens to transformers, which either splits all of them (`split_special_tokens`) or none. What is
saved is a plain `tokenizer.json`, of which `AutoTokenizer` makes a plain fast tokenizer where this class is not known:
what had been added is recognised there too.
"""

import numbers
from collections.abc import Mapping
from typing import Any

from transformers import AddedToken, PreTrainedTokenizerFast


# Options of a call that are whole numbers, and the least each may be; those that are True or False.
_WHOLE = {"max_length": 0, "stride": 0, "pad_to_multiple_of": 1}
_FLAGS = (
    *("add_special_tokens", "is_split_into_words", "return_overflowing_tokens", "return_special_tokens_mask"),
    *("return_offsets_mapping", "return_length", "return_attention_mask", "return_token_type_ids"),
)


class RnnSeq2SeqTokenizer(PreTrainedTokenizerFast):
    """
    A fast tokenizer where `split_special_tokens` is of the special tokens that it was trained with.

    Those added later, by `add_special_tokens` or `add_tokens(..., special_tokens=True)`, are never split. All are left
    out of what is decoded with `skip_special_tokens`.
    """

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Take `tokenizer.json` as it is: nothing is to be rebuilt from its vocabulary, as the base class would."""
        return kwargs

    def _add_tokens(self, new_tokens: list[Any], special_tokens: bool = False) -> int:
        split = {str(token) for token in self.added_tokens_decoder.values() if token.special}
        added: int = 0
        for token in new_tokens:
            if str(token) in split or not (special_tokens or getattr(token, "special", False)):
                added += super()._add_tokens([token], special_tokens)
                continue
            # `tokenizers` splits what it calls special, so that is what this one is not to be called.
            flags = (
                {} if isinstance(token, str) else {n: getattr(token, n) for n in ("single_word", "lstrip", "rstrip")}
            )
            normalized = not isinstance(token, str) and token.normalized
            added += super()._add_tokens([AddedToken(str(token), special=False, normalized=normalized, **flags)])
        return added

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        for name, given in (("text", text), ("text_pair", text_pair)):
            if given is not None:
                check_text(name, given)
        _check_options(kwargs)
        return super()._encode_plus(text, text_pair, **kwargs)

    def pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Pad encoded texts to one length, as every tokenizer of transformers does."""
        several = encoded_inputs if isinstance(encoded_inputs, list | tuple) else [encoded_inputs]
        if not several or not all(isinstance(one, Mapping) for one in several):
            raise ValueError(
                f"encoded_inputs is {encoded_inputs!r:.80}, wanted what the tokenizer returned, or a list"
            )
        _check_options(kwargs)
        try:
            return super().pad(encoded_inputs, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            raise ValueError(f"encoded_inputs: {error}") from error

    def convert_ids_to_tokens(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the token of an id, or those of several."""
        _check_ids("ids", ids)
        return super().convert_ids_to_tokens(ids, *args, **kwargs)

    def _decode(  # type: ignore[override]
        self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        _check_ids("token_ids", token_ids.get("input_ids") if isinstance(token_ids, dict) else token_ids)
        if skip_special_tokens:
            ids = token_ids["input_ids"] if isinstance(token_ids, dict) else token_ids
            special = set(self.all_special_ids)
            token_ids = [number for number in ([ids] if isinstance(ids, int) else ids) if number not in special]
        text: str = super()._decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)
        return text


def check_text(name: str, text: Any) -> None:
    """Refuse what is neither a text nor a list of texts, pairs or words, and what has no UTF-8 form."""
    if isinstance(text, list | tuple):
        for one in text:
            check_text(name, one)
    elif not isinstance(text, str):
        raise ValueError(f"{name}: got {text!r:.80}, wanted a text, or a list of texts")
    elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name}: {text[:80]!a} holds half a character (a surrogate), wanted Unicode")


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a call that `tokenizers` takes for something else, or fails at without a name."""
    for name, least in _WHOLE.items():
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name}: got {value!r}, wanted a whole number, at least {least}")
    for name in _FLAGS:
        if not isinstance(options.get(name), bool | None):
            raise ValueError(f"{name}: got {options[name]!r}, wanted True or False")
    if options.get("padding_side") not in (None, "left", "right"):
        raise ValueError(f"padding_side: got {options['padding_side']!r}, wanted left or right")


def _check_ids(name: str, ids: Any) -> None:
    """Refuse what are no ids of tokens."""
    several = ids.tolist() if hasattr(ids, "tolist") else ids
    for one in several if isinstance(several, list | tuple) else [several]:
        if isinstance(one, bool) or not isinstance(one, numbers.Integral) or not 0 <= int(one) < 2**32:
            raise ValueError(f"{name}: got {one!r:.80}, wanted ids, whole numbers that are not negative")


__all__ = ["RnnSeq2SeqTokenizer"]
