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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from upi.core.errors import ArtifactError, ConfigError
from upi.core.storage import write_atomic
from upi.perturbation.ball import Ball

FORMAT = "upi-perturbation"
VERSION = "1"
DATA_RANGE = "[0, 1]"
_PICKLE_HEADS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


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


def plain_json(provenance: Mapping[str, Any], *, where: str) -> str:
    """Provenance as text.

    Raises:
        ArtifactError: It holds more than plain JSON values.
    """
    try:
        return json.dumps(dict(provenance), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: provenance must be plain JSON values: {error}") from error


def save_delta(path: str | Path, delta: Tensor, ball: Ball, provenance: Mapping[str, Any]) -> Path:
    """Write a perturbation file, whole or not at all.

    Raises:
        ArtifactError: The perturbation is not finite or not inside its ball.
        RunFolderError: The file cannot be written.
    """
    tensor = check_delta(delta, ball, where=str(path)).detach().cpu().contiguous()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "norm": ball.norm,
        "eps": repr(ball.eps),
        "data_range": DATA_RANGE,
        "shape": json.dumps(list(tensor.shape)),
        "provenance": plain_json(provenance, where=str(path)),
    }
    return write_atomic(path, canonical(save({"delta": tensor}, metadata)))


def canonical(content: bytes) -> bytes:
    """The same safetensors file with its header in sorted order: same content, same bytes.

    The library writes metadata in the order of a hash table, which differs from run to run.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _foreign(path: Path, error: Exception) -> ArtifactError:
    """Say what a file is that safetensors cannot read; its content is only looked at, never run."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except (OSError, ValueError) as unreadable:
        return ArtifactError(f"{str(path)!r}: cannot be read: {unreadable}")
    header = head[8:] == b"{"  # a safetensors file may begin with the same two bytes: its header's size
    if head.startswith(_PICKLE_HEADS) and not header:
        return ArtifactError(
            f"{path}: this looks like a pickle or torch.save file; these can run code when loaded and "
            "are never unpickled here. Expected a safetensors file written by Perturbation.save"
        )
    return ArtifactError(f"{path}: truncated, or not a safetensors file ({error})")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise _foreign(path, error) from error


def _expect(path: Path, metadata: Mapping[str, str], key: str, value: str) -> None:
    got = metadata.get(key)
    if got != value:
        raise ArtifactError(f"{path}: expected {key} {value!r}, got {got if got is None else got[:60]!r}")


def read_tensors(
    path: Path, kind: str, version: str, names: set[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of this library.

    Raises:
        ArtifactError: The file is truncated, of another format or version, or holds other tensors.
    """
    metadata, tensors = _read(path)
    _expect(path, metadata, "format", kind)
    _expect(path, metadata, "version", version)
    if set(tensors) != names:
        wanted = ", ".join(map(repr, sorted(names)))
        raise ArtifactError(f"{path}: expected one tensor named {wanted}, got {sorted(tensors)}")
    return tensors, metadata


def load_delta(path: str | Path) -> tuple[Tensor, Ball, dict[str, Any]]:
    """Read and validate a perturbation file: (delta, ball, provenance).

    Raises:
        ArtifactError: The file is truncated, of another format or version, or its tensor
            does not fit its own metadata.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path, FORMAT, VERSION, {"delta"})
    _expect(path, metadata, "data_range", DATA_RANGE)
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
