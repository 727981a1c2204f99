"""The reproduction's page, Markdown tables and figures, from results.json and files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from upi.core.rows import UPI_GRAD, UPI_PCA
from upi.core.storage import write_atomic
from upi.report import direction_figures, figures, paper_figures
from upi.report.page import FigureDrawer, template
from upi.report.style import look, name, rows_of_tables
from upi.report.tables import COLUMNS, table1, titles_of, transfer
from upi.report.words import NORMS, radius
from upi.results.folder import RunFolder, parse_json
from upi.results.reading import read
from upi.results.reproduction import Reproduction

#: File of a reproduction's results.
RESULTS = "results.json"
#: Datasets whose pictures are other people's photographs.
PHOTOGRAPHS = ("imagenet-sample",)
#: Short names of the transfer tables.
TRANSFERS = {"networks": "transfer_networks", "maps": "transfer_maps", "datasets": "transfer_datasets"}


def _good(results: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """A stage's results, or None where it failed or was not asked for."""
    found = results.get(key)
    return found if found is not None and found.get("error") is None else None


def _patterns(folder: RunFolder, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The main cell's perturbations by method and network."""
    cell = _main(results)
    found: dict[str, dict[str, Any]] = {}
    for stem, item in folder.perturbations().items():
        arch, key, *method = stem.split("--")
        if key == cell and method and method[0] in (UPI_GRAD, UPI_PCA):
            found.setdefault(method[0], {})[arch] = item.delta
    order = list(titles_of(results))
    return {m: {a: found[m][a] for a in order if a in found[m]} for m in (UPI_GRAD, UPI_PCA) if m in found}


def _main(results: Mapping[str, Any]) -> str:
    return str(results["settings"]["cells"][0]["key"])


def _drawn(folder: RunFolder, results: Mapping[str, Any]) -> dict[str, Markup | None]:
    """Every figure, None where its stage failed."""
    titles, add = titles_of(results), FigureDrawer(folder).add
    drawn: dict[str, Markup | None] = {}
    shown = _good(results, "pictures")
    captions = folder.examples() if shown else []
    drawn["before_after"] = (
        add("figure-1-before-after", paper_figures.before_after(captions, shown["classes"]))
        if shown
        else None
    )
    patterns = _patterns(folder, results)
    drawn["patterns"] = (
        add("figure-2-perturbations", paper_figures.patterns(patterns, titles)) if patterns else None
    )
    found = _good(results, "correlation")
    drawn["correlation"] = (
        add("figure-3-correlation", paper_figures.correlation(found, titles)) if found else None
    )
    found = _good(results, "eps_curve")
    drawn["eps_curve"] = (
        add("eps-curve", figures.eps_curve(found["points"], NORMS[found["norm"]])) if found else None
    )
    lead = next((t for t in results["table1"] if t["cell"] == _main(results) and t["error"] is None), None)
    drawn["distribution"] = (
        add("thresholds", figures.distribution({k: np.asarray(v) for k, v in lead["samples"].items()}))
        if lead
        else None
    )
    found = _good(results, "fitting_images")
    drawn["fitting_images"] = (
        add("fitting-images", paper_figures.fitting_images(found["points"])) if found else None
    )
    found = _good(results, "spectrum")
    drawn["spectrum"] = add("spectrum-and-power", paper_figures.spectrum_and_power(found)) if found else None
    found = _good(results, "components")
    drawn["components"] = add("components", direction_figures.components(found)) if found else None
    found = _good(results, "subspace")
    drawn["subspace"] = add("subspace", direction_figures.subspace(found)) if found else None
    found = _good(results, "theory")
    drawn["bounds"] = add("bounds", paper_figures.bounds(found["problems"], titles)) if found else None
    return drawn


def _published(path: Path, results: Mapping[str, Any]) -> list[Path]:
    """Figures that may be shared: other people's photographs stay in the run folder."""
    private = {"figure-1-before-after.png"} if results.get("images") in PHOTOGRAPHS else set()
    return [figure for figure in (path / "figures").glob("*.png") if figure.name not in private]


def build_reproduction(path: Path, *, publish: Path | None = None) -> Path:
    """Write figures/*.png, tables.md and report.html of a reproduction.

    Args:
        path: Run folder with results.json.
        publish: Also write results.json, README.md (the tables) and the figures there.

    Returns:
        The page's path.

    Raises:
        RunFolderError: Results are missing or damaged.
    """
    folder = RunFolder(path)
    content = parse_json(path / RESULTS)
    results = read(Reproduction, content, path / RESULTS).plain()
    with look(rows_of_tables(results["table1"])):
        drawn = _drawn(folder, results)
        titles = titles_of(results)
        trained = sum(c.get("training_seconds", 0) for c in results["classifiers"] if c["error"] is None)
        shown = {
            "results": results,
            "drawn": drawn,
            "lines": table1(results),
            "columns": COLUMNS,
            **{
                short: transfer(results[key], titles) if key in results else None
                for short, key in TRANSFERS.items()
            },
            "titles": titles,
            "name": name,
            "problem_title": paper_figures.problem_title,
            "norms": NORMS,
            "radius": radius,
            "main": results["settings"]["cells"][0],
            "trained": trained,
            "total": trained + sum(s for n, s in results["seconds"].items() if not n.startswith("train/")),
            "command": " ".join(results["command"]),
            "figure_files": sorted(f.name for f in _published(path, results)),
        }
        markdown = template("reproduction.md").render(**shown)
        page = template("reproduction.html", escape=True).render(**shown)
    write_atomic(path / "tables.md", markdown)
    if publish is not None:
        write_atomic(publish / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        write_atomic(publish / "README.md", markdown)
        for figure in _published(path, results):
            shutil.copyfile(figure, publish / figure.name)
    return write_atomic(path / "report.html", page)
