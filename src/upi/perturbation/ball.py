"""Norm balls as values: everything an attack asks of its constraint.

All functions act on ``delta`` of shape (B, C, H, W), one ball per leading index,
so a universal perturbation (B = 1) and per-image ones (B = N) share one loop.
Guards against attacks that are copied once per norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import ConfigError, unknown_name

NORMS = ("l2", "linf")
#: Share of the radius from which a perturbation counts as on the sphere.
ON_SPHERE = 0.999
#: Rounds in which the l2 projection inside the box of images finds its scale.
BOX_ROUNDS = 10


def parse_eps(eps: float | str) -> float:
    """Read a radius: a number or a fraction such as ``"8/255"``.

    Raises:
        ConfigError: It is not a finite number above zero.
    """
    try:
        if isinstance(eps, str) and "/" in eps:
            numerator, denominator = eps.split("/")
            value = float(numerator) / float(denominator)
        else:
            value = float(eps)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(
            f"eps must be a number or a fraction like '8/255', got {str(eps)[:40]!r}"
        ) from error
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"eps must be finite and above 0, got {str(eps)[:40]!r}")
    return value


def _per_ball(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@dataclass(frozen=True)
class Ball:
    """The set {delta : ||delta|| <= eps}, in units of images in [0, 1].

    Attributes:
        norm: ``"l2"`` or ``"linf"``.
        eps: Radius, above zero; a string fraction is accepted.

    Raises:
        ConfigError: Unknown norm, or a radius that is not finite and positive.
    """

    norm: str
    eps: float

    def __init__(self, norm: str, eps: float | str) -> None:
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "eps", parse_eps(eps))

    def size(self, delta: Tensor) -> Tensor:
        """Norm of each of (B, C, H, W), as (B,)."""
        order: Any = 2 if self.norm == "l2" else math.inf
        sizes: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
        return sizes

    def project(self, delta: Tensor) -> Tensor:
        """Nearest point of the ball in the Euclidean sense, (B, C, H, W)."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        size = self.size(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * _per_ball((self.eps / size).clamp_max(1.0))

    def project_in_box(self, delta: Tensor, x: Tensor) -> Tensor:
        """Nearest point of the ball that leaves images in the box: x + delta in [0, 1]; both (B, C, H, W).

        That is clip(t delta) with the largest t <= 1 whose clipped point is in the ball: what clipping
        takes from some pixels goes to the others. In l2 t grows by eps / ||clip(t delta)|| from
        eps / ||delta||, and never passes it.
        """
        if self.norm == "linf":
            return self.project(delta).clamp(-x, 1 - x)
        tiny = torch.finfo(delta.dtype).tiny
        found, share = delta, torch.ones_like(self.size(delta))
        for _ in range(BOX_ROUNDS):
            share = (share * self.eps / self.size(found).clamp_min(tiny)).clamp_max(1.0)
            found = (_per_ball(share) * delta).clamp(-x, 1 - x)
        return self.project(found)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The point of the *unit* ball with the largest inner product with ``gradient``."""
        if self.norm == "linf":
            return gradient.sign()
        size = self.size(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        return gradient / _per_ball(size)

    def tangent(self, delta: Tensor, direction: Tensor) -> Tensor:
        """``direction`` without its radial part on the l2 sphere, which the sphere's curvature undoes."""
        if self.norm == "linf":
            return direction
        unit = self.steepest(delta)
        along = (direction * unit).flatten(1).sum(1)
        on = self.size(delta) >= ON_SPHERE * self.eps
        return direction - _per_ball(along * on) * unit

    def extreme(self, direction: Tensor) -> Tensor:
        """The point of the ball farthest along ``direction``: on the boundary."""
        return self.eps * self.steepest(direction)

    def outward(self, delta: Tensor) -> Tensor:
        """The point of the ball in the direction of ``delta``: on the l2 sphere, or clipped to the cube."""
        return self.extreme(delta) if self.norm == "l2" else self.project(delta)

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw uniformly from the ball; ``shape`` is (B, C, H, W), float32 on the CPU."""
        if self.norm == "linf":
            return self.eps * (2 * torch.rand(shape, generator=rng) - 1)
        radius = torch.rand(shape[0], generator=rng) ** (1 / math.prod(shape[1:]))
        return _per_ball(radius) * self.boundary(shape, rng)

    def boundary(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw from the strongest noise of the ball: the l2 sphere, or the corners of the cube."""
        return self.extreme(torch.randn(shape, generator=rng))

    def contains(self, delta: Tensor, *, tolerance: float = 1e-4) -> bool:
        """Whether every norm is at most ``eps * (1 + tolerance)`` (float32 rounding)."""
        return bool((self.size(delta) <= self.eps * (1 + tolerance)).all())
