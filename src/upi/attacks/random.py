"""Noise of equal norm: the control that every figure stands beside."""

from __future__ import annotations

from dataclasses import dataclass

from upi.attacks.base import Attack
from upi.attacks.registry import declare
from upi.core.rows import NOISE, ROWS
from upi.core.seeding import generator
from upi.core.types import Loader, Progress
from upi.data.images import replayable, samples
from upi.perturbation.pattern import Perturbation, as_perturbation


@declare(ROWS[NOISE], order=4)
@dataclass(frozen=True)
class RandomPerturbation(Attack):
    """One random pattern on the boundary of the ball.

    Uniform on the l2 sphere, or a random corner of the l-inf cube: the strongest noise of
    the given norm, so that the comparison favours nobody.

    Attributes:
        draw: Number of the draw, so that one seed gives several patterns.
    """

    draw: int = 0

    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> Perturbation:
        """Draw a pattern with the shape of the first images of ``loader``."""
        return self.pattern(tuple(next(samples(replayable(loader))).x.shape[1:]))

    def pattern(self, shape: tuple[int, ...]) -> Perturbation:
        """Draw a pattern of shape (C, H, W)."""
        delta = self.ball.boundary((1, *shape), generator(self.seed, "random", self.draw))
        return as_perturbation(delta, self.ball, self.record())
