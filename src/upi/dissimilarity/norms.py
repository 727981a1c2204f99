"""Norms of maps, and denominators that are never zero."""

from __future__ import annotations

import torch
from torch import Tensor


def safe(denominator: Tensor) -> Tensor:
    """The denominator, or 1 where it is zero: a zero map changes by the size of the other one."""
    return torch.where(denominator > 0, denominator, torch.ones_like(denominator))


def norm_of(maps: Tensor) -> Tensor:
    """l2 norms (N,) of maps (N, H, W)."""
    norms: Tensor = torch.linalg.vector_norm(maps.flatten(1), dim=1)
    return norms
