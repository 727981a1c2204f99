"""``upi list``: everything that has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from upi.attacks.registry import ATTACKS, fitted
from upi.cli.console import console
from upi.cli.registry import command
from upi.core.errors import unknown_name
from upi.core.registry import Registry
from upi.datasets.registry import DATASETS
from upi.dissimilarity import DISSIMILARITIES
from upi.models.nets import NETS, TITLES
from upi.models.public import PUBLIC
from upi.models.registry import SOURCES
from upi.saliency import MAPS


def _of(registry: Registry[Any]) -> list[tuple[str, str]]:
    return [(entry.name, entry.title) for entry in registry.entries()]


def _attacks() -> list[tuple[str, str]]:
    kinds = {name: "" if name in fitted() else " (a control; nothing to fit)" for name in ATTACKS}
    return [(entry.name, entry.title + kinds[entry.name]) for entry in ATTACKS.entries()]


def _models() -> list[tuple[str, str]]:
    forms = [(source.form, SOURCES.entry(name).title) for name, source in SOURCES.items()]
    return [*forms, *((name, net.title) for name, net in PUBLIC.items())]


KINDS: dict[str, tuple[str, Callable[[], list[tuple[str, str]]]]] = {
    "maps": ("--saliency", lambda: _of(MAPS)),
    "dissimilarities": ("--dissimilarity", lambda: _of(DISSIMILARITIES)),
    "attacks": ("--method", _attacks),
    "models": ("--model", _models),
    "architectures": ("--arch", lambda: [(name, TITLES[name]) for name in NETS]),
    "datasets": ("--data", lambda: _of(DATASETS)),
}


@command("list", order=8)
def list_names(
    kind: Annotated[str | None, typer.Argument(help=f"{', '.join(KINDS)}. Default: all.")] = None,
) -> None:
    """Name everything that options can name: maps, attacks, networks, images."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    for name in KINDS if kind is None else [kind]:
        option, lines = KINDS[name]
        table = Table(title=f"{name} ({option})", title_justify="left", box=box.SIMPLE, show_header=False)
        for line in lines():
            table.add_row(*line)
        console.print(table)
