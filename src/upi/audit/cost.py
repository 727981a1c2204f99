"""What an audit will cost, said before it starts: passes of the network, and minutes of this machine.

A pass is one saliency map of one image on the network as it is; its time is measured on the images at hand.
How many a part takes follows from its options, with round figures for what is chosen on the way. The start
of a fit, probes and checks, is not counted: on networks of many layers that can be as much again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from upi import saliency as maps
from upi.audit.settings import Effort
from upi.core.rows import UPI_GRAD, UPI_PCA
from upi.evaluation.metrics import MAP_METRICS
from upi.experiments.study import Batches
from upi.network.classifier import Classifier

#: Passes of an attack gradient (``docs/performance.md``), images of a step, rows of an evaluation.
STEP, BATCH, ROWS = 2.5, 32, 18
#: Sweeps of UPI-PCA over the fitting images with two draws each, and over the select images.
SWEEPS, CANDIDATES = 12, 30


@dataclass(frozen=True)
class Cost:
    """Passes by part of an audit, seconds of one pass, and seconds of all figures of all maps."""

    parts: Mapping[str, float]
    unit: float
    figures: float

    @property
    def passes(self) -> float:
        """All of them."""
        return sum(self.parts.values())

    @property
    def seconds(self) -> float:
        """On this machine, now."""
        return self.passes * self.unit + self.figures

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
            shown = maps.explain(explain, model, x, target).cpu()
            between = time.perf_counter()
            for metric in MAP_METRICS.values():
                metric(shown, shown.flip(0))
            best = min(best, between - begin)
            figures = min(figures, time.perf_counter() - between)
    return best / len(x), figures / len(x)


def fit_passes(method: str, effort: Effort, steps: int, one: int) -> float:
    """Passes of one fit of a method on a map of ``one`` passes."""
    if method == UPI_PCA:
        return one * (SWEEPS * effort.n_fit * STEP + CANDIDATES * effort.n_select)
    return one * steps * BATCH * (STEP if method == UPI_GRAD else 1.5)


def evaluation_passes(effort: Effort, n_test: int, one: int) -> float:
    """Passes of an evaluation on test images: every row, and the per-image attack."""
    return one * n_test * (ROWS + effort.per_image_steps * STEP * 0.9)


def radius_passes(rounds: int, steps: int, radii: int, effort: Effort, one: int) -> float:
    """Passes of a proposed radius: short fits, and predictions at every radius."""
    return rounds * (fit_passes(UPI_GRAD, effort, steps, one) + radii * effort.n_select * 0.35)
