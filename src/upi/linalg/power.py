"""The stochastic power method, as the paper finds its direction.

v <- normalise(v + alpha * G_B^T G_B v) over minibatches B. The step here is measured in
units of the current eigenvalue estimate, so it needs no tuning to the scale of G, and
decays as in Oja's rule; the mean of the second half of the iterates is returned (Polyak and
Juditsky 1992), which on planted spectra is as close to the truth as the exact solver is.
"""

from __future__ import annotations

import math

import torch

from upi.core.seeding import generator
from upi.linalg.operator import Operator, endless
from upi.linalg.result import EigenResult


def power(
    operator: Operator, *, steps: int = 200, step_size: float = 1.0, tolerance: float = 0.05, seed: int = 0
) -> EigenResult:
    """Approximate the top eigenvector by ``steps`` minibatch updates.

    Args:
        operator: Any operator; each update applies one minibatch term.
        steps: Minibatch updates.
        step_size: First step alpha_0 in units of 1 / eigenvalue; alpha_t = alpha_0 / (1 + t / 10).
            Larger ones jump to the top vector of each minibatch where a few rows are much longer
            than the others, as in attack gradients of deep networks (docs/paper.md).
        tolerance: The result counts as converged if the relative residual of a full
            application is below it.
        seed: Fixes the start, a random unit vector.
    """
    rng = generator(seed, "power")
    vector = torch.randn(operator.dim, generator=rng, dtype=torch.float64)
    vector /= vector.norm()
    scale, largest, history, average = 0.0, 1, [], torch.zeros_like(vector)
    for step, term in zip(range(steps), endless(operator), strict=False):
        largest = max(largest, term.count)  # a short last batch must not weigh as much as a full one
        image = term.matmat(vector[:, None])[:, 0] / largest
        quotient = float(vector @ image)
        # a difference can be negative here; the length of the image then says how long a step may be
        size = quotient if quotient > 0 else float(image.norm())
        scale = max(scale, size) if step < 10 else 0.9 * scale + 0.1 * size
        history.append(quotient)
        if scale > 0:
            vector = vector + step_size / (1 + step / 10) / scale * image
            vector /= vector.norm()
        if 2 * step >= steps - 1:
            average += vector
    vector = average / average.norm()
    image = operator.matvec(vector)
    value = float(vector @ image)
    residual = float((image - value * vector).norm()) / value if value > 0 else math.inf
    return EigenResult(
        torch.tensor([value], dtype=torch.float64),
        vector[None],
        residual,
        steps,
        converged=residual <= tolerance,
        history=tuple(history),
    )
