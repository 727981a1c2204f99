"""Randomness as a function of (seed, stream, step, shard), never of global state.

A generator is derived afresh for each use, so a run can be resumed, split over
workers, or repeated to the bit, and no call disturbs the caller's own streams.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    """Return a CPU generator that depends only on its arguments.

    Args:
        seed: The user's seed.
        stream: What the numbers are for (``"start"``, ``"smoothing"``, ...).
        counters: Step, shard, draw: anything that must change the numbers.
    """
    key = f"{seed}/{stream}/{'/'.join(map(str, counters))}".encode()
    digest = hashlib.sha256(key).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def normal_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal numbers with the shape, type and device of ``x``.

    They are drawn on the CPU, so that every device sees the same numbers.
    """
    return torch.randn(x.shape, generator=rng, dtype=torch.float32).to(x)
