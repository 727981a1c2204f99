"""Commands by name: a module of ``upi.cli.commands`` that declares one is all that a new command takes.

Its function says with ``@command("hello", order=10)`` what it is called; its docstring is its help, and its
parameters are options or groups of options, such as ``data: DataOptions``. Groups are expanded, this
library's errors become exit codes.
"""

from __future__ import annotations

from collections.abc import Callable

from upi.cli.exits import exit_codes
from upi.cli.expand import expanded
from upi.core.registry import Registry

COMMANDS: Registry[Callable[..., None]] = Registry("command", "upi.cli.commands")


def command(
    name: str, *, order: int = 100, several: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command; its docstring is its help.

    Args:
        name: What it is called.
        order: Place in lists.
        several: A launcher may start several workers of it.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        whole = expanded(function)
        guarded = exit_codes(whole, name if not several else None)  # groups are validated inside
        guarded.__annotations__ = whole.__annotations__
        return COMMANDS.add(name, summary, order=order)(guarded)

    return declare
