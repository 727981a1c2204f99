"""Small pictures of all test images on one sheet, for a page that shows them without a server."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from upi.core.errors import RunFolderError

#: Sides that are tried, in pixels, from the best to the least.
SIDES = (56, 48, 40, 32, 24, 16)
QUALITY = 72

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """The gallery of one cell, as ``upi.audit.gallery`` wrote it."""

    images: Bytes  # (n, C, h, w)
    clean: Bytes  # (n, h, w)
    perturbed: Bytes  # (n, h, w)
    pattern: NDArray[np.float32]  # (C, h, w)

    @classmethod
    def read(cls, path: Path) -> Pictures:
        """Read a gallery.

        Raises:
            RunFolderError: It is damaged.
        """
        try:
            held = load_file(path)
            return cls(*(held[name] for name in ("images", "clean", "perturbed", "pattern")))
        except (SafetensorError, OSError, KeyError) as error:
            raise RunFolderError(f"{path}: damaged: {error}") from error


def _shrunk(tile: Bytes, side: int) -> Bytes:
    """A picture (h, w) or (h, w, 3) at most ``side`` pixels wide and high."""
    scale = side / max(tile.shape[:2])
    if scale >= 1:
        return tile
    size = (max(1, round(tile.shape[1] * scale)), max(1, round(tile.shape[0] * scale)))
    return np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BOX))


def sheet(tiles: Bytes, side: int) -> tuple[bytes, int, int, int]:
    """Pictures (n, h, w) or (n, C, h, w) on a WebP sheet: bytes, columns, width, height of a tile."""
    if tiles.ndim == 4:
        colour = tiles if tiles.shape[1] == 3 else tiles[:, :1].repeat(3, 1)
        tiles = np.ascontiguousarray(colour.transpose(0, 2, 3, 1))
    small = np.stack([_shrunk(tile, side) for tile in tiles])
    columns = max(1, ceil(sqrt(len(small))))
    height, width = small.shape[1:3]
    whole = np.zeros((ceil(len(small) / columns) * height, columns * width, *small.shape[3:]), np.uint8)
    for number, tile in enumerate(small):
        row, column = divmod(number, columns)
        whole[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, format="WEBP", quality=QUALITY, method=4)
    return buffer.getvalue(), columns, width, height


def _data(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def atlas(cells: Mapping[str, Pictures], same: Mapping[str, str], room: int) -> dict[str, Any]:
    """Sheets of all cells as large as the room allows.

    Args:
        cells: Galleries by the key of their table.
        same: Key to the key of a table with the same images and clean maps; its own where it is the first.
        room: Bytes of all sheets in the page, as base64.

    Returns:
        ``sheets`` by name, and for each cell the names of its ``images``, ``clean`` and ``perturbed`` sheet
        with ``columns``, ``width``, ``height`` and the ``pattern`` at the images' size, as signed bytes of
        ``scale``.
    """
    made: dict[str, tuple[bytes, int, int, int]] = {}
    for side in SIDES:
        made = {}
        for key, pictures in cells.items():
            if same[key] == key:
                made[f"{key}:images"] = sheet(pictures.images, side)
                made[f"{key}:clean"] = sheet(pictures.clean, side)
            made[f"{key}:perturbed"] = sheet(pictures.perturbed, side)
        if sum(len(each[0]) for each in made.values()) * 4 / 3 <= room:
            break
    found: dict[str, Any] = {"sheets": {name: _data(each[0]) for name, each in made.items()}, "cells": {}}
    for key, pictures in cells.items():
        _, columns, width, height = made[f"{key}:perturbed"]
        scale = float(np.abs(pictures.pattern).max()) or 1.0
        shrunk = [
            np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BOX))
            for channel in pictures.pattern
        ]
        codes = np.round(np.stack(shrunk) / scale * 127).astype(np.int8)
        found["cells"][key] = {
            "images": f"{same[key]}:images",
            "clean": f"{same[key]}:clean",
            "perturbed": f"{key}:perturbed",
            "columns": columns,
            "width": width,
            "height": height,
            "pattern": base64.b64encode(codes.tobytes()).decode(),
            "scale": scale,
            "channels": len(codes),
        }
    return found
