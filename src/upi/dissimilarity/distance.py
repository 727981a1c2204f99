"""Distances between maps."""

from __future__ import annotations

from torch import Tensor

from upi.dissimilarity.norms import norm_of, safe
from upi.dissimilarity.registry import DISSIMILARITIES


@DISSIMILARITIES.add("relative_l2", "relative ℓ2 change", order=1)
def relative_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2 / ||I||_2, in [0, inf): the figure the paper reports."""
    return norm_of(clean - perturbed) / safe(norm_of(clean))


@DISSIMILARITIES.add("squared_l2", "squared ℓ2 change", order=2)
def squared_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2^2, in [0, inf)."""
    return (clean - perturbed).square().flatten(1).sum(1)
