"""The attack gradient: how an objective changes with each perturbed image.

Guards against the silent zero: ReLU networks with logit maps have no attack gradient, and
returning noise as a result would look like a weak attack instead of a missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.attacks.support.objective import Explained, Objective, part_of, split
from upi.core.errors import NonFiniteError, ZeroGradientError
from upi.core.memory import in_halves, is_out_of_memory, together
from upi.data.batches import Batch, mean_margin
from upi.network.checks import explained
from upi.perturbation.pattern import in_box

#: Images times passes that one graph may hold, fewer of large images, unless the batch itself is larger.
NODES = 128


@dataclass(frozen=True)
class Gradients:
    """Values and their gradients with respect to each perturbed image."""

    values: Tensor  # (N,)
    gradient: Tensor  # (N, C, H, W); samples are independent, so row i is d value_i / d x_i


#: (model, objective, batch, perturbed) to values and gradients: ``attack_gradient``, or it compiled.
GradientFunction = Callable[[Explained, Objective, Batch, Tensor], Gradients]


def attack_gradient(model: Explained, objective: Objective, batch: Batch, perturbed: Tensor) -> Gradients:
    """Values and per-sample gradients by one backward pass of the summed objective."""
    point = perturbed.detach().requires_grad_()
    with torch.enable_grad():
        values = objective.values(model, batch, point)
        gradient = None
        if values.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(values.sum(), point, allow_unused=True)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise explained(error) from error
    return Gradients(values.detach(), torch.zeros_like(point) if gradient is None else gradient)


def images_at_once(objective: Objective, x: Tensor, *, least: int = 0) -> int:
    """How many of the images (N, C, H, W) one graph may hold with all their passes; ``least`` passes it may
    hold however large they are."""
    return max(1, max(together(x.shape[1:], NODES), least) // objective.passes)


def _parts(objective: Objective, batch: Batch, perturbed: Tensor) -> Iterator[tuple[Batch, Tensor]]:
    """The batch in pieces whose graphs stay small however many passes a map takes."""
    size = images_at_once(objective, batch.x, least=len(batch))
    if size >= len(batch):
        yield batch, perturbed
        return
    scale = mean_margin(batch.margin) if batch.scale is None and batch.margin is not None else batch.scale
    pieces = split(batch, size, scale)
    yield from zip(pieces, torch.split(perturbed, size), strict=True)


def _halved(
    model: Explained, objective: Objective, batch: Batch, perturbed: Tensor, function: GradientFunction
) -> list[Gradients]:
    """A piece as it is, or in halves where it does not fit in memory."""

    def work(some: slice) -> Gradients:
        if some == slice(0, len(batch)):
            return function(model, objective, batch, perturbed)
        return function(model, objective, part_of(batch, some), perturbed[some])

    return in_halves(work, len(batch), owner=model.net, kind="attack gradients")


def gradients(
    model: Explained,
    objective: Objective,
    batch: Batch,
    perturbed: Tensor,
    *,
    where: str,
    function: GradientFunction = attack_gradient,
) -> Gradients:
    """Values and per-sample gradients; maps of many passes are taken piece by piece.

    Raises:
        NonFiniteError: A value or gradient is NaN or infinite; names ``where`` and the samples.
    """
    pieces = [
        found
        for part, point in _parts(objective, batch, perturbed)
        for found in _halved(model, objective, part, point, function)
    ]
    values = torch.cat([part.values for part in pieces]) if len(pieces) > 1 else pieces[0].values
    gradient = torch.cat([part.gradient for part in pieces]) if len(pieces) > 1 else pieces[0].gradient
    bad = ~(torch.isfinite(values) & torch.isfinite(gradient).flatten(1).all(1))
    if bad.any():
        raise NonFiniteError(
            f"{where}: batch {batch.index} gave NaN or infinity in samples {bad.nonzero()[:8, 0].tolist()}"
            "; the perturbation was not changed"
        )
    return Gradients(values, gradient)


def boxed_gradients(
    model: Explained,
    objective: Objective,
    batch: Batch,
    point: Tensor,
    *,
    clip: bool,
    where: str,
    function: GradientFunction = attack_gradient,
) -> Gradients:
    """Values and per-sample gradients at clip(point) for points (N, C, H, W), or at the points themselves.

    Where clipping stops a pixel, its gradient is zero.

    Args:
        model, objective, batch, where, function: As for ``gradients``.
        point: Perturbed images before clipping.
        clip: Clip them to [0, 1].

    Raises:
        NonFiniteError: As ``gradients``.
    """
    seen = in_box(point) if clip else point
    here = gradients(model, objective, batch, seen, where=where, function=function)
    return Gradients(here.values, here.gradient * (seen == point)) if clip else here


def require_gradient(gradient: Tensor, *, where: str) -> None:
    """Refuse an attack gradient that is exactly zero for every sample.

    Raises:
        ZeroGradientError: With the likely causes and the remedy of each.
    """
    if bool((gradient != 0).any()):
        return
    raise ZeroGradientError(
        f"{where}: the attack gradient is exactly zero for every sample. A piecewise-linear (ReLU) "
        "network with a logit map has none: fit with the softplus surrogate (surrogate=..., a number; if "
        "it is on, the network's activation is not one it knows), "
        "explain the softmax score (saliency=upi.saliency.Gradient(score='softmax')), or use "
        "UPIPCA(rows='stein'), which needs map values only. A custom map must stay attached to "
        "the images it is given; the map of a linear model does not move at all."
    )
