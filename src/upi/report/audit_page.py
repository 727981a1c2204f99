"""The page of an audit: verdict first, then every map, norm and radius with all its images, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from upi.core.rows import TINY_NOISE
from upi.core.storage import write_atomic
from upi.perturbation.pattern import Perturbation
from upi.report import figures
from upi.report.atlas import Pictures, atlas
from upi.report.comparison import grouped
from upi.report.page import FigureDrawer, template
from upi.report.style import look, name, rows_of_tables
from upi.report.words import NORMS, map_name, radius
from upi.results.folder import Columns, RunFolder

#: Classes that are listed, and images below which a class says nothing.
WORST, LEAST = 8, 3
#: Figures of the table, with their heads and digits.
COLUMNS = (
    ("dissimilarity", "map change", 3),
    ("dissimilarity_unchanged", "same, prediction kept", 3),
    ("top_k_overlap", "top 5 % of pixels kept", 2),
    ("spearman", "Spearman", 2),
    ("ssim", "SSIM", 2),
    ("mass_center_shift", "centre shift (pixels)", 2),
    ("realised_norm", "realised norm", 3),
)

#: Drawings of a section; bytes of a page that pictures may fill beside them, and that they always have.
DRAWINGS = ("lines", "patterns", "distribution")
ROOM, LEAST_ROOM = 2_750_000, 400_000
#: Pictures of a cell, in the run folder.
GALLERY = "cells/{key}/gallery.safetensors"

Figures = Mapping[str, NDArray[Any]]


def class_name(number: int, classes: Sequence[str]) -> str:
    """A class for people."""
    return classes[number] if 0 <= number < len(classes) else "?" if number < 0 else str(number)


def worst_classes(figures_: Figures, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The classes whose maps change most, with at least ``LEAST`` images each."""
    labels, values = figures_["label"], figures_["dissimilarity"]
    found: list[tuple[float, str, int]] = []
    for label in np.unique(labels):
        mine = values[labels == label]
        if len(mine) >= LEAST:
            found.append((float(mine.mean()), class_name(int(label), classes), len(mine)))
    return [{"name": name, "mean": mean, "n": n} for mean, name, n in sorted(found, reverse=True)[:WORST]]


def _lines(pictures: Pictures, mine: Figures, classes: Sequence[str]) -> Figure:
    """Most, median and least changed of the images whose prediction stays."""
    lines = figures.gallery_lines(
        pictures, mine["dissimilarity"], mine["label"], mine["prediction_changed"] == 0
    )
    return figures.examples(lines, classes)


def _section(
    table: Mapping[str, Any],
    drawn: FigureDrawer,
    folder: RunFolder,
    samples: Columns,
    classes: Sequence[str],
) -> dict[str, Any]:
    key, best = table["key"], table["strongest"]
    stems = table["perturbations"]
    patterns = {
        name(row): Perturbation.load(folder.path / "perturbations" / f"{stem}.safetensors")
        for row, stem in stems.items()
    }
    changes = {
        row: each["dissimilarity"] for (of, row), each in samples.items() if of == key and row != TINY_NOISE
    }
    shown = GALLERY.format(key=key)
    return {
        "table": table,
        "title": map_name(table),
        "kept": bool(best) and bool((samples[key, best]["prediction_changed"] == 0).any()),
        "lines": drawn.add(
            f"before-after-{key}", _lines(Pictures.read(folder.path / shown), samples[key, best], classes)
        )
        if best and (folder.path / shown).is_file()
        else None,
        "norm": NORMS[table["norm"]],
        "radius": radius(table["norm"], table["eps"]),
        "patterns": drawn.add(f"perturbations-{key}", figures.perturbations(patterns)) if patterns else None,
        "distribution": drawn.add(f"distribution-{key}", figures.distribution(changes)) if changes else None,
        "worst": worst_classes(samples[key, best], classes) if best else [],
    }


def _tiles(table: Mapping[str, Any], samples: Columns, classes: Sequence[str]) -> Any:
    """What the page knows of each image of a cell, in the order of its sheet."""
    mine = samples[table["key"], table["strongest"]]
    return {
        "sample": [int(value) for value in mine["sample"]],
        "label": [class_name(int(value), classes) for value in mine["label"]],
        "change": [round(float(value), 3) for value in mine["dissimilarity"]],
        "kept": [bool(value == 0) for value in mine["prediction_changed"]],
        "row": name(table["strongest"]),
    }


def _galleries(
    folder: RunFolder,
    tables: Sequence[Mapping[str, Any]],
    samples: Columns,
    classes: Sequence[str],
    room: int,
) -> dict[str, Any]:
    """Sheets and captions of every cell that has pictures."""
    cells: dict[str, Pictures] = {}
    same: dict[str, str] = {}
    firsts: dict[str, str] = {}
    for table in tables:
        path = folder.path / GALLERY.format(key=table["key"])
        if table["strongest"] is None or not path.is_file():
            continue
        cells[table["key"]] = Pictures.read(path)
        place = f"{table['saliency']}"
        firsts.setdefault(place, table["key"])
        first = cells[firsts[place]]
        alike = first.images.shape == cells[table["key"]].images.shape
        same[table["key"]] = firsts[place] if alike else table["key"]
    if not cells:
        return {"sheets": {}, "cells": {}}
    found = atlas(cells, same, room)
    for table in tables:
        if table["key"] in found["cells"]:
            found["cells"][table["key"]] |= _tiles(table, samples, classes)
    return found


def _curves(tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Points of the eps-curve through the fits of each map and norm: title, norm, points."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for table in sorted(tables, key=lambda each: each["eps"]):
        points = found.setdefault((map_name(table), table["norm"]), [])
        for row in table["rows"]:
            points.append(
                {
                    "eps": table["eps"],
                    "name": row["name"],
                    **row["dissimilarity"],
                    "changed": row["prediction_changed"],
                }
            )
    return [
        (title, norm, points)
        for (title, norm), points in found.items()
        if len({p["eps"] for p in points}) > 1
    ]


def build_audit_page(
    folder: RunFolder, config: Mapping[str, Any], metrics: Mapping[str, Any], *, shown_as: Path | None = None
) -> Path:
    """Write figures/*.png and report.html of an audit.

    Args:
        folder: Its run folder.
        config, metrics: Content of its files.
        shown_as: The path named on the page.

    Raises:
        RunFolderError: Results are missing or damaged.
    """
    classes, tables, audit = config["classes"], metrics["tables"], metrics["audit"]
    samples = folder.columns()
    drawn = FigureDrawer(folder)
    with look(rows_of_tables(tables)):
        sections = [_section(table, drawn, folder, samples, classes) for table in tables]
        curves = [
            (title, drawn.add(f"curve-{place}", figures.eps_curve(points, NORMS[norm])))
            for place, (title, norm, points) in enumerate(_curves(tables))
        ]
        drawings = [each[1] for each in curves] + [s[part] or "" for s in sections for part in DRAWINGS]
        room = max(LEAST_ROOM, ROOM - sum(len(drawing) for drawing in drawings))
        page = template("audit.html", escape=True).render(
            config=config,
            metrics=metrics,
            audit=audit,
            verdict=audit["verdict"],
            sections=sections,
            columns=COLUMNS,
            curves=curves,
            groups=grouped(audit["comparison"]) if audit["comparison"] else None,
            gallery=_galleries(folder, tables, samples, classes, room),
            codes={flag["code"] for flag in metrics["flags"]},
            name=name,
            norms=NORMS,
            radius=radius,
            command=" ".join(config["argv"]),
            folder=str(shown_as or folder.path),
        )
    return write_atomic(folder.path / "report.html", page)
