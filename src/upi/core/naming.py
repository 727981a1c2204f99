"""Names for records, the same in every run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any


def name_of(choice: Any) -> str:
    """A name of a function, a configured object, or a name itself."""
    if isinstance(choice, str):
        return choice
    named = getattr(choice, "__name__", None)
    return str(named or (repr(choice) if is_dataclass(choice) else type(choice).__qualname__))


def short_name(choice: Any, length: int = 80) -> str:
    """The same name in one line of at most ``length`` characters, for messages."""
    name = " ".join(name_of(choice).split())
    return name if len(name) <= length else f"{name[: length - 3]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` where a known name is close, else the known ones in brackets."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(names)})"
