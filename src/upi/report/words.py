"""The report's sentences: what was found, in plain words with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upi.core.rows import MATCHED_NOISE, NOISE, ONE_STEP, PER_IMAGE, UNIVERSAL

NORMS = {"l2": "ℓ2", "linf": "ℓ∞"}


@dataclass(frozen=True)
class Headline:
    """The finding in one sentence, its controls in another."""

    finding: str
    controls: str


def percent(value: float) -> str:
    """A share in whole percent."""
    return f"{100 * value:.0f} %"


def amount(value: float, dissimilarity: str) -> str:
    """A map change in words: percent where it is relative, else with its own unit."""
    if dissimilarity == "relative_l2":
        return percent(value)
    unit = (
        " pixels (centre of mass)"
        if dissimilarity == "mass_center"
        else f" ({dissimilarity.replace('_', ' ')})"
    )
    return f"{value:.3g}{unit}"


def radius(norm: str, eps: float) -> str:
    """A radius as people write it: 8/255 in the l-inf ball."""
    steps = 255 * eps
    if norm == "linf" and abs(steps - round(steps)) < 1e-6:
        return f"{round(steps)}/255"
    return f"{eps:g}"


def rows_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a table by name."""
    return {row["name"]: row for row in table["rows"]}


def map_name(table: Mapping[str, Any]) -> str:
    """The map of a table, for people."""
    plain = str(table["map_title"])
    return f"{plain} of the softmax output" if table.get("preset") == "paper" else plain


def strongest(table: Mapping[str, Any]) -> dict[str, Any] | None:
    """The universal row with the largest change, if there is one."""
    universal = [row for row in table["rows"] if row["kind"] == UNIVERSAL and row["dissimilarity"]["n"]]
    return max(universal, key=lambda row: float(row["dissimilarity"]["mean"]), default=None)


def headline(table: Mapping[str, Any]) -> Headline | None:
    """The sentences for one table, or None where there is no universal perturbation."""
    row = strongest(table)
    if row is None:
        return None
    rows, value = rows_of(table), row["dissimilarity"]
    low, high = value["ci95"]
    size = f"{NORMS.get(table['norm'], table['norm'])} size {radius(table['norm'], table['eps'])}"
    kind = str(table["dissimilarity"])
    finding = (
        f"One fixed pattern of {size} changes the {map_name(table)} of an unseen image by "
        f"{amount(value['mean'], kind)} (95 % interval {amount(low, kind)} to {amount(high, kind)}), while "
        f"{percent(1 - row['prediction_changed'])} of the predictions stay."
    )
    parts = []
    for key, words in (
        (NOISE, "Noise of the same size changes it by {}"),
        (MATCHED_NOISE, "noise scaled to the same realised size by {}"),
        (ONE_STEP, "one gradient step made for each image, as in the paper, by {}"),
        (PER_IMAGE, "a strong attack made for each image by {}"),
    ):
        if key in rows:
            parts.append(words.format(amount(rows[key]["dissimilarity"]["mean"], kind)))
    return Headline(finding, "; ".join(parts) + "." if parts else "")
