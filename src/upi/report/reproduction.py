"""The reproduction's page, Markdown tables and figures, from results.json and files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

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
    """A comparison, or None where it failed or was not asked for."""
    study = results.get(key)
    return study if study is not None and study.get("error") is None else None


def _main(results: Mapping[str, Any]) -> str:
    return str(results["settings"]["cells"][0]["key"])


def _patterns(folder: RunFolder, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The main cell's perturbations by method and network."""
    by_method: dict[str, dict[str, Any]] = {}
    for stem, item in folder.perturbations().items():
        arch, key, *method = stem.split("--")
        if key == _main(results) and method and method[0] in (UPI_GRAD, UPI_PCA):
            by_method.setdefault(method[0], {})[arch] = item.delta
    order = list(titles_of(results))
    methods = [method for method in (UPI_GRAD, UPI_PCA) if method in by_method]
    return {m: {arch: by_method[m][arch] for arch in order if arch in by_method[m]} for m in methods}


#: Figures that one comparison gives: key in results.json to the file's name and what draws it.
STUDIES: dict[str, tuple[str, Callable[[Mapping[str, Any], Mapping[str, str]], Figure]]] = {
    "correlation": ("figure-3-correlation", paper_figures.correlation),
    "eps_curve": ("eps-curve", lambda s, _: figures.eps_curve(s["points"], NORMS[s["norm"]])),
    "fitting_images": ("fitting-images", lambda s, _: paper_figures.fitting_images(s["points"])),
    "spectrum": ("spectrum-and-power", lambda s, _: paper_figures.spectrum_and_power(s)),
    "components": ("components", lambda s, _: direction_figures.components(s)),
    "subspace": ("subspace", lambda s, _: direction_figures.subspace(s)),
    "theory": ("bounds", lambda s, titles: paper_figures.bounds(s["problems"], titles)),
}


def _drawn(folder: RunFolder, results: Mapping[str, Any]) -> dict[str, Markup | None]:
    """Every figure, None where its stage failed."""
    titles, add = titles_of(results), FigureDrawer(folder).add
    drawn: dict[str, Markup | None] = {"before_after": None, "patterns": None, "distribution": None}
    shown, patterns = _good(results, "pictures"), _patterns(folder, results)
    if shown:
        pairs = paper_figures.before_after(folder.examples(), shown["classes"])
        drawn["before_after"] = add("figure-1-before-after", pairs)
    if patterns:
        drawn["patterns"] = add("figure-2-perturbations", paper_figures.patterns(patterns, titles))
    lead = next((t for t in results["table1"] if t["cell"] == _main(results) and t["error"] is None), None)
    if lead:
        samples = {row: np.asarray(values, dtype=float) for row, values in lead["samples"].items()}
        drawn["distribution"] = add("thresholds", figures.distribution(samples))
    for key, (file, draw) in STUDIES.items():
        study = _good(results, key)
        drawn["bounds" if key == "theory" else key] = add(file, draw(study, titles)) if study else None
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
