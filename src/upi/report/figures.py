"""Figures from results: each function draws one, and never sees a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from upi.core.rows import MATCHED_NOISE, OTHER_IMAGE, TINY_NOISE
from upi.perturbation.pattern import Perturbation
from upi.report.atlas import Pictures
from upi.report.style import MAP_COLOURS, OVERLAY_COLOURS, colour, name

PARTS = ("x", "perturbed", "clean_map", "perturbed_map")
RULES = ("most", "median", "least")


def picture(image: Tensor) -> NDArray[Any]:
    """An image (C, H, W) as Matplotlib draws it."""
    pixels = image.permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def bare(axes: Axes) -> None:
    """Axes without ticks, grid and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def perturbations(items: Mapping[str, Perturbation]) -> Figure:
    """Each pattern as an image: red adds brightness, blue takes it away (mean over channels)."""
    figure, grid = plt.subplots(1, len(items), figsize=(2.5 * len(items) + 0.4, 2.9), squeeze=False)
    limit = max(float(p.delta.mean(0).abs().max()) for p in items.values())
    for axes, (title, item) in zip(grid[0], items.items(), strict=True):
        drawn = axes.imshow(item.delta.mean(0).numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title, fontsize=10)
        bare(axes)
    bar = figure.colorbar(drawn, ax=list(grid[0]), fraction=0.05 / len(items), pad=0.02, shrink=0.7)
    bar.set_label("change of pixel value", fontsize=8)
    return figure


def over(axes: Axes, image: Tensor, saliency: Tensor, top: float) -> None:
    """A map (H, W) over its image (C, H, W) in grey: the larger the value, the less of the image is seen."""
    values = np.clip(saliency.numpy() / max(top, 1e-30), 0, 1)
    axes.imshow(0.35 + 0.65 * image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.imshow(values, cmap=OVERLAY_COLOURS, vmin=0, vmax=1, alpha=values**0.8)


def examples(items: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Before and after for one perturbation: a line per rule, images, maps, and maps over their images.

    Both maps of a line share one colour scale.
    """
    chosen = sorted(items, key=lambda item: RULES.index(item["rule"]))
    figure, grid = plt.subplots(len(chosen), 6, figsize=(10.8, 1.95 * len(chosen)), squeeze=False)
    heads = ("image", "image + pattern", "map before", "map after", "over the image", "over image + pattern")
    for number, (line, item) in enumerate(zip(grid, chosen, strict=True)):
        top = float(np.quantile(np.stack([item["clean_map"], item["perturbed_map"]]), 0.998))
        for axes, part in zip(line[:4], PARTS, strict=True):
            if part in ("x", "perturbed"):
                axes.imshow(picture(item[part]), cmap="gray", vmin=0, vmax=1)
            else:
                axes.imshow(item[part].numpy(), cmap=MAP_COLOURS, vmin=0, vmax=top)
        over(line[4], item["x"], item["clean_map"], top)
        over(line[5], item["perturbed"], item["perturbed_map"], top)
        for axes, head in zip(line, heads, strict=True):
            bare(axes)
            if number == 0:
                axes.set_title(head, fontsize=9)
        line[0].set_ylabel(f"{item['rule']} changed", fontsize=9)
        line[1].set_xlabel(_said(item, classes), fontsize=8)
        line[3].set_xlabel(f"change of the map {item['value']:.2f}", fontsize=8)
    figure.subplots_adjust(wspace=0.06, hspace=0.22)
    return figure


def _said(item: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What the network says of the perturbed image."""
    label = class_name(classes, item["label"]) if item["label"] >= 0 else "unknown"
    if isinstance(item["prediction"], bool):
        return f"prediction {'stays' if item['prediction'] else 'changes'} (label {label})"
    return f"predicted {class_name(classes, item['prediction'])} (label {label})"


def gallery_lines(
    pictures: Pictures, change: NDArray[Any], label: NDArray[Any], kept: NDArray[Any]
) -> list[dict[str, Any]]:
    """Lines for ``examples`` from small pictures: maps that change most, in the median, and least.

    Args:
        pictures: Of the n images that count.
        change: (n,) change of each map.
        label: (n,) class of each image.
        kept: (n,) whether the prediction stays; where some do, the lines are of those.
    """
    among = np.flatnonzero(kept) if kept.any() else np.arange(len(change))
    order = among[np.argsort(change[among], kind="stable")]
    lines = []
    for rule, place in zip(RULES, (order[-1], order[len(order) // 2], order[0]), strict=True):
        image = torch.from_numpy(pictures.images[place] / 255.0).float()
        lines.append(
            {
                "rule": rule,
                "x": image,
                "perturbed": (image + torch.from_numpy(pictures.pattern)).clamp(0, 1),
                "clean_map": torch.from_numpy(pictures.clean[place] / 255.0),
                "perturbed_map": torch.from_numpy(pictures.perturbed[place] / 255.0),
                "label": int(label[place]),
                "prediction": bool(kept[place]),
                "value": float(change[place]),
            }
        )
    return lines


def class_name(classes: Sequence[str], index: int) -> str:
    """Name of a class, its number where there is none."""
    return classes[index] if 0 <= index < len(classes) else str(index)


def eps_curve(points: Sequence[Mapping[str, Any]], norm: str) -> Figure:
    """Mean map change and share of changed predictions against the radius."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    rows = [row for row in dict.fromkeys(p["name"] for p in points) if row not in (OTHER_IMAGE, TINY_NOISE)]
    for row in rows:
        mine = [p for p in points if p["name"] == row]
        radii = [p["eps"] for p in mine]
        left.plot(radii, [p["mean"] for p in mine], "o-", ms=3.5, color=colour(row), label=name(row))
        low, high = zip(*(p["ci95"] for p in mine), strict=True)
        left.fill_between(radii, low, high, color=colour(row), alpha=0.15, lw=0)
        right.plot(radii, [100 * p["changed"] for p in mine], "o-", ms=3.5, color=colour(row))
    left.set(xlabel=f"{norm} radius", ylabel="mean change of the map", ylim=(0, None))
    right.set(xlabel=f"{norm} radius", ylabel="changed predictions, %", ylim=(0, None))
    figure.tight_layout()
    figure.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=len(rows))
    return figure


def distribution(columns: Mapping[str, NDArray[Any]]) -> Figure:
    """Share of test samples whose map changes by more than a threshold."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    for row, values in columns.items():
        ordered = np.sort(values[np.isfinite(values)])
        share = 100 * (1 - np.arange(len(ordered)) / len(ordered))
        style = "--" if row == MATCHED_NOISE else "-"
        axes.plot(ordered, share, style, color=colour(row), label=name(row), lw=1.6)
    axes.set(
        xlabel="change of the map exceeds", ylabel="share of test images, %", ylim=(0, 102), xlim=(0, None)
    )
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    return figure


def spectrum(items: Mapping[str, Sequence[float]]) -> Figure:
    """Leading singular values of G, relative to the first."""
    figure, axes = plt.subplots(figsize=(6.4, 3.0))
    for number, (title, values) in enumerate(items.items()):
        relative = np.asarray(values) / values[0]
        axes.plot(np.arange(1, len(relative) + 1), relative, "o-", ms=4, color=f"C{number}", label=title)
    axes.set_xticks(range(1, 1 + max(len(values) for values in items.values())))
    axes.set(xlabel="component", ylabel="singular value / first", ylim=(0, 1.05))
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def history(items: Mapping[str, Sequence[float]]) -> Figure:
    """UPI-Grad's objective on its minibatches, step by step."""
    figure, axes = plt.subplots(figsize=(6.4, 3.0))
    for number, (title, values) in enumerate(items.items()):
        axes.plot(np.arange(1, len(values) + 1), values, color=f"C{number}", label=title, lw=1.2)
    axes.set(xlabel="step", ylabel="objective while fitting")
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure
