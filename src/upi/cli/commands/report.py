"""``upi report``: draw figures and page again from a run's results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.cli.console import console
from upi.cli.registry import command
from upi.report import build_report
from upi.report.reproduction import RESULTS, build_reproduction
from upi.results.folder import RunFolder


@command("report", order=5)
def report(
    run: Annotated[
        Path, typer.Argument(help="Run folder of 'upi demo', 'evaluate', 'transfer' or 'reproduce'.")
    ],
) -> None:
    """Draw the figures and the HTML page of a run again, from its files alone."""
    whole = (run / RESULTS).exists()
    page = build_reproduction(run) if whole else build_report(RunFolder(run), shown_as=run)
    console.print(f"Report: [bold]{page}[/]")
