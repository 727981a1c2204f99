"""Figures of a reproduction: each function draws one from results, and never sees a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from torch import Tensor

from upi.core.rows import NOISE, PER_IMAGE, UPI_PCA
from upi.report.figures import bare, class_name, picture
from upi.report.style import MAP_COLOURS, colour, name


def before_after(items: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """The same images under every attack: a block per image, images above their maps.

    All maps of a block share one colour scale.
    """
    blocks = list(dict.fromkeys(item["rule"] for item in items))
    rows = list(dict.fromkeys(item["row"] for item in items))
    figure = plt.figure(figsize=(1.6 * (1 + len(rows)), 3.9 * len(blocks)))
    outer = figure.add_gridspec(len(blocks), 1, hspace=0.16)
    for number, block in enumerate(blocks):
        mine = [item for item in items if item["rule"] == block]
        above, below = (
            outer[number].subgridspec(2, 1 + len(rows), wspace=0.06, hspace=0.2).subplots(squeeze=False)
        )
        maps = [mine[0]["clean_map"], *(item["perturbed_map"] for item in mine)]
        top = float(np.quantile(np.stack(maps), 0.998))
        shown = [mine[0]["x"], *(item["perturbed"] for item in mine)]
        for axes, image in zip(above, shown, strict=True):
            axes.imshow(picture(image), cmap="gray", vmin=0, vmax=1)
            bare(axes)
        for axes, saliency in zip(below, maps, strict=True):
            axes.imshow(saliency.numpy(), cmap=MAP_COLOURS, vmin=0, vmax=top)
            bare(axes)
        for axes, title in zip(above, ["clean", *(name(item["row"]) for item in mine)], strict=True):
            axes.set_title(title, fontsize=8.5)
        for axes, item in zip(above[1:], mine, strict=True):
            axes.set_xlabel(class_name(classes, item["prediction"]), fontsize=7.5)
        above[0].set_xlabel(f"label {class_name(classes, mine[0]['label'])}", fontsize=7.5)
        for axes, item in zip(below[1:], mine, strict=True):
            axes.set_xlabel(f"change {item['value']:.2f}", fontsize=7.5)
    return figure


def _visible(delta: Tensor) -> NDArray[Any]:
    """A pattern as a picture around grey, stretched to its own largest entry."""
    stretched = 0.5 + 0.5 * delta / delta.abs().max().clamp_min(1e-12)
    return picture(stretched)


def patterns(items: Mapping[str, Mapping[str, Tensor]], titles: Mapping[str, str]) -> Figure:
    """Patterns (C, H, W) by method (rows) and network (columns), around grey."""
    columns = list(dict.fromkeys(arch for row in items.values() for arch in row))
    figure, grid = plt.subplots(
        len(items), len(columns), figsize=(1.9 * len(columns), 2.05 * len(items)), squeeze=False
    )
    for axes, arch in zip(grid[0], columns, strict=True):
        axes.set_title(titles.get(arch, arch).replace(" (", "\n("), fontsize=8.5)
    for line, (method, row) in zip(grid, items.items(), strict=True):
        for axes, arch in zip(line, columns, strict=True):
            bare(axes)
            if arch in row:
                axes.imshow(_visible(row[arch]), cmap="gray", vmin=0, vmax=1)
        line[0].set_ylabel(name(method), fontsize=9)
    figure.subplots_adjust(wspace=0.05, hspace=0.05)
    return figure


def correlation(study: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """Cosines and peaks over shifts; grey cells lie inside the band of unrelated patterns."""
    labels = []
    for entry in study["names"]:
        method, _, arch = entry.partition("/")
        labels.append(f"{titles.get(arch, arch)}, {name(method).removeprefix('UPI-')}")
    size = 1.2 + 0.46 * len(labels)
    figure, grid = plt.subplots(1, 2, figsize=(2 * size + 1.2, size), sharey=True)
    for axes, key, band, title in (
        (grid[0], "cosine", "band", "in place (cosine)"),
        (grid[1], "peak", "peak_band", "best shift (absolute)"),
    ):
        values, limit = np.asarray(study[key]), np.asarray(study[band])
        inside = (np.abs(values) <= limit) & ~np.eye(len(values), dtype=bool)
        scale = TwoSlopeNorm(0, -1, 1)
        drawn = axes.imshow(np.where(inside, np.nan, values), cmap="RdBu_r", norm=scale)
        axes.set_facecolor("#e5e7eb")
        for (i, j), value in np.ndenumerate(values):
            dark = abs(value) > 0.6 and not inside[i, j]
            axes.text(j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=6.5,
                      color="white" if dark else "#6b7280" if inside[i, j] else "#111827")  # fmt: skip
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
        axes.set_title(title, fontsize=9.5)
        axes.grid(visible=False)
    figure.tight_layout()
    figure.colorbar(drawn, ax=list(grid), fraction=0.02, pad=0.02)
    return figure


def fitting_images(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Strength on test images against the number of fitting images."""
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    for row in dict.fromkeys(p["name"] for p in points):
        mine = sorted((p for p in points if p["name"] == row), key=lambda p: int(p["count"]))
        counts = [p["count"] for p in mine]
        style = "--" if row == NOISE else "o-"
        axes.plot(counts, [p["mean"] for p in mine], style, ms=4, color=colour(row), label=name(row))
        low, high = zip(*(p["ci95"] for p in mine), strict=True)
        axes.fill_between(counts, low, high, color=colour(row), alpha=0.15, lw=0)
    axes.set_xscale("log")
    ticks = sorted({p["count"] for p in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="images used for fitting", ylabel="mean change on test images", ylim=(0, None))
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def spectrum_and_power(study: Mapping[str, Any]) -> Figure:
    """Leading singular values of G, and how close the stochastic power method comes to the first.

    Where the leading values are nearly equal, a vector may capture as much as the first one
    and point elsewhere: both are drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.2))
    values = np.asarray(study["values"])
    left.plot(np.arange(1, len(values) + 1), values / values[0], "o-", ms=4, color=colour(UPI_PCA))
    left.set(xlabel="component", ylabel="singular value / first", ylim=(0, 1.05))
    steps = sorted({p["steps"] for p in study["power"]})
    passes = [step / study["batches"] for step in steps]
    for key, style, label in (("rayleigh", "s--", "‖Gv‖² / σ₁²"), ("cosine", "o-", "|cos|")):
        groups = [[p[key] for p in study["power"] if p["steps"] == step] for step in steps]
        drawn = colour(UPI_PCA) if key == "cosine" else colour(PER_IMAGE)
        right.plot(
            passes, [float(np.mean(g)) for g in groups], style, ms=4, color=drawn, label=f"power, {label}"
        )
        right.fill_between(
            passes, [min(g) for g in groups], [max(g) for g in groups], alpha=0.15, color=drawn, lw=0
        )
    once = study["sketch"]
    right.plot([1], [once["cosine"]], "D", color="#7c3aed", label=f"sketch of rank {once['rank']}, |cos|")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel="passes over the rows of G", ylabel="against the exact vector", ylim=(0, 1.05))
    right.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.0)
    figure.tight_layout()
    return figure


def problem_title(problem: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Name of a problem that the formal statements were measured on."""
    arch = problem["arch"]
    return "smooth toy network" if arch is None else titles.get(arch, str(arch))


def bounds(problems: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Figure:
    """Measured gain over its first-order form, between the two bounds, for each problem."""
    figure, grid = plt.subplots(1, len(problems), figsize=(4.7 * len(problems), 3.4), squeeze=False)
    t = np.linspace(0, 0.85, 200)
    for axes, problem in zip(grid[0], problems, strict=True):
        points = np.asarray(problem["points"])
        axes.fill_between(t, 1 / (1 + t), 1 / (1 - t), color="#0f766e", alpha=0.10, lw=0)
        axes.plot(t, 1 / (1 + t), color="#0f766e", lw=1, label="bounds λ/(λ±τ)")
        axes.plot(t, 1 / (1 - t), color="#0f766e", lw=1)
        axes.scatter(points[:, 0], points[:, 1], s=10, color="#c2410c", alpha=0.5, lw=0, label="measured")
        axes.set_yscale("log")
        axes.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axes.minorticks_off()
        axes.set_title(f"{problem_title(problem, titles)}: {problem['images']} images", fontsize=9.5)
        axes.set(xlabel="curvature / price, τ/λ", ylabel="gain / first-order gain", xlim=(0, 0.85))
        axes.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure
