"""Whether a fast path may be taken: the switch of all of them, and whether a module is its class's own.

A fast path computes from the weights of modules what calling the modules would give. It may only do so where a call is
nothing else: where no subclass, hook, wrapper, adapter or other kind of tensor stands in for what it replaces, and
where nobody has switched it off. This file travels to the Hub: it imports only the standard library and torch.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn


Kind = TypeVar("Kind", bound=type)


class Acceleration(NamedTuple):
    """A way to compute the same sooner."""

    what: str
    twin: str  # the plain code whose result it gives


ACCELERATIONS = {
    "fused": Acceleration("torch's kernels for whole sequences", "recurrence.run_stepwise"),
    "packed": Acceleration("a recurrence over real positions only", "recurrence.RecurrentStack._run_layers"),
    "lookup": Acceleration("W e_y looked up in a table W E^T", "recurrence.RecurrentStack._run_layers"),
    "deferred": Acceleration("weight gradients of all steps in one product", "autograd's sum over the steps"),
    "shrinking": Acceleration("sequences that are over leave the loop", "decoder.RnnSeq2SeqDecoder._run_steps"),
    "trimmed": Acceleration("no decoder steps behind the last label", "a loss over all steps"),
    "chunked": Acceleration("a loss a few rows of logits at a time", "loss.cross_entropy of all logits"),
    "later": Acceleration("logits of a training step made when they are read", "logits made at once"),
    "onednn": Acceleration("matrix products by oneDNN, outside autograd", "torch.addmm"),
    "prepared": Acceleration("a search's weights in oneDNN's layout", "torch.nn.functional.linear"),
    "words": Acceleration("each distinct word of a batch read once", "embedding.CharacterEncoder._read"),
    "search": Acceleration("greedy and beam search of our own", "transformers' own search"),
}
_ALL = frozenset(ACCELERATIONS)
_VARIABLE = "HF_RNN_SEQ2SEQ_PLAIN"


def _off_in_this_process() -> frozenset[str]:
    """Return the accelerations that the environment switches off."""
    value = os.environ.get(_VARIABLE, "")
    if value in ("", "0"):
        return frozenset()
    names = _ALL if value == "1" else frozenset(value.split(","))
    if not names <= _ALL:
        raise ValueError(
            f"the environment variable {_VARIABLE} must be 0, 1 or some of {','.join(ACCELERATIONS)}; got {value!r}"
        )
    return names


_OFF = _off_in_this_process()
_off: ContextVar[frozenset[str]] = ContextVar("off", default=_OFF)


@contextmanager
def plain(*names: str) -> Iterator[None]:
    """
    In this context (of this thread) no fast path is taken: modules are called, step by step, as the papers write it.

    The environment variable `HF_RNN_SEQ2SEQ_PLAIN=1` does the same for a whole process, `=lookup,packed` switches some
    of `ACCELERATIONS` off.

    Args:
        names: Only these accelerations are switched off; none: all are.
    """
    unknown = set(names) - _ALL
    if unknown:
        raise ValueError(f"plain() knows {', '.join(ACCELERATIONS)}; got {', '.join(sorted(unknown))}")
    token = _off.set(_off.get() | (frozenset(names) or _ALL))
    try:
        yield
    finally:
        _off.reset(token)


def is_on(name: str) -> bool:
    """Whether one of `ACCELERATIONS` is switched on."""
    return name not in _off.get()


def is_traced() -> bool:
    """Whether this runs to be compiled, exported or traced: then values cannot be looked at."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


# What fast paths replace: of each class the methods, as they are when it is defined.
_replaced: dict[type, dict[str, Any]] = {}


def replaceable(*methods: str) -> Callable[[Kind], Kind]:
    """
    Declare, as a decorator of a class of modules, that fast paths replace calls of its modules: no others' are.

    Args:
        methods: What is replaced, or relied on, beside `forward` and what was declared of its bases.
    """

    def declare(kind: Kind) -> Kind:
        inherited = next((_replaced[base] for base in kind.__mro__ if base in _replaced), {})
        own = {name: getattr(kind, name, None) for name in ("__call__", "forward", *methods)}
        _replaced[kind] = {**inherited, **own}
        return kind

    return declare


for _kind in (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ModuleList):
    replaceable()(_kind)


def is_own(module: nn.Module, *methods: str) -> bool:
    """
    Whether these methods of a module are those of its declared class: neither a subclass, nor the object itself, nor
    a change of the class has put another one in their place.

    Args:
        module: The module; its children are not looked at.
        methods: By default all that were declared, and then the module must have no hooks either.
    """
    kind = next((kind for kind in type(module).__mro__ if kind in _replaced), None)
    if kind is None:
        return False
    declared = _replaced[kind]
    if not methods and _is_watched(module):
        return False
    if any(getattr(type(module), name, None) is not declared[name] for name in methods or declared):
        return False
    # On the object there may lie its own method: wrappers leave it behind when they are taken off.
    found = ((name, vars(module)[name]) for name in methods or declared if name in vars(module))
    return all(
        getattr(method, "__func__", method) is declared[name] and getattr(method, "__self__", None) is module
        for name, method in found
    )


def may_look(*modules: nn.Module, by: str | None = None) -> bool:
    """
    Whether a fast path may compute what calls of these modules and of all within them would give.

    False while tracing, where the switch is off, and where one of them is not its class's own (`is_own`) or has a
    parameter that is no plain tensor with values: one that is offloaded, quantised, pruned, parametrised, sharded.

    Args:
        modules: None: only the switch is asked.
        by: The name of the acceleration; by default any that is on will do.
    """
    if is_traced() or (_off.get() == _ALL if by is None else not is_on(by)):
        return False
    return all(
        is_own(part) and all(p is None or (is_dense(p) and not p.is_meta) for p in part._parameters.values())
        for module in modules
        for part in module.modules()
    )


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is torch's own kind, and no subclass (quantised, sharded) with operations of its own."""
    return type(tensor) in (Tensor, nn.Parameter)


def _is_watched(module: nn.Module) -> bool:
    """Whether something waits for the module's call, or takes its place."""
    hooks = (
        *(module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks),
        *("_hf_hook" in vars(module), "parametrizations" in module._modules),
    )
    return any(map(bool, hooks)) or module._compiled_call_impl is not None or bool(_has_any_global_hook())


_has_any_global_hook = torch.nn.modules.module._has_any_global_hook
