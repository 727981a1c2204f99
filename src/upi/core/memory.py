"""Work on many images at once, in halves where the memory does not suffice.

Only for work whose result for an image does not depend on the images beside it: halves then give the same
numbers up to rounding. What fitted once is remembered, so that one failure is enough.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch

from upi.core.errors import FallbackWarning, MemoryLimitError

T = TypeVar("T")
#: What PyTorch says where the memory of the machine is at its end.
WORDS = ("can't allocate memory", "not enough memory", "out of memory")
#: Numbers that images hold which go through a network together where nothing else is asked for: 1,000 of
#: 3 x 32 x 32, 20 of 3 x 224 x 224.
NUMBERS = 3_072_000
#: Images that fit at once, by whose work it is and its kind.
_FITTING: WeakKeyDictionary[object, dict[str, int]] = WeakKeyDictionary()


def together(shape: Sequence[int], most: int) -> int:
    """Images (C, H, W) to put through a network together: ``most`` small ones, fewer large ones."""
    return max(1, min(most, NUMBERS // max(1, prod(shape))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, on a GPU or here."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def _tried(work: Callable[[slice], T], some: slice) -> tuple[T] | MemoryError:
    """What the work gives, or that memory did not suffice; nothing of a failure is held on to."""
    try:
        return (work(some),)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return MemoryError((str(error).splitlines() or ["out of memory"])[0])


def in_halves(work: Callable[[slice], T], count: int, *, owner: object, kind: str) -> list[T]:
    """``work`` on slices that cover ``range(count)`` in order: one, or as many as memory asks for.

    Args:
        work: Takes a slice of the images, returns their part of the result.
        count: Images.
        owner: Whose memory it is: what fits is remembered as long as this lives.
        kind: Of the work; what fits is remembered for each.

    Raises:
        MemoryLimitError: It does not suffice for one image.
    """
    if count == 0:
        return [work(slice(0, 0))]
    known = _FITTING.setdefault(owner, {})
    size = min(count, known.get(kind, count))
    found: list[T] = []
    first = 0
    while first < count:
        got = _tried(work, slice(first, min(first + size, count)))
        if isinstance(got, tuple):
            found.append(got[0])
            first += size
            continue
        if size == 1:
            raise MemoryLimitError(f"{kind} of a single image do not fit in memory: {got}")
        size = (size + 1) // 2
        known[kind] = size
        _release()
        warnings.warn(
            f"{kind} of more images at once did not fit in memory: going on with {size} at a time, which "
            "changes no figure beyond rounding",
            FallbackWarning,
            stacklevel=3,
        )
    return found


def with_fewer(work: Callable[[torch.Tensor], T], x: torch.Tensor, *, otherwise: T | None = None) -> T:
    """``work`` on a few images (N, ...), or on the first half of them, and so on, where memory asks for it.

    For checks, to which fewer images say less and nothing else.

    Args:
        work: What is done.
        x: Images.
        otherwise: Its result where not even one image fits; None raises.

    Raises:
        MemoryLimitError: It does not suffice for one image.
    """
    while True:
        got = _tried(lambda _, some=x: work(some), slice(0, len(x)))  # type: ignore[misc]
        if isinstance(got, tuple):
            return got[0]
        if len(x) <= 1:
            if otherwise is not None:
                return otherwise
            raise MemoryLimitError(f"a check with a single image does not fit in memory: {got}")
        x = x[: (len(x) + 1) // 2]
        _release()


def _release() -> None:
    """Give back what the failed attempt took."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
