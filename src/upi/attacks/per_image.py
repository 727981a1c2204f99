"""Per-image projected ascent: what an attacker who sees each image can do at most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.base import IterativeAttack, check_price
from upi.attacks.registry import declare
from upi.attacks.support.ascent import Ascent, MeasuredRule, Rule, StepRule, ascend
from upi.attacks.support.gradient_check import fast_derivatives_agree
from upi.attacks.support.gradients import GradientFunction, gradients, require_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.errors import ConfigError
from upi.core.rows import PER_IMAGE, ROWS
from upi.core.seeding import generator
from upi.core.types import Loader, Progress
from upi.data.images import check_images
from upi.network.smooth import SURROGATE_BETA
from upi.network.surrogate import Surrogate
from upi.perturbation.pattern import in_box

#: Sharpness of the softplus in each third of the steps, as multiples of the default: blunt ones lead to where
#: the sharp one, close to the network itself, climbs on (docs/per-image.md).
SHARPNESS = (0.7, 1.25, 2.25)


@declare(ROWS[PER_IMAGE], order=5)
@dataclass(frozen=True)
class PerImageAttack(IterativeAttack):
    """Maximise D(I(x_i), I(x_i + delta_i)) over ||delta_i|| <= eps, image by image.

    The upper control of every universal attack (Ghorbani et al. 2019; Dombrowski et al.
    2019), inside the box of images: what clipping to [0, 1] would take from some pixels
    goes to the others. Gradients come from a surrogate that grows sharper with the steps,
    clean maps and the last word from the network itself: of the iterates looked at, each image
    keeps the one that is best on it. Calling it with (x, target) returns the perturbed images.

    Attributes:
        steps: Updates.
        step_size: First step as a multiple of eps, decaying as in ``UPIGrad``; by default each image finds
            the length of its own steps (``upi.attacks.support.ascent.MeasuredRule``).
        momentum: As in ``UPIGrad``; only where a step size is given.
        checks: Iterates of the second half that are compared on the network itself, the last one included; at
            least 1.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``: rising around
            the default beta (14, 25, 45), in both presets, because an upper control should be strong.
        prediction_price: As in ``UPIGrad``. To be an upper control of a universal attack that
            pays for changed predictions, this one must pay the same price.

    Raises:
        ConfigError: An option is outside its range.
    """

    steps: int = 20
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
        _ = self.sharpness

    @property
    def rule(self) -> StepRule:
        """The step rule of the ascent."""
        if self.step_size is None:
            return MeasuredRule(self.steps)
        return Rule(self.steps, self.step_size, self.momentum)

    @property
    def sharpness(self) -> tuple[float | None, ...]:
        """Beta of each stage of the steps, stages of equal length."""
        if self.surrogate == "auto":
            return tuple(share * SURROGATE_BETA for share in SHARPNESS)
        return (self.beta(self.surrogate),)

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
            sharpest = self.sharpness[-1]
            fast = fast_derivatives_agree(network, objective, placed, sharpest)
            search = _Search(self, objective, placed, target.to(placed.device), fast=fast)
            start = network.place(self.ball.sample(tuple(x.shape), generator(self.seed, "per-image")))

            def in_both(delta: Tensor) -> Tensor:
                return self.ball.project_in_box(delta, placed)

            search.keep(ascend(search, start, self.ball, self.rule, project=in_both).delta)
        return in_box(placed + search.best).to(x)


class _Search:
    """All images at once: raised on the surrogate, the best perturbation of each kept by the network."""

    def __init__(
        self, attack: PerImageAttack, objective: MapChange, x: Tensor, target: Tensor, *, fast: bool
    ) -> None:
        self.attack, self.objective, self.fast = attack, objective, fast
        self.network = attack.classifier
        self.batch = explained_batch(objective, self.network, x, target)
        self.stage, self.surrogate, self.function = self._stage(0)
        self.best = torch.zeros_like(x)
        self.value = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        half = attack.steps // 2
        self.looked_at = {round(half * number / attack.checks) for number in range(1, attack.checks)}

    def _stage(self, number: int) -> tuple[int, Surrogate, GradientFunction]:
        beta = self.attack.sharpness[number]
        return number, self.network.surrogate(beta, fast=self.fast), self.attack.gradient_function(number)

    def __call__(self, delta: Tensor, step: int) -> Ascent:
        where = f"per-image step {step}"
        stage = step * len(self.attack.sharpness) // self.attack.steps
        if stage != self.stage:
            self.stage, self.surrogate, self.function = self._stage(stage)
        point = in_box(self.batch.x + delta)
        here = gradients(
            self.surrogate, self.objective, self.batch, point, where=where, function=self.function
        )
        if step == 0:
            require_gradient(here.gradient, where=where)
        if self.attack.steps - step in self.looked_at:
            self.keep(delta)
        return Ascent(float(here.values.mean()), here.gradient)

    def keep(self, delta: Tensor) -> None:
        """Compare ``delta`` on the network itself, and remember it where it is better."""
        value = self.objective.measured(self.network, self.batch, in_box(self.batch.x + delta))
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.best = torch.where(better[:, None, None, None], delta, self.best)
