"""Where the mass of a map lies."""

from __future__ import annotations

import torch
from torch import Tensor

from upi.dissimilarity.norms import safe
from upi.dissimilarity.registry import DISSIMILARITIES


def _mass_center(maps: Tensor) -> Tensor:
    mass = maps.abs()
    total = safe(mass.sum((1, 2)))
    rows = torch.arange(maps.shape[1], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    return torch.stack([(mass.sum(2) @ rows) / total, (mass.sum(1) @ columns) / total], 1)


def mass_center_offset(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Vector in pixels (rows, columns) from the centre of |I'| to that of |I|, (N, 2)."""
    return _mass_center(clean) - _mass_center(perturbed)


@DISSIMILARITIES.add("mass_center", "shift of the centre of mass", order=7)
def mass_center(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Distance in pixels between the centres of ``|I|`` and ``|I'|`` (Ghorbani et al. 2019)."""
    distance: Tensor = torch.linalg.vector_norm(mass_center_offset(clean, perturbed), dim=1)
    return distance
