"""One processor for every model: raw text or audio to the model's inputs, targets to labels, output ids to text.

It holds what lies beside the weights and belongs to them: the tokenizers of both sides, or feature extractor and
tokenizer, and what is done to a source before it is read. This file travels to the Hub: it imports only the standard
library, transformers and the flat files beside it.
"""

import inspect
import json
import os
import re
from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import custom_object_save
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.processing_utils import ProcessorMixin
from transformers.utils import FEATURE_EXTRACTOR_NAME, PROCESSOR_NAME, PaddingStrategy, cached_file

from .feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from .tokenization_rnn_seq2seq import RnnSeq2SeqTokenizer, check_text
from .tokenization_two_sides import RnnSeq2SeqTwoSidedTokenizer
from .tokenization_words import RnnSeq2SeqWordTokenizer


_TOKENIZERS: dict[str, Any] = {
    kind.__name__: kind for kind in (RnnSeq2SeqTokenizer, RnnSeq2SeqTwoSidedTokenizer, RnnSeq2SeqWordTokenizer)
}
# How folders say the same that have no processor: a file, and the second tokenizer's folder.
_PREPROCESSING_FILE = "preprocessing.json"
_TARGET_FOLDER = "target_tokenizer"
# What the recipe beside a model of an early version says where its sources were not read as they are.
_REWRITES = re.compile(r"^\s*(reverse_source:\s*true|source_replacements:\s*(\n\s*-|\[\[))", re.MULTILINE)
# Options of a tokenizer's call.
_OPTIONS = {
    *inspect.signature(PreTrainedTokenizerBase.__call__).parameters,
    *inspect.signature(PreTrainedTokenizerFast._encode_plus).parameters,
    "max_target_length",
} - {"self", "args", "kwargs", "text_pair_target", "padding_strategy", "truncation_strategy"}
# Which repository, and how to get at it.
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


class RnnSeq2SeqProcessor(ProcessorMixin):
    """
    The tokenizers of a model, or its feature extractor and tokenizer, as one.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the text; a `RnnSeq2SeqTwoSidedTokenizer` where source and target
            have a vocabulary each, or sources are rewritten.
        feature_extractor (`RnnSeq2SeqFeatureExtractor`, *optional*): Of a model that reads audio or frames.

    Raises:
        TypeError: One of them is something else.

    Example:

    ```python
    >>> processor = RnnSeq2SeqProcessor.from_pretrained(folder)
    >>> batch = processor(["a source"], text_target=["its target"], padding=True, return_tensors="pt")
    >>> loss = model(**batch).loss
    >>> processor.batch_decode(model.generate(**processor("a source", return_tensors="pt")), skip_special_tokens=True)
    ```
    """

    def __init__(self, tokenizer: Any, feature_extractor: Any = None):
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TypeError(f"tokenizer must be a tokenizer of transformers; got {type(tokenizer).__name__}")
        if feature_extractor is not None and not hasattr(feature_extractor, "sampling_rate"):
            raise TypeError(f"feature_extractor must be one of audio; got {type(feature_extractor).__name__}")
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.chat_template = None

    def _parts(self) -> list[Any]:
        return [part for part in (self.tokenizer, self.feature_extractor) if part is not None]

    @property
    def source_tokenizer(self) -> Any:
        """The tokenizer of the sources alone; what is done to a source beside is not in it."""
        return getattr(self.tokenizer, "source_tokenizer", self.tokenizer)

    @property
    def target_tokenizer(self) -> Any:
        """The tokenizer of the targets alone."""
        return getattr(self.tokenizer, "target_tokenizer", self.tokenizer)

    @property
    def source_replacements(self) -> list[list[str]]:
        """Regular expressions and replacements that a source goes through."""
        return getattr(self.tokenizer, "source_replacements", [])

    def lexicalise(self, text: str, source: str) -> str:
        """Return what the model wrote for a source with the source's values in the place of placeholders."""
        side = self.tokenizer
        return side.lexicalise(text, source) if isinstance(side, RnnSeq2SeqTwoSidedTokenizer) else text

    @property
    def reverse_source(self) -> bool:
        """Whether the model reads its sources backwards."""
        return getattr(self.tokenizer, "reverse_source", False)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs, that of the source first."""
        side = self.tokenizer if self.feature_extractor is None else self.feature_extractor
        return list(side.model_input_names)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        text_target: str | Sequence[str] | None = None,
        *,
        audio: Any = None,
        sampling_rate: int | None = None,
        speaker: Sequence[str] | str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            text (`str` or `list[str]`, *optional*): Sources of a model that reads text.
            text_target (`str` or `list[str]`, *optional*): Targets; they become `labels`, or, without a source, the
                tokenizer's output.
            audio (*optional*): Utterances of a model that reads audio or frames, as for its feature extractor.
            sampling_rate (`int`, *optional*): Of the audio, to make sure.
            speaker (`list[str]`, *optional*): Who speaks, as for the feature extractor.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            kwargs: Options of the tokenizer: `padding`, `truncation`, `max_length`, `max_target_length`, ...

        Raises:
            ValueError: Nothing is given, or what this model does not read.
        """
        options = {"return_tensors": return_tensors, **kwargs}
        for name, given in (("text", text), ("text_target", text_target)):
            if given is not None:
                check_text(name, given)
        for name in kwargs:
            if name not in _OPTIONS:
                raise TypeError(f"the processor has no argument {name!r}: it has {', '.join(sorted(_OPTIONS))}")
        if not isinstance(kwargs.get("padding"), bool | None):
            PaddingStrategy(kwargs["padding"])  # audio is padded whatever is said
        sources: Any = text if self.feature_extractor is None else audio
        targets: Any = text_target
        if all(isinstance(side, list | tuple) for side in (sources, targets)) and len(sources) != len(targets):
            raise ValueError(f"text_target has {len(targets)} texts, wanted {len(sources)}, one a source")
        if self.feature_extractor is None:
            if audio is not None or sampling_rate is not None or speaker is not None:
                raise ValueError("audio, sampling_rate and speaker: this model reads text; give text")
            if text is None and text_target is None:
                raise ValueError("got neither text nor text_target: give one of them, or both")
            return BatchFeature(dict(self.tokenizer(text, text_target=text_target, **options)))
        if text is not None:
            raise ValueError("text: this model reads audio or frames; give audio, and what is said as text_target")
        if audio is None and text_target is None:
            raise ValueError("got neither audio nor text_target: give one of them, or both")
        targets = None if text_target is None else self.tokenizer(text_target=text_target, **options)
        if audio is None:
            return BatchFeature(dict(targets))
        batch: BatchFeature = self.feature_extractor(
            audio, sampling_rate=sampling_rate, speaker=speaker, return_tensors=return_tensors
        )
        if targets is not None:
            batch["labels"] = targets["input_ids"]
        return batch

    def to_dict(self) -> dict[str, Any]:
        """Return what `processor_config.json` holds: the class. Its parts have files of their own."""
        auto_map = getattr(self, "auto_map", None)
        return {"processor_class": type(self).__name__, **({"auto_map": auto_map} if auto_map else {})}

    def __repr__(self) -> str:
        parts = "\n".join(f"- {part!r}" for part in self._parts())
        return f"{type(self).__name__}:\n{parts}"

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """
        Save all parts in one folder.

        Args:
            save_directory (`str` or `os.PathLike`): The folder.
            push_to_hub (`bool`, defaults to `False`): Also push it to the Hub.
            kwargs: Then `repo_id`, by default the folder's name, and options of `push_to_hub`.
        """
        os.makedirs(save_directory, exist_ok=True)
        if self._auto_class is not None:
            # A feature extractor that is saved alone names the processor too: some programs save no more.
            named: Any = [*self._parts()[1:], self]
            custom_object_save(self, save_directory, config=named)
        self.tokenizer._set_processor_class(type(self).__name__)
        for part in self._parts():
            part.save_pretrained(save_directory)
        file = os.path.join(save_directory, PROCESSOR_NAME)
        self.to_json_file(file)
        if push_to_hub:
            name = os.path.basename(os.path.normpath(save_directory))
            self.push_to_hub(kwargs.pop("repo_id", name), **kwargs)
        return [file]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, trust_remote_code: bool | None = None, **kwargs: Any
    ) -> "RnnSeq2SeqProcessor":
        """
        Load the processor of a model's folder or repository, or make it of what lies there.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): The folder, or the name on the Hub.
            trust_remote_code (`bool`, *optional*): For a tokenizer that is none of ours.
            kwargs: `cache_dir`, `revision`, `token` and the like.
        """
        if not isinstance(pretrained_model_name_or_path, str | os.PathLike) or not str(pretrained_model_name_or_path):
            got = repr(pretrained_model_name_or_path)
            raise ValueError(f"pretrained_model_name_or_path must be a folder or a name on the Hub; got {got}")
        path = str(pretrained_model_name_or_path)
        hub = {name: kwargs[name] for name in _HUB_OPTIONS if kwargs.get(name) is not None}
        tokenizer = _load_tokenizer(path, trust_remote_code, hub)
        extractor = None
        if _file(path, FEATURE_EXTRACTOR_NAME, hub) is not None:
            extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(path, **hub)
        return cls(tokenizer, extractor)


def _file(path: str, name: str, hub: dict[str, Any]) -> str | None:
    """Return where a file of a repository lies on this machine; None if it has none of that name."""
    return cached_file(path, name, _raise_exceptions_for_missing_entries=False, **hub)


def _load_tokenizer(path: str, trust_remote_code: bool | None, hub: dict[str, Any]) -> Any:
    """Load the tokenizer of a repository, of both sides where it has two or rewrites its sources."""
    kind = get_tokenizer_config(path, **hub).get("tokenizer_class")
    if kind in _TOKENIZERS:  # by its class here: nobody needs to trust code for it
        tokenizer = _TOKENIZERS[kind].from_pretrained(path, **hub)
    else:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **hub)
    if isinstance(tokenizer, RnnSeq2SeqTwoSidedTokenizer):
        return tokenizer
    # A folder of an earlier version: the same is in other files.
    target, options = None, {}
    if _file(path, f"{_TARGET_FOLDER}/tokenizer.json", hub) is not None:
        folder = "/".join(part for part in (hub.get("subfolder"), _TARGET_FOLDER) if part)
        target = RnnSeq2SeqTokenizer.from_pretrained(path, **{**hub, "subfolder": folder})
    preprocessing = _file(path, _PREPROCESSING_FILE, hub)
    if preprocessing is not None:
        with open(preprocessing, encoding="utf-8") as file:
            options = json.load(file)
    elif (recipe := _file(path, "recipe.yaml", hub)) is not None:
        with open(recipe, encoding="utf-8") as file:
            if _REWRITES.search(file.read()):
                raise ValueError(
                    f"{path} has no {_PREPROCESSING_FILE}, but its recipe.yaml says that sources are rewritten or "
                    "reversed: an early version saved it. Save it again: hf_rnn_seq2seq.data.save_processor"
                )
    if target is None and not any(options.values()):
        return tokenizer
    return RnnSeq2SeqTwoSidedTokenizer.from_tokenizers(tokenizer, target, **options)


__all__ = ["RnnSeq2SeqProcessor"]
