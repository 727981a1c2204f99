"""Which radius to look at: the largest at which a perturbation leaves the predictions alone.

A map that changes together with the prediction is no news. So the radius comes from the network itself: a
short UPI-Grad fit is scaled until more than a few predictions on the select images change, fitted again at
that radius, and scaled again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, log10, sqrt
from typing import Any

import torch

from upi.core.rows import UPI_GRAD
from upi.core.types import Progress
from upi.data.images import samples
from upi.experiments.fitting import Batches, Spec, Splits, fit
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

#: Root mean square of the first pattern, for images in [0, 1]; scaled by 1/32 to 8 from there.
START = 0.02
SCALES = tuple(2 ** (step / 4) for step in range(-20, 13))
#: Rounds of fitting and scaling, and updates of each fit.
ROUNDS, STEPS = 2, 30


@dataclass(frozen=True)
class Proposal:
    """A radius and what it rests on.

    Attributes:
        norm: ``l2`` or ``linf``.
        eps: The largest radius that was found, two digits of it; the smallest that was tried where none was.
        changed: Share of the select images' predictions that the pattern changes there.
        limit: The share that was allowed.
        found: False where predictions change at every radius that was tried.
        probes: Radii and shares of the last round.
    """

    norm: str
    eps: float
    changed: float
    limit: float
    found: bool
    probes: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "norm": self.norm,
            "eps": self.eps,
            "changed": self.changed,
            "limit": self.limit,
            "found": self.found,
            "probes": [list(probe) for probe in self.probes],
        }


@torch.no_grad()
def changed_at(
    model: Classifier, pattern: Perturbation, radii: Sequence[float], images: Batches
) -> list[float]:
    """Share of rightly classified images whose prediction changes, for the pattern scaled to each radius."""
    counts, total = torch.zeros(len(radii)), 0
    scaled = [pattern.scaled(eps) for eps in radii]
    with model.frozen():
        for sample in samples(images):
            x = model.place(sample.x)
            target = model.predict(x)
            if sample.label is not None and sample.label.ndim == 1 and model.label is None:
                right = target.cpu() == sample.label
                x, target = x[right.to(x.device)], target[right.to(x.device)]
            total += len(x)
            for place, each in enumerate(scaled):
                if len(x):
                    counts[place] += (model.predict(model.place(each(x))) != target).sum().cpu()
    return [float(count) / max(1, total) for count in counts]


def rounded_down(value: float) -> float:
    """Two digits, towards zero."""
    digits = 1 - floor(log10(value))
    return float(floor(value * 10**digits + 1e-9) / 10**digits)


def propose(
    model: Classifier,
    spec: Spec,
    splits: Splits,
    *,
    limit: float,
    progress: Progress | None = None,
) -> Proposal:
    """The largest radius at which at most a share ``limit`` of the predictions changes, on select images.

    Args:
        model: The classifier.
        spec: Map and norm; its radius is not used.
        splits: Fit and select images; the test images are not looked at.
        limit: Share in (0, 1).
        progress: Called with (fits done, fits).
    """
    numbers = splits.fit[0][0][0].numel()
    eps = START * (sqrt(numbers) if spec.norm == "l2" else 1.0)
    found, probes = False, list[tuple[float, float]]()
    for number in range(ROUNDS):
        pattern = fit(UPI_GRAD, model, replace(spec, eps=eps, steps=STEPS), splits, seed=spec.seed)
        radii = [eps * scale for scale in SCALES]
        if spec.norm == "linf":
            radii = [radius for radius in radii if radius <= 1]
        probes = list(zip(radii, changed_at(model, pattern, radii, splits.select), strict=True))
        good = leading(probes, limit)
        found = bool(good)
        eps = good[-1][0] if good else radii[0]
        if progress is not None:
            progress(number + 1, ROUNDS)
    eps = rounded_down(eps)
    (changed,) = changed_at(model, pattern, [eps], splits.select)
    return Proposal(spec.norm, eps, changed, limit, found, tuple(probes))


def leading(probes: Sequence[tuple[float, float]], limit: float) -> list[tuple[float, float]]:
    """The radii from the smallest on up to which no more than ``limit`` changes."""
    good = []
    for eps, changed in probes:
        if changed > limit:
            break
        good.append((eps, changed))
    return good
