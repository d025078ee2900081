"""A tokenizer of words that also gives the characters of each word: `character_ids` beside `input_ids`.

It goes where a plain fast tokenizer goes: pipelines, data collators, `AutoTokenizer`. The word vocabulary may fold
case and digits; the characters are those of the text itself.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding
from transformers.tokenization_utils_base import EncodingFast
from transformers.utils import PaddingStrategy

from .tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer


class RnnSeq2SeqWordTokenizer(RnnSeq2SeqTokenizer):
    r"""
    A fast tokenizer with one more output, `character_ids`: for each token the ids of the characters it stands for.

    A token that the tokenizer adds itself, such as `</s>`, is one character, itself. In tensors, and in whatever has
    been padded, `character_ids` is of shape `(batch_size, length, max_word_length)`: always the same width, so that
    batches made apart fit together. Otherwise its rows are as long as their words.

    Args:
        character_vocab (`list[str]`): The characters, by id. It begins with the special tokens, with the ids that they
            have in the word vocabulary.
        max_word_length (`int`, defaults to 40): A longer word keeps its first and last characters, half of each: its
            prefix and its ending tell most.
        character_normalization (`str`, *optional*): Unicode form (`"NFC"`, `"NFD"`, `"NFKC"`, `"NFKD"`) of the
            characters; that of the words is in `tokenizer.json`.
    """

    model_input_names = ["input_ids", "attention_mask", "character_ids"]

    def __init__(
        self,
        *args: Any,
        character_vocab: list[str] | None = None,
        max_word_length: int = 40,
        character_normalization: str | None = None,
        **kwargs: Any,
    ):
        if isinstance(max_word_length, bool) or not isinstance(max_word_length, int):
            raise ValueError(f"max_word_length must be a whole number; got {max_word_length!r}")
        if not 1 <= max_word_length <= 1024:
            wanted = "at least 1" if max_word_length < 1 else "at most 1024"
            raise ValueError(f"max_word_length must be {wanted}; got {max_word_length}")
        if character_normalization not in (None, "NFC", "NFD", "NFKC", "NFKD"):
            got = repr(character_normalization)
            raise ValueError(f"character_normalization must be NFC, NFD, NFKC, NFKD or None; got {got}")
        if not isinstance(character_vocab, list | tuple | None) or len({*(character_vocab or ())}) < len(
            character_vocab or ()
        ):
            raise ValueError(f"character_vocab must be a list of characters, each once; got {character_vocab!r:.80}")
        own: dict[str, Any] = {"character_vocab": character_vocab, "max_word_length": max_word_length}
        own["character_normalization"] = character_normalization
        super().__init__(*args, **own, **kwargs)  # saves what reaches it in tokenizer_config.json
        self.character_vocab = list(character_vocab or [])
        self.max_word_length = max_word_length
        self.character_normalization = character_normalization
        self._character_index = {character: n for n, character in enumerate(self.character_vocab)}
        for token, wanted in ((self.unk_token, self.unk_token_id), (self.pad_token, self.pad_token_id)):
            if self._character_index.get(token) != wanted:
                raise ValueError(
                    f"character_vocab must hold {token!r} at {wanted} as the word vocabulary does; got it at "
                    f"{self._character_index.get(token)} of {len(self.character_vocab)} characters"
                )

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
        kwargs |= {"padding_strategy": padding_strategy, "return_tensors": return_tensors}
        kwargs |= {"is_split_into_words": is_split_into_words, "return_overflowing_tokens": return_overflowing_tokens}
        output: BatchEncoding = super()._encode_plus(text, text_pair, **kwargs)
        holds_texts = _is_nested if is_split_into_words else _is_list
        batched = holds_texts(text)
        texts, pairs = (text, text_pair) if batched else ([text], [text_pair])
        samples = output.get("overflow_to_sample_mapping", range(len(texts)))
        rows = []
        for encoding, sample in zip(output.encodings or [], samples):
            sequences = (texts[sample], None if pairs is None else pairs[sample])
            if holds_texts(sequences[0]):
                sequences = sequences[0]  # given as one pair, not in two lists
            rows.append(self._spell_tokens(encoding, sequences))
        if return_tensors is not None or padding_strategy != PaddingStrategy.DO_NOT_PAD:
            rows = [self._fill(words) for words in rows]
        if batched or return_overflowing_tokens or return_tensors is not None:
            output.update(BatchEncoding({"character_ids": rows}, tensor_type=return_tensors))
        else:
            output["character_ids"] = rows[0]
        return output

    def _spell_tokens(self, encoding: EncodingFast, sequences: Sequence[Any]) -> list[list[int]]:
        """Return the character ids of each token of an encoding of one or two texts, or lists of words."""
        spelt: list[list[int]] = []
        for i, (start, end) in enumerate(encoding.offsets):
            characters: Sequence[str] = []
            if encoding.special_tokens_mask[i] and encoding.attention_mask[i]:
                characters = [encoding.tokens[i]]
            elif encoding.attention_mask[i]:
                sequence: Any = encoding.sequence_ids[i]
                text = sequences[sequence]
                text = text if isinstance(text, str) else text[encoding.word_ids[i]]
                # A mark that the normaliser has joined to the letter before it is not counted in.
                while end < len(text) and unicodedata.combining(text[end]):
                    end += 1
                characters = self._characters(text[start:end])
            spelt.append([self._character_index.get(character, self.unk_token_id) for character in characters])
        return spelt

    def _characters(self, word: str) -> str:
        """Return what the model gets to see of a word."""
        if self.character_normalization is not None:
            word = unicodedata.normalize(self.character_normalization, word)  # type: ignore[arg-type]
        if len(word) > self.max_word_length:
            ending = self.max_word_length // 2
            word = word[: self.max_word_length - ending] + word[len(word) - ending :]
        return word

    def _fill(self, words: list[list[int]]) -> list[list[int]]:
        """Return character ids of words, each filled up to `max_word_length`."""
        padding = [self.pad_token_id] * self.max_word_length
        return [word + padding[len(word) :] for word in words]

    def _pad(self, encoded_inputs: Any, padding_side: str | None = None, **kwargs: Any) -> dict:  # type: ignore[override]
        """Pad one example; `pad`, and with it every data collator, comes through here."""
        words = encoded_inputs.get("character_ids")
        padded: dict = super()._pad(encoded_inputs, padding_side=padding_side, **kwargs)
        if words is not None:
            missing: list[list[int]] = [[] for _ in range(len(padded["input_ids"]) - len(words))]
            side = self.padding_side if padding_side is None else padding_side
            padded["character_ids"] = self._fill([*words, *missing] if side == "right" else [*missing, *words])
        return padded


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_nested(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and _is_list(value[0])


__all__ = ["RnnSeq2SeqWordTokenizer"]
