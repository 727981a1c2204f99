"""``Subspace``: the directions that many images' maps share, with the ball-shaped slice of it.

One singular vector says that one direction breaks explanations; k of them say how many there are. A
random vector of their span beside a random vector of the image space measures the second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from upi.core.errors import ArtifactError, ConfigError
from upi.core.seeding import generator
from upi.core.storage import write_atomic
from upi.core.tensors import canonical, plain_json, read_tensors
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation, as_perturbation

#: What the provenance of noise inside a subspace calls its method.
RANDOM_IN_SUBSPACE = "RandomInSubspace"
FORMAT, VERSION = "upi-subspace", "1"
#: Largest deviation of the basis from being orthonormal, in float32.
ORTHONORMAL = 1e-4


@dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal leading directions of the attack gradients of many images.

    Attributes:
        basis: (k, C, H, W) float32, orthonormal as vectors of C * H * W numbers.
        values: (k,) singular values of G / sqrt(n), descending, as plain numbers.
        provenance: How it was made, as plain JSON values.

    Raises:
        ArtifactError: ``basis`` is not a finite float32 (k, C, H, W) with orthonormal rows, or
            ``values`` are not k.
    """

    basis: Tensor
    values: tuple[float, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.basis, self.values, where="subspace")
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __len__(self) -> int:
        return self.basis.shape[0]

    def first(self, count: int) -> Subspace:
        """The span of the first ``count`` directions.

        Raises:
            ConfigError: ``count`` is not between 1 and k.
        """
        if not 1 <= count <= len(self):
            raise ConfigError(f"a subspace of {len(self)} directions has no first {count}")
        return Subspace(self.basis[:count], self.values[:count], self.provenance)

    def project(self, delta: Tensor) -> Tensor:
        """Nearest points of the subspace to (B, C, H, W)."""
        rows = self.basis.to(delta).flatten(1)
        flat: Tensor = delta.flatten(1) @ rows.T @ rows
        return flat.view_as(delta)

    def share(self, delta: Tensor) -> float:
        """Share of ||delta||_2^2 of a pattern (C, H, W) that lies in the subspace, in [0, 1]."""
        inside = self.project(delta[None].double())
        return float(inside.square().sum() / delta.double().square().sum())

    def random(self, eps: float | str, *, seed: int = 0, draw: int = 0) -> Perturbation:
        """A pattern drawn uniformly from the l2 sphere of radius ``eps`` inside the subspace."""
        ball = Ball("l2", eps)
        mixing = torch.randn(len(self), generator=generator(seed, "subspace", draw))
        delta = ball.extreme((mixing @ self.basis.flatten(1)).view(1, *self.basis.shape[1:]))
        record = {"method": RANDOM_IN_SUBSPACE, "directions": len(self), "seed": seed, "draw": draw}
        return as_perturbation(delta, ball, record)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with versioned metadata, whole or not at all.

        Raises:
            RunFolderError: The file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "values": json.dumps(list(self.values)),
            "provenance": plain_json(self.provenance, where=str(path)),
        }
        return write_atomic(path, canonical(save({"basis": self.basis.contiguous()}, metadata)))

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """Read a file written by ``save``; a pickle is never unpickled.

        Raises:
            ArtifactError: The file is damaged or foreign.
        """
        path = Path(path)
        tensors, metadata = read_tensors(path, FORMAT, VERSION, {"basis"})
        try:
            values = tuple(float(value) for value in json.loads(metadata["values"]))
            provenance = json.loads(metadata["provenance"])
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{path}: damaged metadata: {error}") from error
        _check(tensors["basis"], values, where=str(path))
        if not isinstance(provenance, dict):
            raise ArtifactError(f"{path}: damaged metadata: provenance is not a table")
        return cls(tensors["basis"], values, provenance)


def _check(basis: Any, values: tuple[float, ...], *, where: str) -> None:
    if not isinstance(basis, Tensor) or basis.ndim != 4 or basis.dtype != torch.float32:
        got = f"{basis.dtype} {tuple(basis.shape)}" if isinstance(basis, Tensor) else type(basis).__name__
        raise ArtifactError(f"{where}: expected a float32 basis of shape (k, C, H, W), got {got}")
    if basis.numel() == 0 or not torch.isfinite(basis).all():
        raise ArtifactError(f"{where}: the basis is empty or has NaN or infinite entries")
    rows = basis.flatten(1).double()
    if (rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)).abs().max() > ORTHONORMAL:
        raise ArtifactError(f"{where}: the directions are not orthonormal")
    if len(values) != len(basis):
        raise ArtifactError(f"{where}: {len(basis)} directions with {len(values)} values")
