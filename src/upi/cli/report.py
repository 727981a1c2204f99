"""``upi report``: draw figures and page again from a run's results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.cli.console import console
from upi.cli.exits import exit_codes
from upi.report import build_report
from upi.runs import RunFolder


@exit_codes
def report_command(
    run: Annotated[Path, typer.Argument(help="Run folder of 'upi demo' or 'upi evaluate'.")],
) -> None:
    """Draw the figures and the HTML page of a run again, from its files alone."""
    console.print(f"Report: [bold]{build_report(RunFolder(run), shown_as=run)}[/]")
