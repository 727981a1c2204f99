"""Names for records, the same in every run."""

from __future__ import annotations

from dataclasses import is_dataclass
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
