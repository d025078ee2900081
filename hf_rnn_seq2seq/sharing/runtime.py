"""An exported model, run with onnxruntime, numpy and tokenizers alone: neither torch nor transformers.

`export_model` puts a copy of this file into the folder it writes, as `rnn_seq2seq_runtime.py`. A deployed program
imports the copy: `hf_rnn_seq2seq.sharing` has the same class, but loads torch through the package. The searches are
those of transformers' `generate()`. Imports only what stands in the copy.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..model.delexicalisation import check_slots, delexicalised, lexicalised, slot_values
from .exported_folder import MOST, check_settings, check_whole, json_object, opened, place_of, printable, read_export
from .search_options import Beam, GenerationOptions, draw, ids_of


try:
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError as error:
    advice = "pip install onnxruntime tokenizers numpy, or pip install 'hf_rnn_seq2seq[export]'"
    raise ImportError(f"the runtime needs '{error.name}': {advice}") from error


logger = logging.getLogger(__name__)

FORMATS = (5,)  # of the exported folder; a reader refuses others
ENCODER, DECODER_STEP = "encoder.onnx", "decoder_step.onnx"
RUNTIME_CONFIG, GENERATION_CONFIG = "runtime_config.json", "generation_config.json"
COPIED_AS = "rnn_seq2seq_runtime.py"
_OF_SEARCH = ("totals", "allowed", "grouping", "best")  # inputs of the step that the search sets, not the encoder
_AT_ONCE = 256  # greedy steps in one call of the graph, which a signal does not end

# A source: a text, or the ids of one.
Source = str | Sequence[int]
_SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
_LISTS = (list, tuple, np.ndarray)


class Hypothesis(NamedTuple):
    """One decoded target."""

    text: str | None  # None: the folder has no tokenizer
    tokens: tuple[int, ...]  # without start and eos
    score: float  # what it is ranked by: log_probability / length ** length_penalty, as `sequences_scores`
    log_probability: float  # natural, summed over the tokens and eos


class RnnSeq2SeqRuntime:
    """An exported model.

    ```python
    runtime = RnnSeq2SeqRuntime.from_pretrained("exported")
    runtime.generate(["text"], num_beams=5, num_return_sequences=3)[0][0].text
    ```

    Args:
        encoder, decoder_step: the two graphs.
        settings, generation: content of `runtime_config.json` and `generation_config.json`.
        source_tokenizer, target_tokenizer: equal ones for one vocabulary; None: ids only.
    """

    def __init__(
        self,
        encoder: onnxruntime.InferenceSession,
        decoder_step: onnxruntime.InferenceSession,
        settings: Mapping[str, Any],
        generation: Mapping[str, Any],
        source_tokenizer: Tokenizer | None = None,
        target_tokenizer: Tokenizer | None = None,
    ):
        self.encoder, self.decoder_step = encoder, decoder_step
        self.settings, self.generation = settings, generation
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer

    @functools.cached_property
    def loops(self) -> bool:
        """Whether the graph of a step can make the steps behind it, too: that of a large model cannot."""
        return "steps" in {name.name for name in self.decoder_step.get_overridable_initializers()}

    @classmethod
    def from_pretrained(cls, folder: str | Path, num_threads: int = 1) -> RnnSeq2SeqRuntime:
        """Load what `export_model` wrote.

        `num_threads` are those inside an operator; small matrices are fastest with one.

        Raises:
            FileNotFoundError: the folder is not an exported model.
            ValueError: it is of another format, or its generation config asks for what the runtime cannot do.
        """
        folder = place_of(folder, num_threads)
        sides = ("source_tokenizer", "target_tokenizer")
        needed = [GENERATION_CONFIG, ENCODER, DECODER_STEP]
        settings, files = read_export(folder, RUNTIME_CONFIG, FORMATS, needed, sides)
        kinds: dict[str, Any] = dict.fromkeys(sides, (str, type(None)))
        kinds |= {"vocab_size": (int,), **dict.fromkeys(("reverse_source", "split_special_tokens"), (bool,))}
        check_settings(settings, folder / RUNTIME_CONFIG, **kinds)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = 3
        session = functools.partial(onnxruntime.InferenceSession, providers=["CPUExecutionProvider"])
        encoder, decoder_step = (
            opened(folder / name, functools.partial(session, files[name], options)) for name in (ENCODER, DECODER_STEP)
        )
        tokenizers: list[Tokenizer | None] = []
        for name in map(settings.get, sides):
            load = functools.partial(Tokenizer.from_buffer, files.get(name or "", b""))
            tokenizer = None if name is None else opened(folder / name, load)
            if tokenizer is not None:
                tokenizer.no_padding()
                tokenizer.no_truncation()
                tokenizer.encode_special_tokens = settings["split_special_tokens"]
            tokenizers.append(tokenizer)
        generation = json_object(files[GENERATION_CONFIG], folder / GENERATION_CONFIG)
        runtime = cls(encoder, decoder_step, settings, generation, *tokenizers)
        runtime._check(folder)
        return runtime

    def _check(self, folder: Path) -> None:
        """Refuse graphs that do not fit each other, options of the search, and regular expressions that are none."""
        given = {"previous_ids", *(output.name for output in self.encoder.get_outputs())}
        scores = self.decoder_step.get_outputs()[0]
        if not given >= {one.name for one in self.decoder_step.get_inputs()} or scores.name != "log_probabilities":
            raise ValueError(f"{folder}: {ENCODER} and {DECODER_STEP} are not of one export")
        if type(scores.shape[1]) is not int or not 1 <= scores.shape[1] <= MOST:
            raise ValueError(f"{folder / DECODER_STEP}: got scores of {scores.shape[1]} symbols, wanted 1 to {MOST}")
        self._search({})
        opened(folder / RUNTIME_CONFIG, lambda: (self._replaced(""), check_slots(self.slots)))

    def _search(self, *options: Mapping[str, Any]) -> GenerationOptions:
        """Return the options of a search: those saved with the model, and of a call; ids are those of symbols."""
        search, limit = GenerationOptions.of(self.generation, *options), self.decoder_step.get_outputs()[0].shape[1]
        for name in ("decoder_start_token_id", "eos_token_id", "suppress_tokens"):
            for token in ids_of(getattr(search, name)):
                if token >= limit:
                    raise ValueError(f"{name} holds the id {token}, wanted ids from 0 to {limit - 1}")
        if len({*ids_of(search.suppress_tokens)}) == limit:
            raise ValueError(f"suppress_tokens holds all {limit} symbols, wanted at least one that may be chosen")
        return search

    def generate(
        self, sources: Source | Sequence[Source], batch_size: int = 32, **options: Any
    ) -> list[list[Hypothesis]]:
        """Decode texts, or lists of ids; return for each its `num_return_sequences` hypotheses, best first.

        Args:
            sources: the texts (or one), or their ids with whatever end symbol the model was trained with.
            batch_size: sources decoded at a time. 8-bit activations share one scale in a batch: there the last digits
                of a score, and now and then a symbol, depend on the batch.
            options: of `GenerationOptions`, in place of those saved with the model.

        Raises:
            ValueError: an option is unknown or out of range, or a source is empty or not in the vocabulary.
        """
        search = self._search(options)
        check_whole("batch_size", batch_size, 1)
        ids = self.encode(sources)
        rng = np.random.default_rng(search.seed)
        found: list[list[Hypothesis]] = [[] for _ in ids]
        order = sorted(range(len(ids)), key=lambda item: -len(ids[item]))
        for start in range(0, len(order), batch_size):
            items = order[start : start + batch_size]
            batch = [ids[item] for item in items]
            if search.num_beams > 1:
                results = self._beam_search(batch, search)
            elif len(batch) == 1 and not search.do_sample and self.loops:
                results = [[self._greedy(batch[0], search)]]
            else:
                repeats = search.num_return_sequences
                single = self._one_by_one([source for source in batch for _ in range(repeats)], search, rng)
                results = [single[row : row + repeats] for row in range(0, len(single), repeats)]
            for item, hypotheses in zip(items, results):
                found[item] = [self._hypothesis(tokens, total, search) for tokens, total in hypotheses]
        if self.slots:
            texts = [sources] if isinstance(sources, str) else sources
            for source, ranked in zip(texts, found):
                ranked[:] = [one._replace(text=one.text and self.lexicalised(one.text, source)) for one in ranked]
        return found

    @property
    def slots(self) -> Any:
        """The placeholders that the model reads and writes, and how their values are found in a source."""
        return self.settings.get("delexicalised_slots", {})

    def lexicalised(self, text: str, source: Any) -> str:
        """Return what the model wrote for a source with the source's values for placeholders; ids have none."""
        known = isinstance(source, str) and self.slots
        return lexicalised(text, slot_values(self._replaced(source), self.slots)) if known else text

    def stream_ids(self, source: Source, **options: Any) -> Iterator[int]:
        """Yield the symbols of one target as they are chosen, greedy or sampled, without eos; as `generate()`."""
        search = self._search({"num_beams": 1, "num_return_sequences": 1, **options})
        if search.num_beams > 1 or search.num_return_sequences > 1:
            raise ValueError("a stream is of one hypothesis: num_beams and num_return_sequences must be 1")
        sources = self.encode([source])
        for _, (token,), _ in self._walk(sources, search, np.random.default_rng(search.seed)):
            if token in search.eos_ids:
                return
            yield token

    def stream(self, source: Source, **options: Any) -> Iterator[str]:
        """Yield the text of one target in pieces, as its symbols are chosen; joined, they are `generate()`'s."""
        if self.target_tokenizer is None:
            raise ValueError("the exported folder has no tokenizer: use stream_ids")
        tokens: list[int] = []
        text, shown = "", 0
        for token in self.stream_ids(source, **options):
            tokens.append(token)
            text = self.target_tokenizer.decode(tokens, skip_special_tokens=False)
            # Half a placeholder has no value: with slots, whole words are shown.
            ready = self.lexicalised(text[: text.rfind(" ") + 1] if self.slots else text, source)
            # A character of several bytes is shown once all of them are there.
            if len(ready) > shown and not ready.endswith("\ufffd"):
                yield ready[shown:]
                shown = len(ready)
        text = self.lexicalised(text, source)
        if len(text) > shown:
            yield text[shown:]

    def encode(self, sources: Source | Sequence[Source]) -> list[list[int]]:
        """Return the ids of texts (or one); of ids, those. A ValueError: one is empty or not in the vocabulary."""
        several: Any = [sources] if isinstance(sources, str) else sources
        if not isinstance(several, _LISTS) or (len(several) and isinstance(several[0], int | np.integer)):
            got = "a list of ids" if isinstance(several, _LISTS) else repr(several)[:80]
            raise ValueError(f"sources must be a text, or a list of texts or of lists of ids; got {got}")
        limit = self.settings["vocab_size"]
        result = []
        for number, source in enumerate(several):
            if not isinstance(source, (str, *_LISTS)):
                raise ValueError(f"source {number} is {source!r:.80}, wanted a text or a list of ids")
            ids: list[int] = self._encode_text(source) if isinstance(source, str) else list(source)
            if not ids or (isinstance(source, str) and self.is_blank(source)):
                raise ValueError(f"source {number} is empty")
            for token in ids:
                if type(token) is bool or not isinstance(token, int | np.integer) or not 0 <= token < limit:
                    raise ValueError(f"source {number} holds the id {token!r}, wanted ids from 0 to {limit - 1}")
            result.append([int(token) for token in ids])
        return result

    @functools.cached_property
    def known_features(self) -> list[str]:
        """The features of the training data, such as its languages, which stand as tags in front of a source."""
        added = self.source_tokenizer.get_added_tokens_decoder().values() if self.source_tokenizer else ()
        tags = [token.content for token in added if re.fullmatch("<[^<>]+>", token.content)]
        return sorted(tag[1:-1] for tag in tags if tag not in _SPECIAL)

    def is_blank(self, text: str) -> bool:
        """Return whether nothing is left of a text for the model to read."""
        return not self._replaced(text).strip()

    def _replaced(self, text: str) -> str:
        for pattern, replacement in self.settings.get("source_replacements", ()):
            text = re.sub(pattern, replacement, text)
        return text

    def _encode_text(self, text: str) -> list[int]:
        if self.source_tokenizer is None:
            raise ValueError("the exported folder has no tokenizer: give lists of ids, not texts")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"the source {text[:80]!a} holds half a character (a surrogate), wanted Unicode")
        text = self._replaced(text)
        text = delexicalised(text, slot_values(text, self.slots))
        tags = re.match("(?:<[^<>]+>)*", text) if self.known_features else None
        for name in re.findall("<([^<>]+)>", tags[0] if tags else ""):
            if name not in self.known_features and f"<{name}>" not in _SPECIAL:
                _warn_of(name)
        ids: list[int] = self.source_tokenizer.encode(text).ids
        if self.settings["reverse_source"]:
            # Special symbols keep their places: only the text between them is reversed.
            inner = self.source_tokenizer.encode(text, add_special_tokens=False).ids
            ids = inner[::-1] + ids[len(inner) :]
        return ids

    def _hypothesis(self, tokens: tuple[int, ...], total: float, search: GenerationOptions) -> Hypothesis:
        score = total / len(tokens) ** search.length_penalty
        tokens = tokens[:-1] if tokens[-1] in search.eos_ids else tokens
        tokenizer = self.target_tokenizer
        text = None if tokenizer is None else tokenizer.decode(tokens, skip_special_tokens=False)
        return Hypothesis(text, tokens, score, total)

    def _greedy(self, source: list[int], search: GenerationOptions) -> tuple[tuple[int, ...], float]:
        """Return what `_one_by_one` does of one source, whose steps are made inside the graph."""
        inputs = self._read([source])
        states = [name for name in inputs if name.startswith("state.")]
        names = ["best_places", "symbols", "best_scores", "scores", *(f"last_{name}" for name in states)]
        step = self.decoder_step
        given = [name.name for name in (*step.get_inputs(), *step.get_overridable_initializers())]
        inputs["goes_on"] = np.ones(step.get_outputs()[0].shape[1], bool)
        inputs["goes_on"][search.eos_ids] = False
        tokens: list[int] = []
        total, last = 0.0, search.decoder_start_token_id
        while len(tokens) < search.most:
            length = len(tokens)
            until = search.least if length < search.least else search.most  # where other symbols are allowed
            inputs["previous_ids"] = np.array([last])
            inputs["allowed"] = np.zeros(len(inputs["goes_on"]), np.float32)
            inputs["allowed"][search.forbidden(length)] = -np.inf
            inputs["steps"] = np.array(min(until - length, _AT_ONCE) - 1)
            known = {name: inputs[name] for name in given if name in inputs}
            first, others, first_score, other_scores, *after = step.run(names, known)
            inputs |= zip(states, after)
            for token, score in zip(
                first.ravel().tolist() + others.ravel().tolist(),
                first_score.ravel().tolist() + other_scores.ravel().tolist(),
            ):
                tokens.append(token)
                total += score
                if token in search.eos_ids:
                    return tuple(tokens), total
            last = tokens[-1]
        return tuple(tokens), total

    def _read(self, sources: list[list[int]]) -> dict[str, np.ndarray]:
        """Return what the encoder makes of sources: first states and memory."""
        lengths = np.array([len(source) for source in sources])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)  # (B, S)
        ids = np.zeros_like(mask)
        ids[mask.astype(bool)] = np.concatenate([np.array(source) for source in sources])
        names = [output.name for output in self.encoder.get_outputs()]
        return dict(zip(names, self.encoder.run(names, {"input_ids": ids, "attention_mask": mask})))

    def _one_by_one(
        self, sources: list[list[int]], search: GenerationOptions, rng: np.random.Generator
    ) -> list[tuple[tuple[int, ...], float]]:
        """Return for each source the symbols of a greedy or sampled target, eos included, and their log P."""
        tokens: list[list[int]] = [[] for _ in sources]
        totals = [0.0] * len(sources)
        for rows, chosen, scores in self._walk(sources, search, rng):
            for row, token, score in zip(rows, chosen, scores):
                tokens[row].append(token)
                totals[row] += score
        return [(tuple(row), total) for row, total in zip(tokens, totals)]

    def _walk(
        self, sources: list[list[int]], search: GenerationOptions, rng: np.random.Generator
    ) -> Iterator[tuple[list[int], list[int], list[float]]]:
        """Yield at each step the unfinished sources, the symbols chosen for them, and these symbols' log P."""
        decoding = _Decoding(self, sources, search, search.top_k if search.do_sample else 1)
        rows, eos_ids = list(range(len(sources))), set(search.eos_ids)
        chosen = np.full(len(sources), search.decoder_start_token_id)
        for length in range(search.most):
            scores, symbols = decoding.step(chosen, length)
            if search.do_sample:
                column = np.arange(len(rows)), draw(scores, search, rng)
                scores, symbols = scores[column], symbols[column]
            chosen = symbols.reshape(-1)
            tokens = chosen.tolist()
            yield rows, tokens, scores.reshape(-1).tolist()
            running = [number for number, token in enumerate(tokens) if token not in eos_ids]
            if not running:
                return
            if len(running) < len(rows):
                rows, chosen = [rows[number] for number in running], chosen[running]
                decoding.select(running, running)
            else:
                decoding.select(None)

    def _beam_search(
        self, sources: list[list[int]], search: GenerationOptions
    ) -> list[list[tuple[tuple[int, ...], float]]]:
        """Return for each source its best targets, eos included, and their log P."""
        width = search.num_beams
        decoding = _Decoding(self, sources, search, max(2, 1 + len(search.eos_ids)) * width, width)
        active = beams = [Beam(search) for _ in sources]
        previous: np.ndarray | list[int] = np.full(len(sources) * width, search.decoder_start_token_id)
        for length in range(search.most):
            totals = [total for beam in active for total in beam.totals]
            for beam, *candidates in zip(active, *(part.tolist() for part in decoding.step(previous, length, totals))):
                beam.advance(*candidates, decoding.vocabulary)
            running = [number for number, beam in enumerate(active) if not beam.done]
            if not running:
                break
            rows = [number * width + origin for number in running for origin in active[number].origins]
            decoding.select(rows, running if len(running) < len(active) else None)
            active = [active[number] for number in running]
            previous = [tokens[-1] for beam in active for tokens in beam.running]
        best_of_each = [beam.finished[: search.num_return_sequences] for beam in beams]
        return [[(tokens, total) for _, total, tokens in finished] for finished in best_of_each]


@functools.cache
def _warn_of(feature: str) -> None:
    logger.warning("the feature %s is not in the training data: the model reads it as an unknown one", feature)


class _Decoding:
    """The rows being decoded: memory of the sources and states of the rows, bound to the graph of a step.

    Args:
        number: how many continuations of each source the search wants to know, the best ones; 0: all.
        width: how many rows read one source.
    """

    def __init__(
        self,
        runtime: RnnSeq2SeqRuntime,
        sources: list[list[int]],
        search: GenerationOptions,
        number: int,
        width: int = 1,
    ):
        self.inputs = runtime._read(sources)
        self.decoder_step, self.search, self.width = runtime.decoder_step, search, width
        self.states = [name for name in self.inputs if name.startswith("state.")]
        self.inputs |= {name: self.inputs[name].repeat(width, axis=0) for name in self.states}
        self.vocabulary = self.decoder_step.get_outputs()[0].shape[1]
        most = self.vocabulary * width
        self.inputs["best"] = np.array([min(number, most) or most])
        self.inputs["allowed"] = np.zeros(self.vocabulary, np.float32)
        self.inputs["allowed"][search.forbidden(0)] = -np.inf
        self._bind(len(sources) * width)

    def _bind(self, rows: int) -> None:
        self.inputs["previous_ids"] = np.zeros(rows, np.int64)
        self.inputs["totals"] = np.zeros((rows, 1), np.float32)
        self.inputs["grouping"] = np.array([rows // self.width, -1])
        self.binding = self.decoder_step.io_binding()
        given = (*_OF_SEARCH, *(graph_input.name for graph_input in self.decoder_step.get_inputs()))
        for name in given:
            self.inputs[name] = np.ascontiguousarray(self.inputs[name])
            self.binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(self.inputs[name]))
        shape = (rows // self.width, *self.inputs["best"])
        self.best = np.empty(shape, np.float32), np.empty(shape, np.int64)
        self.moves = [(self.inputs[name], np.empty_like(self.inputs[name])) for name in self.states]
        names = ["best_scores", "best_places", *(f"new_{name}" for name in self.states)]
        for name, array in zip(names, [*self.best, *(new for _, new in self.moves)]):
            self.binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def step(
        self, previous_ids: np.ndarray | list[int], length: int, totals: list[float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best continuations (B, K) after these symbols (N,) of targets of this length, best first.

        Returns:
            log P, with `totals` (N,) added, and row * vocabulary + symbol; both valid until the next step.
        """
        self.inputs["previous_ids"][:] = previous_ids
        if totals is not None:
            self.inputs["totals"][:, 0] = totals
        if length == self.search.least > 0:  # eos is allowed from here on
            self.inputs["allowed"][:] = 0
            self.inputs["allowed"][self.search.forbidden(length)] = -np.inf
        self.decoder_step.run_with_iobinding(self.binding)
        return self.best

    def select(self, rows: list[int] | None, sources: list[int] | None = None) -> None:
        """Continue row i from row rows[i] (None: i) after the step, of these sources (None: all) of as many rows."""
        for state, new in self.moves:
            if rows is None:
                state[:] = new
            else:
                new.take(rows, axis=0, out=state[: len(rows)], mode="clip")
        if rows is not None and sources is not None:
            for name, array in self.inputs.items():
                if name in self.states:
                    self.inputs[name] = array[: len(rows)]
                elif name.startswith("source."):
                    self.inputs[name] = array[sources]
            self._bind(len(rows))


def main(arguments: list[str]) -> None:
    """Write the target of each text, or line of the standard input (UTF-8), as a line; of a blank one, a blank."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict", newline=None)  # newline: all kinds
    try:
        runtime = RnnSeq2SeqRuntime.from_pretrained(Path(__file__).parent)
        for text in arguments or (line.removesuffix("\n") for line in sys.stdin):
            text.encode("utf-8")  # an argument may be none
            answer = "" if runtime.is_blank(text) else runtime.generate(text)[0][0].text
            line = re.sub("[\r\n]", " ", answer or "")
            sys.stdout.write((printable(line) if sys.stdout.isatty() else line) + "\n")
    except Exception as error:  # those of onnxruntime and tokenizers have nothing else in common
        sys.exit(printable(f"error: {'input, wanted UTF-8: ' * isinstance(error, UnicodeError)}{error}"))


if __name__ == "__main__":
    main(sys.argv[1:])
