"""Structural similarity of maps, and one minus it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from upi.core.placing import placed
from upi.dissimilarity.norms import safe
from upi.dissimilarity.registry import DISSIMILARITIES

#: Side of the window in pixels and its deviation, of Wang et al. 2004.
SIDE, DEVIATION = 11, 1.5


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _band(length: int, size: int) -> Tensor:
    """Matrix (length, length - size + 1) whose columns are the window's line at every place of an axis."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-offset.square() / (2 * DEVIATION**2))
    band = torch.zeros(length, length - size + 1, dtype=torch.float64)
    places = torch.arange(band.shape[1])
    for step, weight in enumerate(line / line.sum()):
        band[places + step, places] = weight
    return band


def _blurred(maps: Tensor) -> Tensor:
    """Means (..., H', W') over the window at every place inside of maps (..., H, W).

    The window is a product of two lines, and a matrix product with all places of a line costs an eighth of
    a convolution at 224 pixels and a quarter at 512.
    """
    size = min(SIDE, *maps.shape[-2:])
    high, wide = (placed(_band(length, size), maps) for length in maps.shape[-2:])
    return high.T @ (maps @ wide)


@dataclass(frozen=True)
class Windows:
    """Maps with their means and variances over the window.

    Attributes:
        maps: (N, H, W).
        mean, variance: (N, H', W'), one for each place of the window inside the map.
    """

    maps: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Windows:
        """Of maps (N, H, W)."""
        mean, square = _blurred(torch.stack([maps, maps * maps]))
        return cls(maps, mean, square - mean * mean)

    def similarity(self, other: Windows) -> Tensor:
        """SSIM (N,) of other maps to these; see ``structural_similarity``."""
        low, high = self.maps.detach().amin((1, 2)), self.maps.detach().amax((1, 2))
        span = (high - torch.minimum(low, torch.zeros_like(low)))[:, None, None]
        c1, c2 = safe((0.01 * span) ** 2), safe((0.03 * span) ** 2)
        product = self.mean * other.mean
        covariance = _blurred(self.maps * other.maps) - product
        luminance = (2 * product + c1) / (self.mean * self.mean + other.mean * other.mean + c1)
        structure = (2 * covariance + c2) / (self.variance + other.variance + c2)
        return (luminance * structure).mean((1, 2))


def structural_similarity(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Mean structural similarity SSIM (N,), in [-1, 1]; Wang et al. 2004.

    Gaussian window of 11 pixels (smaller for smaller maps) and deviation 1.5, constants
    K1 = 0.01 and K2 = 0.03, window positions inside the map only. The dynamic range is
    that of each clean map, since saliency maps have no fixed one.
    """
    return Windows.of(clean).similarity(Windows.of(perturbed))


@DISSIMILARITIES.add("ssim", "1 − SSIM", order=5)
def ssim(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - SSIM, in [0, 2]; see ``structural_similarity``."""
    return 1 - structural_similarity(clean, perturbed)
