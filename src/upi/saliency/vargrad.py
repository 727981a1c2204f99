"""VarGrad: the variance of the gradient over noisy copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.core.placing import placed
from upi.core.types import Network
from upi.saliency.copies import copied_gradients
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.registry import MAPS
from upi.saliency.smoothgrad import noise_images


@MAPS.add("vargrad", "VarGrad map", order=6, paper={"score": "softmax"})
@dataclass(frozen=True)
class VarGrad:
    """Variance over Gaussian copies of the gradient, pixel by pixel (Adebayo et al. 2018).

    I(x) = reduce(Var_k d s_c(x + noise_k) / dx), the biased variance over the m copies. As for
    ``SmoothGrad`` the noise images are fixed by the seed and shared by all samples. Large where the
    explanation itself is unsteady; zero for a linear network.

    Attributes:
        samples: Copies m, at least 2.
        noise: Standard deviation in units of [0, 1] images, above zero; 0.15 as for ``SmoothGrad``.
        seed: Fixes the noise images.
        score, reduce, normalize: As in ``Gradient``.

    Raises:
        ConfigError: ``samples`` is below 2 or ``noise`` is not above zero.
    """

    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def __post_init__(self) -> None:
        if self.samples < 2 or not self.noise > 0:
            raise ConfigError(
                f"VarGrad needs samples >= 2 and noise above 0, got {self.samples} and {self.noise}"
            )

    @property
    def passes(self) -> int:
        """Passes through the network per image."""
        return self.samples

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        noise = placed(noise_images(self.seed, self.samples, x.shape[1:]), x)

        def copied(some: slice) -> Tensor:
            return x + self.noise * noise[some][:, None]

        found = copied_gradients(model, x, copied, self.samples, target, self.score)
        variance = torch.cat([slopes for _, slopes in found]).var(0, correction=0)
        return normalise_maps(reduce_channels(variance, self.reduce), self.normalize)
