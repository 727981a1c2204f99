"""Table 1: every attack and control on every network, map, norm and radius."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from upi.core.rows import TINY_NOISE
from upi.core.types import Progress
from upi.experiments.cells import STATES, Fit
from upi.experiments.fitting import Spec
from upi.experiments.reproduce.lab import Lab, need
from upi.experiments.reproduce.settings import Cell
from upi.experiments.stages import Outcome
from upi.experiments.study import Table, fits_of, study
from upi.perturbation.pattern import Perturbation

#: Where finished fits lie in the run folder.
HOME = "fitted"


def _samples(table: Table) -> dict[str, list[float | None]]:
    """Change of each test image's map, per row, to four digits; None where there is none."""
    return {
        row: [float(v) if np.isfinite(v) else None for v in np.round(column["dissimilarity"], 4)]
        for row, column in table.evaluation.per_sample.items()
        if row != TINY_NOISE
    }


def _fitted(lab: Lab, model: Outcome, arch: str, cell: Cell, spec: Spec) -> list[tuple[Fit, Outcome]]:
    """Every fit of a cell, each a stage of its own."""

    def one(each: Fit) -> Outcome:
        def make(progress: Progress) -> dict[str, Any]:
            need(model)
            home = lab.folder / HOME / arch / cell.key
            found = each.run(lab.model(arch), spec, lab.splits(cell.work), home, progress, judged=False)
            return {**found, "files": [f"{HOME}/{arch}/{cell.key}/{found['pattern']}"]}

        inputs = {"fit": asdict(each), "spec": asdict(spec), "work": asdict(cell.work), "data": lab.origin}
        return lab.stages.run(f"fit/{arch}/{cell.key}/{each.stem}", inputs | _network(model), make)

    return [(each, one(each)) for each in fits_of(spec)]


def _network(model: Outcome) -> dict[str, Any]:
    return {"model": model.result["fingerprint"] if model.result else model.error}


def measure(lab: Lab, arch: str, cell: Cell) -> Outcome:
    """One cell of the table for one network."""
    spec = cell.spec(lab.settings.preset, lab.settings.seed)
    model = lab.trained[arch]
    fitted = _fitted(lab, model, arch, cell, spec) if model.result else []
    inputs = {"spec": asdict(spec), "work": asdict(cell.work), "data": lab.origin, **_network(model)}

    def make(progress: Progress) -> dict[str, Any]:
        need(model)
        fits: dict[str, list[Perturbation]] = {}
        for each, outcome in fitted:
            fits.setdefault(each.method, []).append(Perturbation.load(lab.folder / need(outcome)["files"][0]))
        keep = lab.folder / HOME / arch / cell.key / STATES / "evaluate.state"
        table = study(lab.model(arch), spec, lab.splits(cell.work), fits, stage=lambda _: progress, keep=keep)
        found = {lab.stem(arch, cell, name): p for name, p in table.perturbations.items()}
        result: dict[str, Any] = {
            "arch": arch,
            **table.to_dict(),
            "flags": [flag.to_dict() for flag in table.evaluation.flags],
            "files": lab.keep(found),
        }
        if cell == lab.settings.main:
            result["samples"] = _samples(table)
        return result

    return lab.stages.run(f"table1/{arch}/{cell.key}", inputs, make)
