"""An exported model behind the limits of a server: what `server.py` answers with.

A request is checked, looked up in the user's lexicon, encoded, and decoded in a batch with others. Needs the extra
`serve`, and neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .batching import Batcher
from .pronounce import Lexicon, normalizer_of
from .runtime import Hypothesis, RnnSeq2SeqRuntime
from .search_options import GenerationOptions


try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
except ImportError as error:
    raise ImportError(f"the server needs '{error.name}': pip install 'hf_rnn_seq2seq[serve]'") from error


@dataclass(frozen=True)
class ServerOptions:
    """What a server allows and how it works.

    Args:
        max_batch_size: texts decoded at a time.
        threads: batches at work at a time. Python runs one thread at a time outside onnxruntime: more than the cores
            do not help.
        max_queue: texts that may wait; more are refused with 503.
        max_streams: streams at a time, likewise.
        timeout: seconds until a request is given up with 504.
        max_body_bytes: of a request, else 413.
        max_texts: of a request.
        max_source_length: symbols of a source.
        max_new_tokens: what a request may ask for; what is saved with the model is allowed.
        max_beams: what a request may ask for as `num_beams` or `num_return_sequences`, likewise.
    """

    max_batch_size: int = field(default=64, metadata={"help": "texts decoded at a time"})
    threads: int = field(default=1, metadata={"help": "batches at work at a time"})
    max_queue: int = field(default=1024, metadata={"help": "texts that may wait; more get 503"})
    max_streams: int = field(default=16, metadata={"help": "streams at a time; more get 503"})
    timeout: float = field(default=30.0, metadata={"help": "seconds until a request is given up with 504"})
    max_body_bytes: int = field(default=2**20, metadata={"help": "of a request, else 413"})
    max_texts: int = field(default=64, metadata={"help": "of a request"})
    max_source_length: int = field(default=1000, metadata={"help": "symbols of a source"})
    max_new_tokens: int = field(default=256, metadata={"help": "what a request may ask for"})
    max_beams: int = field(default=16, metadata={"help": "what a request may ask for"})


_Whole = Annotated[int, Field(strict=True)]
# Within these, no score or probability leaves the range of floating-point numbers.
_Number = Annotated[float, Field(strict=True, ge=-100, le=100)]
_Temperature = Annotated[float, Field(strict=True, ge=0.01, le=100)]
_Seed = Annotated[int, Field(strict=True, ge=0)]


class GenerateRequest(BaseModel):
    """The body of a request: a text or several, and options of the search, under transformers' names."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    text: StrictStr | None = None
    texts: list[StrictStr] | None = None
    num_beams: _Whole | None = None
    num_return_sequences: _Whole | None = None
    max_new_tokens: _Whole | None = None
    min_new_tokens: _Whole | None = None
    length_penalty: _Number | None = None
    early_stopping: StrictBool | Literal["never"] | None = None
    do_sample: StrictBool | None = None
    temperature: _Temperature | None = None
    top_k: _Whole | None = None
    top_p: _Number | None = None
    seed: _Seed | None = None

    def options(self) -> dict[str, Any]:
        """Return the options that it sets."""
        return self.model_dump(exclude={"text", "texts"}, exclude_none=True)


class _Metrics:
    """The numbers that `/metrics` tells."""

    def __init__(self, waiting: Callable[[], int], streams: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        rooms: dict[str, Any] = {"registry": self.registry, "namespace": "rnn_seq2seq"}
        self.requests = Counter("requests", "Requests by path and status.", ["path", "status"], **rooms)
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
        self.seconds = Histogram(
            "request_seconds", "From the request to the last byte.", ["path"], buckets=buckets, **rooms
        )
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.batch_size = Histogram("batch_size", "Texts of a batch.", buckets=sizes, **rooms)
        self.symbols = Counter("symbols", "Symbols of the hypotheses returned.", **rooms)
        self.lexicon = Counter("lexicon_answers", "Texts answered by the lexicon.", **rooms)
        Gauge("streams", "Streams at work.", **rooms).set_function(streams)
        Gauge("waiting", "Texts that wait for a batch.", **rooms).set_function(waiting)


class Service:
    """A model behind the limits of a server: what the HTTP layer calls.

    Args:
        runtime: the model.
        options: the limits.
        lexicon: answers that go before the model's.
    """

    def __init__(self, runtime: RnnSeq2SeqRuntime, options: ServerOptions, lexicon: Lexicon | None = None) -> None:
        if runtime.source_tokenizer is None or runtime.target_tokenizer is None:
            raise ValueError("the exported folder holds no tokenizer: wanted one, since requests are texts")
        self.runtime, self.options = runtime, options
        self.lexicon = lexicon or Lexicon(normalizer_of(runtime))
        self.batcher: Batcher[list[int], list[Hypothesis]] = Batcher(
            self._work, options.max_batch_size, options.max_queue, options.threads
        )
        self.streams = 0  # at work
        self.metrics = _Metrics(lambda: len(self.batcher), lambda: self.streams)
        saved = GenerationOptions.of(runtime.generation)
        beams = max(options.max_beams, saved.num_beams, saved.num_return_sequences)
        self._largest = {
            "num_beams": beams,
            "num_return_sequences": beams,
            "max_new_tokens": max(options.max_new_tokens, saved.most),
        }

    def _work(self, sources: Sequence[list[int]], options: tuple[tuple[str, Any], ...]) -> list[list[Hypothesis]]:
        self.metrics.batch_size.observe(len(sources))
        search = {name: value for name, value in options if name}  # without a name: what keeps a request alone
        found = self.runtime.generate(sources, batch_size=len(sources), **search)
        self.metrics.symbols.inc(sum(len(hypothesis.tokens) for ranked in found for hypothesis in ranked))
        return found

    def check(
        self, request: GenerateRequest, stream: bool = False
    ) -> tuple[list[str], dict[str, Any], GenerationOptions]:
        """Return the texts of a request, its options, and the whole search that these and the saved ones make.

        Raises:
            ValueError: the request is wrong, or more than is allowed.
        """
        if (request.text is None) == (request.texts is None):
            got = "none" if request.text is None else "both"
            raise ValueError(f"text, texts: got {got}, wanted one of them")
        texts = [request.text] if request.texts is None else request.texts
        if stream and request.texts is not None:
            raise ValueError("texts: a stream is of one text, wanted text")
        if not 1 <= len(texts) <= self.options.max_texts:
            raise ValueError(f"texts: got {len(texts)}, wanted 1 to {self.options.max_texts}")
        options = request.options()
        for name, largest in self._largest.items():
            if options.get(name, 0) > largest:
                raise ValueError(f"{name}: got {options[name]}, wanted at most {largest}")
        defaults = {"num_beams": 1, "num_return_sequences": 1} if stream else {}
        search = GenerationOptions.of(self.runtime.generation, {**defaults, **options})
        if stream and (search.num_beams > 1 or search.num_return_sequences > 1):
            raise ValueError("num_beams, num_return_sequences: a stream is of one hypothesis, wanted 1")
        return [text or "" for text in texts], options, search

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts.

        Raises:
            ValueError: a text is blank, too long, or no Unicode.
        """
        for number, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"text {number}: got half a character ({error.reason}), wanted Unicode") from error
        sources = self.runtime.encode(texts)
        for number, source in enumerate(sources):
            if len(source) > self.options.max_source_length:
                raise ValueError(
                    f"text {number}: got {len(source)} symbols, wanted at most {self.options.max_source_length}"
                )
        return sources

    async def generate(self, request: GenerateRequest) -> list[list[dict[str, Any]]]:
        """Return an n-best list for each text of a request."""
        texts, options, search = self.check(request)
        known = [self.lexicon.get(text) for text in texts]
        self.metrics.lexicon.inc(sum(answers is not None for answers in known))
        sources = self.encode([text for text, answers in zip(texts, known) if answers is None])
        shared: tuple[tuple[str, Any], ...] = tuple(sorted(options.items()))
        if search.do_sample:
            shared = (("", object()), *shared)  # what is drawn depends on the batch: alone, a seed repeats it
        futures = [asyncio.wrap_future(future) for future in self.batcher.submit(sources, shared)] if sources else []
        found = iter(await asyncio.gather(*futures))
        return [
            [
                _of_model(hypothesis, self.runtime.lexicalised(hypothesis.text or "", text))
                for hypothesis in next(found)
            ]
            if answers is None
            else _of_lexicon(answers[: search.num_return_sequences])
            for text, answers in zip(texts, known)
        ]

    def stream(self, text: str, options: dict[str, Any]) -> Iterator[str]:
        """Yield the text of a hypothesis in pieces; what stands in the lexicon, as one."""
        answers = self.lexicon.get(text)
        if answers is not None:
            self.metrics.lexicon.inc()
            yield answers[0]
        else:
            self.encode([text])  # which refuses a bad one
            yield from self.runtime.stream(text, **options)


def _of_model(hypothesis: Hypothesis, text: str) -> dict[str, Any]:
    return {
        "text": text,
        "score": round(hypothesis.score, 6),
        "log_probability": round(hypothesis.log_probability, 6),
        "from": "model",
    }


def _of_lexicon(answers: Sequence[str]) -> list[dict[str, Any]]:
    return [{"text": answer, "score": None, "log_probability": None, "from": "lexicon"} for answer in answers]
