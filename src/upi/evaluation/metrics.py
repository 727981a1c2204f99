"""What is measured on each pair of maps: without gradients, (N,) each.

These stand beside the dissimilarity that was optimised, because an attack can raise one
number and leave the picture alone. Whatever several figures, or several comparisons with the same clean
maps, need of a map is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from upi import dissimilarity
from upi.dissimilarity.structure import Windows
from upi.evaluation.ranking import mean_ranks, ordered, tau_b
from upi.perturbation.ball import Ball

#: Pixels at most whose pairs Kendall's tau counts; of larger maps as many are taken, fixed by the seed 0.
PAIRED = 4096
#: Pixels of ``top_100_overlap``.
TOP = 100


@lru_cache(maxsize=8)
def _paired(pixels: int) -> Tensor:
    return torch.randperm(pixels, generator=torch.Generator().manual_seed(0))[:PAIRED]


class Shown:
    """Maps (N, H, W), with what figures need of them.

    Attributes:
        maps: (N, H, W).
    """

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps.detach()

    @cached_property
    def pixels(self) -> Tensor:
        """(N, H W)."""
        flat = self.maps.flatten(1)
        return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Ranks (N, H W), and places (N, k) of the pixels that any figure counts as top, ascending."""
        ascending, order = ordered(self.pixels)
        ranks = mean_ranks(ascending, order)
        top = order[:, -max(TOP, dissimilarity.top_count(order.shape[1])) :].clone()
        return ranks.masked_fill_(self.pixels.isnan().any(1, keepdim=True), torch.nan), top

    @property
    def ranks(self) -> Tensor:
        """Ranks (N, H W) from 0 in float64; equal pixels share their mean rank, a map with NaN has none."""
        return self._sorted[0]

    def top(self, count: int) -> Tensor:
        """Places (N, count) of the largest pixels."""
        return self._sorted[1][:, -count:]

    @cached_property
    def paired(self) -> Tensor:
        """Whole numbers (N, P) in the order of at most ``PAIRED`` pixels."""
        ranks = self.ranks
        if ranks.shape[1] > PAIRED:
            ranks = ranks.index_select(1, _paired(ranks.shape[1]).to(ranks.device))
        return (2 * ranks.nan_to_num()).long()  # a mean rank is a whole number or a half

    @cached_property
    def windows(self) -> Windows:
        """Local means and variances."""
        return Windows.of(self.maps)


#: A figure (N,) of clean maps and perturbed ones.
MapMetric = Callable[[Shown, Shown], Tensor]


def _overlap(clean: Shown, perturbed: Shown, count: int) -> Tensor:
    marked = torch.zeros_like(clean.pixels).scatter(1, clean.top(count), 1.0)
    return marked.gather(1, perturbed.top(count)).mean(1)


def top_k_overlap(clean: Shown, perturbed: Shown) -> Tensor:
    """Share of the top 5 % pixels that the two maps have in common, in [0, 1]."""
    return _overlap(clean, perturbed, dissimilarity.top_count(clean.pixels.shape[1]))


def top_100_overlap(clean: Shown, perturbed: Shown) -> Tensor:
    """Share of the ``TOP`` largest pixels that two maps have in common, in [0, 1] (Ghorbani et al. 2019)."""
    return _overlap(clean, perturbed, min(TOP, clean.pixels.shape[1]))


def spearman(clean: Shown, perturbed: Shown) -> Tensor:
    """Spearman rank correlation over pixels, in [-1, 1]; ties share their mean rank."""
    middle = (clean.pixels.shape[1] - 1) / 2
    a, b = clean.ranks - middle, perturbed.ranks - middle
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return ((a * b).sum(1) / norms.clamp_min(1e-300)).to(clean.maps)


def kendall(clean: Shown, perturbed: Shown) -> Tensor:
    """Kendall's rank correlation (tau-b) over pixels, in [-1, 1]; over ``PAIRED`` of them in larger maps.

    0 where a map is constant, NaN where it has NaN.
    """
    missing = (clean.ranks[:, 0] + perturbed.ranks[:, 0]).isnan()
    found = tau_b(clean.paired, perturbed.paired).nan_to_num(0.0)
    return found.masked_fill(missing, torch.nan).to(clean.maps)


def ssim(clean: Shown, perturbed: Shown) -> Tensor:
    """Mean structural similarity, in [-1, 1]: ``upi.dissimilarity.structural_similarity``."""
    return clean.windows.similarity(perturbed.windows)


def mass_center_shift(clean: Shown, perturbed: Shown) -> Tensor:
    """Pixels by which the centre of mass moved: ``upi.dissimilarity.mass_center``."""
    return dissimilarity.mass_center(clean.maps, perturbed.maps)


def sensitivity(clean: Shown, perturbed: Shown) -> Tensor:
    """Relative l2 change of the map; of several draws the largest counts: Max-Sensitivity (Yeh et al.

    2019)."""
    size = torch.linalg.vector_norm(clean.maps, dim=(1, 2)).clamp_min(torch.finfo(clean.maps.dtype).tiny)
    found: Tensor = torch.linalg.vector_norm(perturbed.maps - clean.maps, dim=(1, 2)) / size
    return found


MAP_METRICS: dict[str, MapMetric] = {
    "top_k_overlap": top_k_overlap,
    "spearman": spearman,
    "ssim": ssim,
    "mass_center_shift": mass_center_shift,
    "kendall": kendall,
    "top_100_overlap": top_100_overlap,
    "max_sensitivity": sensitivity,
}


def realised_norm(x: Tensor, perturbed: Tensor, ball: Ball) -> Tensor:
    """Norm of what really changed, x' - x after clipping, (N,)."""
    return ball.size(perturbed - x)
