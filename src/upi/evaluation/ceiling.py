"""Both sides of the truth: what no perturbation of a radius can exceed, for maps that Gaussian noise smooths.

Let f(x + Z) be non-negative maps of l2 norm at most M, Z ~ N(0, sigma^2 1), and A(x) = E f(x + Z). With p
and q the densities of the two Gaussians, whose total variation at ||delta|| = eps is
T = 2 Phi(eps / 2 sigma) - 1,

    A(x + delta) - A(x) = integral f (q - p)^+  -  integral f (q - p)^-.

Each integral is a non-negative map of norm at most M T, so their difference is at most sqrt(2) M T long; of
maps with signs, 2 M T. Nothing is asked of the network, and nothing of the attack: it may know everything.

The ceiling is about the expected map. Means over m draws stand for it, with errors: E ||mean - A|| is at
most M / sqrt(m), and by McDiarmid's inequality ||mean - A|| exceeds its expectation by more than
M sqrt(ln(1 / alpha) / m) with probability alpha at most, since one draw moves the mean of non-negative maps
by at most sqrt(2) M / m. What attacks reach is measured on fresh draws, which they have not seen, as the root
of the inner product of the changes in two halves of them: its expectation is the squared change of the
expected map, where the squared change of one mean would add the noise of the draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist
from typing import Any, TypeGuard

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.core.memory import together
from upi.core.seeding import generator
from upi.core.types import Loader, Perturber, Progress
from upi.data.images import samples
from upi.evaluation.intervals import Interval, interval
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.saliency import SmoothGrad
from upi.saliency.copies import input_gradients
from upi.saliency.reduce import normalise_maps, reduce_channels

#: Draws for each image, images that are looked at, and the share of runs in which a statement may be wrong.
DRAWS, IMAGES, ALPHA = 512, 50, 0.05
#: Copies that go through the network together at the most.
TOGETHER = 64


def total_variation(eps: float, sigma: float) -> float:
    """Of N(0, sigma^2 1) and the same shifted by eps: 2 Phi(eps / 2 sigma) - 1, in [0, 1)."""
    return 2 * NormalDist().cdf(eps / (2 * sigma)) - 1


def largest_change(eps: float, sigma: float, bound: float = 1.0, *, signed: bool = False) -> float:
    """The l2 distance that expected maps of norm at most ``bound`` cannot exceed at l2 radius ``eps``.

    Args:
        eps: l2 radius, in units of [0, 1] images.
        sigma: Deviation of the noise, in the same units, above 0.
        bound: Norm M that no single map exceeds.
        signed: Maps have negative values: 2 M T instead of sqrt(2) M T.

    Raises:
        ConfigError: ``sigma`` is not above 0.
    """
    if not sigma > 0:
        raise ConfigError(f"a ceiling needs noise, got sigma = {sigma}")
    return (2.0 if signed else sqrt(2.0)) * bound * total_variation(eps, sigma)


def sampling_error(draws: int, alpha: float, bound: float = 1.0) -> float:
    """How far the mean of non-negative maps is from its expectation at most, with confidence 1 - alpha."""
    return bound * (1 + sqrt(log(1 / alpha))) / sqrt(draws)


@dataclass(frozen=True)
class Ceiling:
    """The change of the expected map, from both sides, as a share of the clean map's length.

    Attributes:
        found: What a perturbation reaches, on fresh draws, over images.
        ceiling: What no perturbation of this radius exceeds, over the same images.
        trivial: What nothing can exceed at any radius: unit maps are not longer than 1.
        vacuous: Share of images whose ceiling is above that.
        informative: Radius up to which the ceiling of the median image is below it.
        error: Sampling error of a mean map's length, for all images together with ``confidence``.
        draws, sigma, eps, norm, confidence: How it was measured; ``eps`` in ``norm``.
    """

    found: Interval
    ceiling: Interval
    trivial: float
    vacuous: float
    informative: float
    error: float
    draws: int
    sigma: float
    eps: float
    norm: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; ``mean``, ``ci95`` and ``n`` are those of the ceiling."""
        names = ("trivial", "vacuous", "informative", "error", "draws", "sigma", "eps", "norm", "confidence")
        plain = {name: getattr(self, name) for name in names}
        return {**self.ceiling.to_dict(), "found": self.found.to_dict(), **plain}


def ceiling_exists(saliency: object) -> TypeGuard[SmoothGrad]:
    """Whether a map is a mean of non-negative maps of norm at most 1 over Gaussian noise."""
    if not isinstance(saliency, SmoothGrad):
        return False
    return saliency.unit and saliency.noise > 0 and saliency.normalize == "none" and saliency.reduce != "sum"


def _expected(
    model: Classifier, saliency: SmoothGrad, x: Tensor, target: Tensor, draws: int, seed: tuple[int, int]
) -> Tensor:
    """Mean of unit maps (H, W) of one image (1, C, H, W) over fresh draws."""
    total, rng = torch.zeros_like(x[0, 0]), generator(seed[0], "ceiling", seed[1])
    size = together(x.shape[1:], TOGETHER)
    for first in range(0, draws, size):
        count = min(size, draws - first)
        noise = saliency.noise * torch.randn((count, *x.shape[1:]), generator=rng).to(x)
        slopes = input_gradients(model, (x + noise)[:, None], target, saliency.score).flatten(0, 1)
        total = total + normalise_maps(reduce_channels(slopes, saliency.reduce), "l2").sum(0)
    return total / draws


def _informative(sigma: float, length: float, trivial: float) -> float:
    """The radius at which the ceiling reaches what is trivial."""
    share = min(1.0, trivial * length / sqrt(2.0))
    return float("inf") if share >= 1 else 2 * sigma * NormalDist().inv_cdf((share + 1) / 2)


def ceiling(
    model: Classifier,
    saliency: SmoothGrad,
    perturber: Perturber,
    loader: Loader,
    ball: Ball,
    *,
    draws: int = DRAWS,
    count: int = IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ceiling:
    """How far the expected map of images changes: at least as found, at most as the ceiling says.

    Both are relative l2 changes, ||A' - A|| / ||A||. All ceilings hold together with confidence
    1 - ``ALPHA``.

    Args:
        model: The classifier.
        saliency: SmoothGrad of unit maps, not normalised afterwards.
        perturber: What was found, inside ``ball``.
        loader: Images.
        ball: Norm and radius.
        draws: Noise images for each mean, an even number.
        count: Images that are looked at: the first ones.
        seed: Fixes the draws, which are none of those that attacks were fitted on.
        progress: Called with (images done, images).

    Raises:
        ConfigError: The map has no ceiling, or ``draws`` is not even.
    """
    if draws < 2 or draws % 2:
        raise ConfigError(f"draws must be an even number of at least 2, got {draws}")
    if not ceiling_exists(saliency):
        raise ConfigError("a ceiling needs SmoothGrad(unit=True, normalize='none') with noise above 0")
    size = None
    lengths, changes = list[float](), list[float]()
    with model.frozen():
        for image, target in _first(model, loader, count):
            size = image.numel()
            moved = model.place(perturber(image.clone(), target))
            halves = [
                [_expected(model, saliency, x, target, draws // 2, (seed, half)) for half in (0, 1)]
                for x in (image, moved)
            ]
            before, change = torch.stack(halves[0]), torch.stack(halves[1]) - torch.stack(halves[0])
            lengths.append(float(before.mean(0).norm()))
            squared = float((change[0] * change[1]).sum())
            changes.append(sqrt(max(0.0, squared)) / max(lengths[-1], 1e-30))
            if progress is not None:
                progress(len(lengths), count)
    eps = ball.eps if ball.norm == "l2" else ball.eps * sqrt(size or 0)
    error = sampling_error(draws, ALPHA / max(1, len(lengths)))
    least = torch.tensor([max(length - error, 1e-3) for length in lengths], dtype=torch.float64)
    ceilings, trivial = largest_change(eps, saliency.noise) / least, (1 + least**-2).sqrt()
    middle = float(least.median())
    return Ceiling(
        found=interval(torch.tensor(changes, dtype=torch.float64).numpy(), seed=seed),
        ceiling=interval(ceilings.numpy(), seed=seed),
        trivial=float(trivial.mean()),
        vacuous=float((ceilings >= trivial).double().mean()),
        informative=_informative(saliency.noise, middle, sqrt(1 + middle**-2)),
        error=error,
        draws=draws,
        sigma=saliency.noise,
        eps=ball.eps,
        norm=ball.norm,
        confidence=1 - ALPHA,
    )


def _first(model: Classifier, loader: Loader, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first images (1, C, H, W) that are classified rightly, or all where there are no labels."""
    found: list[tuple[Tensor, Tensor]] = []
    for sample in samples(loader):
        x = model.place(sample.x)
        target = model.predict(x)
        keep = torch.ones(len(x), dtype=torch.bool)
        if sample.label is not None and sample.label.ndim == 1:
            keep = target.cpu() == sample.label
        found += [(x[n : n + 1], target[n : n + 1]) for n in keep.nonzero()[:, 0].tolist()]
        if len(found) >= count:
            break
    return found[:count]
