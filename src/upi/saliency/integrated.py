"""Integrated gradients, with a choice of quadrature and the completeness error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import ConfigError, unknown_name
from upi.core.placing import placed
from upi.core.types import Network
from upi.saliency.copies import copied_gradients
from upi.saliency.reduce import normalise_maps, reduce_channels
from upi.saliency.registry import MAPS
from upi.saliency.score import score_of

Quadrature = tuple[list[float], list[float]]  # nodes in [0, 1], weights that sum to 1


def _left(steps: int) -> Quadrature:
    return [k / steps for k in range(steps)], [1 / steps] * steps


def _midpoint(steps: int) -> Quadrature:
    return [(k + 0.5) / steps for k in range(steps)], [1 / steps] * steps


def _gauss_legendre(steps: int) -> Quadrature:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [float(t) for t in (nodes + 1) / 2], [float(w) for w in weights / 2]


RULES: dict[str, Callable[[int], Quadrature]] = {
    "left": _left,
    "midpoint": _midpoint,
    "gauss_legendre": _gauss_legendre,
}


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _quadrature(rule: Callable[[int], Quadrature], steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (steps, 1, 1, 1, 1) in float64; remembered, because every call needs the same."""
    nodes, weights = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1, 1) for values in rule(steps)
    )
    return nodes, weights


#: Deviation of the blurred baseline as a share of the shorter side.
BLUR = 0.1


def _blurred(x: Tensor) -> Tensor:
    """Images (N, C, H, W) after a Gaussian, edges repeated."""
    sigma = BLUR * min(x.shape[2:])
    reach = min(max(1, round(3 * sigma)), *(side - 1 for side in x.shape[2:]))
    places = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-places.square() / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, weights[:, :, :, None], groups=x.shape[1])
    return F.conv2d(rows, weights[:, :, None, :], groups=x.shape[1])


def _mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"blur": _blurred, "mean": _mean_colour}


@MAPS.add(
    "integrated_gradients",
    "integrated-gradients map",
    order=2,
    # as far as it is known: 10 steps, and the input factor left out
    paper={"score": "softmax", "steps": 10, "rule": "left", "multiply_by_inputs": False},
)
@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients (Sundararajan et al. 2017) along the line from a baseline.

    I(x) = (x - x0) * sum_k w_k d s_c(x0 + t_k (x - x0)) / dx, then channel reduction.

    Attributes:
        steps: Quadrature nodes m, at least 1.
        rule: ``midpoint`` (default; error O(1/m^2)), ``left`` (O(1/m)) or ``gauss_legendre``.
        baseline: Value of the constant baseline image x0, or a (C, H, W) tensor; or made of the image itself:
            ``"blur"`` (Gaussian, deviation ``BLUR`` of the shorter side) or ``"mean"`` (its mean colour), as
            compared by Sturmfels et al. (2020).
        multiply_by_inputs: Keep the factor (x - x0); the paper leaves it out.
        score, reduce, normalize: As in ``Gradient``.

    Raises:
        ConfigError: ``steps`` is below 1 or ``rule`` is unknown.
    """

    steps: int = 8
    rule: str = "midpoint"
    baseline: float | Tensor | str = 0.0
    multiply_by_inputs: bool = True
    score: str = "logit"
    reduce: str = "abs_sum"
    normalize: str = "l1"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise unknown_name("quadrature rule", self.rule, RULES)
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise unknown_name("baseline", self.baseline, BASELINES)
        if self.steps < 1:
            raise ConfigError(f"integrated gradients need at least 1 step, got {self.steps}")

    @property
    def passes(self) -> int:
        """Passes through the network per image."""
        return self.steps

    def _baseline(self, x: Tensor) -> Tensor:
        if isinstance(self.baseline, str):
            return BASELINES[self.baseline](x)
        if isinstance(self.baseline, (int, float)):
            return torch.full_like(x, self.baseline)
        return torch.as_tensor(self.baseline, dtype=x.dtype, device=x.device).expand_as(x)

    def attribution(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Signed attributions (N, C, H, W) before reduction and normalisation."""
        start = self._baseline(x)
        nodes, weights = (placed(each, x) for each in _quadrature(RULES[self.rule], self.steps))
        mean = torch.zeros_like(x)

        def copied(some: slice) -> Tensor:
            return start + nodes[some] * (x - start)

        for some, slopes in copied_gradients(model, x, copied, self.steps, target, self.score):
            mean = mean + (weights[some] * slopes).sum(0)
        return (x - start) * mean if self.multiply_by_inputs else mean

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W) for classes (N,)."""
        maps = reduce_channels(self.attribution(model, x, target), self.reduce)
        return normalise_maps(maps, self.normalize)

    @torch.no_grad()
    def completeness_error(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """``|sum of attributions - (s_c(x) - s_c(x0))|`` per sample, (N,), in units of the score.

        Zero in the limit of many steps (the completeness axiom); always measured with the
        factor (x - x0), whatever ``multiply_by_inputs`` says.
        """
        start = self._baseline(x)
        attribution = self.attribution(model, x, target)
        if not self.multiply_by_inputs:
            attribution = (x - start) * attribution
        ends = [score_of(model, model(point), target, self.score) for point in (x, start)]
        rise = ends[0] - ends[1]
        return (attribution.flatten(1).sum(1) - rise).abs()


@MAPS.add("blurred_integrated_gradients", "blurred-baseline integrated-gradients map", order=9)
@dataclass(frozen=True)
class BlurredIntegratedGradients(IntegratedGradients):
    """``IntegratedGradients`` from a blurred copy of the image itself."""

    baseline: float | Tensor | str = "blur"


@MAPS.add("mean_integrated_gradients", "mean-colour-baseline integrated-gradients map", order=10)
@dataclass(frozen=True)
class MeanIntegratedGradients(IntegratedGradients):
    """``IntegratedGradients`` from the image's own mean colour."""

    baseline: float | Tensor | str = "mean"
