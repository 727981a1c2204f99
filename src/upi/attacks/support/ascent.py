"""The one loop of every iterative attack: projected ascent with normalised momentum.

The same loop raises one shared perturbation (leading size 1) and one per image (leading
size N), in either ball. Guards against an l2 attack that is a copy of the l-inf one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True)
class Rule:
    """Step rule: delta <- P(delta + a_t eps s(m)), m <- momentum m + g / ||g||_2.

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
        if self.steps < 1 or not self.step_size > 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                "expected steps >= 1, step_size > 0 and momentum in [0, 1), got "
                f"{self.steps}, {self.step_size} and {self.momentum}"
            )

    def size(self, step: int) -> float:
        """a_t for step t = 0, 1, ..."""
        return self.step_size * (1 + math.cos(math.pi * step / self.steps)) / 2


def _unit(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return gradient / norm.clamp_min(torch.finfo(gradient.dtype).tiny)[:, None, None, None]


def ascend(
    objective: Callable[[Tensor, int], Ascent],
    start: Tensor,
    ball: Ball,
    rule: Rule,
    progress: Progress | None = None,
    inside: Callable[[Tensor], Tensor] | None = None,
    *,
    memory: Memory | None = None,
) -> Ascended:
    """Raise the objective from ``start`` (B, C, H, W); the iterate never leaves the ball.

    Args:
        objective: (perturbations, step) to its value and gradient; may raise, in which case
            nothing has changed.
        start: Not at a point where the gradient vanishes, such as 0.
        ball: The constraint.
        rule: Steps, step size, momentum.
        progress: Called after each step.
        inside: Orthogonal projection on a subspace that start and gradients are held to; l2 ball only,
            whose projection does not leave the subspace.
        memory: Where the ascent goes on from, and what keeps its state.
    """
    within = inside or (lambda delta: delta)
    delta, momentum = ball.project(within(start)), torch.zeros_like(start)
    history: list[float] = []
    if memory is not None and memory.begun is not None:
        delta, momentum = (each.to(start) for each in (memory.begun.delta, memory.begun.momentum))
        history = list(memory.begun.history)
    for step in range(len(history), rule.steps):
        here = objective(delta, step)
        momentum = rule.momentum * momentum + _unit(within(here.gradient))
        delta = ball.project(delta + rule.size(step) * ball.eps * ball.steepest(momentum))
        history.append(here.value)
        if memory is not None:
            memory.after(Climb(delta, momentum, history))
        if progress is not None:
            progress(step + 1, rule.steps)
    return Ascended(delta, tuple(history))
