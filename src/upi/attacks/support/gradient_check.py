"""Which way an attack differentiates: quick where it is known to be right, plain otherwise.

Guards against a quick path that is wrong on some network: before a fit, its attack gradient is
compared with autograd's own on a few images, and the plain path is taken, with one warning, where
they differ or the quick one fails. And against maps of other libraries whose gradient is wrong: those are
compared with differences, and refused.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.support.gradients import Gradients, attack_gradient, images_at_once
from upi.attacks.support.objective import MapChange, Objective, explained_batch
from upi.core.errors import FallbackWarning, MemoryLimitError, ModelError, first_line
from upi.core.memory import is_out_of_memory, with_fewer
from upi.core.naming import short_name
from upi.core.seeding import generator
from upi.data.batches import Batch
from upi.network.classifier import Classifier
from upi.saliency import is_own

#: Images compared at the most, and the deviation of the noise that moves their maps.
PROBE, SHIFT = 4, 0.05
#: Relative error from which two attack gradients count as different: a wrong rule is off by much
#: more, rounding (measured up to 5e-4 in float32) by much less.
TOLERANCE = 1e-2
#: Error of autograd's own float32 gradient beyond which it says nothing of another one.
LOST = 0.45
#: The same in float64, where two ways that are both right agree to 1e-8 (tests).
EXACT = 1e-5


def _probed(objective: Objective, x: Tensor) -> Tensor:
    """The first images: autograd's own graph of them is twice as large as those of a fit."""
    return x[: max(1, min(PROBE, images_at_once(objective, x) // 2))]


def difference(reference: Gradients, other: Gradients) -> float:
    """Relative l2 error of gradients; infinite where only the other one is not finite.

    The larger of the median over images and a tenth of the error of all together: a wrong rule is off
    on every image, while rounding next to a kink (a ReLU that flips, in deep float32 networks) changes
    one image by a percent and the others by nothing.
    """
    if not bool(torch.isfinite(reference.gradient).all()):
        return 0.0  # the fit will say so
    errors, sizes = (
        torch.linalg.vector_norm(rows.flatten(1), dim=1)
        for rows in (other.gradient - reference.gradient, reference.gradient)
    )
    tiny = torch.finfo(sizes.dtype).tiny
    each = (errors / sizes.clamp_min(tiny)).where(sizes > 0, errors)
    whole = errors.norm() / sizes.norm().clamp_min(tiny) if bool((sizes > 0).any()) else errors.norm()
    ratio = float(torch.maximum(each.median(), whole / 10))
    return ratio if ratio == ratio else float("inf")


#: Steps of the differences, as shares of the shift; and the largest error that rounding and curvature may
#: leave of a right derivative in float64 (measured: up to 0.003) and in float32.
STEPS, WRONG, WRONG_SINGLE = (0.1, 0.03, 0.01, 0.003), 0.02, 0.1


def require_right_gradient(network: Classifier, objective: MapChange, x: Tensor, beta: float | None) -> None:
    """Compare the attack gradient of a map that is not the library's own with central differences.

    Guards against maps that look differentiable and are not: a part of them detached from the images, or its
    second derivative wrong, gives a gradient that points elsewhere. In float64 where network and map allow
    it.

    Args:
        network: Frozen or not.
        objective: The map and its change.
        x: A few images (N, C, H, W).
        beta: Sharpness of the surrogate that is fitted on, or None.

    Raises:
        ModelError: The derivative along some direction is wrong; says by how much, and what to do.
    """
    if is_own(objective.saliency):
        return
    name = short_name(objective.saliency)
    remedy = (
        "Fit on a map of this library, saliency='gradient', and evaluate the perturbation on this map; or "
        "return it attached to the images it is given (torch.autograd.grad(..., create_graph=True))"
    )
    try:
        (stated, measured), bound = _in_float64(network, objective, x, beta)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the map {name} cannot be differentiated: {first_line(error)[:200]}. {remedy}"
        ) from error
    size = torch.linalg.vector_norm(measured)
    gap = torch.linalg.vector_norm(stated - measured)
    wrong = float(gap / size) if size > 0 else float(gap > 0)
    if wrong > bound:
        pairs = zip(stated.tolist(), measured.tolist(), strict=True)
        shown = ", ".join(f"{a:.4g} where differences give {b:.4g}" for a, b in pairs)
        raise ModelError(
            f"the map {name} is not differentiable as it claims: along two directions the attack gradient is "
            f"{shown}. {remedy}"
        )


def _in_float64(
    network: Classifier, objective: MapChange, x: Tensor, beta: float | None
) -> tuple[tuple[Tensor, Tensor], float]:
    """What ``_derivatives`` gives, in float64 where network and map allow it; and the bound of its error."""
    try:
        return _derivatives(network, objective, x, beta, double=True), WRONG
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return _derivatives(network, objective, x, beta, double=False), WRONG_SINGLE


def _derivatives(
    network: Classifier, objective: MapChange, x: Tensor, beta: float | None, *, double: bool
) -> tuple[Tensor, Tensor]:
    """Derivatives (2,) of the summed change along shift and attack gradient: stated, measured."""
    some = _probed(objective, x)
    if double:
        network, some = Classifier(deepcopy(network.net).double(), **network.options()), some.double()
    shift = SHIFT * torch.randn(some.shape, generator=generator(0, "probe")).to(some)
    surrogate = network.surrogate(beta, fast=False)
    with network.frozen():
        batch = explained_batch(objective, surrogate, some, network.predict(some))
        slope = attack_gradient(surrogate, objective, batch, some + shift).gradient
        size = torch.linalg.vector_norm(slope)
        length = torch.linalg.vector_norm(shift)
        along = [shift, slope * length / size if size > 0 else torch.roll(shift, 1, -1)]
        stated = torch.stack([(slope * way).sum() for way in along]).cpu()

        def value(step: float, way: Tensor) -> Tensor:
            return objective.measured(surrogate, batch, some + shift + step * way).sum().cpu()

        each = [[(value(step, way) - value(-step, way)) / (2 * step) for way in along] for step in STEPS]
    measured = torch.tensor(each, dtype=stated.dtype)
    # The step that agrees best: others are too coarse or too fine.
    best = (measured - stated).abs().argmin(0)
    return stated, measured.gather(0, best[None])[0]


def fall_back(reason: str, remedy: str) -> None:
    """Warn, in one line, that the plain path is taken."""
    warnings.warn(f"{reason}; taking the plain path instead ({remedy})", FallbackWarning, stacklevel=4)


def fast_derivatives_agree(network: Classifier, objective: Objective, x: Tensor, beta: float | None) -> bool:
    """Whether ``upi.network.kernels`` gives the attack gradient that autograd gives, on a few images."""
    if not network.fast:
        return False
    return with_fewer(lambda some: _agree(network, objective, some, beta), _probed(objective, x))


@dataclass(frozen=True)
class _Probe:
    """A few explained images, and where they are moved to, to compare gradients at."""

    network: Classifier
    objective: Objective
    batch: Batch
    moved: Tensor  # (N, C, H, W)
    beta: float | None

    @classmethod
    def of(
        cls, network: Classifier, objective: Objective, x: Tensor, target: Tensor, beta: float | None
    ) -> _Probe:
        """Images ``x`` for classes ``target``, with clean maps by autograd's own way."""
        noise = SHIFT * torch.randn(x.shape, generator=generator(0, "probe")).to(x)
        with network.frozen():
            batch = explained_batch(objective, network.surrogate(beta, fast=False), x, target)
        return cls(network, objective, batch, x + noise, beta)

    def gradient(self, *, fast: bool) -> Gradients:
        """The attack gradient, by the quick way or autograd's own."""
        with self.network.frozen():
            surrogate = self.network.surrogate(self.beta, fast=fast)
            return attack_gradient(surrogate, self.objective, self.batch, self.moved)

    def exact(self) -> _Probe:
        """The same of a copy in float64."""
        network = Classifier(deepcopy(self.network.net).double(), **self.network.options())
        x, target = self.batch.x.double(), self.batch.target
        return _Probe.of(network, self.objective, x, target, self.beta)


def _agree(network: Classifier, objective: Objective, some: Tensor, beta: float | None) -> bool:
    remedy = "Classifier(..., fast=False) leaves out the attempt"
    probe = _Probe.of(network, objective, some, network.predict(some), beta)
    plain = probe.gradient(fast=False)
    try:
        quick = probe.gradient(fast=True)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        fall_back(f"the fast derivatives do not work on this network: {first_line(error)}", remedy)
        return False
    gap = difference(plain, quick)
    if gap <= TOLERANCE or _only_rounding(probe, plain, quick):
        return True
    fall_back(f"the fast attack gradient differs from autograd's by {gap:.1%}", remedy)
    return False


def _only_rounding(probe: _Probe, plain: Gradients, quick: Gradients) -> bool:
    """Whether the two gradients of a probe differ because the network loses digits.

    Then both ways agree in float64, and the quick one is no further from that than twice autograd's own.
    """
    if probe.moved.dtype == torch.float64:
        return False
    try:
        exact = probe.exact()
        own, other = (exact.gradient(fast=fast) for fast in (False, True))
    except (RuntimeError, TypeError, ValueError, AttributeError, MemoryLimitError):
        return False  # the network cannot be had in float64, or there is no room for it
    lost = difference(own, plain)
    return (
        difference(own, other) <= EXACT
        and lost <= LOST
        and difference(own, quick) <= max(TOLERANCE, 2 * lost)
    )
