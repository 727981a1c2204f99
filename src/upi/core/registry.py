"""Things that people add, found by the file they are in.

A registry belongs to a package. A module of that package declares its thing with ``@REGISTRY.add(...)``;
all modules of the package are imported when a name is first looked for, so that a new file is all that a
new thing takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType
from typing import Any, Generic, TypeVar

from upi.core.errors import unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A thing with its name for machines, its title for people, and what its registry asks for."""

    name: str
    title: str
    value: T
    order: int = 100
    facts: Mapping[str, Any] = field(default_factory=dict)


class Registry(Mapping[str, T]):
    """Names to things, in their order; reads like a dictionary.

    Args:
        kind: What the things are, for messages.
        package: Package whose modules declare them.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry[T]] = {}
        self._declared: dict[str, str] = {}  # name to the module that declares it
        self._complete = False

    def add(self, name: str, title: str, *, order: int = 100, **facts: Any) -> Callable[[T], T]:
        """Declare a thing: a decorator, or called with the thing.

        Args:
            name: What users type.
            title: What people read.
            order: Place in lists; equal places go by name.
            facts: What else the registry's users want to know.

        Raises:
            ValueError: Another module has declared this name.
        """

        def declare(value: T) -> T:
            by_itself = isinstance(value, (type, FunctionType))
            module = value.__module__ if by_itself else sys._getframe(1).f_globals["__name__"]
            if self._declared.setdefault(name, module) != module:
                raise ValueError(f"{self._declared[name]} and {module} declare the {self.kind} {name!r}")
            self._entries[name] = Entry(name, title, value, order, facts)
            return value

        return declare

    def entries(self) -> list[Entry[T]]:
        """Everything declared, in order."""
        if not self._complete:
            self._complete = True  # before the imports: they may look here themselves
            for module in sorted(iter_modules(import_module(self.package).__path__), key=lambda m: m.name):
                if not module.ispkg:
                    import_module(f"{self.package}.{module.name}")
        return sorted(self._entries.values(), key=lambda entry: (entry.order, entry.name))

    def entry(self, name: object) -> Entry[T]:
        """The entry of a name.

        Raises:
            ConfigError: Nothing has this name; the message lists the known ones.
        """
        known = {entry.name: entry for entry in self.entries()}
        if not isinstance(name, str) or name not in known:
            raise unknown_name(self.kind, name, known)
        return known[name]

    def find(self, name: object) -> T:
        """The thing of a name; raises as ``entry``."""
        return self.entry(name).value

    def list(self) -> str:
        """The names in one line, for help texts."""
        return ", ".join(self)

    def __getitem__(self, name: str) -> T:
        for entry in self.entries():
            if entry.name == name:
                return entry.value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter([entry.name for entry in self.entries()])

    def __len__(self) -> int:
        return len(self.entries())
