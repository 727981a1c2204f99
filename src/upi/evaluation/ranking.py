"""Orders, ranks and rank correlations of many rows at once, on the device where they are.

Guards against rank correlations that cost more than the maps: counted row by row by a general library they
take longer than a network's pass on a CPU, and leave a GPU idle.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Rows of so many values are compared pair by pair; longer ones are merged from such.
DIRECT = 16


def _ascending(values: Tensor) -> Tensor:
    """Whole numbers (..., P) in ascending order."""
    if values.device.type == "cpu":  # NumPy sorts with vector instructions, PyTorch without
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


def ordered(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, P) in ascending order and the places (N, P) where their values stood; equals keep their order.

    Args:
        values: float32 or float64. Where NaN go is not defined.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        found = values.sort(dim=1, stable=True)
        return found.values, found.indices
    # A float and its place in one whole number each: half the time of sorting places by their floats.
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # in the order of the floats
    keys = _ascending(bits.long() << 32 | torch.arange(values.shape[1]))
    order = keys & 0xFFFFFFFF
    return values.gather(1, order), order


def _equal_to_last(ascending: Tensor) -> Tensor:
    """Whether each value (N, P) equals the one before it."""
    found = torch.zeros_like(ascending, dtype=torch.bool)
    torch.eq(ascending[:, 1:], ascending[:, :-1], out=found[:, 1:])
    return found


def mean_ranks(ascending: Tensor, order: Tensor) -> Tensor:
    """Ranks (N, P) from 0 of rows as ``ordered`` gives them, in float64; equals share their mean rank."""
    count = ascending.shape[1]
    places = torch.arange(count, dtype=torch.float64, device=order.device).repeat(len(ascending), 1)
    again = _equal_to_last(ascending)
    shared = again.clone()
    shared[:, :-1] |= again[:, 1:]
    tied = shared.flatten().nonzero()[:, 0]
    if len(tied):
        first = (~again.flatten()[tied]).nonzero()[:, 0]
        sizes = torch.diff(first, append=first.new_tensor([len(tied)]))
        means = (tied[first] % count).double() + (sizes - 1) / 2
        places.view(-1)[tied] = means.repeat_interleave(sizes)
    return torch.empty_like(places).scatter_(1, order, places)


def equal_pairs(ascending: Tensor) -> Tensor:
    """How many pairs of equal values each ascending row (N, P) has, (N,)."""
    places = torch.arange(ascending.shape[1], device=ascending.device)
    first = torch.where(_equal_to_last(ascending), 0, places).cummax(dim=1).values
    return (places - first).sum(1)


def inversions(values: Tensor) -> Tensor:
    """How many pairs of each row (N, P) of whole numbers stand in descending order, (N,); equals do not.

    Merge sort of all rows at once: two ascending blocks of B values are sorted together, each value with
    a last bit that says which block it is from. Where those of the second come to stand says how many of the
    first are larger.
    """
    rows, count = values.shape
    size = max(DIRECT, 1 << (count - 1).bit_length())
    whole = torch.nn.functional.pad(values, (0, size - count), value=int(values.max()) + 1)
    short = whole.view(rows, -1, DIRECT).transpose(1, 2).contiguous()
    found = torch.zeros(rows, dtype=torch.int64, device=values.device)
    for distance in range(1, DIRECT):
        found += (short[:, :-distance] > short[:, distance:]).flatten(1).sum(1)
    whole, block = _ascending(whole.view(rows, -1, DIRECT)), DIRECT
    while block < size:
        places = torch.arange(2 * block, device=values.device)
        merged = _ascending(2 * whole.view(rows, -1, 2 * block) + (places >= block))
        late = ((merged & 1) * places).sum((1, 2))
        found += size // (2 * block) * (block * block + block * (block - 1) // 2) - late
        whole, block = merged >> 1, 2 * block
    return found


def tau_b(first: Tensor, second: Tensor) -> Tensor:
    """Kendall's tau-b (N,) of rows (N, P) of whole numbers in [0, 2^31); NaN where one is constant."""
    pairs = first.shape[1] * (first.shape[1] - 1) // 2
    base = second.max() + 1
    both = _ascending(first * base + second)  # by the first, and among its equals by the second
    ties = [equal_pairs(_ascending(each)) for each in (first, second)]
    agreeing = pairs - ties[0] - ties[1] + equal_pairs(both) - 2 * inversions(both % base)
    return agreeing / ((pairs - ties[0]).double() * (pairs - ties[1]).double()).sqrt()
