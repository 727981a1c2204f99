"""Results of a benchmark run, and how they are written down."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
DOCS = ROOT.parent / "docs"
Record = dict[str, Any]
TITLES = {
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
    "vit": "ViT",
    "small-cnn": "small CNN",
    "resnet50": "ResNet-50",
}


def records(folder: Path, table: str) -> list[Record]:
    """What was measured for one table: facts, seconds (least of the rounds) and peak memory."""
    files = sorted(folder.glob("*.json"))
    found = [entry for file in files for entry in json.loads(file.read_text())["benchmarks"]]
    return [
        {**entry["extra_info"], "seconds": entry["stats"]["min"], "median": entry["stats"]["median"]}
        for entry in found
        if entry["extra_info"].get("table") == table
    ]


def in_passes(record: Record) -> float:
    """Time as a multiple of the pass that was timed beside it."""
    return float(record["seconds"] / record["beside"])


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def duration(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(bytes_: float | None) -> str:
    return (
        "" if bytes_ is None else f"{bytes_ / 2**20:.0f} MB" if bytes_ < 2**30 else f"{bytes_ / 2**30:.1f} GB"
    )


def title(record: Record) -> str:
    width = record.get("width", 1.0)
    return TITLES[record["arch"]] + (f" ×{width:g}" if width != 1 else "")


def pick(found: Sequence[Record], **wanted: Any) -> Record | None:
    return next((r for r in found if all(r[key] == value for key, value in wanted.items())), None)
