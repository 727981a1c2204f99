"""Runs side by side as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upi.core.storage import write_atomic
from upi.report.page import template
from upi.report.style import name
from upi.report.words import NORMS


def grouped(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Lines by map, norm and radius, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        head = f"{line['map']}, {NORMS.get(line['norm'], line['norm'])} ≤ {line['eps']:g}"
        found.setdefault(head, []).append(line)
    return list(found.items())


def build_comparison(lines: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the page of a comparison, from ``upi.audit.compare.plain``."""
    page = template("comparison.html", escape=True).render(
        groups=grouped(lines), first=lines[0]["first"], name=name
    )
    return write_atomic(path, page)
