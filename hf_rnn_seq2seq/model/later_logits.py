"""Logits of a training step, made only if something reads them.

The loss of a training step is made without the logits of all positions (`loss.py`), and few programs read them. Those
that do (`outputs.logits`, `outputs["logits"]`, `outputs[1]`, `compute_loss` of a Trainer) find them as in any other
model, with their gradients. This file travels to the Hub: it imports only the standard library, torch and
transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers.modeling_outputs import Seq2SeqLMOutput


def later_logits(make: Callable[[], Tensor], readout: Tensor, head: nn.Module) -> Any:
    """
    What `make` gives, made when it is first used.

    Args:
        make: Makes the logits (B, T, V).
        readout: What they are made of, (B, T, R).
        head: The output layer, which must not change until then.
    """
    return _LaterLogits(make, readout, head)


class _LaterLogits:
    """
    What stands for logits until they are used; used as a tensor, it is one.

    It is no tensor, so that what goes through all outputs of a model (accelerate under autocast,
    DistributedDataParallel) passes it by and makes nothing.
    """

    def __init__(self, make: Callable[[], Tensor], readout: Tensor, head: nn.Module) -> None:
        device = readout.device.type
        self._make, self._head, self._print = make, head, _print_of(head)
        self._autocast = (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        self.dtype = readout.dtype if self._autocast is None else torch.float32

    @cached_property
    def tensor(self) -> Tensor:
        """The logits; with gradients, and under the autocast of the forward pass, wherever they are asked for."""
        if not _same(self._print, _print_of(self._head)):
            raise RuntimeError(
                "logits of a training step were first asked for when the output layer had already been changed: read "
                "outputs.logits before the optimizer's step, or call the model with skip_logits=False"
            )
        with torch.enable_grad():
            if self._autocast is None:
                return self._make()
            device, dtype = self._autocast
            with torch.autocast(device, dtype):
                logits = self._make()
            return logits.float()  # as accelerate makes of the outputs of a model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    def __reduce__(self) -> Any:
        return torch.Tensor.detach, (self.tensor,)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(cls, _made, (args, kwargs or {}))
        return func(*args, **kwargs)


@dataclass
class RnnSeq2SeqLMOutput(Seq2SeqLMOutput):
    """As `Seq2SeqLMOutput`; `logits` may be made when they are asked for."""

    def __getattribute__(self, name: str) -> Any:
        return _made(super().__getattribute__(name))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return _made(super().__getitem__(key))
        names = list(self.keys())[key]
        return self[names] if isinstance(names, str) else tuple(self[name] for name in names)


def _made(value: Any) -> Any:
    return value.tensor if type(value) is _LaterLogits else value


def _print_of(module: nn.Module) -> list[tuple[int, Tensor | None]]:
    """What differs once parameters have changed: their versions, and their first columns for fused optimizers."""
    return [
        (parameter._version, parameter.detach()[..., :1].clone() if type(parameter) is nn.Parameter else None)
        for parameter in module.parameters()
    ]


def _same(one: list[tuple[int, Tensor | None]], other: list[tuple[int, Tensor | None]]) -> bool:
    return all(
        version == later and (column is None or after is None or torch.equal(column, after))
        for (version, column), (later, after) in zip(one, other)
    )
