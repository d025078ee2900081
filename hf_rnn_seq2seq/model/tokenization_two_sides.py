"""One tokenizer for both sides of a pair: sources and targets may have a vocabulary each, sources may be rewritten.

Programs that know one tokenizer, such as the example scripts of transformers, encode a target by
`tokenizer(text_target=...)`, as Marian's does. What a source goes through before its model reads it (regular
expressions, reversal: Sutskever et al. 2014, section 3.3) is done here, since the weights depend on it. This file
travels to the Hub with a saved tokenizer: it imports only the standard library, transformers and its sibling.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.utils import PaddingStrategy

from .delexicalisation import check_slots, delexicalised, lexicalised, slot_values
from .tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer


_TARGET_FOLDER = "target_tokenizer"
_SHARED = ("unk_token", "pad_token", "bos_token", "eos_token")


class RnnSeq2SeqTwoSidedTokenizer(RnnSeq2SeqTokenizer):
    """
    A fast tokenizer of sources, which encodes a `text_target` by the tokenizer of the targets, and decodes by it.

    It is the source's in all else: `len(tokenizer)`, `convert_tokens_to_ids`, `add_tokens`. Both number their special
    tokens alike. `decode(..., use_source_tokenizer=True)` decodes source ids, as the model reads them.

    Args:
        target_tokenizer (`PreTrainedTokenizerFast`, *optional*): The tokenizer of the targets. Default: the same.
        target_tokenizer_file, target_tokenizer_config_file (`str`, *optional*): In its place, its files;
            `from_pretrained` finds them.
        source_replacements (pairs of `str`, defaults to `()`): Regular expressions and their replacements, applied to
            a source one after the other as by `re.sub`.
        delexicalised_slots (`dict`, defaults to `{}`): Placeholders, and regular expressions whose first group is a
            slot's value in a source so rewritten: the model reads and writes placeholders in the place of values.
            With `text` and `text_target` in one call both get them; `lexicalise` puts the values back.
        reverse_source (`bool`, defaults to `False`): Reverse the tokens of a source; `</s>` stays at the end.

    Raises:
        ValueError: The two number a special token differently, or `source_replacements` holds no regular expression.
    """

    # The second lies in a folder: what loads a repository's plain tokenizers finds two of them.
    vocab_files_names = {
        "tokenizer_file": "tokenizer.json",
        "target_tokenizer_file": f"{_TARGET_FOLDER}/tokenizer.json",
        "target_tokenizer_config_file": f"{_TARGET_FOLDER}/tokenizer_config.json",
    }
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        *args: Any,
        target_tokenizer: PreTrainedTokenizerFast | None = None,
        target_tokenizer_file: str | None = None,
        target_tokenizer_config_file: str | None = None,
        source_replacements: Sequence[Sequence[str]] = (),
        reverse_source: bool = False,
        delexicalised_slots: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(reverse_source, bool):
            raise ValueError(f"reverse_source must be true or false; got {reverse_source!r}")
        if not isinstance(source_replacements, list | tuple):
            raise ValueError(f"source_replacements: got {source_replacements!r:.80}, wanted a list of pairs")
        if not isinstance(target_tokenizer, PreTrainedTokenizerFast | None):
            got = type(target_tokenizer).__name__
            raise TypeError(f"target_tokenizer must be a fast tokenizer of transformers; got {got}")
        slots = check_slots({} if delexicalised_slots is None else delexicalised_slots)
        self._replacements = [_compiled(pair) for pair in source_replacements]
        # transformers saves what reaches its constructor in tokenizer_config.json.
        super().__init__(
            *args,
            source_replacements=[list(pair) for pair in source_replacements],
            reverse_source=reverse_source,
            **({"delexicalised_slots": slots} if slots else {}),
            **kwargs,
        )
        self.delexicalised_slots = slots
        self.source_replacements = [list(pair) for pair in source_replacements]
        self.reverse_source = reverse_source
        if target_tokenizer is None and target_tokenizer_file is not None:
            target_tokenizer = RnnSeq2SeqTokenizer.from_pretrained(os.path.dirname(target_tokenizer_file))
        self._target = target_tokenizer
        self._encodes_target = False
        for name in _SHARED:
            source, target = (getattr(side, f"{name}_id") for side in (self, self.target_tokenizer))
            if source != target:
                raise ValueError(
                    f"target_tokenizer must number its special tokens as the source's does: {name} is {target}, the "
                    f"source's {source}"
                )

    @classmethod
    def from_tokenizers(
        cls,
        source: PreTrainedTokenizerFast,
        target: PreTrainedTokenizerFast | None = None,
        source_replacements: Sequence[Sequence[str]] = (),
        reverse_source: bool = False,
        delexicalised_slots: Mapping[str, str] | None = None,
    ) -> "RnnSeq2SeqTwoSidedTokenizer":
        """
        Join the tokenizers of two sides, which may be one.

        Args:
            source, target: The tokenizers.
            source_replacements, reverse_source, delexicalised_slots: As for the class.
        """
        if not isinstance(source, PreTrainedTokenizerFast):
            raise TypeError(f"source must be a fast tokenizer of transformers; got {type(source).__name__}")
        return cls(
            tokenizer_object=source.backend_tokenizer,
            target_tokenizer=None if target is source else target,
            source_replacements=source_replacements,
            reverse_source=reverse_source,
            delexicalised_slots=delexicalised_slots,
            **_settings(source),
        )

    @property
    def source_tokenizer(self) -> RnnSeq2SeqTokenizer:
        """The tokenizer of the sources alone, without what is done to a source before or after it."""
        return RnnSeq2SeqTokenizer(tokenizer_object=self.backend_tokenizer, **_settings(self))

    @property
    def target_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the targets alone."""
        return self.source_tokenizer if self._target is None else self._target

    @property
    def has_two_vocabularies(self) -> bool:
        """Whether the targets have a vocabulary of their own."""
        return self._target is not None

    def _switch_to_input_mode(self) -> None:
        self._encodes_target = False

    def _switch_to_target_mode(self) -> None:
        self._encodes_target = True

    def _encode_plus(  # type: ignore[override]
        self,
        text: Any,
        text_pair: Any = None,
        is_split_into_words: bool = False,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        return_tensors: Any = None,
        return_overflowing_tokens: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        options = {
            "is_split_into_words": is_split_into_words,
            "padding_strategy": padding_strategy,
            "return_tensors": return_tensors,
            "return_overflowing_tokens": return_overflowing_tokens,
            **kwargs,
        }
        if self._encodes_target:
            side: Any = super() if self._target is None else self._target
            encoded: BatchEncoding = side._encode_plus(text, text_pair, **options)
            return encoded
        if self._replacements or self.reverse_source or self.delexicalised_slots:
            if text_pair is not None or is_split_into_words or return_overflowing_tokens:
                raise ValueError(
                    "this tokenizer rewrites its sources (source_replacements, reverse_source, delexicalised_slots): "
                    "give whole texts, without text_pair, is_split_into_words or return_overflowing_tokens"
                )
            several = isinstance(text, list | tuple)
            text = [self._delexicalised(item) for item in text] if several else self._delexicalised(text)
        if self.reverse_source:
            return self._encode_reversed(text, **options)
        encoded = super()._encode_plus(text, text_pair, **options)
        return encoded

    def _rewritten(self, text: Any) -> Any:
        if not isinstance(text, str):
            raise ValueError(f"text: a source must be a text; got {type(text).__name__}")
        for pattern, replacement in self._replacements:
            text = pattern.sub(replacement, text)
        return text

    def _delexicalised(self, source: Any, text: str | None = None) -> str:
        """Return what the model reads of a source, or a text of this source, with placeholders."""
        source = self._rewritten(source)
        return delexicalised(source if text is None else text, slot_values(source, self.delexicalised_slots))

    def lexicalise(self, text: str, source: str) -> str:
        """Return what the model wrote for a source with the source's values in the place of placeholders."""
        return lexicalised(text, slot_values(self._rewritten(source), self.delexicalised_slots))

    def __call__(
        self, text: Any = None, text_pair: Any = None, text_target: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if self.delexicalised_slots and text is not None and text_target is not None:
            both = isinstance(text, list | tuple), isinstance(text_target, list | tuple)
            if both == (True, True):
                text_target = [self._delexicalised(*pair) for pair in zip(text, text_target, strict=True)]
            elif both == (False, False):
                text_target = self._delexicalised(text, text_target)
        return super().__call__(text, text_pair, text_target, *args, **kwargs)

    def _encode_reversed(
        self,
        text: Any,
        padding_strategy: PaddingStrategy,
        return_tensors: Any,
        is_split_into_words: bool,
        return_overflowing_tokens: bool,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encode texts, turn round what is between special tokens, and pad afterwards."""
        several = isinstance(text, list | tuple)
        encoded = super()._encode_plus(
            list(text) if several else [text], max_length=max_length, return_special_tokens_mask=True, **kwargs
        )
        # Without the encodings of `tokenizers`, whose tokens and offsets are in the text's order.
        columns = {name: [list(row) for row in rows] for name, rows in encoded.items() if isinstance(rows, list)}
        for number, special in enumerate(columns["special_tokens_mask"]):
            places = [place for place, flag in enumerate(special) if not flag]
            for name in columns.keys() & {"input_ids", "offset_mapping"}:
                row = columns[name][number]
                turned = [row[place] for place in reversed(places)]
                for place, value in zip(places, turned, strict=True):
                    row[place] = value
        if not return_special_tokens_mask:
            del columns["special_tokens_mask"]
        padded: BatchEncoding = self.pad(
            columns,
            padding=padding_strategy,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
            verbose=False,
        )
        if several or return_tensors is not None:
            return padded
        return BatchEncoding({name: rows[0] for name, rows in padded.items()})

    def _decode(  # type: ignore[override]
        self, token_ids: Any, skip_special_tokens: bool = False, use_source_tokenizer: bool = False, **kwargs: Any
    ) -> str:
        side: Any = super() if use_source_tokenizer or self._target is None else self._target
        text: str = side._decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)
        return text

    def _save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        files: tuple[str, ...] = super()._save_pretrained(save_directory, *args, **kwargs)
        if self._target is not None:
            files += tuple(self._target.save_pretrained(os.path.join(save_directory, _TARGET_FOLDER)))
        return files


def _compiled(pair: Sequence[str]) -> tuple[re.Pattern[str], str]:
    """Return a checked pair of a regular expression and its replacement."""
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise ValueError(f"source_replacements: got {pair}, wanted [regular expression, replacement]")
    try:
        pattern = re.compile(pair[0])
        pattern.sub(pair[1], "")
    except re.error as error:
        raise ValueError(f"source_replacements: got {pair}: {error}") from error
    return pattern, pair[1]


def _settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return what a tokenizer beside its `tokenizer.json` is: its special tokens, and how it splits and joins."""
    extra = tokenizer.extra_special_tokens
    return {
        **tokenizer.special_tokens_map,
        **({"extra_special_tokens": list(extra)} if extra else {}),
        "split_special_tokens": tokenizer.split_special_tokens,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


__all__ = ["RnnSeq2SeqTwoSidedTokenizer"]
