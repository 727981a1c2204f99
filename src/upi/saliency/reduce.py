"""Channel reduction and normalisation of maps: two separate, named choices.

Guards against comparing maps on different scales: every built-in map ends here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from upi.core.errors import unknown_name


def _absolute_sum(attribution: Tensor) -> Tensor:
    return attribution.abs().sum(1)


def _absolute_max(attribution: Tensor) -> Tensor:
    return attribution.abs().amax(1)


def _signed_sum(attribution: Tensor) -> Tensor:
    return attribution.sum(1)


def _unit_l1(maps: Tensor) -> Tensor:
    total = maps.abs().sum((1, 2), keepdim=True)
    return maps / torch.where(total > 0, total, torch.ones_like(total))


def _unit_l2(maps: Tensor) -> Tensor:
    total: Tensor = torch.linalg.vector_norm(maps, dim=(1, 2), keepdim=True)
    return maps / torch.where(total > 0, total, torch.ones_like(total))


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs_sum": _absolute_sum,
    "abs_max": _absolute_max,
    "sum": _signed_sum,
}
NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": _unit_l1,
    "l2": _unit_l2,
    "none": lambda maps: maps,
}


def reduce_channels(attribution: Tensor, how: str) -> Tensor:
    """Attributions (N, C, H, W) to maps (N, H, W): ``abs_sum``, ``abs_max`` or ``sum``.

    Raises:
        ConfigError: ``how`` is unknown.
    """
    if how not in REDUCTIONS:
        raise unknown_name("channel reduction", how, REDUCTIONS)
    return REDUCTIONS[how](attribution)


def normalise_maps(maps: Tensor, how: str) -> Tensor:
    """Scale maps (N, H, W) to unit ``l1`` or ``l2`` norm, or leave them: ``none``.

    A map that is zero everywhere stays zero.

    Raises:
        ConfigError: ``how`` is unknown.
    """
    if how not in NORMALISATIONS:
        raise unknown_name("map normalisation", how, NORMALISATIONS)
    return NORMALISATIONS[how](maps)
