"""SmoothGrad: the average gradient map of noisy copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.errors import ConfigError
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.score import input_gradient
from upi.seeding import generator
from upi.types import Network


@dataclass(frozen=True)
class SmoothGrad:
    """Mean over Gaussian copies of the simple-gradient map (Smilkov et al. 2017).

    I(x) = (1/m) sum_k reduce(d s_c(x + noise_k) / dx). The m noise images are fixed by the
    seed and shared by all samples, so that the map is a function: the same image gives
    the same map in any batch, and map differences are not differences of noise.

    Attributes:
        samples: Copies m, at least 1.
        noise: Standard deviation in units of [0, 1] images; 0.15 as in the original paper
            (there relative to the pixel range). With 0 this is the simple gradient.
        seed: Fixes the noise images.
        score, reduce, normalize: As in ``Gradient``.

    Raises:
        ConfigError: ``samples`` is below 1 or ``noise`` is negative.
    """

    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise >= 0:
            raise ConfigError(
                f"SmoothGrad needs samples >= 1 and noise >= 0, got {self.samples} and {self.noise}"
            )

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        total = torch.zeros_like(x[:, 0])
        for copy in range(self.samples):
            rng = generator(self.seed, "smoothgrad", copy)
            noise = self.noise * torch.randn(x.shape[1:], generator=rng).to(x)
            gradient = input_gradient(model, x + noise, target, self.score)
            total = total + reduce_channels(gradient, self.reduce)
        return normalise_maps(total / self.samples, self.normalize)
