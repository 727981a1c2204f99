"""One function decides what tables and thresholds come to.

An attack that breaks an explanation has shown it; one that does not break it has shown less. So what weakens
an attack forbids a pass and no failure, and what makes a figure wrong forbids both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upi.audit.settings import STRONGEST, Threshold
from upi.audit.verdict import Check, Outcome, Verdict
from upi.core.rows import MATCHED_NOISE, NOISE
from upi.evaluation.intervals import Interval, interval
from upi.report.words import NORMS, radius
from upi.results.folder import Columns

#: Flags after which a figure says nothing, and flags after which a weak attack may be the reason of a pass.
FORBID_ALL = (
    "non-deterministic-model",
    "labels-look-permuted",
    "fitted-on-test-images",
    "splits-differ",
    "softmax-output",
    "over-budget",
)
FORBID_PASS = (
    "missed-curvature",
    "zero-gradient",
    "random-beats-universal",
    "another-model",
    "mostly-misclassified",
    "no-labels",
)
#: What an excess is measured from.
FLOORS = {"excess_over_noise": NOISE, "excess_over_matched_noise": MATCHED_NOISE}


def _share(values: NDArray[Any]) -> Interval:
    """A share of images with its Wilson interval: that of the bootstrap is empty where no image counts."""
    from scipy.stats import binomtest  # imported here: it costs a second

    count, n = round(float(values.sum())), len(values)
    found = binomtest(count, n).proportion_ci(method="wilson")
    return Interval(count / n, (float(found.low), float(found.high)), n)


def _figure(
    table: Mapping[str, Any], columns: Columns, row: str, line: Threshold, seed: int
) -> Interval | None:
    """What a threshold looks at, in one table; None where it was not measured."""
    if line.metric == "ceiling":
        found = table.get("ceiling")
        if found is None or found["mean"] is None:
            return None
        return Interval(found["mean"], tuple(found["ci95"]), found["n"])
    mine = columns.get((table["key"], row))
    if mine is None:
        return None
    if line.metric == "prediction_changed":
        return _share(np.asarray(mine["prediction_changed"]))
    suffix = "|unchanged" if line.among == "unchanged" else ""
    floor = FLOORS.get(line.metric)
    values = np.asarray(mine[("dissimilarity" if floor else line.metric) + suffix], dtype=np.float64)
    if floor is not None:
        below = columns.get((table["key"], floor))
        if below is None:
            return None
        values = values - np.asarray(below["dissimilarity" + suffix], dtype=np.float64)
    found_interval = interval(values, seed=seed)
    return found_interval if found_interval.n else None


def _needed(figure: Interval, limit: float) -> int | None:
    """Images at which an interval of this spread would end before the limit; None where it never would."""
    width = (figure.ci95[1] - figure.ci95[0]) / 2
    distance = abs(figure.mean - limit)
    if not distance > 0 or not isfinite(width):
        return None
    return max(figure.n + 1, ceil(figure.n * (width / distance) ** 2 * 1.1))


def _judge(
    figure: Interval, line: Threshold, minimum: int, codes: Sequence[str]
) -> tuple[Outcome, str, int | None]:
    """Outcome, reason, and the number of images that would decide."""
    low, high = figure.ci95
    forbidden = [code for code in codes if code in FORBID_ALL]
    if forbidden:
        return Outcome.INCONCLUSIVE, f"the flag {forbidden[0]} forbids a conclusion", None
    if figure.n < minimum:
        return Outcome.INCONCLUSIVE, f"only {figure.n} images count, at least {minimum} must", minimum
    if line.at_least is not None:
        good, bad = low >= line.limit, high < line.limit
    else:
        good, bad = high <= line.limit, low > line.limit
    if bad:
        return Outcome.FAILED, "", None
    if not good:
        needed = _needed(figure, line.limit)
        more = f"; about {needed} images would decide" if needed else ""
        return Outcome.INCONCLUSIVE, f"the interval straddles {line.limit:g}{more}", needed
    weak = [code for code in codes if code in FORBID_PASS]
    if weak:
        return Outcome.INCONCLUSIVE, f"the flag {weak[0]} says that the attack may be too weak", None
    return Outcome.PASSED, "", None


def _matches(table: Mapping[str, Any], line: Threshold) -> bool:
    same = line.radius is None or abs(table["eps"] - float(line.radius)) <= 1e-6 * table["eps"]
    return same and line.map in (None, table["saliency"]) and line.norm in (None, table["norm"])


def _where(table: Mapping[str, Any]) -> str:
    return f"{table['map_title']}, {NORMS[table['norm']]} ≤ {radius(table['norm'], table['eps'])}"


def _check(
    table: Mapping[str, Any], columns: Columns, line: Threshold, flags: Sequence[str], minimum: int, seed: int
) -> Check:
    row = table.get("strongest") if line.row == STRONGEST else line.row
    figure = None if row is None else _figure(table, columns, str(row), line, seed)
    if figure is None:
        reason = str(table.get("error") or f"{line.metric} of {row or line.row} was not measured here")
        result: tuple[Outcome, str, int | None] = (Outcome.INCONCLUSIVE, reason, None)
    else:
        result = _judge(figure, line, minimum, flags)
    known = figure is not None and isfinite(figure.mean)
    outcome, reason, needed = result
    return Check(
        table=table["key"],
        where=_where(table),
        metric=line.metric,
        row=str(row or line.row),
        among=line.among,
        side=line.side,
        limit=line.limit,
        mean=figure.mean if figure is not None and known else None,
        low=figure.ci95[0] if figure is not None and known else None,
        high=figure.ci95[1] if figure is not None and known else None,
        n=0 if figure is None else figure.n,
        outcome=outcome,
        reason=reason,
        needed=needed,
    )


def _checks(
    tables: Sequence[Mapping[str, Any]],
    columns: Columns,
    thresholds: Sequence[Threshold],
    flags: Sequence[Mapping[str, Any]],
    minimum: int,
    seed: int,
) -> Iterator[Check]:
    for line in thresholds:
        found = [table for table in tables if _matches(table, line)]
        for table in found:
            codes = [flag["code"] for flag in flags if flag.get("table") in (None, table["key"])]
            yield _check(table, columns, line, codes, minimum, seed)
        if not found:  # a radius that was proposed is another one than the threshold's
            place = {
                "map_title": line.map or "every map",
                "norm": line.norm or "l2",
                "eps": line.radius or 0.0,
            }
            missing = {"key": "none", **place, "error": "nothing was measured at this map, norm and radius"}
            yield _check(missing, columns, line, (), minimum, seed)


def _headline(checks: Sequence[Check], outcome: Outcome, notes: Sequence[str]) -> str:
    count = {kind: sum(check.outcome == kind for check in checks) for kind in Outcome}
    total = len(checks)
    if not checks:
        words = "No threshold was given: nothing to pass or fail."
    elif outcome == Outcome.PASSED:
        words = f"Passed: all {total} thresholds hold against these attacks."
    elif outcome == Outcome.FAILED:
        words = f"Failed: {count[Outcome.FAILED]} of {total} thresholds are crossed."
    else:
        words = f"Inconclusive: {count[Outcome.INCONCLUSIVE]} of {total} thresholds could not be decided."
    return " ".join((words, *notes))


def decide(
    tables: Sequence[Mapping[str, Any]],
    columns: Columns,
    thresholds: Sequence[Threshold],
    flags: Sequence[Mapping[str, Any]] = (),
    *,
    minimum: int = 30,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Verdict:
    """Hold tables against thresholds.

    Args:
        tables: As in metrics.json; ``strongest`` names the universal row that did best on select.
        columns: Figures of each image by (table, row).
        thresholds: What must hold; each is applied to every table that it is about.
        flags: As in metrics.json.
        minimum: Images below which nothing is concluded.
        notes: Sentences for the headline.
        seed: Fixes the resampling of intervals.

    Returns:
        Failed if one threshold is crossed by its whole interval; else inconclusive if one could not be
        decided; else passed. Without thresholds passed.
    """
    checks = tuple(_checks(tables, columns, thresholds, flags, minimum, seed))
    found = {check.outcome for check in checks}
    outcome = next((kind for kind in (Outcome.FAILED, Outcome.INCONCLUSIVE) if kind in found), Outcome.PASSED)
    return Verdict(outcome, _headline(checks, outcome, notes), checks)
