"""What becomes of the most salient pixels."""

from __future__ import annotations

from torch import Tensor

from upi.dissimilarity.norms import safe
from upi.dissimilarity.registry import DISSIMILARITIES

#: Share of pixels that count as the top of a map, in the evaluation and in ``top_k``.
TOP_SHARE = 0.05


def top_count(pixels: int, share: float = TOP_SHARE) -> int:
    """How many of so many pixels are the top: ceil(share * pixels), at least 1."""
    return max(1, -int(-share * pixels // 1))


def top_pixels(maps: Tensor, share: float = TOP_SHARE) -> Tensor:
    """Flat indices (N, k) of the k = ceil(share * H * W) largest pixels of each map."""
    pixels = maps.flatten(1)
    return pixels.topk(top_count(pixels.shape[1], share), dim=1).indices


@DISSIMILARITIES.add("top_k", "loss of top mass", order=6)
def top_k(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Share of the clean map's top mass that moved away (Ghorbani et al. 2019).

    1 - (mass of I' on the top 5 % of pixels of I) / (mass of I there), on maps of equal
    mass; below 0 where the top gained mass.
    """
    top = top_pixels(clean)
    kept = perturbed.flatten(1).gather(1, top).sum(1)
    return 1 - kept / safe(clean.flatten(1).gather(1, top).sum(1))
