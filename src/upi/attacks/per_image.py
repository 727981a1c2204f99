"""Per-image projected ascent: what an attacker who sees each image can do at most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.base import IterativeAttack, check_price
from upi.attacks.registry import declare
from upi.attacks.support.ascent import Ascent, MeasuredRule, Rule, StepRule, ascend
from upi.attacks.support.gradient_check import fast_derivatives_agree
from upi.attacks.support.gradients import gradients, require_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.errors import ConfigError
from upi.core.rows import PER_IMAGE, ROWS
from upi.core.seeding import generator
from upi.core.types import Loader, Progress
from upi.data.images import check_images
from upi.network.smooth import SURROGATE_BETA
from upi.network.surrogate import Surrogate
from upi.perturbation.pattern import in_box


@declare(ROWS[PER_IMAGE], order=5)
@dataclass(frozen=True)
class PerImageAttack(IterativeAttack):
    """Maximise D(I(x_i), I(x_i + delta_i)) over ||delta_i|| <= eps, image by image.

    The upper control of every universal attack (Ghorbani et al. 2019; Dombrowski et al.
    2019). Gradients come from the surrogate; of the iterates looked at, each image keeps the
    one that is best on the network itself. Calling it with (x, target) returns
    the perturbed images.

    Attributes:
        steps: Updates.
        step_size: First step as a multiple of eps, decaying as in ``UPIGrad``; by default each image finds
            the length of its own steps, and their momentum (``upi.attacks.support.ascent.MeasuredRule``).
        momentum: As in ``UPIGrad``; only where a step size is given.
        checks: Iterates of the second half that are compared on the network itself, the last one included; at
            least 1.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``: the
            default beta in both presets, because an upper control should be strong.
        prediction_price: As in ``UPIGrad``. To be an upper control of a universal attack that
            pays for changed predictions, this one must pay the same price.

    Raises:
        ConfigError: An option is outside its range.
    """

    steps: int = 40
    step_size: float | None = None
    momentum: float = 0.5
    checks: int = 1
    surrogate: float | str | None = "auto"
    prediction_price: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks < 1:
            raise ConfigError(f"checks must be at least 1, got {self.checks}")
        check_price(self.prediction_price)
        _ = self.beta(self.surrogate)

    @property
    def rule(self) -> StepRule:
        """The step rule of the ascent."""
        if self.step_size is None:
            return MeasuredRule(self.steps)
        return Rule(self.steps, self.step_size, self.momentum)

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
        network, objective = self.classifier, MapChange(self.map, self.change, self.prediction_price)
        with network.frozen():
            placed = network.place(x)
            beta = self.beta(self.surrogate)
            fast = fast_derivatives_agree(network, objective, placed, beta)
            surrogate = network.surrogate(beta, fast=fast)
            search = _Search(self, objective, surrogate, placed, target.to(placed.device))
            start = self.ball.sample(tuple(x.shape), generator(self.seed, "per-image"))
            final = ascend(search, network.place(start), self.ball, self.rule).delta
            search.keep(final)
        return in_box(placed + search.best).to(x)


class _Search:
    """All images at once: raised on the surrogate, the best perturbation of each kept by the network."""

    def __init__(
        self, attack: PerImageAttack, objective: MapChange, surrogate: Surrogate, x: Tensor, target: Tensor
    ) -> None:
        self.attack, self.objective = attack, objective
        self.network, self.surrogate = attack.classifier, surrogate
        self.own = explained_batch(objective, self.network, x, target)
        self.smooth = explained_batch(objective, surrogate, x, target)
        self.function = attack.gradient_function
        self.best = torch.zeros_like(x)
        self.value = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        half = attack.steps // 2
        self.looked_at = {round(half * number / attack.checks) for number in range(1, attack.checks)}

    def __call__(self, delta: Tensor, step: int) -> Ascent:
        where, point = f"per-image step {step}", in_box(self.smooth.x + delta)
        here = gradients(
            self.surrogate, self.objective, self.smooth, point, where=where, function=self.function
        )
        if step == 0:
            require_gradient(here.gradient, where=where)
        if self.attack.steps - step in self.looked_at:
            self.keep(delta)
        return Ascent(float(here.values.mean()), here.gradient)

    def keep(self, delta: Tensor) -> None:
        """Compare ``delta`` on the network itself, and remember it where it is better."""
        value = self.objective.measured(self.network, self.own, in_box(self.own.x + delta))
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.best = torch.where(better[:, None, None, None], delta, self.best)
