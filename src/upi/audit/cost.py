"""What an audit will cost, said before it starts: passes of the network, and minutes of this machine.

A pass is one saliency map of one image on the network as it is. Its time, that of an attack's step and that
of what a fit does before its first step are measured on the images at hand, by fits of a few steps. How many
passes a part takes follows from its options, with round figures for what is chosen on the way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from upi import saliency as maps
from upi.core.rows import UPI_GRAD, UPI_PCA
from upi.evaluation.metrics import MAP_METRICS, Shown
from upi.experiments.fitting import Batches, Spec, Splits, fit
from upi.network.classifier import Classifier

#: Passes of an attack gradient where it is not measured, images that are timed, rows of an evaluation.
STEP, BATCH, ROWS = 2.5, 32, 18
#: Steps of the longer fit that is timed.
FEW = 4
#: Sweeps of UPI-PCA over the fitting images with two draws each, and over the select images.
SWEEPS, CANDIDATES = 12, 30


@dataclass(frozen=True)
class Sizes:
    """Images of an audit's parts, and how many of them a step of a fit sees in the mean."""

    fit: int
    select: int
    test: int
    step: float

    @classmethod
    def of(cls, splits: Splits) -> Sizes:
        """Of images that are there; only the first and the last batch of a part is read."""
        fit = _count(splits.fit)
        return cls(fit, _count(splits.select), _count(splits.test), fit / max(1, len(splits.fit)))


def _count(batches: Batches) -> int:
    """Images in batches of which only the last may be smaller."""
    return (len(batches) - 1) * len(batches[0][0]) + len(batches[-1][0]) if len(batches) else 0


@dataclass(frozen=True)
class Pace:
    """What this machine takes.

    Attributes:
        unit: Seconds of a pass.
        figures: Seconds of all figures of one pair of maps.
        step: Passes of an attack's gradient of one image.
        start: Seconds of a fit beside its steps: checks, the choice on the select images.
    """

    unit: float
    figures: float
    step: float
    start: float


@dataclass(frozen=True)
class Cost:
    """Passes by part of an audit, seconds of one pass, and seconds of what is no pass."""

    parts: Mapping[str, float]
    unit: float
    rest: float

    @property
    def passes(self) -> float:
        """All of them."""
        return sum(self.parts.values())

    @property
    def seconds(self) -> float:
        """On this machine, now."""
        return self.passes * self.unit + self.rest

    def __str__(self) -> str:
        minutes = self.seconds / 60
        shown = f"{minutes:.0f} min" if minutes >= 1.5 else f"{self.seconds:.0f} s"
        return f"about {self.passes:,.0f} passes of the network, {shown} on this machine"


def timed(model: Classifier, images: Batches) -> tuple[float, float]:
    """Seconds of one simple-gradient map of one image, and of all figures of one pair of maps."""
    x = model.place(images[0][0][:BATCH])
    explain, best, figures = maps.resolve("gradient"), float("inf"), float("inf")
    with model.frozen():
        target = model.predict(x)
        for _ in range(3):
            begin = time.perf_counter()
            shown = maps.explain(explain, model, x, target)
            float(shown.sum())  # waits for the device
            between = time.perf_counter()
            clean, other = Shown(shown), Shown(shown.flip(0))
            float(sum(metric(clean, other).sum() for metric in MAP_METRICS.values()))
            best = min(best, between - begin)
            figures = min(figures, time.perf_counter() - between)
    return best / len(x), figures / len(x)


def measured(model: Classifier, spec: Spec, splits: Splits) -> Pace:
    """The pace of this machine on these images: a few passes, and three fits of the simple gradient.

    The first fit is not counted: what it learns of the network is kept for those that come.
    """
    first = splits.fit[0]
    unit, figures = timed(model, splits.test)
    few = replace(splits, fit=[(first[0][:BATCH], first[1][:BATCH])])
    seconds = {}
    for steps in (1, FEW, 1):
        begin = time.perf_counter()
        fit(UPI_GRAD, model, replace(spec, saliency="gradient", steps=steps), few, seed=spec.seed)
        seconds[steps] = time.perf_counter() - begin
    step = max(0.0, seconds[FEW] - seconds[1]) / (FEW - 1)
    return Pace(unit, figures, step / (unit * len(few.fit[0][0])), max(0.0, seconds[1] - step))


def fit_passes(method: str, sizes: Sizes, steps: int, one: int, step: float = STEP) -> float:
    """Passes of a fit on a map of ``one`` passes, at ``step`` of them for a gradient of the attack."""
    if method == UPI_PCA:
        return one * (SWEEPS * sizes.fit * step + CANDIDATES * sizes.select)
    return one * steps * sizes.step * (step if method == UPI_GRAD else 1.5)


def evaluation_passes(sizes: Sizes, per_image_steps: int, one: int, step: float = STEP) -> float:
    """Passes of an evaluation on test images: every row, and the per-image attack."""
    return one * sizes.test * (ROWS + per_image_steps * step * 0.9)


def radius_passes(rounds: int, steps: int, radii: int, sizes: Sizes, one: int, step: float = STEP) -> float:
    """Passes of a proposed radius: short fits, and predictions at every radius."""
    return rounds * (fit_passes(UPI_GRAD, sizes, steps, one, step) + radii * sizes.select * 0.35)
