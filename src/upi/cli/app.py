"""The command ``upi`` and its subcommands, one file each."""

from __future__ import annotations

import typer

from upi.cli.demo import demo
from upi.cli.evaluate import evaluate_command
from upi.cli.fit import fit_command
from upi.cli.report import report_command
from upi.cli.reproduce import reproduce_command
from upi.cli.train import train_command
from upi.cli.transfer import transfer_command

app = typer.Typer(
    name="upi",
    help="Find one fixed pattern that breaks an image classifier's explanations, and measure how badly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("demo")(demo)
app.command("train")(train_command)
app.command("fit")(fit_command)
app.command("evaluate")(evaluate_command)
app.command("report")(report_command)
app.command("transfer")(transfer_command)
app.command("reproduce")(reproduce_command)
