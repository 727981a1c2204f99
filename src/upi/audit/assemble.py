"""The files of a finished audit: those of every run, the verdict, and what other programs ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upi.audit.cells import CELLS
from upi.audit.compare import Run, compare, plain
from upi.audit.outputs import card, junit
from upi.audit.run import Audit, Found
from upi.audit.verdict import Verdict
from upi.core.storage import write_atomic
from upi.evaluation.flags import Flag
from upi.perturbation.pattern import Perturbation
from upi.report.words import headline
from upi.results.folder import RunFolder

VERDICT, CARD = "verdict.json", "AUDIT.md"


@dataclass(frozen=True)
class _Columns:
    """Figures of one table, as run folders take them."""

    per_sample: Mapping[str, Mapping[str, NDArray[np.float64]]]


def _by_table(found: Found) -> dict[str, _Columns]:
    tables: dict[str, dict[str, Any]] = {}
    for (key, row), figures in found.columns.items():
        tables.setdefault(key, {})[row] = figures
    return {key: _Columns(rows) for key, rows in tables.items()}


def _with_findings(found: Found) -> list[dict[str, Any]]:
    """The tables, each with its finding in a sentence."""
    tables = []
    for table in found.tables:
        line = headline(table)
        both = "" if table.get("ceiling") is None else f" {both_sides(table['ceiling'])}"
        tables.append({**table, "finding": "" if line is None else f"{line.finding} {line.controls}{both}"})
    return tables


def both_sides(ceiling: Mapping[str, Any]) -> str:
    """What was found and what cannot be exceeded, in a sentence."""
    found, most = ceiling["found"]["mean"], ceiling["mean"]
    if ceiling["vacuous"] > 0.5:
        return (
            f"The change of the expected map is at least {found:.2f}, found; the ceiling says nothing "
            f"here (it does up to a radius of about ℓ2 {ceiling['informative']:.3g})."
        )
    return (
        f"The change of the expected map is between {found:.2f}, found, and {most:.2f}, which nothing of "
        f"this size can exceed (confidence {ceiling['confidence']:.0%}, n = {ceiling['n']})."
    )


def _compared(baseline: Run, audit: Audit, found: Found, model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This audit beside its baseline."""
    name = audit.folder.name if audit.folder.name != baseline.name else f"{audit.folder.name} (now)"
    run = Run(name, audit.folder, audit.splits.origin, model, found.tables, found.columns)
    return plain(compare([baseline, run]))


def write(
    audit: Audit,
    found: Found,
    verdict: Verdict,
    *,
    dataset: str,
    model: Mapping[str, Any],
    command: str,
    seconds: float,
    baseline: Run | None = None,
    junit_file: Path | None = None,
    card_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Write results, verdict, card and JUnit; numbers first.

    Returns:
        The tables as written.
    """
    folder = RunFolder(audit.folder)
    tables = _with_findings(found)
    folder.write_per_sample(_by_table(found))
    for table in tables:
        for stem in table["perturbations"].values():
            pattern = Perturbation.load(audit.folder / CELLS / table["key"] / f"{stem}.safetensors")
            folder.write_perturbation(stem, pattern)
    about = {
        "settings": audit.settings.plain(),
        "failures": list(found.failures),
        "proposals": dict(found.proposals),
        "verdict": verdict.to_dict(),
        "notes": list(found.notes),
        "comparison": None if baseline is None else _compared(baseline, audit, found, model),
    }
    flags = [(flag["table"], Flag(flag["code"], flag["message"])) for flag in found.flags]
    folder.write_metrics(
        dataset=dataset,
        model=model,
        tables=tables,
        flags=flags,
        seconds={**found.seconds, "total": seconds},
        audit=about,
    )
    write_atomic(audit.folder / VERDICT, json.dumps(verdict.to_dict(), indent=2, ensure_ascii=False) + "\n")
    text = card(
        verdict, model=model, dataset=dataset, tables=tables, flags=found.flags, command=command
    )  # fmt: skip
    for path in (audit.folder / CARD, card_file):
        if path is not None:
            write_atomic(path, text)
    if junit_file is not None:
        write_atomic(junit_file, junit(verdict, seconds=seconds))
    return tables
