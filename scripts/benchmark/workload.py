"""The work that benchmarks measure: by the model, by transformers' own search, by exported graphs; and its floor.

Each piece of work is a function that does it and says how much it was. The floor is what the arithmetic alone would
allow: the operations of the matrix products at the rate of one large product. Needs the extra `export`; must not be
imported by the model files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hf_rnn_seq2seq.model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from hf_rnn_seq2seq.model.fast_products import matrix_product
from hf_rnn_seq2seq.model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


# Does some work and says how much it was: target tokens, floating-point operations, or bytes.
Run = Callable[[], float]

STEPS = 30  # every search of `WORKS` makes exactly so many
RAGGED = (5, 30)  # shortest and longest sequence of a ragged batch
_LOWEST_ID = 4  # sources hold no special symbols
_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Shape:
    """A bidirectional LSTM encoder, an LSTM decoder with general attention, and the batch that is trained.

    Args:
        name: what it is called in tables.
        vocab_size: symbols of both sides.
        embedding_size: E.
        hidden_size: H of the decoder, and of both directions of the encoder together.
        layers: of each side.
        train_batch: sequences of a training batch.
        length: symbols of a source, and of a training target.
    """

    name: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    layers: int
    train_batch: int
    length: int

    def config(self, input_feeding: bool = False) -> RnnSeq2SeqConfig:
        """The configuration, without dropout."""
        return RnnSeq2SeqConfig(
            vocab_size=self.vocab_size,
            embedding_size=self.embedding_size,
            encoder_hidden_size=self.hidden_size,
            decoder_hidden_size=self.hidden_size,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            rnn_type="lstm",
            attention_type="general",
            input_feeding=input_feeding,
        )

    def model(self, input_feeding: bool = False, device: str = "cpu") -> RnnSeq2SeqForConditionalGeneration:
        """A random model, always the same one."""
        torch.manual_seed(0)
        model: Any = RnnSeq2SeqForConditionalGeneration(self.config(input_feeding))
        result: RnnSeq2SeqForConditionalGeneration = model.to(device).eval()
        return result


# A translator of sentences, and a model that pronounces words.
SHAPES = {
    "A": Shape("A", vocab_size=8000, embedding_size=256, hidden_size=512, layers=2, train_batch=64, length=30),
    "B": Shape("B", vocab_size=64, embedding_size=128, hidden_size=256, layers=1, train_batch=256, length=12),
}


@dataclass(frozen=True)
class Work:
    """Training steps (`batch` is None), or searches of `STEPS` symbols for `batch` sources with so many beams."""

    name: str
    batch: int | None = None
    beams: int = 1
    ragged: bool = False
    dtype: str | None = None  # None: that of the run


WORKS = {
    work.name: work
    for work in (
        Work("train"),
        Work("train_ragged", ragged=True),
        Work("train_bfloat16", dtype="bfloat16"),
        Work("greedy1", batch=1),
        Work("greedy64", batch=64),
        Work("beam5x1", batch=1, beams=5),
        Work("beam5x32", batch=32, beams=5),
    )
}


# ---- The work ---------------------------------------------------------------------------------------------------


def training_lengths(shape: Shape, ragged: bool) -> tuple[list[int], list[int]]:
    """The lengths of the sources and of the targets of a training batch."""
    if not ragged:
        return [shape.length] * shape.train_batch, [shape.length] * shape.train_batch
    generator = torch.Generator().manual_seed(3)
    sources, targets = torch.randint(RAGGED[0], RAGGED[1] + 1, (2, shape.train_batch), generator=generator).tolist()
    return sources, targets


def random_ids(shape: Shape, rows: int, length: int, seed: int = 0) -> Tensor:
    """Random symbols (rows, length)."""
    return torch.randint(_LOWEST_ID, shape.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def training_batch(shape: Shape, ragged: bool, device: str = "cpu") -> dict[str, Tensor]:
    """What a collator gives: ids, their mask and labels, padded on the right."""
    sources, targets = (torch.tensor(lengths)[:, None] for lengths in training_lengths(shape, ragged))
    mask = torch.arange(int(sources.max())) < sources
    pad = int(shape.config().pad_token_id or 0)
    labels = random_ids(shape, len(targets), int(targets.max()), seed=1)
    batch = {
        "input_ids": random_ids(shape, *mask.shape).masked_fill(~mask, pad),
        "attention_mask": mask.long(),
        "labels": labels.masked_fill(torch.arange(labels.shape[1]) >= targets, -100),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def training_step(
    model: RnnSeq2SeqForConditionalGeneration, batch: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> Run:
    """An optimizer step as the Trainer makes it, without clipping and schedule; in half precision under autocast."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    tokens = int((batch["labels"] != -100).sum())
    model.train()

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        return tokens

    return run


def searching_model(
    model: RnnSeq2SeqForConditionalGeneration, dtype: torch.dtype = torch.float32
) -> RnnSeq2SeqForConditionalGeneration:
    """A copy for searches, which a training of the model itself does not change."""
    copied: Any = copy.deepcopy(model)
    result: RnnSeq2SeqForConditionalGeneration = copied.to(dtype=dtype).eval()
    return result


def search(
    model: RnnSeq2SeqForConditionalGeneration, input_ids: Tensor, beams: int, steps: int = STEPS, stock: bool = False
) -> Run:
    """`generate()` of exactly `steps` symbols for each row of (B, S); `stock`: by the loops of transformers."""
    generator: Any = model  # the annotations of generate() have no place for a class of ours
    inputs = {"input_ids": input_ids.to(model.device), "attention_mask": torch.ones_like(input_ids).to(model.device)}

    def run() -> float:
        model.use_fast_generation = not stock
        output = generator.generate(
            **inputs, do_sample=False, num_beams=beams, min_new_tokens=steps, max_new_tokens=steps
        )
        if tuple(output.shape) != (len(input_ids), steps + 1):
            raise RuntimeError(f"generate() gave {tuple(output.shape)}, wanted {(len(input_ids), steps + 1)}")
        return len(input_ids) * steps

    return run


def exported_search(runtime: RnnSeq2SeqRuntime, input_ids: Tensor, beams: int, steps: int = STEPS) -> Run:
    """The same by the runtime."""
    sources = input_ids.tolist()

    def run() -> float:
        found = runtime.generate(sources, len(sources), num_beams=beams, min_new_tokens=steps, max_new_tokens=steps)
        return sum(len(hypotheses[0].tokens) for hypotheses in found)

    return run


def export_shape(shape: Shape, folder: Path, quantize: str | None) -> Path:
    """A random model of a shape, exported with a tokenizer whose words are w0, w1 ...; returns where to."""
    shape.model().save_pretrained(folder / "model")
    words = ["<unk>", "<pad>", "<s>", "</s>", *(f"w{number}" for number in range(_LOWEST_ID, shape.vocab_size))]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    specials = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **specials).save_pretrained(folder / "model")
    return export_model(folder / "model", folder / (quantize or "fp32"), quantize)


# ---- The floor -----------------------------------------------------------------------------------------------------


def gemm(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Run:
    """A large matrix product, as fast as torch can do it here; counts floating-point operations."""
    size = _GEMM_SIZE[device]
    a, b = torch.randn(2, size, size, device=device).to(dtype)

    def run() -> float:
        with torch.no_grad():
            matrix_product(a, b)
        return 2 * size**3

    return run


def weight_reading(weights: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Run:
    """The sum of so many weights, the least that has to read them all; counts bytes."""
    matrix = torch.randn(weights, device=device).to(dtype)

    def run() -> float:
        matrix.sum()
        return matrix.numel() * matrix.element_size()

    return run


def source_flops(shape: Shape) -> int:
    """
    Floating-point operations of the matrix products for one source position.

    A product of (m, k) and (k, n) has 2 m k n of them. In each layer either direction computes four gates of H/2 from
    the layer's input and its own state; the attention's keys are a product with an (H, H) matrix.
    """
    half, size = shape.hidden_size // 2, shape.hidden_size
    inputs = [shape.embedding_size] + [size] * (shape.layers - 1)
    return sum(2 * (2 * 4 * half * (width + half)) for width in inputs) + 2 * size * size


def step_weights(shape: Shape, input_feeding: bool) -> int:
    """Weights of the products of one decoder step: four gates of H a layer, the readout (2H to H), the output."""
    size = shape.hidden_size
    inputs = [shape.embedding_size + size * input_feeding] + [size] * (shape.layers - 1)
    return sum(4 * size * (width + size) for width in inputs) + 2 * size * size + size * shape.vocab_size


def target_flops(shape: Shape, source_length: int, input_feeding: bool) -> int:
    """As `source_flops` for one target symbol: its weights, and the attention's scores and mix over the source."""
    return 2 * step_weights(shape, input_feeding) + 2 * (2 * source_length * shape.hidden_size)


def floor_rate(
    shape: Shape, work: Work, input_feeding: bool, flops: float, bytes_read: float, width: int = 4
) -> float:
    """
    Target tokens a second if nothing took time but the matrix products, of real positions only.

    Training multiplies three times as much as its forward pass. A step of a search takes as long as its products or as
    reading its weights, whichever is longer: one source waits for the memory.

    Args:
        shape, work, input_feeding: what is done.
        flops: floating-point operations a second, of `gemm`.
        bytes_read: bytes a second, of `weight_reading`.
        width: bytes of a weight.
    """
    if work.batch is None:
        sources, targets = training_lengths(shape, work.ragged)
        forward = sum(
            s * source_flops(shape) + t * target_flops(shape, s, input_feeding) for s, t in zip(sources, targets)
        )
        return sum(targets) / (3 * forward / flops)
    encoder = work.batch * shape.length * source_flops(shape) / flops
    products = work.batch * work.beams * target_flops(shape, shape.length, input_feeding) / flops
    step = max(products, step_weights(shape, input_feeding) * width / bytes_read)
    return work.batch * STEPS / (encoder + STEPS * step)
