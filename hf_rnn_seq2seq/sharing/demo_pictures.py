"""Pictures of the demo beside that of attention: what C holds, and the attention to sound.

A model without attention reads its whole source into one vector C. `context_by_prefix` computes the C of each prefix
of a source, so that one sees what each symbol changes in it; later symbols overwrite earlier ones. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


try:
    import numpy as np
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"pictures need the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'") from error
from ..model.bridge import context_vector, last_output


_QUIET = "#4a5560"
# In inches: so small that letters can be read on a phone, which shrinks a picture to its width.
_WIDTH_AND_HEIGHT = (4.8, 6.0)
_BLANKS = str.maketrans({" ": "␣", "\t": "⇥", "\n": "↵", "$": r"\$"})
# More labels than this cannot be read on an axis.
_MOST_LABELS = 40


@dataclass(frozen=True)
class ContextByPrefix:
    """What the encoder has after each symbol of a source.

    Args:
        context: (S, D) C of the prefix that ends with the symbol.
        change: (S,) Euclidean distance of C from that of the prefix before; of the first symbol from zero.
        norms: (S, L) Euclidean norm of each encoder layer's last state.
    """

    context: np.ndarray
    change: np.ndarray
    norms: np.ndarray


@torch.no_grad()
def context_by_prefix(model: Any, source: Sequence[int] | np.ndarray) -> ContextByPrefix:
    """Encode each prefix of a source.

    Args:
        model: an encoder-decoder of this package.
        source: the ids (S,) of a text, or the vectors (S, F) of an utterance.
    """
    config, rows = model.config, torch.as_tensor(np.asarray(source), device=model.device)
    length = len(rows)
    # Row t reads the first t + 1 symbols.
    mask = torch.ones(length, length, dtype=torch.long, device=model.device).tril()  # (S, S)
    repeated = rows.expand(length, *rows.shape)  # (S, S) or (S, S, F)
    inputs = {"input_features": repeated.to(model.dtype)} if rows.ndim == 2 else {"input_ids": repeated}
    encoded = model.get_encoder()(attention_mask=mask, return_dict=True, **inputs)
    memory, states = encoded.last_hidden_state, encoded.final_hidden  # (S, S', D), (S, L, D)
    last = last_output(memory, encoded.mask, config.bidirectional_encoder) if config.last_is_output else states[:, -1]
    context = context_vector(config.context_vector, memory, encoded.mask, last).float()  # (S, D)
    change = context.diff(dim=0, prepend=torch.zeros_like(context[:1])).norm(dim=-1)  # (S,)
    return ContextByPrefix(*(part.cpu().numpy() for part in (context, change, states.float().norm(dim=-1))))


def plot_context(found: ContextByPrefix, symbols: Sequence[str]) -> Figure:
    """Draw C after each symbol, how far each symbol moved it, and the norm of each layer's state.

    Args:
        found: of a source of S symbols.
        symbols: S labels.
    """
    places = np.arange(len(symbols))
    figure = Figure(figsize=_WIDTH_AND_HEIGHT, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=(3, 1, 1), sharex=True)
    largest = max(float(np.abs(found.context).max()), 1e-6)
    scale: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    image = top.imshow(found.context.T, aspect="auto", interpolation="none", **scale)
    figure.colorbar(image, ax=top, pad=0.01).ax.tick_params(labelsize=7)
    top.set_ylabel("dimension of C")
    top.set_title("C after each symbol", fontsize=10)
    middle.bar(places, found.change, color="#4c78a8")
    middle.set_ylabel("change of C")
    for layer, norms in enumerate(found.norms.T):
        bottom.plot(places, norms, marker="o", markersize=3, label=f"layer {layer + 1}")
    bottom.set_ylabel("norm of state")
    bottom.set_ylim(bottom=0)
    bottom.legend(fontsize=7, frameon=False)
    every = -(-len(symbols) // _MOST_LABELS)
    bottom.set_xticks(places[::every], [symbol.translate(_BLANKS) or "∅" for symbol in symbols[::every]])
    _quieten(top, middle, bottom)
    return figure


def plot_attention_to_sound(weights: np.ndarray, symbols: Sequence[str], seconds: float) -> Figure:
    """Draw the attention (T, S) of T symbols over a sound of so many seconds: time from left to right."""
    figure = Figure(figsize=(_WIDTH_AND_HEIGHT[0], min(8.0, 1.6 + 0.25 * len(symbols))), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        weights, cmap="Blues", vmin=0.0, aspect="auto", interpolation="none",
        extent=(0, seconds, len(symbols) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_xlabel("seconds")
    every = -(-len(symbols) // _MOST_LABELS)
    shown = range(0, len(symbols), every)
    axes.set_yticks(shown, [symbols[row].translate(_BLANKS) or "∅" for row in shown])
    _quieten(axes)
    return figure


def _quieten(*several: Any) -> None:
    for axes in several:
        axes.tick_params(labelsize=8, length=2, color=_QUIET)
        axes.spines[["top", "right"]].set_visible(False)
