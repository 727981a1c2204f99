"""What a run was asked for: options from a file, below those on the command line, and config.json.

``--config FILE`` takes TOML or JSON with the options of that command, or the config.json of
an earlier run, which repeats it.
"""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer

from upi.core.storage import write_atomic
from upi.core.version import versions


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise typer.BadParameter(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from error
    options = content.get("options", content) if isinstance(content, dict) else None
    if not isinstance(options, dict):
        raise typer.BadParameter(f"{path}: expected a table of options")
    return options


def use_file(context: typer.Context, parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Take the options of a file as the command's defaults."""
    if value is None:
        return None
    known = {p.name for p in context.command.params if p.name} - {"config", "help"}
    options = {key.replace("-", "_"): entry for key, entry in _read(value).items()}
    unknown = sorted(set(options) - known)
    if unknown:
        raise typer.BadParameter(
            f"{value}: unknown option {', '.join(unknown)} for 'upi {context.info_name}'; "
            f"known: {', '.join(sorted(known))}"
        )
    several = {p.name for p in context.command.params if getattr(p, "multiple", False)}
    options = {k: [v] if k in several and isinstance(v, str) else v for k, v in options.items()}
    context.default_map = {**(context.default_map or {}), **options}
    return value


_RUNNING: ContextVar[typer.Context] = ContextVar("command")


@contextmanager
def running(context: typer.Context) -> Iterator[typer.Context]:
    """The command that ``current`` answers with inside."""
    token = _RUNNING.set(context)
    try:
        yield context
    finally:
        _RUNNING.reset(token)


def current() -> typer.Context:
    """The context of the command that runs: its name and its options as given."""
    return _RUNNING.get()


def chosen_options(context: typer.Context) -> dict[str, Any]:
    """The command's options as plain JSON values, without those about the run folder."""
    skipped = {"config", "out", "force"}
    options = {key: value for key, value in context.params.items() if key not in skipped}
    return {key: _plain(value) for key, value in options.items()}


def job_of(context: typer.Context) -> dict[str, Any]:
    """What a command is asked for: where it is the same, its results are."""
    return {"command": context.info_name, "options": chosen_options(context), "versions": versions()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


#: Options whose values are places of one machine.
PLACES = ("--data-dir", "--publish", "--junit", "--card", "--push-to-hub")


def shareable(argv: list[str]) -> list[str]:
    """The command without places that are this machine's own: of images, and of copies of the results."""
    places = [number for number, word in enumerate(argv) if word in PLACES]
    hidden = {number + shift for number in places for shift in (0, 1)}
    kept = (word for number, word in enumerate(argv) if number not in hidden)
    return [word for word in kept if not word.startswith(tuple(f"{name}=" for name in PLACES))]


def environment() -> dict[str, Any]:
    """Versions and machine that a run depends on."""
    import numpy
    import scipy
    import torch

    extra = {"numpy": numpy.__version__, "scipy": scipy.__version__}
    machine = {"machine": platform.machine(), "threads": torch.get_num_threads()}
    return {"versions": {**versions(), **extra}, **machine}


def config_record(context: typer.Context, **facts: Any) -> dict[str, Any]:
    """The content of config.json."""
    command = ["upi", *sys.argv[1:]] if Path(sys.argv[0]).name == "upi" else ["upi", str(context.info_name)]
    return {
        "command": context.info_name,
        "argv": command,
        "options": chosen_options(context),
        **environment(),
        **facts,
    }


def write_record(out: Path, **facts: Any) -> dict[str, Any]:
    """Write config.json of the command that runs into a run folder; returns its content."""
    record = {**config_record(current()), **facts}
    write_atomic(out / "config.json", json.dumps(record, indent=2, default=str) + "\n")
    return record
