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


def _fitted(lab: Lab, fingerprint: str, arch: str, cell: Cell, spec: Spec) -> dict[str, list[Outcome]]:
    """Every fit of a cell by method, each a stage of its own."""
    work = {name: getattr(cell.work, name) for name in ("n_fit", "n_select", "batch")}
    place = _place(arch, cell)

    def one(each: Fit) -> Outcome:
        def make(progress: Progress) -> dict[str, Any]:
            home = lab.folder / place
            found = each.run(
                lab.model(arch),
                spec,
                lab.splits(cell.work),
                home,
                progress,
                states=home / STATES,
                judged=False,
            )
            return {**found, "files": [f"{place}/{found['pattern']}"]}

        inputs = {**each.inputs(fingerprint, spec, lab.origin), "work": work}
        return lab.stages.run(f"fit/{arch}/{cell.key}/{each.stem}", inputs, make)

    outcomes: dict[str, list[Outcome]] = {}
    for each in fits_of(spec):
        outcomes.setdefault(each.method, []).append(one(each))
    return outcomes


def _place(arch: str, cell: Cell) -> str:
    """Where the fits of a cell lie below the run folder."""
    return f"{HOME}/{arch}/{cell.key}"


def measure(lab: Lab, arch: str, cell: Cell) -> Outcome:
    """One cell of the table for one network."""
    spec = cell.spec(lab.settings.preset, lab.settings.seed)
    model = lab.trained[arch]
    fitted = _fitted(lab, model.result["fingerprint"], arch, cell, spec) if model.result else {}
    inputs = {
        "model": model.result["fingerprint"] if model.result else model.error,
        "spec": asdict(spec),
        "work": asdict(cell.work),
        "data": lab.origin,
    }

    def make(progress: Progress) -> dict[str, Any]:
        need(model)
        fits = {
            method: [Perturbation.load(lab.folder / need(outcome)["files"][0]) for outcome in outcomes]
            for method, outcomes in fitted.items()
        }
        keep = lab.folder / _place(arch, cell) / STATES / "evaluate.state"
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
