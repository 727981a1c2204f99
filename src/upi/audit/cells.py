"""The table of one cell of an audit: a map, a norm and a radius, with every fit beside every control."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from upi import saliency as maps
from upi.audit.gallery import gallery
from upi.core.distributed import leads
from upi.core.rows import ROWS, UNIVERSAL
from upi.core.types import Progress
from upi.evaluation import Evaluation, Row
from upi.evaluation.ceiling import ceiling, ceiling_exists
from upi.experiments.cells import Fitted, change_of
from upi.experiments.fitting import Spec, Splits
from upi.experiments.study import Table, tabulate
from upi.network.classifier import Classifier
from upi.results.folder import PER_SAMPLE, RunFolder

#: Where the files of cells lie in a run folder.
CELLS = "cells"
#: Last part of a cell, where its map has a bound.
CEILING = "ceiling"
Stage = Callable[[str], Progress]


def key_of(spec: Spec) -> str:
    """Name of a cell in files."""
    return f"{spec.saliency}-{spec.norm}-{spec.eps:.6g}"


def part_before(spec: Spec, number: int) -> str:
    """The same of a cell whose radius, the one of that number, is not known yet."""
    return f"{spec.saliency}-{spec.norm}-#{number}"


def is_part(known: str, name: str) -> bool:
    """Whether a stage is the part ``known`` of a schedule, which may have its name from before the radius."""
    head, unknown, rest = known.partition("#")
    if not unknown:
        return known == name
    return name.startswith(head) and name.rpartition(": ")[2] == rest.rpartition(": ")[2]


def strongest(found: Mapping[str, Fitted]) -> str | None:
    """The universal attack that changes maps of the select images most; controls do not count."""
    universal = {
        name: each for name, each in found.items() if ROWS.get(name) is None or ROWS[name].kind == UNIVERSAL
    }
    return max(universal, key=lambda name: universal[name].changes[universal[name].best], default=None)


def run_cell(
    model: Classifier,
    spec: Spec,
    splits: Splits,
    folder: Path,
    *,
    found: Mapping[str, Fitted],
    stage: Stage,
    states: Path,
) -> dict[str, Any]:
    """Evaluate the fits that did best on select on test, and write the files of the cell.

    Args:
        model: The classifier.
        spec: Map, norm, radius and work.
        splits: Data.
        folder: Of the run.
        found: Fits by method.
        stage: Begins a stage of the progress display.
        states: Where figures are kept meanwhile.

    Returns:
        ``table`` and ``flags`` as in metrics.json, and the ``files`` written.
    """
    home = folder / CELLS / spec.key
    chosen = {name: each.patterns[each.best] for name, each in found.items()}
    keep = states / "evaluate.state"
    evaluation, _ = tabulate(model, spec, splits, chosen, stage=stage, pictures=False, keep=keep)
    rows = {name: _rows(model, spec, splits, each, evaluation) for name, each in found.items()}
    files = {name: f"{name}--{spec.key}" for name in chosen}
    table = Table(spec, evaluation, chosen, files, (), rows).to_dict()
    best = strongest(found)
    table |= {"strongest": best, "on_select": {name: list(each.changes) for name, each in found.items()}}
    explained = maps.resolve(spec.saliency, paper=spec.protocol.paper_maps)
    if best is not None and ceiling_exists(explained):
        ball, progress = chosen[best].ball, stage(f"{spec.key}: {CEILING}")
        bound = ceiling(model, explained, chosen[best], splits.test, ball, seed=spec.seed, progress=progress)
        table["ceiling"] = bound.to_dict()
    RunFolder(home).write_per_sample({spec.key: evaluation})
    written = [home / PER_SAMPLE]
    written += [pattern.save(home / f"{files[name]}.safetensors") for name, pattern in chosen.items()]
    if best is not None:
        kept = evaluation.per_sample[best]["sample"]
        shots = gallery(model, chosen[best], splits.test, kept, saliency=explained)
        written.append(shots.save(home / "gallery.safetensors"))
    if leads():
        shutil.rmtree(states, ignore_errors=True)
    flags = [{"table": spec.key, **flag.to_dict()} for flag in evaluation.flags]
    plain: dict[str, Any] = json.loads(json.dumps({"table": table, "flags": flags}))
    return {**plain, "files": [str(path.relative_to(folder)) for path in written]}


def _rows(model: Classifier, spec: Spec, splits: Splits, found: Fitted, first: Evaluation) -> list[Row]:
    """The test row of each fit."""
    if found.method not in first.rows:
        return []
    return [
        first.rows[found.method] if number == found.best else change_of(model, spec, pattern, splits.test)
        for number, pattern in enumerate(found.patterns)
    ]
