"""Runs side by side: the same map, norm, radius and row, with paired differences over the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upi.audit.settings import STRONGEST
from upi.core.errors import ConfigError
from upi.core.rows import MATCHED_NOISE, NOISE, PER_IMAGE
from upi.evaluation.intervals import Interval, interval
from upi.results.folder import Columns, RunFolder

#: Figures that are compared.
METRICS = ("dissimilarity", "top_k_overlap", "spearman", "prediction_changed")


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    name: str
    path: Path
    data: Mapping[str, Any]  # which images
    model: Mapping[str, Any]
    tables: Sequence[Mapping[str, Any]]
    columns: Columns

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Run:
        """Read a run folder.

        Raises:
            RunFolderError: It is damaged, or holds no tables.
        """
        folder = RunFolder(path)
        metrics, config = folder.metrics().plain(), folder.config().plain()
        data = config["data"] or {}
        return cls(name or path.name, path, data, metrics["model"], metrics["tables"], folder.columns())

    def row(self, table: Mapping[str, Any], row: str) -> str | None:
        """The name of a row in a table of this run.

        ``strongest`` is the universal row that did best on select, or that changes maps most where a run
        does not say.
        """
        if row != STRONGEST:
            return row if (table["key"], row) in self.columns else None
        known = table.get("strongest")
        universal = [each for each in table["rows"] if each["kind"] == "universal"]
        best = max(universal, key=lambda each: each["dissimilarity"]["mean"] or 0.0, default=None)
        return str(known) if known else None if best is None else str(best["name"])


@dataclass(frozen=True)
class Difference:
    """One figure of one row in two runs.

    Attributes:
        map, norm, eps, row, metric: What is compared; ``strongest`` is each run's own strongest attack.
        first, second: Names of the runs.
        before, after: Means over the images that count in the run.
        difference, low, high: Paired mean of after - before over shared images, with its 95 % interval; None
            where the runs are not about the same images.
        n: Images that count in both.
    """

    map: str
    norm: str
    eps: float
    row: str
    metric: str
    first: str
    second: str
    before: float
    after: float
    difference: float | None
    low: float | None
    high: float | None
    n: int


def same_images(first: Run, second: Run) -> bool:
    """Whether two runs report on the same images in the same order."""
    keys = ("fingerprint", "splits", "seed")
    return bool(first.data) and all(first.data.get(key) == second.data.get(key) for key in keys)


def paired(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], metric: str, *, seed: int = 0
) -> Interval:
    """Mean of after - before over the images that count in both, with its bootstrap interval."""
    shared, mine, other = np.intersect1d(before["sample"], after["sample"], return_indices=True)
    if not len(shared):
        return Interval(float("nan"), (float("nan"), float("nan")), 0)
    values = np.asarray(after[metric], dtype=np.float64)[other] - np.asarray(before[metric], np.float64)[mine]
    return interval(values, seed=seed)


def _place(table: Mapping[str, Any]) -> tuple[str, str, float, str, str]:
    preset = str(table.get("preset", "protocol"))
    return str(table["saliency"]), table["norm"], round(table["eps"], 9), table["dissimilarity"], preset


def _mean(values: NDArray[Any]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _pair(first: Run, second: Run, rows: Sequence[str]) -> Iterator[Difference]:
    theirs = {_place(table): table for table in second.tables}
    pairing = same_images(first, second)
    for table in first.tables:
        other = theirs.get(_place(table))
        if other is None:
            continue
        for row in rows:
            names = first.row(table, row), second.row(other, row)
            if names[0] is None or names[1] is None:
                continue
            before = first.columns[table["key"], names[0]]
            after = second.columns[other["key"], names[1]]
            for metric in METRICS:
                found = paired(before, after, metric) if pairing else None
                known = found is not None and found.n > 0
                yield Difference(
                    map=str(table["map_title"]),
                    norm=table["norm"],
                    eps=table["eps"],
                    row=row,
                    metric=metric,
                    first=first.name,
                    second=second.name,
                    before=_mean(before[metric]),
                    after=_mean(after[metric]),
                    difference=found.mean if found and known else None,
                    low=found.ci95[0] if found and known else None,
                    high=found.ci95[1] if found and known else None,
                    n=found.n if found else 0,
                )


def compare(
    runs: Sequence[Run], rows: Sequence[str] = (STRONGEST, NOISE, MATCHED_NOISE, PER_IMAGE)
) -> list[Difference]:
    """Every run beside the first one.

    Args:
        runs: At least two.
        rows: Rows that are compared; ``strongest`` is each run's own strongest universal attack, so that a
            defence meets the attack that was fitted on it.

    Raises:
        ConfigError: Fewer than two runs, two of one name, or nothing that they have in common.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison needs at least two runs, got {len(runs)}")
    if len({run.name for run in runs}) != len(runs):
        raise ConfigError(f"two runs are called the same: {', '.join(run.name for run in runs)}")
    found = [each for other in runs[1:] for each in _pair(runs[0], other, rows)]
    if not found:
        raise ConfigError("the runs have no map, norm and radius in common")
    return found


def plain(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """As plain JSON values."""
    return [{key: _finite(value) for key, value in asdict(each).items()} for each in differences]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def radii_of(run: Run, maps: Sequence[str], norms: Sequence[str]) -> dict[str, list[float]]:
    """The radii at which a run measured all these maps, by norm.

    Raises:
        ConfigError: There are none for some norm.
    """
    found: dict[str, list[float]] = {}
    for norm in norms:
        places = {(table["saliency"], table["eps"]) for table in run.tables if table["norm"] == norm}
        radii = sorted({eps for _, eps in places if all((name, eps) in places for name in maps)})
        if not radii:
            raise ConfigError(f"{run.path} has no radius in {norm} for the maps {', '.join(maps)}")
        found[norm] = radii
    return found


def require_same_images(run: Run, data: Mapping[str, Any]) -> None:
    """Refuse a baseline on other images.

    Raises:
        ConfigError: The images differ; says in what.
    """
    differing = [key for key in ("fingerprint", "splits", "seed") if run.data.get(key) != data.get(key)]
    if differing:
        shown = ", ".join(f"{key}: {run.data.get(key)} against {data.get(key)}" for key in differing)
        raise ConfigError(f"the baseline {run.path} is about other images ({shown})")
