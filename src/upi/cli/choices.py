"""Options that take one of some names, refused before anything else is done.

Guards against a misspelt name that is noticed when images and network are loaded.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable
from typing import Any

import typer

from upi.core.naming import nearest


class FreePlace:
    """Marks the option that names a run's folder: free, or a run that ``--force`` may replace."""


def one_of(kind: str, known: Iterable[str], *, others: str = "", paths: bool = False) -> Callable[[Any], Any]:
    """A callback of ``typer.Option`` that takes one of the names ``known``, or several of them.

    What it is made of stands in its attribute ``choices``, from which the front door makes it again.

    Args:
        kind: What the names are of.
        known: The names.
        others: Characters of names that only the command itself can judge, as the slash of ``timm/NAME``.
        paths: Files and folders are taken too.
    """
    names = tuple(known)

    def taken(name: str) -> bool:
        if name in names or any(mark in name for mark in others):
            return True
        return paths and os.path.exists(name)  # noqa: PTH110 - Path.exists raises where a name is too long

    def check(value: Any) -> Any:
        for name in value if isinstance(value, (list, tuple)) else [value]:
            if name is not None and not taken(name):
                nothing = ", and no such file or folder" if paths else ""
                raise typer.BadParameter(f"unknown {kind} {name!r}{nearest(name, names)}{nothing}")
        return value

    check.choices = kind, names, others, paths  # type: ignore[attr-defined]
    return check
