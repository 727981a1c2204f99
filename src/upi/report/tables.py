"""Results of a reproduction as the rows that people read, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upi.core.rows import CLASS_UAP, MATCHED_NOISE, NOISE, ONE_STEP, PER_IMAGE, UPI_GRAD, UPI_PCA
from upi.report.style import name
from upi.report.words import NORMS, map_name, radius, rows_of

#: Columns of Table 1.
COLUMNS = (NOISE, MATCHED_NOISE, UPI_PCA, UPI_GRAD, CLASS_UAP, ONE_STEP, PER_IMAGE)


@dataclass(frozen=True)
class Entry:
    """A mean with its 95 % interval, the share of changed predictions, and the range of fits."""

    mean: float
    low: float
    high: float
    changed: float
    fits: tuple[float, ...] = ()

    @property
    def several(self) -> bool:
        return len(self.fits) > 1


@dataclass(frozen=True)
class Line:
    """One network, map, norm and radius."""

    arch: str
    title: str
    map: str
    norm: str
    radius: str
    n: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)
    share: float | None = None  # of the per-image attack's excess over noise, UPI-Grad
    one_step: float | None = None  # of the one-step attack's, UPI-Grad
    ratio: float | None = None  # UPI-PCA's excess over noise as a share of UPI-Grad's
    error: str | None = None


def titles_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Names of the networks for people."""
    return {c["arch"]: c.get("title", c["arch"]) for c in results["classifiers"]}


def _entry(row: Mapping[str, Any], spread: Mapping[str, Any] | None) -> Entry:
    value = row["dissimilarity"]
    low, high = value["ci95"]
    if spread is None:
        return Entry(value["mean"], low, high, row["prediction_changed"])
    fits, changed = spread["means"], spread["changed"]
    return Entry(sum(fits) / len(fits), low, high, sum(changed) / len(changed), tuple(fits))


def _excess(entries: Mapping[str, Entry], row: str) -> float:
    return entries[row].mean - entries[NOISE].mean


def _share(excess: float, entries: Mapping[str, Entry], row: str) -> float | None:
    """An excess over noise as a share of another row's, where that row is there and beats noise."""
    room = _excess(entries, row) if row in entries else 0.0
    return excess / room if room > 0 else None


def table1(results: Mapping[str, Any]) -> list[Line]:
    """Table 1: the means of the universal attacks are over all fits."""
    titles, lines = titles_of(results), []
    asked = {cell["key"]: cell for cell in results["settings"]["cells"]}
    for table in results["table1"]:
        cell = asked[table["cell"]]
        named = {"map_title": cell["map_title"], "preset": results["preset"]}
        head = (table["arch"], titles.get(table["arch"], table["arch"]), map_name(named), NORMS[cell["norm"]])
        if table["error"] is not None:
            lines.append(Line(*head, cell["eps"], error=table["error"]))
            continue
        rows, spread = rows_of(table), table["seed_spread"]
        entries = {row: _entry(rows[row], spread.get(row)) for row in COLUMNS if row in rows}
        grad, pca = _excess(entries, UPI_GRAD), _excess(entries, UPI_PCA)
        lines.append(
            Line(
                *head,
                radius(table["norm"], table["eps"]),
                table["n_test"],
                entries,
                _share(grad, entries, PER_IMAGE),
                _share(grad, entries, ONE_STEP),
                pca / grad if grad > 0 else None,
            )
        )
    return lines


@dataclass(frozen=True)
class Matrix:
    """A transfer table: rows are perturbations, columns what they are tested on."""

    columns: Sequence[str]
    n: Sequence[int]
    lines: Sequence[tuple[str, Sequence[Entry | None], int | None]]  # name, entries, own column


def transfer(matrix: Mapping[str, Any], networks: Mapping[str, str]) -> Matrix | None:
    """A transfer matrix for people; None where its stage failed."""
    if matrix.get("error") is not None:
        return None
    maps = {key: title.removesuffix(" map") for key, title in matrix.get("titles", {}).items()}
    titles, lines = {**networks, **maps}, []
    for row in matrix["rows"]:
        entries: list[Entry | None] = []
        for column in matrix["columns"]:
            cell = matrix["cells"][row].get(column)
            entries.append(None if cell is None else _cell(cell))
        lines.append((_row_title(row, titles), entries, _own(row, matrix["columns"])))
    return Matrix(
        [titles.get(c, c) for c in matrix["columns"]],
        [matrix["n_test"][c] for c in matrix["columns"]],
        lines,
    )


def _cell(cell: Mapping[str, Any]) -> Entry:
    low, high = cell["ci95"]
    return Entry(cell["mean"], low, high, cell["changed"])


def _own(row: str, columns: Sequence[str]) -> int | None:
    source = row.split("/")[-1].split(" on ")[-1].split(" of ")[-1]
    return list(columns).index(source) if source in columns and source != row else None


def _row_title(row: str, titles: Mapping[str, str]) -> str:
    method, slash, arch = row.partition("/")
    if slash:
        return f"{name(method)} of {titles.get(arch, arch)}"
    method, on, source = row.partition(" on ")
    if on:
        return f"{name(method)} of the {titles.get(source, source)}"
    method, of, source = row.partition(" of ")
    return f"{name(method)} of {source}" if of else name(row)
