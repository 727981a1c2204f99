"""Files of tensors: safetensors with versioned metadata; the same content is always the same bytes.

Guards against running code from a file: a pickle is refused, never unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from upi.core.errors import ArtifactError

_PICKLE_HEADS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def plain_json(provenance: Mapping[str, Any], *, where: str) -> str:
    """Provenance as text.

    Raises:
        ArtifactError: It holds more than plain JSON values.
    """
    try:
        return json.dumps(dict(provenance), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: provenance must be plain JSON values: {error}") from error


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


def require(path: Path, metadata: Mapping[str, str], key: str, value: str) -> None:
    """Raise ``ArtifactError`` unless the metadata say so."""
    got = metadata.get(key)
    if got != value:
        raise ArtifactError(f"{path}: expected {key} {value!r}, got {got if got is None else got[:60]!r}")


def read_tensors(
    path: Path, kind: str, version: str, names: set[str] | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of this library; ``names`` None takes whatever there is.

    Raises:
        ArtifactError: The file is truncated, of another format or version, or holds other tensors.
    """
    metadata, tensors = _read(path)
    require(path, metadata, "format", kind)
    require(path, metadata, "version", version)
    if names is not None and set(tensors) != names:
        wanted = ", ".join(map(repr, sorted(names)))
        raise ArtifactError(f"{path}: expected one tensor named {wanted}, got {sorted(tensors)}")
    return tensors, metadata
