"""A sweep's results as a tidy table: a line for each network, map, norm, radius and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Figures of a row that are means with intervals.
MEANS = ("top_k_overlap", "spearman", "realised_norm")


def lines_of(
    network: str, tables: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]], outcome: str
) -> list[dict[str, Any]]:
    """The lines of one network.

    Args:
        network: Its name.
        tables: Its tables, as in metrics.json.
        failures: Cells that could not be measured.
        outcome: What its thresholds make of it.
    """
    found = [_line(network, table, row, outcome) for table in tables for row in table["rows"]]
    return found + [_failed(network, failure, outcome) for failure in failures]


def _place(network: str, table: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    return {
        "network": network,
        "map": table["saliency"],
        "map_title": table["map_title"],
        "norm": table["norm"],
        "eps": table["eps"],
        "outcome": outcome,
    }


def _line(network: str, table: Mapping[str, Any], row: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    low, high = row["dissimilarity"]["ci95"]
    fits = table["seed_spread"].get(row["name"], {})
    return {
        **_place(network, table, outcome),
        "row": row["name"],
        "kind": row["kind"],
        "strongest": row["name"] == table.get("strongest"),
        "change": row["dissimilarity"]["mean"],
        "low": low,
        "high": high,
        "excess_over_noise": row["excess_over_noise"],
        **{name: row[name]["mean"] for name in MEANS},
        "prediction_changed": row["prediction_changed"],
        "n": row["dissimilarity"]["n"],
        "fits": len(fits.get("means", ())),
        "least_of_fits": fits.get("min"),
        "most_of_fits": fits.get("max"),
        "error": None,
    }


def _failed(network: str, failure: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    empty = dict.fromkeys(
        (
            "change",
            "low",
            "high",
            "excess_over_noise",
            *MEANS,
            "prediction_changed",
            "least_of_fits",
            "most_of_fits",
        )
    )
    named = {"row": "", "kind": "", "strongest": False, "n": 0, "fits": 0}
    return {**_place(network, failure, outcome), **named, **empty, "error": failure["error"]}
