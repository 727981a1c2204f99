"""SmoothGrad: the average gradient map of noisy copies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.core.placing import placed
from upi.core.seeding import generator
from upi.core.types import Network
from upi.saliency.copies import copied_gradients
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.registry import MAPS


@lru_cache(maxsize=8)
def noise_images(seed: int, copies: int, shape: torch.Size) -> Tensor:
    """Standard normal images (copies, C, H, W); remembered, because every call needs the same."""
    return torch.stack(
        [torch.randn(shape, generator=generator(seed, "smoothgrad", copy)) for copy in range(copies)]
    )


@MAPS.add("smoothgrad", "SmoothGrad map", order=3, paper={"score": "softmax"})
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
        unit: Each copy's map has l2 norm 1 before the mean is taken, so that a ceiling exists for the change
            of the expected map: see ``upi.evaluation.ceiling``.

    Raises:
        ConfigError: ``samples`` is below 1 or ``noise`` is negative.
    """

    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"
    unit: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise >= 0:
            raise ConfigError(
                f"SmoothGrad needs samples >= 1 and noise >= 0, got {self.samples} and {self.noise}"
            )

    @property
    def passes(self) -> int:
        """Passes through the network per image."""
        return self.samples

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        total = torch.zeros_like(x[:, 0])
        noise = placed(noise_images(self.seed, self.samples, x.shape[1:]), x)

        def copied(some: slice) -> Tensor:
            return x + self.noise * noise[some][:, None]

        for _, slopes in copied_gradients(model, x, copied, self.samples, target, self.score):
            maps = reduce_channels(slopes.flatten(0, 1), self.reduce)
            maps = normalise_maps(maps, "l2") if self.unit else maps
            total = total + maps.view(*slopes.shape[:2], *total.shape[1:]).sum(0)
        return normalise_maps(total / self.samples, self.normalize)


@MAPS.add("unit_smoothgrad", "unit SmoothGrad map", order=4, paper={"score": "softmax"})
def unit_smoothgrad(
    samples: int = 32, noise: float = 0.5, seed: int = 0, score: str = "logit", reduce: str = "abs_sum"
) -> SmoothGrad:
    """SmoothGrad over maps that have l2 norm 1 each: an explanation with a ceiling.

    The noise is larger than that of ``SmoothGrad`` because the ceiling is a function of radius / noise; the
    mean is left as it is, since its length says how much the copies agree. For images in [0, 1].
    """
    return SmoothGrad(samples, noise, seed, score, reduce, normalize="none", unit=True)
