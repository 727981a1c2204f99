"""One look for every figure: colours by row, so that a method is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

COLOURS = {
    "upi-grad": "#c2410c",
    "upi-pca": "#0f766e",
    "class-uap": "#7c3aed",
    "per-image": "#1d4ed8",
    "per-image-one-step": "#60a5fa",
    "random": "#6b7280",
    "random-matched": "#9ca3af",
    "other-image": "#a16207",
    "tiny-noise": "#d1d5db",
}
NAMES = {
    "upi-grad": "UPI-Grad",
    "upi-pca": "UPI-PCA",
    "class-uap": "class UAP",
    "per-image": "per-image attack",
    "per-image-one-step": "per-image, one step (paper)",
    "random": "noise, equal norm",
    "random-matched": "noise, equal realised norm",
    "other-image": "another image's map",
    "tiny-noise": "tiny noise (1 % of eps)",
}
MAP_COLOURS = "magma"


def colour(row: str) -> str:
    """Colour of a row; black for rows this library does not know."""
    return COLOURS.get(row, "#111827")


def name(row: str) -> str:
    """Name of a row for people."""
    if row.startswith("random-in-"):
        return f"noise in {row.removeprefix('random-in-').replace('-', ' ')}"
    return NAMES.get(row, row)


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib settings of the report, without touching the user's own."""
    matplotlib.use("Agg", force=False)
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e7eb",
        "axes.axisbelow": True,
        "figure.dpi": 150,
        "savefig.bbox": "tight",
        "savefig.facecolor": "white",
        "legend.frameon": False,
    }
    with plt.rc_context(settings):
        yield
        plt.close("all")
