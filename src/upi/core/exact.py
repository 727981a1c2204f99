"""Sums over pieces and workers that come to the same bytes in every order.

Numbers of a fixed point can be added in any order; floating-point numbers cannot. So however many workers
there are, and whoever holds which piece, the sum is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from upi.core.distributed import least, talk, team

#: Bits of the whole numbers that sums are taken in, the sign aside.
BITS = 62


def exact_sum(parts: Mapping[int, Sequence[Tensor]], pieces: int, like: Sequence[Tensor]) -> list[Tensor]:
    """Sums of tensors over all pieces of all workers, bit by bit the same in any order.

    They are taken in 64-bit whole numbers: each tensor is measured in a power of two near 2^-60 of its
    largest entry over all pieces, so nothing depends on which worker holds what. A single piece is its own
    sum.

    Args:
        parts: This worker's pieces by number: tensors, each time of the same shapes. A sum over a number that
            is not finite is NaN.
        pieces: Pieces in all.
        like: Tensors of these shapes, for workers that have no piece, and for the type of the result.
    """
    many = team().size > 1
    if pieces == 1:
        alone = [held.to(each).contiguous() for held, each in zip(parts.get(0, like), like, strict=True)]
        if many:
            alone = [each.clone() for each in alone]
            owner = least(team().rank if 0 in parts else team().size)
            with talk():
                for each in alone:
                    dist.broadcast(each, src=owner)
        return alone
    sound = {number: [each.nan_to_num(0, 0, 0) for each in held] for number, held in parts.items()}
    peaks = [_peak(sound, place, each) for place, each in enumerate(like)]
    told = torch.stack([*peaks, _spoiled(parts, like)])
    if many:
        with talk():
            dist.all_reduce(told, dist.ReduceOp.MAX)
    *largest, spoiled = told.tolist()
    room = BITS - math.ceil(math.log2(pieces + 1))
    found = []
    for place, (peak, each) in enumerate(zip(largest, like, strict=True)):
        unit = 2.0 ** (room - math.frexp(peak)[1]) if peak > 0 else 1.0
        whole = [(held[place].double() * unit).round().long() for held in sound.values()]
        total = (_added(whole, each).double() / unit).to(each)
        if spoiled:
            bad = [(~held[place].isfinite()).long() for held in parts.values()]
            total = total.masked_fill(_added(bad, each) > 0, torch.nan)
        found.append(total)
    return found


def _added(whole: Sequence[Tensor], like: Tensor) -> Tensor:
    """Sum of whole numbers over this worker's pieces and all workers."""
    total = torch.zeros(like.shape, dtype=torch.int64, device=like.device)
    for each in whole:
        total += each
    if team().size > 1:
        with talk():
            dist.all_reduce(total)
    return total


def _peak(parts: Mapping[int, Sequence[Tensor]], place: int, like: Tensor) -> Tensor:
    """Largest size of this worker's entries in one place."""
    sizes = [held[place].abs().amax().double() for held in parts.values() if held[place].numel()]
    return torch.stack(sizes).amax() if sizes else like.new_zeros((), dtype=torch.float64)


def _spoiled(parts: Mapping[int, Sequence[Tensor]], like: Sequence[Tensor]) -> Tensor:
    """1 where an entry of this worker's is NaN or infinite, else 0."""
    good = all(bool(each.isfinite().all()) for held in parts.values() for each in held)
    return like[0].new_tensor(0.0 if good else 1.0, dtype=torch.float64)
