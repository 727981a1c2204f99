"""Where errors become exit codes; the table in ``docs/how-to/audit.md`` is made of these.

1 belongs to verdicts alone: a pipeline must be able to tell a network that fails from a tool that does.
"""

from __future__ import annotations

import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import typer
from pydantic import ValidationError

from upi.cli.console import console
from upi.cli.refusals import errors, say
from upi.core.distributed import all_failed, leads, team
from upi.core.errors import UPIError, WorkerError
from upi.core.keeping import asked_by
from upi.core.launch import refuse_several, workers

P = ParamSpec("P")
#: What each code means, for every command.
CODES = {
    0: "done; of an audit: every threshold holds",
    1: "of an audit: a threshold is crossed",
    2: "could not run: bad input, a network or images that do not fit, a stage that failed",
    3: "of an audit: inconclusive, and no threshold is crossed",
    70: "a bug in this library, with its traceback",
    130: "interrupted (Ctrl-C); what was finished is kept where the command can go on",
    143: "ended by a signal (SIGTERM), in the same way",
}
#: Seconds that a worker waits to see whether the others failed alike, so that one sentence is enough.
HEARING = 1.0
BUG, INTERRUPTED, TERMINATED = 70, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def signals() -> Iterator[None]:
    """Inside, SIGTERM ends the command as Ctrl-C does, and SIGUSR1 has the state written while it goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise Terminated

    flag = [False]

    def write(*_: object) -> None:
        flag[0] = True

    before = signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGUSR1, write)
    try:
        with asked_by(flag):
            yield
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def _notes(error: BaseException) -> None:
    """What is left, and where."""
    for note in getattr(error, "__notes__", ()):
        errors.print(note, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Only the leading worker prints; warnings of the others are its own as well."""
    if leads():
        yield
        return
    console.quiet = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _heard(error: BaseException) -> bool:
    """Whether this worker says what went wrong: the leading one, and one that was alone with it."""
    alone = not isinstance(error, (WorkerError, KeyboardInterrupt)) and not all_failed(error, HEARING)
    return leads() or alone or isinstance(error, WorkerError)


def exit_codes(command: Callable[P, None], alone: str | None = None) -> Callable[P, None]:
    """Turn this library's errors into one clear line and exit code 2, Ctrl-C into 130.

    Args:
        command: What runs.
        alone: Its name, where it runs in one process only.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if alone is not None:
                refuse_several(f"upi {alone}")
            ended: typer.Exit | None = None
            with signals(), workers(), _quiet():
                try:
                    command(*args, **kwargs)
                except typer.Exit as end:  # a verdict: no error, so workers leave together
                    ended = end
            if ended is not None:
                raise ended
        except KeyboardInterrupt as error:
            if _heard(error):
                errors.print("interrupted; nothing half-written was left behind")
                _notes(error)
            raise typer.Exit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED) from None
        except ValidationError as error:
            for problem in error.errors():
                place = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
                errors.print(f"[red]error[/] --{place}: {problem['msg']}, got {problem['input']!r}")
            raise typer.Exit(2) from None
        except UPIError as error:
            if _heard(error):
                say(error, who="" if leads() else f"worker {team().rank}: ")
                _notes(error)
            raise typer.Exit(2) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception:
            traceback.print_exc()
            errors.print("[red]this is a bug of upi[/]; please report it with the lines above")
            raise typer.Exit(BUG) from None

    return wrapped
