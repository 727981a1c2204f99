"""The command ``upi`` with the commands that its registry finds."""

from __future__ import annotations

import typer

from upi.cli.registry import COMMANDS

app = typer.Typer(
    name="upi",
    help="Find one fixed pattern that breaks an image classifier's explanations, and measure how badly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for name, function in COMMANDS.items():
    app.command(name)(function)
