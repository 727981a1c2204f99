"""What is measured on each pair of maps: without gradients, (N,) each.

These stand beside the dissimilarity that was optimised, because an attack can raise one
number and leave the picture alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from upi import dissimilarity
from upi.perturbation.ball import Ball


def top_k_overlap(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Share of the top 5 % pixels that the two maps have in common, in [0, 1]."""
    before, after = dissimilarity.top_pixels(clean), dissimilarity.top_pixels(perturbed)
    marked = torch.zeros_like(clean.flatten(1)).scatter(1, before, 1.0)
    return marked.gather(1, after).mean(1)


def _ranks(maps: Tensor) -> Tensor:
    from scipy.stats import rankdata  # imported here: it costs a second

    return torch.from_numpy(rankdata(maps.detach().cpu().flatten(1).double().numpy(), axis=1))


def spearman(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Spearman rank correlation over pixels, in [-1, 1]; ties share their mean rank."""
    a, b = _ranks(clean), _ranks(perturbed)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return ((a * b).sum(1) / norms.clamp_min(1e-300)).to(clean)


MAP_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "top_k_overlap": top_k_overlap,
    "spearman": spearman,
    "ssim": dissimilarity.structural_similarity,
    "mass_center_shift": dissimilarity.mass_center,
}


def realised_norm(x: Tensor, perturbed: Tensor, ball: Ball) -> Tensor:
    """Norm of what really changed, x' - x after clipping, (N,)."""
    return ball.size(perturbed - x)
