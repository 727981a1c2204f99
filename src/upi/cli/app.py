"""The command ``upi`` with the commands that its registry finds."""

from __future__ import annotations

from upi.cli.front import empty_app
from upi.cli.registry import COMMANDS

app = empty_app()
for name, function in COMMANDS.items():
    app.command(name)(function)
