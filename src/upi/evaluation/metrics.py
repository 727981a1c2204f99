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


#: Pixels at most whose pairs Kendall's tau counts; of larger maps as many are taken, fixed by the seed 0.
PAIRED = 4096
#: Pixels of ``top_100_overlap``.
TOP = 100


def kendall(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Kendall's rank correlation (tau-b) over pixels, in [-1, 1]; over ``PAIRED`` of them in larger maps."""
    from scipy.stats import kendalltau  # imported here: it costs a second

    flat = [maps.detach().cpu().flatten(1).double().numpy() for maps in (clean, perturbed)]
    if flat[0].shape[1] > PAIRED:
        order = torch.randperm(flat[0].shape[1], generator=torch.Generator().manual_seed(0))
        flat = [maps[:, order[:PAIRED].numpy()] for maps in flat]
    found = [float(kendalltau(a, b).statistic) for a, b in zip(*flat, strict=True)]
    return torch.tensor(found).nan_to_num(0.0).to(clean)


def top_100_overlap(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Share of the ``TOP`` largest pixels that two maps have in common, in [0, 1] (Ghorbani et al. 2019)."""
    count = min(TOP, clean[0].numel())
    before, after = (maps.flatten(1).topk(count, dim=1).indices for maps in (clean, perturbed))
    marked = torch.zeros_like(clean.flatten(1)).scatter(1, before, 1.0)
    return marked.gather(1, after).mean(1)


def sensitivity(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Relative l2 change of the map; of several draws the largest counts: Max-Sensitivity (Yeh et al.

    2019)."""
    size = torch.linalg.vector_norm(clean, dim=(1, 2)).clamp_min(torch.finfo(clean.dtype).tiny)
    found: Tensor = torch.linalg.vector_norm(perturbed - clean, dim=(1, 2)) / size
    return found


MAP_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "top_k_overlap": top_k_overlap,
    "spearman": spearman,
    "ssim": dissimilarity.structural_similarity,
    "mass_center_shift": dissimilarity.mass_center,
    "kendall": kendall,
    "top_100_overlap": top_100_overlap,
    "max_sensitivity": sensitivity,
}


def realised_norm(x: Tensor, perturbed: Tensor, ball: Ball) -> Tensor:
    """Norm of what really changed, x' - x after clipping, (N,)."""
    return ball.size(perturbed - x)
