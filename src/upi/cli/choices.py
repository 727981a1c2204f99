"""Options that take one of some names, refused before anything else is done.

Guards against a misspelt name that is noticed when images and network are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer

from upi.core.naming import nearest


def one_of(kind: str, known: Iterable[str]) -> Callable[[Any], Any]:
    """A callback of ``typer.Option`` that takes one of the names ``known``, or several of them.

    What it is made of stands in its attribute ``choices``, from which the front door makes it again.
    """
    names = tuple(known)

    def check(value: Any) -> Any:
        for name in value if isinstance(value, (list, tuple)) else [value]:
            if name is not None and name not in names:
                raise typer.BadParameter(f"unknown {kind} {name!r}{nearest(str(name), names)}")
        return value

    check.choices = kind, names  # type: ignore[attr-defined]
    return check
