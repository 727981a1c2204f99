"""A small public record: an entry for each audit, and a table made from the entries and nothing else.

An entry is a folder: ``entry.json`` (versioned, one schema), ``README.md`` (the card) and the strongest
perturbation of each map, norm and radius. Whoever has the network and the images can check it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from upi.audit.outputs import escaped
from upi.audit.verdict import Verdict
from upi.core.errors import RunFolderError
from upi.core.rows import MATCHED_NOISE, NOISE, PER_IMAGE
from upi.core.storage import write_atomic
from upi.report.words import NORMS, radius
from upi.results.folder import parse_json
from upi.results.schema import Mean, Record

ENTRY, CARD, BOARD = "entry.json", "README.md", "README.md"


class Line(Record):
    """One map, norm and radius: the strongest universal perturbation beside its controls."""

    map: str
    norm: Literal["l2", "linf"]
    eps: float = Field(gt=0)
    row: str
    change: Mean
    noise: float | None
    matched_noise: float | None
    per_image: float | None
    top_k_overlap: Mean
    prediction_changed: float = Field(ge=0, le=1)
    n: int = Field(gt=0)
    perturbation: str

    @property
    def excess(self) -> float:
        """Change of the map beyond noise of equal norm."""
        return (self.change.mean or 0.0) - (self.noise or 0.0)


class Entry(Record):
    """An audit, as others see it."""

    version: Literal[1] = Field(alias="schema")
    network: str
    accuracy: float | None
    fingerprint: str
    dataset: str
    data_fingerprint: str
    outcome: Literal["passed", "failed", "inconclusive"]
    headline: str
    command: str
    versions: dict[str, str]
    lines: list[Line] = Field(min_length=1)


def _mean(rows: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    return rows[name]["dissimilarity"]["mean"] if name in rows else None


def _line(table: Mapping[str, Any]) -> dict[str, Any]:
    rows = {row["name"]: row for row in table["rows"]}
    best = rows[table["strongest"]]
    return {
        "map": table["map_title"],
        "norm": table["norm"],
        "eps": table["eps"],
        "row": best["title"],
        "change": best["dissimilarity"],
        "noise": _mean(rows, NOISE),
        "matched_noise": _mean(rows, MATCHED_NOISE),
        "per_image": _mean(rows, PER_IMAGE),
        "top_k_overlap": best["top_k_overlap"],
        "prediction_changed": best["prediction_changed"],
        "n": table["n_test"],
        "perturbation": f"{table['perturbations'][table['strongest']]}.safetensors",
    }


def slug(text: str) -> str:
    """A name that is one in every file system."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "unnamed"


def entry_of(
    verdict: Verdict,
    *,
    model: Mapping[str, Any],
    dataset: str,
    data_fingerprint: str,
    tables: Sequence[Mapping[str, Any]],
    command: str,
    versions: Mapping[str, str],
) -> Entry:
    """What others need to know of an audit.

    Args:
        verdict, model, dataset, data_fingerprint, tables, command, versions: Of the audit.
    """
    shown = [table for table in tables if table.get("strongest")]
    plain = {
        "schema": 1,
        "network": model["arch"],
        "accuracy": model.get("test_accuracy"),
        "fingerprint": model["fingerprint"],
        "dataset": dataset,
        "data_fingerprint": data_fingerprint,
        "outcome": str(verdict.outcome),
        "headline": verdict.headline,
        "command": command,
        "versions": dict(versions),
        "lines": [_line(table) for table in shown],
    }
    return Entry.model_validate(plain)


def files_of(entry: Entry, run: Path) -> dict[str, bytes]:
    """The content of an entry's files by name.

    Args:
        entry: Of the audit.
        run: The audit's run folder, with card and perturbations.
    """
    text = json.dumps(entry.plain(), indent=2, ensure_ascii=False) + "\n"
    files = {ENTRY: text.encode(), CARD: (run / "AUDIT.md").read_bytes()}
    return files | {
        line.perturbation: (run / "perturbations" / line.perturbation).read_bytes() for line in entry.lines
    }


def publish(entry: Entry, run: Path, board: Path) -> Path:
    """Write an entry into a leaderboard, and the leaderboard's table anew.

    Args:
        entry, run: As for ``files_of``.
        board: The leaderboard.

    Returns:
        The entry's folder.

    Raises:
        RunFolderError: It cannot be written, or an entry of the leaderboard is damaged.
    """
    home = board / "-".join((slug(entry.network), slug(entry.dataset), entry.fingerprint[:8]))
    for name, content in files_of(entry, run).items():
        write_atomic(home / name, content)
    write_atomic(board / BOARD, table_of(board))
    return home


def entries(board: Path) -> dict[str, Entry]:
    """The entries of a leaderboard by the name of their folder.

    Raises:
        RunFolderError: One of them is damaged.
    """
    found = {}
    for path in sorted(board.glob(f"*/{ENTRY}")):
        try:
            found[path.parent.name] = Entry.model_validate(parse_json(path))
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise RunFolderError(f"{path}: not an entry of version 1: {place}: {problem['msg']}") from error
    return found


HEAD = """# Leaderboard

Explanations of image classifiers against one perturbation for all images, as `upi audit` measured them:
one line for each network, map and radius, the least change beyond noise first. Attacks are lower bounds. The
table is made from the entries, never by hand: `upi audit` writes an entry
and this file. [SUBMISSION.md](SUBMISSION.md) says how to add one. `runs/train` is what `upi train` writes.

"""
COLUMNS = (
    "network (accuracy)",
    "images, n",
    "explanation, radius",
    "excess over noise",
    "change (95 %)",
    "noise",
    "per image",
    "top 5 % kept",
    "flips",
    "entry",
)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def table_of(board: Path) -> str:
    """The leaderboard as Markdown, from its entries alone."""
    lines = [(name, entry, line) for name, entry in entries(board).items() for line in entry.lines]
    text = HEAD + f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    for name, entry, line in sorted(lines, key=lambda each: (each[2].excess, each[0], each[2].eps)):
        low, high = line.change.ci95
        accuracy = "" if entry.accuracy is None else f" ({entry.accuracy:.1%})"
        cells = (
            f"{escaped(entry.network)}{accuracy}",
            f"{escaped(entry.dataset)}, {line.n}",
            f"{escaped(line.map)}, {NORMS[line.norm]} ≤ {radius(line.norm, line.eps)}",
            f"{line.excess:+.2f}",
            f"{_number(line.change.mean)} ({_number(low)}–{_number(high)})",
            _number(line.noise),
            _number(line.per_image),
            _number(line.top_k_overlap.mean),
            f"{line.prediction_changed:.1%}",
            f"[{entry.outcome}]({name}/{CARD})",
        )
        text += "| " + " | ".join(cells) + " |\n"
    text += "\nCommands:\n\n"
    for name, entry in entries(board).items():
        text += f"* {name}: `{entry.command.replace('`', '')}`\n"
    return text
