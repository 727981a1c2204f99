"""Table 1: every attack and control on every network, map, norm and radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from upi.core.rows import TINY_NOISE
from upi.core.types import Progress
from upi.experiments.fitting import STUDIED
from upi.experiments.reproduce.lab import Lab, need
from upi.experiments.reproduce.settings import Cell
from upi.experiments.stages import Outcome
from upi.experiments.study import Table, study


def _announce(progress: Progress, cell: Cell) -> Callable[[str], Progress]:
    """One bar for all parts of a cell: fits, evaluation, further fits."""
    parts = len(STUDIED) + 1 + 2 * (cell.work.fits - 1)
    begun = -1

    def stage(name: str) -> Progress:
        nonlocal begun
        begun += 1
        mine = begun
        return lambda done, total: progress(
            1000 * mine + (1000 * done // total if total else 0), 1000 * parts
        )

    return stage


def _samples(table: Table) -> dict[str, list[float | None]]:
    """Change of each test image's map, per row, to four digits; None where there is none."""
    return {
        row: [float(v) if np.isfinite(v) else None for v in np.round(column["dissimilarity"], 4)]
        for row, column in table.evaluation.per_sample.items()
        if row != TINY_NOISE
    }


def measure(lab: Lab, arch: str, cell: Cell) -> Outcome:
    """One cell of the table for one network."""
    spec = cell.spec(lab.settings.preset, lab.settings.seed)
    model = lab.trained[arch]
    inputs = {
        "model": model.result["fingerprint"] if model.result else model.error,
        "spec": asdict(spec),
        "work": asdict(cell.work),
        "data": lab.origin,
    }

    def make(progress: Progress) -> dict[str, Any]:
        need(model)
        table = study(
            lab.model(arch), spec, lab.splits(cell.work), stage=_announce(progress, cell), pictures=False
        )
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
