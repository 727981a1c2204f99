"""``Perturbation``: one fixed pattern, the ball it lives in, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import DataError
from upi.data.images import check_images
from upi.perturbation.ball import Ball
from upi.perturbation.file import check_delta, load_delta, save_delta


def in_box(x: Tensor) -> Tensor:
    """Clip images to [0, 1]: every perturbation is used through this."""
    return x.clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A universal perturbation.

    Calling it on images (N, C, H, W) in [0, 1] returns clip(x + delta) in [0, 1].

    Attributes:
        delta: (C, H, W) float32, in units of [0, 1] images.
        ball: The norm and radius it obeys.
        provenance: How it was made, as plain JSON values: method, map, dissimilarity,
            seed, model fingerprint, versions, and the solver's evidence (history,
            spectrum).

    Raises:
        ArtifactError: ``delta`` is not a finite float32 (C, H, W) tensor inside ``ball``.
    """

    delta: Tensor
    ball: Ball
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_delta(self.delta, self.ball, where="perturbation")
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __call__(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """clip(x + delta) for images (N, C, H, W); classes are ignored.

        Raises:
            DataError: ``x`` is not a batch of images in [0, 1] of the right shape.
        """
        check_images(x)
        if x.shape[1:] != self.delta.shape:
            raise DataError(
                f"this perturbation is for images of shape {tuple(self.delta.shape)}, "
                f"got {tuple(x.shape[1:])}"
            )
        return in_box(x + self.delta.to(x))

    def scaled(self, eps: float | str) -> Perturbation:
        """The same pattern at another radius: delta scaled by the ratio of the radii."""
        ball = Ball(self.ball.norm, eps)
        delta = ball.project((self.delta * (ball.eps / self.ball.eps))[None])[0]
        return Perturbation(delta, ball, {**self.provenance, "scaled_from_eps": self.ball.eps})

    def noting(self, **facts: Any) -> Perturbation:
        """The same pattern with more provenance (plain JSON values)."""
        return Perturbation(self.delta, self.ball, {**self.provenance, **facts})

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with versioned metadata, whole or not at all.

        Raises:
            RunFolderError: The file cannot be written.
        """
        return save_delta(path, self.delta, self.ball, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Perturbation:
        """Read a file written by ``save``; a pickle is never unpickled.

        Raises:
            ArtifactError: The file is damaged, foreign, or outside its own ball.
        """
        return cls(*load_delta(path))


def as_perturbation(delta: Tensor, ball: Ball, provenance: Mapping[str, Any]) -> Perturbation:
    """Wrap an attack's (1, C, H, W) result: float32 on the CPU, projected after rounding."""
    single = ball.project(delta.detach().to("cpu", torch.float32))[0]
    return Perturbation(single.contiguous(), ball, provenance)
