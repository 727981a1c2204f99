"""Raising one shared perturbation over a stream of minibatches: UPI-Grad and ClassUAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.support.ascent import Ascended, Ascent, Rule, ascend
from upi.attacks.support.gradients import GradientFunction, attack_gradient, boxed_gradients, require_gradient
from upi.attacks.support.objective import Objective
from upi.core.averaging import weighted_mean
from upi.core.distributed import shard
from upi.core.seeding import generator, normal_like
from upi.core.types import Progress
from upi.data.batches import Batch
from upi.network.surrogate import Surrogate
from upi.perturbation.ball import Ball


@dataclass(frozen=True)
class MinibatchObjective:
    """Mean objective and gradient over the next minibatch at x + delta + Z."""

    surrogate: Surrogate
    objective: Objective
    stream: Iterator[Batch]
    sigma: float
    seed: int
    clip: bool = False
    function: GradientFunction = attack_gradient

    def __call__(self, delta: Tensor, step: int) -> Ascent:
        batch = next(self.stream)
        noise = self.sigma * normal_like(batch.x, generator(self.seed, "smoothing", step, shard()))
        point = batch.x + delta + noise
        where = f"step {step}"
        here = boxed_gradients(
            self.surrogate,
            self.objective,
            batch,
            point,
            clip=self.clip,
            where=where,
            function=self.function,
        )
        rows = here.gradient
        if step == 0:
            require_gradient(rows, where=where)
        mean = weighted_mean(torch.cat([rows.sum(0).flatten(), here.values.sum()[None].to(rows)]), len(batch))
        return Ascent(float(mean[-1]), mean[:-1].view_as(delta))


def raise_shared(
    batches: MinibatchObjective,
    ball: Ball,
    rule: Rule,
    shape: tuple[int, ...],
    *,
    progress: Progress | None,
    inside: Callable[[Tensor], Tensor] | None = None,
) -> Ascended:
    """Ascend from a uniform point of the ball, or of its part ``inside``; ``shape`` is (C, H, W)."""
    start = ball.sample((1, *shape), generator(batches.seed, "start"))
    return ascend(batches, batches.surrogate.place(start), ball, rule, progress, inside)
