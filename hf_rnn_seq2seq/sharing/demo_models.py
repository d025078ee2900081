"""What the demo asks a saved model: texts symbol by symbol, n-best lists, pictures, spans, classes, forecasts.

Each class reads a folder that `save_pretrained` wrote, with what lies beside the model; none knows gradio. Errors
about an input are `DataError`s of one sentence.
"""

from __future__ import annotations

import copy
import queue
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import BatchEncoding, GenerationConfig
from transformers.generation import BaseStreamer

from ..data.files import DataError, text_lines
from ..data.pairs import encode_sources
from ..data.preprocessing import SERIES_FILE, Preprocessing
from ..data.slots import decode_with_slots, tokens_with_slots, unknown_words
from ..data.tables import TableOptions, read_columns
from ..data.tokenizers import load_tokenizers
from ..data.windows import ForecastWindows, load_series_options, series_to_forecast
from ..evaluation.attention_plot import plot_attention
from ..evaluation.decoding import Hypothesis, decode
from ..evaluation.forecasting import forecasts
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
    """How the series of a table go on.

    Args:
        model_dir: the model's folder; a recipe's says what the table holds.
    """

    def __init__(self, model_dir: str | Path) -> None:
        self.model = load_model(RnnSeq2SeqForTimeSeriesPrediction, model_dir).eval()
        known = (Path(model_dir) / SERIES_FILE).is_file()
        self.saved, self.classes = load_series_options(model_dir) if known else _unnamed(self.model.config)
        self.names: list[str] = self.saved["columns"]
        self.options: TableOptions = self.saved["table"]
        places = [name for name in (self.options.id_column, self.options.time_column) if name is not None]
        self.static = [*self.saved["static_real_features"], *self.saved["static_categorical_features"]]
        self.columns = [*places, *self.names, *self.saved["features"], *self.static]

    def example(self) -> str:
        """Return CSV of waves within the range of the model's training data."""
        config, scale = self.model.config, self.model.value_scale
        rows = config.context_length + (config.prediction_length if self.saved["features"] else 0)
        waves = scale.mean + scale.std * torch.sin(torch.arange(config.context_length)[:, None] / 3)  # (P, C)
        table: dict[str | None, list[str]] = {self.options.id_column: ["example"] * rows}
        first = datetime(2024, 1, 1)
        form = self.options.time_format or "%Y-%m-%d %H:%M"
        table[self.options.time_column] = [f"{first + timedelta(hours=row):{form}}" for row in range(rows)]
        for name, wave in zip(self.names, waves.T.tolist()):
            table[name] = [f"{value:.4g}" for value in wave] + [""] * (rows - len(wave))
        numbers = self.model.static_scale.mean.tolist() if self.saved["static_real_features"] else []
        for name, value in zip(self.static, [*map("{:.4g}".format, numbers), *(c[0] for c in self.classes.values())]):
            table[name] = [value] * rows
        lines = [self.columns, *zip(*(table.get(name, ["0"] * rows) for name in self.columns))]
        return "\n".join(map(",".join, lines))

    def upload(self, path: str | Path) -> str:
        """Return the text of a table in any format that a recipe reads.

        Raises:
            DataError: it is none, or has not the model's columns.
        """
        path = Path(path)
        kind = path.name.removesuffix(".gz").rpartition(".")[-1]
        try:
            if kind not in ("jsonl", "json", "parquet", "npz"):
                return "\n".join(text_lines(path))
            return cast(
                "str", read_columns(path, replace(self.options, format=None), self.columns).to_csv(index=False)
            )
        except DataError as error:
            raise DataError(str(error).replace(str(path), path.name)) from error

    def read(self, text: str) -> ForecastWindows:
        """Return the series of a table with a line of names, or with the model's columns alone.

        Raises:
            DataError: it is no such table, a value is no number, or there are too few rows.
        """
        first = next(filter(str.strip, text.splitlines()), None)
        if first is None:
            raise DataError(f"the table: got no rows, wanted the columns {', '.join(self.columns)}")
        signs = [sign for sign in (self.options.separator, "\t", ";") if sign is not None and sign in first]
        separator = signs[0] if signs else ","
        fields = [field.strip('" ') for field in first.split(None if separator == " " else separator)]
        names = None if {*fields} & {*self.columns} else self.options.column_names or self.columns
        if names is not None and len(names) != len(fields):
            raise DataError(
                f"the table: got {len(fields)} columns without names, wanted the columns {', '.join(names)}"
            )
        table = replace(self.options, format="csv", separator=separator, column_names=names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table"
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            try:
                return series_to_forecast(path, self.model.config, {**self.saved, "table": table}, self.classes)
            except DataError as error:
                raise DataError(str(error).replace(str(path), "the table")) from error

    @property
    def headers(self) -> list[str]:
        """What the columns of a forecast are called."""
        return [*([] if self.options.id_column is None else [self.options.id_column]), "step", *self.names]

    @torch.no_grad()
    def forecast(self, text: str) -> tuple[Any, list[list[Any]]]:
        """Return a picture of the first series and its forecast, of a distribution with the band that holds 80 %; and
        the rows of the forecasts of all.
        """
        windows = self.read(text)
        found = forecasts(self.model, windows, range(len(windows.series)))
        ahead, *band = (
            np.stack([part[name] for name in self.names], 1)  # (T, C)
            for part in (found[0]["forecast"], *found[0].get("quantiles", {}).values())
        )
        past = windows.values[0][: windows.observed_rows(0)]  # (P, C)
        edges = (band[0], band[1]) if band else None
        figure = plot_forecast(past, np.full_like(ahead, np.nan), ahead, self.names, edges)
        figure.set_size_inches(4.8, 2.4 * len(self.names))  # on a phone, too
        rows: list[list[Any]] = []
        for one in found:
            name = [] if self.options.id_column is None else [one["id"]]
            rows += [[*name, n, *values] for n, values in enumerate(zip(*one["forecast"].values()), start=1)]
        return figure, rows


def _unnamed(config: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what `load_series_options` does, of a model whose folder says no names."""
    counts = {
        "columns": ("channel", config.input_feature_size or 1), "features": ("feature", config.num_time_features),
        "static_real_features": ("static", config.num_static_real_features),
        "static_categorical_features": ("class", config.num_static_categorical_features),
    }  # fmt: skip
    saved: dict[str, Any] = {
        option: [f"{name} {number + 1}" for number in range(count)] for option, (name, count) in counts.items()
    }
    sizes = zip(saved["static_categorical_features"], config.cardinality or ())
    classes = {name: [str(number) for number in range(size)] for name, size in sizes}
    return {**saved, "table": TableOptions(), "shortest_past": None}, classes
