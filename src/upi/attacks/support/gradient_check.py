"""Which way an attack differentiates: quick where it is known to be right, plain otherwise.

Guards against a quick path that is wrong on some network: before a fit, its attack gradient is
compared with autograd's own on a few images, and the plain path is taken, with one warning, where
they differ or the quick one fails.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from upi.attacks.support.gradients import Gradients, attack_gradient
from upi.attacks.support.objective import Objective, explained_batch
from upi.core.errors import FallbackWarning
from upi.core.seeding import generator
from upi.network.classifier import Classifier

#: Images compared, and the deviation of the noise that moves their maps.
PROBE, SHIFT = 4, 0.05
#: Relative error from which two attack gradients count as different: a wrong rule is off by much
#: more, rounding (measured up to 5e-4 in float32) by much less.
TOLERANCE = 1e-2


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


def fall_back(reason: str, remedy: str) -> None:
    """Warn, in one line, that the plain path is taken."""
    warnings.warn(f"{reason}; taking the plain path instead ({remedy})", FallbackWarning, stacklevel=4)


def fast_derivatives_agree(network: Classifier, objective: Objective, x: Tensor, beta: float | None) -> bool:
    """Whether ``upi.network.kernels`` gives the attack gradient that autograd gives, on a few images."""
    if not network.fast:
        return False
    some = x[:PROBE]
    noise = SHIFT * torch.randn(some.shape, generator=generator(0, "probe")).to(some)
    reference = network.surrogate(beta, fast=False)
    with network.frozen():
        batch = explained_batch(objective, reference, some, network.predict(some))
        plain = attack_gradient(reference, objective, batch, some + noise)
        remedy = "Classifier(..., fast=False) leaves out the attempt"
        try:
            quick = attack_gradient(network.surrogate(beta, fast=True), objective, batch, some + noise)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            fall_back(f"the fast derivatives do not work on this network: {error}".splitlines()[0], remedy)
            return False
    gap = difference(plain, quick)
    if gap > TOLERANCE:
        fall_back(f"the fast attack gradient differs from autograd's by {gap:.1%}", remedy)
    return gap <= TOLERANCE
