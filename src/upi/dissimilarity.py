"""How different two maps are: differentiable (N, H, W) x (N, H, W) -> (N,), 0 for equal maps.

Each is a plain function of (clean, perturbed), maximised by attacks and reported by the
evaluation. Guards against gradients that turn into NaN where the maps agree: norms take
the zero subgradient there, so an attack must start away from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from upi.errors import ConfigError, unknown_name
from upi.types import Dissimilarity

#: Share of pixels that count as the top of a map, in the evaluation and in ``top_k``.
TOP_SHARE = 0.05


def _safe(denominator: Tensor) -> Tensor:
    """The denominator, or 1 where it is zero: a zero map changes by the size of the other one."""
    return torch.where(denominator > 0, denominator, torch.ones_like(denominator))


def _norm(maps: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(maps.flatten(1), dim=1)
    return norms


def relative_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2 / ||I||_2, in [0, inf): the figure the paper reports."""
    return _norm(clean - perturbed) / _safe(_norm(clean))


def squared_l2(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2^2, in [0, inf)."""
    return (clean - perturbed).square().flatten(1).sum(1)


def cosine(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - cosine of the angle between the maps, in [0, 2]."""
    product = (clean * perturbed).flatten(1).sum(1)
    return 1 - product / _safe(_norm(clean) * _norm(perturbed))


def pearson(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - Pearson correlation over pixels, in [0, 2]."""
    return cosine(clean - clean.mean((1, 2), keepdim=True), perturbed - perturbed.mean((1, 2), keepdim=True))


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
    c1, c2 = _safe((0.01 * span) ** 2), _safe((0.03 * span) ** 2)
    a, b = clean[:, None], perturbed[:, None]
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    var_a = F.conv2d(a * a, window) - mean_a * mean_a
    var_b = F.conv2d(b * b, window) - mean_b * mean_b
    covariance = F.conv2d(a * b, window) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))


def ssim(clean: Tensor, perturbed: Tensor) -> Tensor:
    """1 - SSIM, in [0, 2]; see ``structural_similarity``."""
    return 1 - structural_similarity(clean, perturbed)


def top_pixels(maps: Tensor, share: float = TOP_SHARE) -> Tensor:
    """Flat indices (N, k) of the k = ceil(share * H * W) largest pixels of each map."""
    pixels = maps.flatten(1)
    return pixels.topk(max(1, -int(-share * pixels.shape[1] // 1)), dim=1).indices


def top_k(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Share of the clean map's top mass that moved away (Ghorbani et al. 2019).

    1 - (mass of I' on the top 5 % of pixels of I) / (mass of I there), on maps of equal
    mass; below 0 where the top gained mass.
    """
    top = top_pixels(clean)
    kept = perturbed.flatten(1).gather(1, top).sum(1)
    return 1 - kept / _safe(clean.flatten(1).gather(1, top).sum(1))


def _mass_center(maps: Tensor) -> Tensor:
    mass = maps.abs()
    total = _safe(mass.sum((1, 2)))
    rows = torch.arange(maps.shape[1], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    return torch.stack([(mass.sum(2) @ rows) / total, (mass.sum(1) @ columns) / total], 1)


def mass_center_offset(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Vector in pixels (rows, columns) from the centre of |I'| to that of |I|, (N, 2)."""
    return _mass_center(clean) - _mass_center(perturbed)


def mass_center(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Distance in pixels between the centres of |I| and |I'| (Ghorbani et al. 2019)."""
    distance: Tensor = torch.linalg.vector_norm(mass_center_offset(clean, perturbed), dim=1)
    return distance


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
        start = _norm(clean - target)
        return (start - _norm(perturbed - target)) / _safe(start)


DISSIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relative_l2": relative_l2,
    "squared_l2": squared_l2,
    "cosine": cosine,
    "pearson": pearson,
    "ssim": ssim,
    "top_k": top_k,
    "mass_center": mass_center,
}


def resolve(dissimilarity: str | Dissimilarity) -> Dissimilarity:
    """Return the function for a name, or the callable itself.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if callable(dissimilarity):
        return dissimilarity
    if dissimilarity not in DISSIMILARITIES:
        raise unknown_name("dissimilarity", dissimilarity, DISSIMILARITIES)
    return DISSIMILARITIES[dissimilarity]


def name_of(choice: Any) -> str:
    """A name for records, the same in every run: of a function, a configured object, or itself."""
    if isinstance(choice, str):
        return choice
    named = getattr(choice, "__name__", None)
    return str(named or (repr(choice) if is_dataclass(choice) else type(choice).__qualname__))
