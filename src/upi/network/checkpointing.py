"""Activation checkpointing, off: what it recomputes in the backward pass would miss the surrogate.

``torch.utils.checkpoint`` runs a part of the forward pass again while gradients are computed. By then the
surrogate's context is over, the recomputed part is that of the network itself, and the attack gradient is
wrong without a word. A pass without checkpoints gives the right one and costs memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from torch.utils import checkpoint

_WITHOUT: ContextVar[bool] = ContextVar("without_checkpoints", default=False)


#: What torch's checkpoints call before and after the part they wrap, under the names of its versions.
_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")


def _passive(generator: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    """``generator``, or nothing before and after while inside ``without_checkpoints``."""

    @wraps(generator)
    def run(*args: Any, **named: Any) -> Iterator[None]:
        if _WITHOUT.get():
            yield
        else:
            yield from generator(*args, **named)

    return run


def _reentrant(original: Any) -> type:
    """A stand-in for torch's reentrant checkpoint that runs the part as it is where asked to."""

    class CheckpointFunction:
        @staticmethod
        def apply(run: Any, preserve: Any, *args: Any) -> Any:
            return run(*args) if _WITHOUT.get() else original.apply(run, preserve, *args)

    return CheckpointFunction


@cache
def _install() -> None:
    """Put the stand-ins in place, once; outside ``without_checkpoints`` they do what torch does."""
    for name in _GENERATORS:
        if hasattr(checkpoint, name):
            setattr(checkpoint, name, _passive(getattr(checkpoint, name)))
    checkpoint.CheckpointFunction = _reentrant(checkpoint.CheckpointFunction)  # type: ignore[misc,assignment]


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Run checkpointed parts as they are, in this thread, while inside."""
    _install()
    token = _WITHOUT.set(True)
    try:
        yield
    finally:
        _WITHOUT.reset(token)
