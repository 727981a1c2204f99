"""The command ``upi`` with the commands that its registry finds."""

from __future__ import annotations

import typer

from upi.cli.front import APP
from upi.cli.registry import COMMANDS

app = typer.Typer(**APP)  # type: ignore[arg-type]
for name, function in COMMANDS.items():
    app.command(name)(function)
