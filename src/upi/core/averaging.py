"""The data loop: the mean of a per-sample function over batches and workers, with exact counts.

Guards against means of batch means, which a short last batch biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from upi.core.distributed import jointly
from upi.core.exact import exact_sum


class Numbered(Protocol):
    """A piece of a batch."""

    @property
    def piece(self) -> int:
        """Its number in the batch."""


P = TypeVar("P", bound=Numbered)
Q = TypeVar("Q", bound=Numbered, covariant=True)


class Shared(Protocol[Q]):
    """What a worker has of one batch."""

    @property
    def pieces(self) -> Sequence[Q]:
        """Its own pieces."""

    @property
    def cut(self) -> int:
        """Pieces of the batch, over all workers."""

    @property
    def count(self) -> int:
        """Samples of the batch, over all workers."""


def summed(share: Shared[P], values: Callable[[P], Sequence[Tensor]], like: Sequence[Tensor]) -> list[Tensor]:
    """Sums over all pieces of a batch, the same on every worker however many there are.

    Args:
        share: The batch.
        values: (piece) to tensors that are summed over its samples already.
        like: Tensors of their shapes and types.
    """
    parts = jointly(lambda: {piece.piece: values(piece) for piece in share.pieces})
    return exact_sum(parts, share.cut, like)


def mean_over(shares: Iterable[Shared[P]], values: Callable[[P], Tensor], like: Tensor) -> Tensor:
    """Mean over all samples of all workers of ``values(piece)``, whose first axis is the sample axis.

    Sums run in float64.

    Args:
        shares: Batches.
        values: (piece) to values (N, ...).
        like: A tensor of their remaining axes, on their device.

    Raises:
        ValueError: There is no batch.
    """
    total, count = torch.zeros_like(like, dtype=torch.float64), 0
    for share in shares:
        (part,) = summed(share, lambda piece: [values(piece).detach().double().sum(0)], [total])
        total = total + part
        count += share.count
    if not count:
        raise ValueError("mean over no samples")
    return total / count
