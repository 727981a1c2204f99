"""The verdict, as a value: text, JSON, JUnit, card and exit code are made from it, and from nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a threshold, or a whole audit, comes to; see ``EXIT_CODES``."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


EXIT_CODES = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.INCONCLUSIVE: 3}


@dataclass(frozen=True)
class Check:
    """One threshold at one map, norm and radius.

    Attributes:
        table: Key of the table.
        where: Map, norm and radius in words.
        metric, row, among, side, limit: As in the threshold; ``row`` is the one that was measured.
        mean, low, high: The figure with its 95 % interval; None where there is none.
        n: Images it rests on.
        outcome: What came of it.
        reason: Why it is not decided, in a sentence; empty where it is.
        needed: Images that would decide, where more of them might.
    """

    table: str
    where: str
    metric: str
    row: str
    among: str
    side: str
    limit: float
    mean: float | None
    low: float | None
    high: float | None
    n: int
    outcome: Outcome
    reason: str
    needed: int | None = None

    @property
    def demand(self) -> str:
        """What was asked for: ``top_k_overlap >= 0.6``."""
        sign = "≥" if self.side == "at_least" else "≤"
        return f"{self.metric} {sign} {self.limit:g}"

    @property
    def figure(self) -> str:
        """The figure with its interval, and what is to be said of it."""
        shown = "" if self.mean is None else f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"
        return "; ".join(part for part in (shown, self.reason) if part)


@dataclass(frozen=True)
class Verdict:
    """What an audit comes to."""

    outcome: Outcome
    headline: str
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0 passes, 1 fails, 3 inconclusive; 2, could not run, has no verdict."""
        return EXIT_CODES[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        checks = [{**asdict(check), "demand": check.demand} for check in self.checks]
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "headline": self.headline,
            "checks": checks,
        }
