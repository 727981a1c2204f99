"""Distances between maps."""

from __future__ import annotations

from torch import Tensor

from upi.dissimilarity.norms import norm_of, safe


def relative_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2 / ||I||_2, in [0, inf): the figure the paper reports."""
    return norm_of(clean - perturbed) / safe(norm_of(clean))


def squared_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2^2, in [0, inf)."""
    return (clean - perturbed).square().flatten(1).sum(1)
