"""The report: one self-contained HTML page, from the files of a run folder alone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from upi.core.rows import TINY_NOISE
from upi.core.storage import write_atomic
from upi.perturbation.pattern import Perturbation
from upi.report import figures
from upi.report.style import look, name, rows_of_tables
from upi.report.tables import transfer
from upi.report.words import NORMS, headline, map_name, radius
from upi.results.folder import RunFolder

#: Resolution of the figures, and that of the page they are shown on.
PRINT_DPI, SCREEN_DPI = 150, 96


class FigureDrawer:
    """Draws figures into figures/*.png and hands them to the page as data."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def add(self, stem: str, figure: Figure) -> Markup:
        """Save the figure and return it as an inline image."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        plt.close(figure)
        write_atomic(self.folder.path / "figures" / f"{stem}.png", buffer.getvalue())
        data = base64.b64encode(buffer.getvalue()).decode()
        width = int.from_bytes(buffer.getvalue()[16:20], "big") * SCREEN_DPI // PRINT_DPI  # PNG header
        return Markup('<img src="data:image/png;base64,{}" width="{}" alt="{}">').format(data, width, stem)


def template(name: str, *, escape: bool = False) -> Template:
    """A template of this package; undefined values are errors."""
    environment = Environment(
        loader=PackageLoader("upi", "report"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _titled(patterns: Mapping[str, Perturbation], table: Mapping[str, Any]) -> dict[str, Perturbation]:
    """The patterns of one table, by the row's name for people."""
    return {name(row): patterns[stem] for row, stem in table["perturbations"].items() if stem in patterns}


def _evidence(
    patterns: Mapping[str, Perturbation], tables: Sequence[Mapping[str, Any]], key: str, method: str
) -> dict[str, list[float]]:
    """What the fits of one method recorded under ``key``, by map and row."""
    evidence = {}
    for table in tables:
        for row, stem in table["perturbations"].items():
            record = patterns[stem].provenance if stem in patterns else {}
            if record.get("method") == method and record.get(key):
                title = map_name(table) if len(tables) > 1 else name(row)
                evidence[title if title not in evidence else f"{title}, {name(row)}"] = list(record[key])
    return evidence


def _tested_on(table: Mapping[str, Any]) -> str:
    """Says the network where a run tested several."""
    target = table.get("tested_on")
    return "" if target in (None, table["saliency"]) else f" of {target}"


def _section(
    table: Mapping[str, Any],
    drawn: FigureDrawer,
    patterns: Mapping[str, Perturbation],
    captions: list[dict[str, Any]],
    samples: Mapping[tuple[str, str], Any],
    classes: list[str],
) -> dict[str, Any]:
    """One table with its figures."""
    key = table["key"]
    mine = _titled(patterns, table)
    grids = []
    for row in dict.fromkeys(c["row"] for c in captions if c["table"] == key):
        chosen = [c for c in captions if c["table"] == key and c["row"] == row]
        grids.append((name(row), drawn.add(f"examples-{key}-{row}", figures.examples(chosen, classes))))
    columns = {row: values for (of, row), values in samples.items() if of == key and row != TINY_NOISE}
    return {
        "table": table,
        "title": f"{map_name(table)}{_tested_on(table)}",
        "headline": headline(table),
        "patterns": drawn.add(f"perturbations-{key}", figures.perturbations(mine)) if mine else None,
        "distribution": drawn.add(f"distribution-{key}", figures.distribution(columns)) if columns else None,
        "grids": grids,
    }


def build_report(folder: RunFolder, *, shown_as: Path | None = None) -> Path:
    """Write figures/*.png and report.html from the results in ``folder``.

    Args:
        folder: A run folder with config.json and metrics.json.
        shown_as: The path named on the page, where the folder will be renamed later.

    Returns:
        The page's path.

    Raises:
        RunFolderError: Results are missing or damaged.
    """
    config, metrics = folder.config().plain(), folder.metrics().plain()
    if metrics.get("audit") is not None:
        from upi.report.audit_page import build_audit_page  # it draws with this module

        return build_audit_page(folder, config, metrics, shown_as=shown_as)
    patterns, captions, samples = folder.perturbations(), folder.examples(), folder.per_sample()
    classes = config["classes"]
    drawn = FigureDrawer(folder)
    with look(rows_of_tables(metrics["tables"])):
        sections = [
            _section(table, drawn, patterns, captions, samples, classes) for table in metrics["tables"]
        ]
        curve = metrics["eps_curve"]
        points = curve["points"] if curve else []
        norm = NORMS.get(metrics["tables"][0]["norm"], "")
        spectra = _evidence(patterns, metrics["tables"], "spectrum", "UPIPCA")
        histories = _evidence(patterns, metrics["tables"], "history", "UPIGrad")
        extra = {
            "curve": drawn.add("eps-curve", figures.eps_curve(points, norm)) if points else None,
            "spectrum": drawn.add("spectrum", figures.spectrum(spectra)) if spectra else None,
            "history": drawn.add("history", figures.history(histories)) if histories else None,
        }
        page = template("page.html", escape=True).render(
            config=config,
            metrics=metrics,
            sections=sections,
            curve_info=curve,
            networks=transfer(metrics["transfer"], {}) if metrics["transfer"] else None,
            **extra,
            name=name,
            norms=NORMS,
            radius=radius,
            flag_codes={flag["code"] for flag in metrics["flags"]},
            options=json.dumps(config["options"], indent=2),
            command=" ".join(config["argv"]),
            folder=str(shown_as or folder.path),
        )
    return write_atomic(folder.path / "report.html", page)
