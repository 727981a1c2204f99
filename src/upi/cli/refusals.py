"""How a refusal reads: one line with the kind of error, and the options that would mend it.

Imports nothing heavy: the front door refuses before PyTorch is imported.
"""

from __future__ import annotations

from rich.console import Console

from upi.core.errors import UPIError

errors = Console(stderr=True)


def say(error: UPIError, *, who: str = "") -> None:
    """Print an error of this library.

    Args:
        error: What went wrong.
        who: Words before it, such as which worker speaks.
    """
    errors.print(f"[red]error[/] {who}{type(error).__name__}: ", end="")
    errors.print(str(error) + _remedy(error), markup=False, highlight=False, soft_wrap=True)


def _remedy(error: UPIError) -> str:
    """The options that would mend it, in brackets."""
    flags = ", ".join(f"--{option.replace('_', '-')}" for option in error.options)
    return f" ({flags})" if flags else ""
