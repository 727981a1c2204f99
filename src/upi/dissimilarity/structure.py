"""Structural similarity of maps, and one minus it."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.dissimilarity.norms import safe
from upi.dissimilarity.registry import DISSIMILARITIES


@lru_cache(maxsize=8)
def _window(size: int, deviation: float) -> Tensor:
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-offset.square() / (2 * deviation**2))
    window = line[:, None] * line[None, :]
    return (window / window.sum())[None, None]


def structural_similarity(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Mean structural similarity SSIM (N,), in [-1, 1]; Wang et al. 2004.

    Gaussian window of 11 pixels (smaller for smaller maps) and deviation 1.5, constants
    K1 = 0.01 and K2 = 0.03, window positions inside the map only. The dynamic range is
    that of each clean map, since saliency maps have no fixed one.
    """
    size = min(11, clean.shape[1], clean.shape[2])
    window = _window(size, 1.5).to(clean)
    low, high = clean.detach().amin((1, 2)), clean.detach().amax((1, 2))
    span = (high - torch.minimum(low, torch.zeros_like(low)))[:, None, None, None]
    c1, c2 = safe((0.01 * span) ** 2), safe((0.03 * span) ** 2)
    a, b = clean[:, None], perturbed[:, None]
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    var_a = F.conv2d(a * a, window) - mean_a * mean_a
    var_b = F.conv2d(b * b, window) - mean_b * mean_b
    covariance = F.conv2d(a * b, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))


@DISSIMILARITIES.add("ssim", "1 − SSIM", order=5)
def ssim(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - SSIM, in [0, 2]; see ``structural_similarity``."""
    return 1 - structural_similarity(clean, perturbed)
