"""What the demo asks a saved model: texts symbol by symbol, n-best lists, pictures, spans, classes, forecasts.

Each class reads a folder that `save_pretrained` wrote, with what lies beside the model; none knows gradio. Errors
about an input are `DataError`s of one sentence.
"""

from __future__ import annotations

import copy
import io
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import BatchEncoding, GenerationConfig
from transformers.generation import BaseStreamer

from ..data.files import DataError, read_json
from ..data.pairs import encode_sources
from ..data.preprocessing import SERIES_FILE, Preprocessing
from ..data.slots import decode_with_slots, tokens_with_slots, unknown_words
from ..data.tokenizers import load_tokenizers
from ..data.windows import BAND
from ..evaluation.attention_plot import plot_attention
from ..evaluation.decoding import Hypothesis, decode
from ..evaluation.saved_model import load_model
from ..evaluation.value_plot import plot_forecast
from ..model.delexicalisation import lexicalised
from ..model.feature_extraction_rnn_seq2seq import RnnSeq2SeqFeatureExtractor
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from ..model.modeling_speech import RnnSeq2SeqForSpeechSeq2Seq
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from .demo_pictures import context_by_prefix, plot_attention_to_sound, plot_context


# What gr.Audio gives: samples a second, and the samples (N,) or (N, channels).
Sound = tuple[int, np.ndarray]


class _Tokens(BaseStreamer):
    """The tokens of `generate()` as they are chosen, for another thread to read; the start symbol is left out."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self.started = False

    def put(self, value: torch.Tensor) -> None:
        if self.started:
            self.queue.put(int(value.reshape(-1)[0]))
        self.started = True

    def end(self) -> None:
        """Do nothing: the thread says when it has ended, also where it fails."""


def stream_tokens(generate: Callable[[BaseStreamer], Any]) -> Iterator[int]:
    """Yield the tokens that a call of `generate()` with a streamer chooses; raise what it raises."""
    tokens = _Tokens()

    def work() -> None:
        try:
            generate(tokens)
            tokens.queue.put(None)
        except Exception as error:  # it is raised where the tokens are read
            tokens.queue.put(error)

    threading.Thread(target=work, daemon=True).start()
    while (token := tokens.queue.get()) is not None:
        if isinstance(token, Exception):
            raise token
        yield token


class _Searching(ABC):
    """A model with `generate()`; `words` are what the slots of a source stand for (`copy_slots`).

    Args:
        model_dir: the model's folder.
        model_class: what it holds.
    """

    def __init__(self, model_dir: str | Path, model_class: Any) -> None:
        self.source_tokenizer, self.target_tokenizer = load_tokenizers(model_dir)
        self.model = load_model(model_class, model_dir).eval()

    @property
    def attends(self) -> bool:
        """Whether the model has an attention to look at."""
        return bool(self.model.config.attention_type != "none")

    @abstractmethod
    def read(self, item: Any) -> tuple[Any, list[str]]:
        """Return the ids or vectors of an input, and its words."""

    def values(self, item: Any) -> dict[str, str]:
        """Return what the placeholders of an input stand for (`delexicalised_slots`)."""
        return {}

    def _inputs(self, source: Any) -> dict[str, torch.Tensor]:
        if isinstance(source, np.ndarray):
            return {"input_features": torch.as_tensor(source, dtype=self.model.dtype)[None]}  # (1, S, F)
        return {"input_ids": torch.tensor([source])}  # (1, S)

    def _search(self, beams: int, number: int) -> GenerationConfig:
        search = copy.deepcopy(self.model.generation_config)
        search.do_sample, search.num_beams, search.num_return_sequences = False, beams, number
        return cast("GenerationConfig", search)

    def stream(self, item: Any) -> Iterator[str]:
        """Yield the text of greedy search after each symbol."""
        source, words = self.read(item)
        inputs, search, tokens = self._inputs(source), self._search(1, 1), []
        for token in stream_tokens(
            lambda streamer: self.model.generate(**inputs, generation_config=search, streamer=streamer)
        ):
            if token not in (self.target_tokenizer.eos_token_id, self.target_tokenizer.pad_token_id):
                tokens.append(token)
                text = decode_with_slots(tokens, self.target_tokenizer, words, self.model.config)
                yield lexicalised(text, self.values(item))

    def ranked(self, item: Any, number: int) -> list[Hypothesis]:
        """Return the `number` best hypotheses of a beam search, best first, with log-probabilities."""
        source, words = self.read(item)
        beams = max(number, self.model.generation_config.num_beams or 1)
        search, values = self._search(beams, number), [self.values(item)]
        return decode(self.model, [source], self.target_tokenizer, search, 1, True, [words], values)[0]

    def _attention(self, source: Any, tokens: Sequence[int]) -> np.ndarray:
        """Return the attention (T, S) of target tokens."""
        sequence = torch.tensor([[self.model.config.decoder_start_token_id, *tokens]])
        with torch.no_grad():
            return cast("np.ndarray", self.model.alignments(sequence, **self._inputs(source))[0].float().numpy())

    @abstractmethod
    def picture(self, item: Any, best: Hypothesis) -> Any:
        """Return a figure: the attention of a hypothesis, or C where there is none."""


class TextModel(_Searching):
    """A text for each text."""

    def __init__(self, model_dir: str | Path) -> None:
        super().__init__(model_dir, RnnSeq2SeqForConditionalGeneration)
        self.preprocessing = Preprocessing.load(model_dir) or Preprocessing()

    def read(self, item: str) -> tuple[list[int], list[str]]:
        text, config = self.preprocessing.text(item), self.model.config
        if not text.strip():
            raise DataError(f"the text: got {item!r}, wanted one that is not blank")
        texts = self.preprocessing.delexicalised([text])
        sources = encode_sources(texts, self.source_tokenizer, self.preprocessing.reverse_source, config)
        return sources[0], unknown_words(texts, self.source_tokenizer, config)[0]

    def values(self, item: str) -> dict[str, str]:
        return self.preprocessing.values([self.preprocessing.text(item)])[0]

    def picture(self, item: str, best: Hypothesis) -> Any:
        source, words = self.read(item)
        symbols = tokens_with_slots(source, self.source_tokenizer, words, self.model.config)
        if not self.attends:
            return plot_context(context_by_prefix(self.model, source), symbols)
        tokens = [*best.tokens, self.target_tokenizer.eos_token_id]
        rows = tokens_with_slots(tokens, self.target_tokenizer, words, self.model.config)
        figure = plot_attention(self._attention(source, tokens), symbols, rows)
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + 0.7, height + 0.7)  # room for labels: the page saves it with its margins
        return figure


class SpeechModel(_Searching):
    """A text for each sound."""

    def __init__(self, model_dir: str | Path) -> None:
        super().__init__(model_dir, RnnSeq2SeqForSpeechSeq2Seq)
        self.extractor = RnnSeq2SeqFeatureExtractor.from_pretrained(model_dir)
        if self.extractor.feature_type == "none":
            raise DataError(f"{model_dir}: the model reads frames from files, wanted one that reads sound")

    def read(self, item: Sound) -> tuple[np.ndarray, list[str]]:
        samples, rate = as_samples(item, self.extractor.sampling_rate), self.extractor.sampling_rate
        features = self.extractor([samples], sampling_rate=rate, padding=False)["input_features"][0]
        return np.asarray(features, dtype=np.float32), []

    def picture(self, item: Sound, best: Hypothesis) -> Any:
        source, words = self.read(item)
        seconds = len(item[1]) / item[0]
        if not self.attends:
            labels = [f"{seconds * frame / len(source):.1f}" for frame in range(len(source))]
            return plot_context(context_by_prefix(self.model, source), labels)
        tokens = [*best.tokens, self.target_tokenizer.eos_token_id]
        rows = tokens_with_slots(tokens, self.target_tokenizer, words, self.model.config)
        return plot_attention_to_sound(self._attention(source, tokens), rows, seconds)


def as_samples(sound: Sound, wanted_rate: int) -> np.ndarray:
    """Return a recording or upload as float32 samples (N,) from -1 to 1, of one channel and the wanted rate.

    Raises:
        DataError: it is silent from nothing to nothing: no sample is there.
    """
    from scipy.signal import resample_poly  # scikit-learn brings it

    rate, samples = sound
    if len(samples) == 0:
        raise DataError("the sound: got no samples, wanted a recording")
    scale = 1.0 if np.issubdtype(samples.dtype, np.floating) else float(np.iinfo(samples.dtype).max)
    single = samples.astype(np.float64).reshape(len(samples), -1).mean(1) / scale  # (N,)
    divisor = np.gcd(rate, wanted_rate)
    return cast("np.ndarray", resample_poly(single, wanted_rate // divisor, rate // divisor).astype(np.float32))


class _Labelling:
    """A classifier.

    Args:
        model_dir: the model's folder.
        model_class: what it holds.
    """

    def __init__(self, model_dir: str | Path, model_class: Any) -> None:
        self.tokenizer = load_tokenizers(model_dir)[0]
        self.model = load_model(model_class, model_dir).eval()
        self.labels: dict[int, str] = self.model.config.id2label

    def _encode(self, text: str) -> BatchEncoding:
        inputs = self.tokenizer([text], return_tensors="pt", padding=True)
        if not text.strip() or not inputs["input_ids"].numel():
            raise DataError(f"the text: got {text!r}, wanted one with words")
        return inputs


class ClassModel(_Labelling):
    """A class for each text."""

    def __init__(self, model_dir: str | Path) -> None:
        super().__init__(model_dir, RnnSeq2SeqForSequenceClassification)

    @torch.no_grad()
    def probabilities(self, text: str) -> dict[str, float]:
        """Return the probability of each class: they sum to 1, unless a text may have several."""
        logits = self.model(**self._encode(text)).logits[0].float()  # (C,)
        several = self.model.config.problem_type == "multi_label_classification"
        found = logits.sigmoid() if several else logits.softmax(-1)
        return {self.labels[number]: value for number, value in enumerate(found.tolist())}


class TagModel(_Labelling):
    """A label for each word of a text; words are parted by blanks."""

    def __init__(self, model_dir: str | Path) -> None:
        super().__init__(model_dir, RnnSeq2SeqForTokenClassification)

    @torch.no_grad()
    def tags(self, text: str) -> list[tuple[str, str]]:
        """Return the words with their labels: that of the token a word begins with."""
        words = text.split()
        inputs = self._encode(" ".join(words))
        labels = self.model.decode(**inputs)[0].tolist()
        tagged, place = [], 0
        for word in words:
            token = inputs.char_to_token(0, place)
            if token is None:
                raise DataError(f"the text: the tokenizer has no token for the word {word!r}, wanted another word")
            tagged.append((word, self.labels[labels[token]]))
            place += len(word) + 1
        return tagged


def spans(tagged: Sequence[tuple[str, str]]) -> list[tuple[str, str | None]]:
    """Return stretches of text and what each is: B-X I-X are one stretch of X, O is none, other labels stand alone."""
    joined: list[tuple[str, str | None]] = []
    for number, (word, label) in enumerate(tagged):
        kind = None if label == "O" else label[2:] if label[:2] in ("B-", "I-") else label
        goes_on = joined and label[:2] == "I-" and joined[-1][1] == kind
        if goes_on or (joined and kind is None and joined[-1][1] is None):
            joined[-1] = (f"{joined[-1][0]} {word}", kind)
        else:
            if number:
                joined.append((" ", None))
            joined.append((word, kind))
    return joined


class ForecastModel:
    """How a table of values goes on.

    Args:
        model_dir: the model's folder; a recipe's says the names of the columns.

    Raises:
        DataError: the model reads more than values.
    """

    def __init__(self, model_dir: str | Path) -> None:
        self.model = load_model(RnnSeq2SeqForTimeSeriesPrediction, model_dir).eval()
        config, said = self.model.config, Path(model_dir) / SERIES_FILE
        for name in ("num_time_features", "num_static_real_features", "num_static_categorical_features"):
            if getattr(config, name):
                raise DataError(f"{model_dir}: {name}: got {getattr(config, name)}, wanted a model of values alone")
        names = [f"channel {number + 1}" for number in range(self.model.channels)]
        self.names: list[str] = read_json(said)["columns"] if said.is_file() else names

    def example(self) -> str:
        """Return CSV of waves within the range of the model's training data."""
        rows = torch.arange(self.model.config.context_length)[:, None]  # (P, 1)
        waves = self.model.value_scale.mean + self.model.value_scale.std * torch.sin(rows / 3)  # (P, C)
        lines = [",".join(f"{value:.4g}" for value in row) for row in waves.tolist()]
        return "\n".join([",".join(self.names), *lines])

    def read(self, text: str) -> np.ndarray:
        """Return the values (P, C) of a table with a line of names, or with the model's columns alone.

        Raises:
            DataError: it is no such table, a value is no number, or there are too few rows.
        """
        import pandas as pd

        rows, wanted = self.model.config.context_length, f"the columns {', '.join(self.names)}"
        try:
            table = pd.read_csv(io.StringIO(text.strip()), sep="[,;\t]", engine="python", header=None, dtype=str)
        except ValueError as error:
            raise DataError(f"the table: got no rows of equal length ({error}), wanted {wanted}") from error
        first = [str(name).strip() for name in table.iloc[0]]
        if set(self.names) <= set(first):
            table = table.iloc[1:, [first.index(name) for name in self.names]]
        elif table.shape[1] != len(self.names):
            raise DataError(f"the table: got {table.shape[1]} columns without these names, wanted {wanted}")
        values = table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float32)  # (P, C)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            got = table.iloc[row, column]
            raise DataError(f"the table, row {row + 1}, {self.names[column]}: got {got!r}, wanted a number")
        if len(values) < rows:
            raise DataError(f"the table: got {len(values)} rows, wanted at least {rows} to look back on")
        return cast("np.ndarray", values)

    @torch.no_grad()
    def forecast(self, text: str) -> tuple[Any, list[list[float]]]:
        """Return a picture of the forecast, of a distribution with the band that holds 80 %; and its rows."""
        past = self.read(text)
        inputs = {"past_values": torch.tensor(past[None, -self.model.config.context_length :], dtype=self.model.dtype)}
        ahead = self.model.forecast(**inputs)[0].float().numpy()  # (T, C)
        band = None
        if self.model.distribution_output is not None:
            torch.manual_seed(0)  # the same band each time
            low, high = np.quantile(self.model.generate(**inputs).sequences[0].float().numpy(), BAND, axis=0)
            band = low, high
        figure = plot_forecast(past, np.full_like(ahead, np.nan), ahead, self.names, band)
        figure.set_size_inches(4.8, 2.4 * len(self.names))  # on a phone, too
        return figure, [[step + 1, *map(float, row)] for step, row in enumerate(ahead)]
