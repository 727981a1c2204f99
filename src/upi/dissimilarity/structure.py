"""Structural similarity of maps, and one minus it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.dissimilarity.norms import safe
from upi.dissimilarity.registry import DISSIMILARITIES

#: Side of the window in pixels and its deviation, of Wang et al. 2004.
SIDE, DEVIATION = 11, 1.5


def _line(size: int) -> list[float]:
    """The window's line: it is the product of two such."""
    weights = [math.exp(-((place - (size - 1) / 2) ** 2) / (2 * DEVIATION**2)) for place in range(size)]
    return [weight / sum(weights) for weight in weights]


def _blurred(maps: Tensor) -> Tensor:
    """Means (..., H', W') over the window at every place inside of maps (..., H, W).

    Weighted sums of shifted maps, axis by axis: an eighth of the time of a convolution, and as exact however
    PyTorch is told to take products of float32 (``torch.set_float32_matmul_precision``), which matters where
    variances are differences of means.
    """
    first, *others = _line(min(SIDE, *maps.shape[-2:]))
    for axis in (-1, -2):
        places = maps.shape[axis] - len(others)
        blurred = first * maps.narrow(axis, 0, places)
        for shift, weight in enumerate(others, 1):
            blurred.add_(maps.narrow(axis, shift, places), alpha=weight)
        maps = blurred
    return maps


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
