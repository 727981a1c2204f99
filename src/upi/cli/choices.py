"""Options that take one of some names, refused before anything else is done.

Guards against a misspelt name that is noticed when images and network are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import typer

from upi.core.errors import unknown_name


def one_of(kind: str, known: Iterable[str]) -> Callable[[Any], Any]:
    """A callback of ``typer.Option`` that takes one of the names ``known``, or several of them.

    What it is made of stands in its attribute ``choices``, from which the front door makes it again.
    """
    names = tuple(known)

    def check(value: Any) -> Any:
        for name in value if isinstance(value, (list, tuple)) else [value]:
            if name is not None and name not in names:
                near = get_close_matches(str(name), names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise typer.BadParameter(f"{unknown_name(kind, name, names)}{hint}")
        return value

    check.choices = kind, names  # type: ignore[attr-defined]
    return check
