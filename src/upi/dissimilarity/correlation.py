"""One minus a correlation of maps."""

from __future__ import annotations

from torch import Tensor

from upi.dissimilarity.norms import norm_of, safe
from upi.dissimilarity.registry import DISSIMILARITIES


@DISSIMILARITIES.add("cosine", "1 − cosine", order=3)
def cosine(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - cosine of the angle between the maps, in [0, 2]."""
    product = (clean * perturbed).flatten(1).sum(1)
    return 1 - product / safe(norm_of(clean) * norm_of(perturbed))


@DISSIMILARITIES.add("pearson", "1 − Pearson correlation", order=4)
def pearson(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - Pearson correlation over pixels, in [0, 2]."""
    return cosine(clean - clean.mean((1, 2), keepdim=True), perturbed - perturbed.mean((1, 2), keepdim=True))
