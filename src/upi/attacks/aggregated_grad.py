"""UPI-Grad with aggregated gradients: several small batches make one step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.registry import declare
from upi.attacks.support.ascent import Ascent
from upi.attacks.support.objective import mean_margin, split
from upi.attacks.support.universal import MinibatchObjective, StepObjective
from upi.attacks.upi_grad import UPIGrad
from upi.core.errors import ConfigError
from upi.core.rows import RowStyle
from upi.perturbation.ball import Ball

#: How far the copy moves on each small batch, in units of the radius.
STRIDE = 0.25


@dataclass(frozen=True)
class AggregatedObjective:
    """Sum of unit gradients over the parts of a minibatch, each taken where the part before led."""

    batches: MinibatchObjective
    ball: Ball
    parts: int

    def __call__(self, delta: Tensor, step: int) -> Ascent:
        batch = next(self.batches.stream)
        scale = None if batch.margin is None else mean_margin(batch.margin)
        copy, total, value = delta, torch.zeros_like(delta), 0.0
        for number, part in enumerate(split(batch, -(-len(batch) // self.parts), scale)):
            here = self.batches.at(copy, part, step * self.parts + number)
            unit = here.gradient / here.gradient.norm().clamp_min(torch.finfo(delta.dtype).tiny)
            total, value = total + unit, value + here.value * len(part) / len(batch)
            copy = self.ball.project(copy + STRIDE * self.ball.eps * self.ball.steepest(unit))
        return Ascent(value, total)


@declare(
    RowStyle("aggregated-grad", "UPI-Grad, aggregated (SGA)", "#be185d"),
    order=4,
    options=("steps", "prediction_price", "clip", "compile"),
)
@dataclass(frozen=True)
class AggregatedGrad(UPIGrad):
    """UPI-Grad whose steps sum the unit gradients of several small batches.

    Stochastic gradient aggregation (Liu et al., ICCV 2023, there for classification): within a step a copy
    of the pattern moves along the gradient of each part of the minibatch in turn, and the pattern takes one
    step along the sum of their directions. Costs what UPI-Grad costs. On a vision transformer it finds
    stronger patterns, elsewhere it does as well as UPI-Grad (docs/optimisers.md).

    Attributes:
        parts: Parts of a minibatch, at least 1.

    Raises:
        ConfigError: An option is outside its range.
    """

    parts: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts < 1:
            raise ConfigError(f"parts must be at least 1, got {self.parts}")

    def over(self, batches: MinibatchObjective) -> StepObjective:
        """What a step raises: the sum over the parts of one minibatch."""
        return AggregatedObjective(batches, self.ball, self.parts)
