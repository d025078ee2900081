"""The tokenizer of this package: what a user adds is recognised in a text, and "</s>" typed by a user is text.

Both are special tokens to transformers, which either splits all of them (`split_special_tokens`) or none. What is
saved is a plain `tokenizer.json`, of which `AutoTokenizer` makes a plain fast tokenizer where this class is not known:
what had been added is recognised there too.
"""

from typing import Any

from transformers import AddedToken, PreTrainedTokenizerFast


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

    def _decode(  # type: ignore[override]
        self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        if skip_special_tokens:
            ids = token_ids["input_ids"] if isinstance(token_ids, dict) else token_ids
            special = set(self.all_special_ids)
            token_ids = [number for number in ([ids] if isinstance(ids, int) else ids) if number not in special]
        text: str = super()._decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)
        return text


__all__ = ["RnnSeq2SeqTokenizer"]
