"""How different two maps are, one file a family.

Each is a plain differentiable function (N, H, W) x (N, H, W) -> (N,) of (clean, perturbed), 0 for equal
maps, maximised by attacks and reported by the evaluation. Guards against gradients that turn into NaN where
the maps agree: norms take the zero subgradient there, so an attack must start away from zero.
"""

from __future__ import annotations

from upi.core.naming import name_of
from upi.core.types import Dissimilarity
from upi.dissimilarity.center_of_mass import mass_center, mass_center_offset
from upi.dissimilarity.correlation import cosine, pearson
from upi.dissimilarity.distance import relative_l2, squared_l2
from upi.dissimilarity.registry import DISSIMILARITIES
from upi.dissimilarity.structure import ssim, structural_similarity
from upi.dissimilarity.target_map import TargetMap
from upi.dissimilarity.top_mass import TOP_SHARE, top_count, top_k, top_pixels


def resolve(dissimilarity: str | Dissimilarity) -> Dissimilarity:
    """Return the function for a name, or the callable itself.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if callable(dissimilarity):
        return dissimilarity
    return DISSIMILARITIES.find(dissimilarity)


__all__ = [
    "DISSIMILARITIES",
    "TOP_SHARE",
    "TargetMap",
    "cosine",
    "mass_center",
    "mass_center_offset",
    "name_of",
    "pearson",
    "relative_l2",
    "resolve",
    "squared_l2",
    "ssim",
    "structural_similarity",
    "top_count",
    "top_k",
    "top_pixels",
]
