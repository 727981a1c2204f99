"""A sweep as one self-contained page: a figure and a table for each map and norm, a line for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from upi.core.rows import NOISE, PER_IMAGE, UPI_GRAD
from upi.core.storage import write_atomic
from upi.report.page import FigureDrawer, template
from upi.report.style import colour, look, name
from upi.report.words import NORMS, radius
from upi.results.folder import RunFolder

Line = Mapping[str, Any]


def cells_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A network, map, norm and radius each, in the order of the lines: its strongest row beside noise and the
    per-image attack."""
    found: dict[tuple[str, str, str, float], dict[str, Any]] = {}
    for line in lines:
        place = (line["map"], line["norm"], line["network"], line["eps"])
        cell = found.setdefault(place, {**line, "best": None, "noise": None, "per_image": None})
        if line["strongest"]:
            cell["best"] = line
        for row, key in ((NOISE, "noise"), (PER_IMAGE, "per_image")):
            if line["row"] == row:
                cell[key] = line["change"]
    return list(found.values())


def groups_of(lines: Sequence[Line]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cells by map and norm, with a title each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells_of(lines):
        found.setdefault(f"{cell['map_title']}, {NORMS[cell['norm']]}", []).append(cell)
    return list(found.items())


def dumbbells(cells: Sequence[Mapping[str, Any]]) -> Figure:
    """For each network and radius: noise, the strongest universal perturbation, the per-image attack."""
    known = [cell for cell in cells if cell["best"] is not None and cell["best"]["change"] is not None]
    figure, axes = plt.subplots(figsize=(7.4, 1.1 + 0.34 * max(1, len(known))), layout="constrained")
    for place, cell in enumerate(reversed(known)):
        _dumbbell(axes, place, cell)
    words = [f"{cell['network']}  {radius(cell['norm'], cell['eps'])}" for cell in reversed(known)]
    axes.set_yticks(range(len(known)), words, fontsize=9)
    axes.set_ylim(-0.7, len(known) - 0.3)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean change of the map on test images")
    handles = axes.get_legend_handles_labels()
    unique = dict(zip(handles[1], handles[0], strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=3, fontsize=9)
    return figure


def _dumbbell(axes: Axes, place: int, cell: Mapping[str, Any]) -> None:
    best, ends = cell["best"], [cell["noise"], cell["best"]["change"], cell["per_image"]]
    there = [value for value in ends if value is not None]
    axes.plot([min(there), max(there)], [place, place], color="#d1d5db", linewidth=2, zorder=1)
    if best["low"] is not None:
        axes.plot([best["low"], best["high"]], [place, place], color=colour(UPI_GRAD), linewidth=4, zorder=2)
    for value, key, label in (
        (cell["noise"], NOISE, name(NOISE)),
        (best["change"], UPI_GRAD, "strongest universal, with 95 % interval"),
        (cell["per_image"], PER_IMAGE, name(PER_IMAGE)),
    ):
        if value is not None:
            axes.scatter(value, place, color=colour(key), s=34, zorder=3, label=label)


def build_sweep(
    lines: Sequence[Line],
    networks: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    facts: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` of a sweep and its figures.

    Args:
        lines: The tidy table.
        networks: Name, headline, outcome and page of each network.
        folder: Of the sweep.
        facts: What is said at the top: images, seeds, engine, command.
    """
    drawn = FigureDrawer(RunFolder(folder))
    with look():
        groups = []
        for number, (title, cells) in enumerate(groups_of(lines)):
            some = any(cell["best"] is not None for cell in cells)
            picture = drawn.add(f"cells-{number}", dumbbells(cells)) if some else ""
            groups.append((title, cells, picture))
        page = template("sweep.html", escape=True).render(
            groups=groups, networks=networks, facts=facts, name=name, radius=radius
        )
    return write_atomic(folder / "report.html", page)
