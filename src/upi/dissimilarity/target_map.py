"""Progress towards a chosen map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.dissimilarity.norms import norm_of, safe


@dataclass(frozen=True)
class TargetMap:
    """Progress towards a chosen map T: (||I - T|| - ||I' - T||) / ||I - T||, at most 1.

    The manipulation of Dombrowski et al. (2019) as something to maximise: 0 where nothing
    happened, 1 where the perturbed map is the target.

    Attributes:
        target: (H, W), on the scale of the maps (unit l1 for the built-in ones).

    Raises:
        ConfigError: The target is not a finite (H, W) map.
    """

    target: Tensor

    def __post_init__(self) -> None:
        if self.target.ndim != 2 or not torch.isfinite(self.target).all():
            raise ConfigError(
                f"the target map must be finite and (H, W), got shape {tuple(self.target.shape)}"
            )

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        """Values (N,) for maps (N, H, W)."""
        target = self.target.to(clean)
        start = norm_of(clean - target)
        return (start - norm_of(perturbed - target)) / safe(start)
