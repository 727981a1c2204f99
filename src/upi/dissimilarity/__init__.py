"""How different two maps are, one file a family.

Each is a plain differentiable function (N, H, W) x (N, H, W) -> (N,) of (clean, perturbed), 0 for equal
maps, maximised by attacks and reported by the evaluation. Guards against gradients that turn into NaN where
the maps agree: norms take the zero subgradient there, so an attack must start away from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from upi.core.errors import unknown_name
from upi.core.types import Dissimilarity
from upi.dissimilarity.center_of_mass import mass_center, mass_center_offset
from upi.dissimilarity.correlation import cosine, pearson
from upi.dissimilarity.distance import relative_l2, squared_l2
from upi.dissimilarity.structure import ssim, structural_similarity
from upi.dissimilarity.target_map import TargetMap
from upi.dissimilarity.top_mass import TOP_SHARE, top_k, top_pixels

DISSIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relative_l2": relative_l2,
    "squared_l2": squared_l2,
    "cosine": cosine,
    "pearson": pearson,
    "ssim": ssim,
    "top_k": top_k,
    "mass_center": mass_center,
}


def resolve(dissimilarity: str | Dissimilarity) -> Dissimilarity:
    """Return the function for a name, or the callable itself.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if callable(dissimilarity):
        return dissimilarity
    if dissimilarity not in DISSIMILARITIES:
        raise unknown_name("dissimilarity", dissimilarity, DISSIMILARITIES)
    return DISSIMILARITIES[dissimilarity]


def name_of(choice: Any) -> str:
    """A name for records, the same in every run: of a function, a configured object, or itself."""
    if isinstance(choice, str):
        return choice
    named = getattr(choice, "__name__", None)
    return str(named or (repr(choice) if is_dataclass(choice) else type(choice).__qualname__))


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
    "top_k",
    "top_pixels",
]
