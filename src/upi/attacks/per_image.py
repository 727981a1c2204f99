"""Per-image projected ascent: what an attacker who sees each image can do at most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.base import SURROGATE_BETA, IterativeAttack, check_price
from upi.attacks.support.ascent import Slope, ascend
from upi.attacks.support.gradient_check import trusted
from upi.attacks.support.objective import MapChange, gradients, require_gradient
from upi.core.errors import ConfigError
from upi.core.seeding import generator
from upi.core.types import Batch, Loader, Progress
from upi.data.images import check_images
from upi.perturbation.pattern import in_box


@dataclass(frozen=True)
class PerImageAttack(IterativeAttack):
    """Maximise D(I(x_i), I(x_i + delta_i)) over ||delta_i|| <= eps, image by image.

    The upper control of every universal attack (Ghorbani et al. 2019; Dombrowski et al.
    2019). Gradients come from the surrogate; of the iterates looked at, each image keeps the
    one that is best on the network itself. Calling it with (x, target) returns
    the perturbed images.

    Attributes:
        steps: Updates.
        step_size, momentum: As in ``UPIGrad``.
        checks: Iterates of the second half that are compared on the network itself, at least 1.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``: the
            default beta in both presets, because an upper control should be strong.
        prediction_price: As in ``UPIGrad``. To be an upper control of a universal attack that
            pays for changed predictions, this one must pay the same price.

    Raises:
        ConfigError: An option is outside its range.
    """

    steps: int = 40
    step_size: float = 1.0
    momentum: float = 0.5
    checks: int = 4
    surrogate: float | str | None = "auto"
    prediction_price: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks < 1:
            raise ConfigError(f"checks must be at least 1, got {self.checks}")
        check_price(self.prediction_price)
        _ = self.beta(self.surrogate)

    def beta(self, surrogate: float | str | None) -> float | None:
        """As for every attack, except that ``"auto"`` is the surrogate in the paper preset too."""
        return SURROGATE_BETA if surrogate == "auto" else super().beta(surrogate)

    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> PerImageAttack:
        """Nothing is fitted ahead of the images: returns the attack itself."""
        return self

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Perturbed images in [0, 1] for images (N, C, H, W) and explained classes (N,).

        Raises:
            DataError: ``x`` is not a batch of images in [0, 1].
            ZeroGradientError: The attack gradient is exactly zero.
            NonFiniteError: A step gave NaN or infinity.
        """
        check_images(x)
        model, objective = self.classifier, MapChange(self.map, self.change, self.prediction_price)
        with model.frozen():
            placed = model.place(x)
            target = target.to(placed.device)
            original = objective.batch(model, placed, target)
            beta = self.beta(self.surrogate)
            quick = trusted(model, objective, placed, beta)
            with model.smoothed(beta, fast=quick):
                smooth = objective.batch(model, placed, target)
            search = _Search(self, objective, original, smooth, quick)
            start = self.ball.sample(tuple(x.shape), generator(self.seed, "per-image"))
            final = ascend(search, model.place(start), self.ball, self.rule).delta
            search.keep(final)
        return in_box(placed + search.best).to(x)


class _Search:
    """The slope of all images at once, remembering the best perturbation of each."""

    def __init__(
        self, attack: PerImageAttack, objective: MapChange, original: Batch, smooth: Batch, quick: bool
    ) -> None:
        self.attack, self.objective, self.quick, self.rise = attack, objective, quick, attack.rise
        self.original, self.smooth = original, smooth
        self.best = torch.zeros_like(original.x)
        self.value = torch.full(
            (len(original),), -torch.inf, dtype=original.x.dtype, device=original.x.device
        )
        half = attack.steps // 2
        self.every = max(1, (attack.steps - half) // attack.checks)

    def __call__(self, delta: Tensor, step: int) -> Slope:
        model, where = self.attack.classifier, f"per-image step {step}"
        point = in_box(self.smooth.x + delta)
        with model.smoothed(self.attack.beta(self.attack.surrogate), fast=self.quick):
            here = gradients(model, self.objective, self.smooth, point, where=where, step=self.rise)
        if step == 0:
            require_gradient(here.gradient, where=where)
        left = self.attack.steps - step
        if left <= self.attack.steps // 2 and left % self.every == 0:
            self.keep(delta)
        return Slope(float(here.values.mean()), here.gradient)

    def keep(self, delta: Tensor) -> None:
        """Compare ``delta`` on the network itself, and remember it where it is better."""
        point = in_box(self.original.x + delta)
        value = self.objective.worth(self.attack.classifier, self.original, point)
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.best = torch.where(better[:, None, None, None], delta, self.best)
