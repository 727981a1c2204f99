"""Controls that need no fitting: noise, matched noise, another image's map, tiny noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from upi.core.seeding import generator
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box

#: Radius of the floor control as a share of eps.
TINY = 0.01


def noise(x: Tensor, ball: Ball, seed: int, draw: int) -> Tensor:
    """One random pattern (1, C, H, W) on the boundary of the ball, shared by all images."""
    return ball.boundary((1, *x.shape[1:]), generator(seed, "noise", draw)).to(x)


def matched(x: Tensor, pattern: Tensor, ball: Ball, size: Tensor) -> Tensor:
    """clip(x + t_i pattern), t_i such that each image's realised norm is ``size`` (N,).

    Found by bisection on clipping alone. Where the box is too small, the norm falls short.
    """
    low = torch.zeros_like(size)
    high = torch.full_like(size, 64.0)
    for _ in range(24):
        middle = (low + high) / 2
        reached = ball.size(in_box(x + middle[:, None, None, None] * pattern) - x)
        low, high = torch.where(reached < size, middle, low), torch.where(reached < size, high, middle)
    return in_box(x + high[:, None, None, None] * pattern)


def other_image(maps: Tensor, previous: Tensor | None) -> Tensor:
    """For each map the map of another image: the ceiling of what a perturbation can do.

    The maps (N, H, W) move round by one; a batch of one takes the last map before it.
    """
    if maps.shape[0] > 1:
        return maps.roll(1, 0)
    return torch.full_like(maps, torch.nan) if previous is None else previous[None]


#: Figures of which the largest over draws counts.
LARGEST = ("max_sensitivity",)


def _largest(values: Tensor, changed: Tensor) -> Tensor:
    """Largest over the draws that change no prediction, NaN where each does."""
    found = values.masked_fill(changed, -torch.inf).amax(0)
    return found.masked_fill(changed.all(0), torch.nan)


def mean_columns(draws: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sample-wise mean over draws of every figure, and of it among unchanged predictions; of those in
    ``LARGEST`` the largest instead.

    ``NAME|unchanged`` is the mean over those draws that leave the image's prediction alone,
    NaN where none does.
    """
    stacked = {key: torch.stack([draw[key].double() for draw in draws]) for key in draws[0]}
    changed = stacked["prediction_changed"] > 0
    means = {key: values.amax(0) if key in LARGEST else values.mean(0) for key, values in stacked.items()}
    kept = {
        f"{key}|unchanged": _largest(values, changed)
        if key in LARGEST
        else values.masked_fill(changed, torch.nan).nanmean(0)
        for key, values in stacked.items()
        if key != "prediction_changed"
    }
    return {**means, **kept}
