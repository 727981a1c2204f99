"""The data loop: the mean of a per-sample function over a loader, with exact counts.

Guards against means of batch means, which a short last batch biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from upi.core.distributed import all_sum

T = TypeVar("T")


def weighted_mean(total: Tensor, count: int) -> Tensor:
    """``total / count`` where both are first summed over all workers."""
    counts = torch.tensor(float(count), dtype=torch.float64, device=total.device)
    return all_sum(total) / all_sum(counts).to(total.dtype)


def mean_over(batches: Iterable[T], values: Callable[[T], Tensor]) -> Tensor:
    """Mean over all samples of ``values(batch)``, whose first axis is the sample axis.

    Sums run in float64. Returns a tensor with the remaining axes.

    Raises:
        ValueError: There is no batch.
    """
    total: Tensor | None = None
    count = 0
    for batch in batches:
        value = values(batch).detach().double()
        total = value.sum(0) if total is None else total + value.sum(0)
        count += value.shape[0]
    if total is None:
        raise ValueError("mean over no samples")
    return weighted_mean(total, count)
