"""Figures of docs/benchmarks.md; see ``benchmarks.tables``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from benchmarks.records import TITLES, records
from upi.report.style import look

COLOURS = {"upi": "#c2410c", "own pass": "#6b7280", "upi-grad": "#c2410c", "upi-pca, sketch": "#0f766e"}


def _slope(axes: Axes, x: Sequence[float], y: float, power: float, label: str) -> None:
    values = np.asarray(x, dtype=float)
    axes.plot(values, y * (values / values[-1]) ** power, ":", color="#9ca3af", label=label)


def growth(folder: Path) -> Figure:
    """Time and memory against number of images, image size and parameters, with expected slopes."""
    found = records(folder, "growth")
    panels: list[tuple[str, str, str, float | None, float]] = [
        ("images", "images in the pass", "linear", 1.0, 0.0),
        ("image size", "image side (pixels)", "quadratic", 2.0, 2.0),
        ("parameters", "parameters", "linear", 1.0, 0.5),
    ]
    with look():
        figure, grid = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
        for column, (against, label, _, slope, memory) in zip(grid.T, panels, strict=True):
            mine = [r for r in found if r["against"] == against]
            for axes, key, scale, power in (
                (column[0], "seconds", 1.0, slope),
                (column[1], "peak", 2.0**20, memory),
            ):
                for method in dict.fromkeys(r["method"] for r in mine):
                    points = sorted((r["value"], r[key] / scale) for r in mine if r["method"] == method)
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, "o-", color=COLOURS[method], label=method)
                x = sorted({r["value"] for r in mine})
                last = min(r[key] / scale for r in mine if r["value"] == x[-1])
                if power is not None:
                    _slope(axes, x, last, power, f"slope {power:g}")
                axes.set(xscale="log", yscale="log", xlabel=label)
                axes.set_xticks(x, [f"{v / 1e6:.1f}M" if v > 1e5 else str(v) for v in x], minor=False)
                axes.xaxis.set_minor_locator(NullLocator())
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.legend(fontsize=8)
        grid[0, 0].set_ylabel("seconds")
        grid[1, 0].set_ylabel("peak memory (MB)")
    return figure


def strengths(folder: Path) -> Figure:
    """Strength against gradient passes."""
    found = records(folder, "strength")
    looks = {
        "upi": ("#c2410c", "-"),
        "plain ascent": ("#6b7280", "-"),
        "upi, paper preset": ("#c2410c", "--"),
        "plain ascent, paper preset": ("#6b7280", "--"),
    }
    with look():
        archs = list(dict.fromkeys(r["arch"] for r in found))
        size = (5.5 * len(archs), 3.8)
        figure, grid = plt.subplots(1, len(archs), figsize=size, layout="constrained", squeeze=False)
        panels = grid[0]
        for axes, arch in zip(panels, archs, strict=True):
            for r in (r for r in found if r["arch"] == arch):
                curve = sorted((int(passes), value / r["reference"]) for passes, value in r["curve"].items())
                colour, style = looks[r["method"]]
                axes.plot(
                    *zip(*curve, strict=True), "o", linestyle=style, color=colour, ms=3, label=r["method"]
                )
            axes.axhline(0.95, color="#9ca3af", linestyle=":")
            axes.set(xscale="log", xlabel="gradient passes", title=TITLES[arch])
        panels[0].set_ylabel("map change / that of the long run")
        panels[0].legend(fontsize=8)
    return figure
