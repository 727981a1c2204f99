"""Perturbation files: safetensors with versioned metadata, checked on save and on load.

Guards against running code from a file (a pickle is refused, never unpickled), against
truncation, and against files that contradict themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from upi.core.errors import ArtifactError, ConfigError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical, plain_json, read_tensors, require
from upi.perturbation.ball import Ball

FORMAT = "upi-perturbation"
VERSION = "1"
DATA_RANGE = "[0, 1]"


def check_delta(delta: Any, ball: Ball, *, where: str) -> Tensor:
    """Return ``delta`` if it is a finite float32 (C, H, W) tensor inside ``ball``.

    Raises:
        ArtifactError: Otherwise.
    """
    if not isinstance(delta, Tensor) or delta.ndim != 3 or delta.dtype != torch.float32:
        got = f"{delta.dtype} {tuple(delta.shape)}" if isinstance(delta, Tensor) else type(delta).__name__
        raise ArtifactError(f"{where}: expected a float32 perturbation of shape (C, H, W), got {got}")
    if delta.numel() == 0 or not torch.isfinite(delta).all():
        raise ArtifactError(f"{where}: the perturbation is empty or has NaN or infinite entries")
    if not ball.contains(delta[None]):
        size = float(ball.size(delta[None]))
        raise ArtifactError(
            f"{where}: {ball.norm} norm {size:.6g} is outside its own ball of radius {ball.eps:.6g}"
        )
    return delta


def dumped(delta: Tensor, ball: Ball, provenance: Mapping[str, Any], *, where: str = "perturbation") -> bytes:
    """The content of a perturbation file.

    Raises:
        ArtifactError: The perturbation is not finite or not inside its ball.
    """
    tensor = check_delta(delta, ball, where=where).detach().cpu().contiguous()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "norm": ball.norm,
        "eps": repr(ball.eps),
        "data_range": DATA_RANGE,
        "shape": json.dumps(list(tensor.shape)),
        "provenance": plain_json(provenance, where=where),
    }
    return canonical(save({"delta": tensor}, metadata))


def save_delta(path: str | Path, delta: Tensor, ball: Ball, provenance: Mapping[str, Any]) -> Path:
    """Write a perturbation file, whole or not at all.

    Raises:
        ArtifactError: The perturbation is not finite or not inside its ball.
        RunFolderError: The file cannot be written.
    """
    return write_atomic(path, dumped(delta, ball, provenance, where=str(path)))


def load_delta(path: str | Path) -> tuple[Tensor, Ball, dict[str, Any]]:
    """Read and validate a perturbation file: (delta, ball, provenance).

    Raises:
        ArtifactError: The file is truncated, of another format or version, or its tensor
            does not fit its own metadata.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path, FORMAT, VERSION, {"delta"})
    require(path, metadata, "data_range", DATA_RANGE)
    try:
        ball = Ball(metadata["norm"], metadata["eps"])
        provenance = json.loads(metadata["provenance"])
        shape = json.loads(metadata["shape"])
    except (KeyError, ConfigError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged metadata: {error}") from error
    delta = check_delta(tensors["delta"], ball, where=str(path))
    if not isinstance(provenance, dict):
        raise ArtifactError(
            f"{path}: damaged metadata: provenance is {type(provenance).__name__}, not a table"
        )
    if shape != list(delta.shape):
        raise ArtifactError(f"{path}: the metadata say shape {shape}, the tensor has {list(delta.shape)}")
    return delta, ball, provenance
