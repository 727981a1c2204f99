"""Where errors become exit codes: 0 done, 1 a bug, 2 bad input, 130 interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from pydantic import ValidationError

from upi.cli.console import errors
from upi.core.errors import UPIError

P = ParamSpec("P")


def _remedy(error: UPIError) -> str:
    """The options that would mend it, in brackets."""
    flags = ", ".join(f"--{option.replace('_', '-')}" for option in error.options)
    return f" ({flags})" if flags else ""


def exit_codes(command: Callable[P, None]) -> Callable[P, None]:
    """Turn this library's errors into one clear line and exit code 2, Ctrl-C into 130."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            errors.print("interrupted; nothing half-written was left behind")
            raise typer.Exit(130) from None
        except ValidationError as error:
            for problem in error.errors():
                place = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
                errors.print(f"[red]error[/] --{place}: {problem['msg']}, got {problem['input']!r}")
            raise typer.Exit(2) from None
        except UPIError as error:
            errors.print(f"[red]error[/] {type(error).__name__}: ", end="")
            errors.print(str(error) + _remedy(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None

    return wrapped
