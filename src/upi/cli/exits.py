"""Where errors become exit codes; the table in ``docs/how-to/audit.md`` is made of these.

1 belongs to verdicts alone: a pipeline must be able to tell a network that fails from a tool that does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from pydantic import ValidationError

from upi.cli.console import errors
from upi.core.errors import UPIError

P = ParamSpec("P")
#: What each code means, for every command.
CODES = {
    0: "done; of an audit: every threshold holds",
    1: "of an audit: a threshold is crossed",
    2: "could not run: bad input, a network or images that do not fit, a stage that failed",
    3: "of an audit: inconclusive, and no threshold is crossed",
    70: "a bug in this library, with its traceback",
    130: "interrupted",
}
BUG = 70


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
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception:
            traceback.print_exc()
            errors.print("[red]this is a bug of upi[/]; please report it with the lines above")
            raise typer.Exit(BUG) from None

    return wrapped
