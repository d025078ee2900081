"""Decoding of a whole split: sources sorted by length, batches through `generate()`, n-best texts in their order.

Also the log-probabilities of given targets (one forward pass with teacher forcing), which score hypotheses whatever
search found them. Works with any encoder-decoder of `transformers`, of ids or of vectors (speech).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..data.slots import decode_with_slots
from ..model.delexicalisation import lexicalised


IGNORE_INDEX = -100  # labels that are not counted, as everywhere in torch and transformers


@dataclass(frozen=True)
class Hypothesis:
    """One decoded target.

    Args:
        text: the text, unknown symbols shown as `<unk>`.
        tokens: its ids, without start, eos and padding, slots included.
        score: natural log-probability of the tokens and eos, summed; `None` if it was not asked for.
    """

    text: str
    tokens: tuple[int, ...]
    score: float | None = None


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield item numbers in batches, longest first: little is padded, and memory runs out at once or never."""
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, wanted at least 1")
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _pad(sequences: Sequence[Sequence[int]], value: int, device: torch.device) -> torch.Tensor:
    """Return the sequences padded on the right, (B, longest)."""
    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences], device=device)


def _inputs(model: Any, sources: Sequence[Any]) -> dict[str, torch.Tensor]:
    mask = _pad([[1] * len(source) for source in sources], 0, model.device)  # (B, S)
    if getattr(sources[0], "ndim", 1) == 2:
        vectors = [torch.as_tensor(source, dtype=torch.float32) for source in sources]
        features = torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True)  # (B, S, F)
        return {"input_features": features.to(model.device, model.dtype), "attention_mask": mask}
    return {"input_ids": _pad(sources, model.config.pad_token_id, model.device), "attention_mask": mask}


def _hypothesis_tokens(sequence: Sequence[int], start: int, eos_ids: set[int], pad: int) -> tuple[int, ...]:
    """Return the tokens that `generate()` chose before the first eos, without the start symbol and padding."""
    chosen = sequence[1:] if sequence[0] == start else sequence
    before_eos = itertools.takewhile(lambda token: token not in eos_ids, chosen)
    return tuple(token for token in before_eos if token != pad)


@torch.no_grad()
def target_log_probabilities(
    model: Any, sources: Sequence[Any], targets: Sequence[Sequence[int]], batch_size: int = 64
) -> list[list[float]]:
    """Return the natural log-probability of every token of given targets, one list an item.

    Args:
        model: an encoder-decoder with `prepare_decoder_input_ids_from_labels`.
        sources, targets: as for `decode`; ids ending in `</s>`, as many lists.
        batch_size: items a forward pass.
    """
    was_training = model.training
    model.eval()
    result: list[list[float]] = [[] for _ in sources]
    for batch in _batches([len(source) for source in sources], batch_size):
        labels = _pad([targets[item] for item in batch], IGNORE_INDEX, model.device)
        logits = model(
            **_inputs(model, [sources[item] for item in batch]),
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=labels),
            use_cache=False,
        ).logits
        # (B, T, V) -> (B, T)
        scores = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1).tolist()
        for row, item in enumerate(batch):
            result[item] = scores[row][: len(targets[item])]
    model.train(was_training)
    return result


@torch.no_grad()
def decode(
    model: Any,
    sources: Sequence[Any],
    target_tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig,
    batch_size: int = 64,
    with_scores: bool = False,
    words: Sequence[Sequence[str]] | None = None,
    values: Sequence[Mapping[str, str]] | None = None,
) -> list[list[Hypothesis]]:
    """Decode sources into texts; return for each its hypotheses, best first as the search ranked them.

    Args:
        model: an encoder-decoder with `generate()`.
        sources: source ids, one list an item, or vectors, one array (S, F) an item.
        target_tokenizer: turns ids into text.
        generation_config: search, lengths, and `num_return_sequences` for n-best lists.
        batch_size: items decoded at a time.
        with_scores: also compute log-probabilities (one more forward pass).
        words: for each source what `unknown_words` gave for it; only a model with `copy_slots` needs them.
        values: for each source what `Preprocessing.values` gave for it, which takes the place of placeholders.

    Raises:
        ValueError: a model with `copy_slots` got no `words`.
    """
    if words is None:
        if getattr(model.config, "copy_slots", 0):
            raise ValueError(
                f"words: got none, but the model copies words from outside its vocabulary (copy_slots="
                f"{model.config.copy_slots}): give what unknown_words gave for the sources"
            )
        words = [[] for _ in sources]
    values = [{} for _ in sources] if values is None else values
    was_training = model.training
    model.eval()
    number = generation_config.num_return_sequences or 1
    eos = generation_config.eos_token_id
    eos_ids = set(eos) if isinstance(eos, list) else {eos}
    start, pad = generation_config.decoder_start_token_id, generation_config.pad_token_id
    found: list[list[tuple[int, ...]]] = [[] for _ in sources]
    for batch in _batches([len(source) for source in sources], batch_size):
        inputs = _inputs(model, [sources[item] for item in batch])
        sequences = model.generate(**inputs, generation_config=generation_config).tolist()  # (B * number, T)
        for row, sequence in enumerate(sequences):
            found[batch[row // number]].append(_hypothesis_tokens(sequence, start, eos_ids, pad))
    model.train(was_training)

    scores: Iterator[float | None] = itertools.repeat(None)
    if with_scores:
        repeated = [source for source, hypotheses in zip(sources, found) for _ in hypotheses]
        ended = [[*tokens, target_tokenizer.eos_token_id] for tokens in itertools.chain(*found)]
        scores = map(sum, target_log_probabilities(model, repeated, ended, batch_size))
    return [
        [
            Hypothesis(
                lexicalised(decode_with_slots(list(tokens), target_tokenizer, own, model.config), of_source),
                *(tokens, next(scores)),
            )
            for tokens in hypotheses
        ]
        for hypotheses, own, of_source in zip(found, words, values, strict=True)
    ]
