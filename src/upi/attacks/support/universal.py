"""Raising one shared perturbation over a stream of minibatches: UPI-Grad and ClassUAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.support.ascent import Ascended, Rule, Slope, ascend
from upi.attacks.support.objective import Objective, Rise, gradients, require_gradient, rise
from upi.core.averaging import weighted_mean
from upi.core.distributed import shard
from upi.core.seeding import generator, normal_like
from upi.core.types import Batch, Progress
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box


@dataclass(frozen=True)
class UniversalSlope:
    """Mean objective and gradient over the next minibatch at x + delta + Z."""

    model: Classifier
    objective: Objective
    stream: Iterator[Batch]
    sigma: float
    seed: int
    clip: bool = False
    rise: Rise = rise

    def __call__(self, delta: Tensor, step: int) -> Slope:
        batch = next(self.stream)
        noise = self.sigma * normal_like(batch.x, generator(self.seed, "smoothing", step, shard()))
        point = batch.x + delta + noise
        where = f"step {step}"
        seen = in_box(point) if self.clip else point
        here = gradients(self.model, self.objective, batch, seen, where=where, step=self.rise)
        rows = here.gradient
        if self.clip:
            rows = rows * ((point >= 0) & (point <= 1))
        if step == 0:
            require_gradient(rows, where=where)
        mean = weighted_mean(torch.cat([rows.sum(0).flatten(), here.values.sum()[None].to(rows)]), len(batch))
        return Slope(float(mean[-1]), mean[:-1].view_as(delta))


def raise_shared(
    slope: UniversalSlope,
    ball: Ball,
    rule: Rule,
    shape: tuple[int, ...],
    *,
    progress: Progress | None,
    inside: Callable[[Tensor], Tensor] | None = None,
) -> Ascended:
    """Ascend from a uniform point of the ball, or of its part ``inside``; ``shape`` is (C, H, W)."""
    start = ball.sample((1, *shape), generator(slope.seed, "start"))
    return ascend(slope, slope.model.place(start), ball, rule, progress, inside)
