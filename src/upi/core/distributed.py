"""Sum and broadcast over workers; without ``torch.distributed`` they do nothing.

Perturbations are tiny, so data is sharded and the perturbation replicated: the
sum here is all the communication the library needs.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def shard() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if _active() else 0


def all_sum(value: Tensor) -> Tensor:
    """Sum of ``value`` over all workers, known to each of them."""
    if _active():
        value = value.clone()
        dist.all_reduce(value)
    return value
