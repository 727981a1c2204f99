"""The one loop of every iterative attack: projected ascent with normalised momentum.

The same loop raises one shared perturbation (leading size 1) and one per image (leading
size N), in either ball. Guards against an l2 attack that is a copy of the l-inf one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from upi.core.errors import ConfigError
from upi.core.types import Progress
from upi.perturbation.ball import Ball


@dataclass(frozen=True)
class Ascent:
    """What the objective says at the current perturbations, and which way it rises."""

    value: float  # mean objective
    gradient: Tensor  # (B, C, H, W)


@dataclass(frozen=True)
class Ascended:
    """Where the ascent ended."""

    delta: Tensor  # (B, C, H, W), inside the ball
    history: tuple[float, ...]  # mean objective before each step


@dataclass(frozen=True)
class Climb:
    """An ascent between two steps: all that the next one depends on."""

    delta: Tensor  # (B, C, H, W)
    momentum: Tensor  # (B, C, H, W)
    history: Sequence[float]  # a value for each step that was done; it grows with the ascent


class Memory(Protocol):
    """What keeps an ascent's state."""

    @property
    def begun(self) -> Climb | None:
        """Where an earlier run was cut short, None for the start."""

    def after(self, climb: Climb) -> None:
        """Called after each step."""


#: What may be one number for all perturbations, or one for each (B, 1, 1, 1).
Each = float | Tensor


class Stride(NamedTuple):
    """One step: delta <- P(delta + length eps s(m / scale)), m <- momentum m + g / ||g||_2, s steepest."""

    gradient: Tensor  # g (B, C, H, W), or the part of it that counts
    length: Each  # as a multiple of eps
    momentum: Each
    scale: Each = 1.0  # of the entries of a gradient, (B, C, H, W) where they differ


#: (perturbations, gradients, step) to the step that is taken there.
Pace = Callable[[Tensor, Tensor, int], Stride]


class StepRule(Protocol):
    """How an ascent steps."""

    @property
    def steps(self) -> int:
        """Updates."""

    def pace(self, ball: Ball) -> Pace:
        """Of one ascent: called once a step, in order."""


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"expected steps >= 1, got {steps}")


@dataclass(frozen=True)
class Rule:
    """The same steps for all: delta <- P(delta + a_t eps s(m)), m <- momentum m + g / ||g||_2.

    s is the ball's steepest unit step and a_t = step_size (1 + cos(pi t / steps)) / 2.

    Attributes:
        steps: Updates, at least 1.
        step_size: First step as a multiple of eps, above zero.
        momentum: In [0, 1); normalised accumulation as in Dong et al. (CVPR 2018).

    Raises:
        ConfigError: A value is outside its range.
    """

    steps: int
    step_size: float
    momentum: float

    def __post_init__(self) -> None:
        _require_steps(self.steps)
        if not self.step_size > 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                f"expected step_size > 0 and momentum in [0, 1), got {self.step_size} and {self.momentum}"
            )

    def size(self, step: int) -> float:
        """a_t for step t = 0, 1, ..."""
        return self.step_size * (1 + math.cos(math.pi * step / self.steps)) / 2

    def pace(self, ball: Ball) -> Pace:
        """As said, whatever the gradients are."""
        return lambda delta, gradient, step: Stride(gradient, self.size(step), self.momentum)


@dataclass(frozen=True)
class MeasuredRule:
    """Steps of a length that each perturbation finds for itself while it takes the first ones.

    The cosine c between the gradients before and after a step says how far the gradient holds: small steps
    of a smooth network leave it at 0.8, a tenth of the radius turns that of a deep residual network by a
    right angle. The first step is START long; after each of the first MEASURED steps its length is
    multiplied by exp(KAPPA (c - TARGET)), within CHANGE. The length then falls as cos(pi t / (2 steps)).

    In l2 a few pixels have most of a gradient's length. Steps there divide each entry by its own size, the
    root of a decaying mean of squares as in Adam (Kingma and Ba 2015) plus DAMPING times its mean over
    the image; steepest steps in l-inf take signs alone. Scaled like this, the radial part of a gradient
    would move a perturbation along the sphere, away from an optimum: on the sphere it is left out.

    Constants were chosen on select images of the panel's networks in both norms (docs/per-image.md).

    Attributes:
        steps: Updates, at least 1.

    Raises:
        ConfigError: ``steps`` is below 1.
    """

    steps: int

    START: ClassVar = 0.25
    MEASURED: ClassVar = 2
    KAPPA: ClassVar = 2.0
    TARGET: ClassVar = 0.15
    CHANGE: ClassVar = (0.7, 4.0)
    LONGEST: ClassVar = 0.6
    MOMENTUM: ClassVar = 0.7
    SQUARES: ClassVar = 0.9
    DAMPING: ClassVar = 0.5

    def __post_init__(self) -> None:
        _require_steps(self.steps)

    def pace(self, ball: Ball) -> Pace:
        """Of one ascent: it looks at the gradients of the first steps, and at their entries' sizes in all."""
        length: Each = self.START
        before: Tensor | None = None
        squares: Each = 0.0

        def pace(delta: Tensor, gradient: Tensor, step: int) -> Stride:
            nonlocal length, before, squares
            gradient = ball.tangent(delta, gradient)
            if step <= self.MEASURED:
                here = _unit(gradient)
                if before is not None:
                    cosine = (here * before).flatten(1).sum(1)[:, None, None, None]
                    factor = torch.exp(self.KAPPA * (cosine - self.TARGET)).clamp(*self.CHANGE)
                    length = (length * factor).clamp_max(self.LONGEST)
                before = here if step < self.MEASURED else None
            scale: Each = 1.0
            if ball.norm == "l2":
                squares = self.SQUARES * squares + (1 - self.SQUARES) * _unit(gradient) ** 2
                size = squares.sqrt()
                scale = (size + self.DAMPING * size.mean((1, 2, 3), keepdim=True)).clamp_min(_tiny(size))
            now = length * math.cos(math.pi * step / (2 * self.steps))
            return Stride(gradient, now, self.MOMENTUM, scale)

        return pace


def _unit(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return gradient / norm.clamp_min(_tiny(gradient))[:, None, None, None]


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny


def ascend(
    objective: Callable[[Tensor, int], Ascent],
    start: Tensor,
    ball: Ball,
    rule: StepRule,
    progress: Progress | None = None,
    inside: Callable[[Tensor], Tensor] | None = None,
    *,
    memory: Memory | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Ascended:
    """Raise the objective from ``start`` (B, C, H, W); the iterate never leaves the ball.

    Args:
        objective: (perturbations, step) to its value and gradient; may raise, in which case
            nothing has changed.
        start: Not at a point where the gradient vanishes, such as 0.
        ball: The constraint.
        rule: Steps, their lengths, momentum.
        progress: Called after each step.
        inside: Orthogonal projection on a subspace that start and gradients are held to; l2 ball only,
            whose projection does not leave the subspace.
        memory: Where the ascent goes on from, and what keeps its state; for rules that are the same for all.
        project: To the nearest admissible point; by default of the ball, otherwise of a part of it.
    """
    within, admitted, pace = inside or (lambda delta: delta), project or ball.project, rule.pace(ball)
    delta, momentum = admitted(within(start)), torch.zeros_like(start)
    history: list[float] = []
    if memory is not None and memory.begun is not None:
        delta, momentum = (each.to(start) for each in (memory.begun.delta, memory.begun.momentum))
        history = list(memory.begun.history)
    for step in range(len(history), rule.steps):
        here = objective(delta, step)
        stride = pace(delta, within(here.gradient), step)
        momentum = stride.momentum * momentum + _unit(stride.gradient)
        way = ball.steepest(momentum / stride.scale)
        delta = admitted(delta + stride.length * ball.eps * way)
        history.append(here.value)
        if memory is not None:
            memory.after(Climb(delta, momentum, history))
        if progress is not None:
            progress(step + 1, rule.steps)
    return Ascended(delta, tuple(history))
