"""``upi compare``: runs side by side, with paired differences."""

from __future__ import annotations

import io
from itertools import groupby
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from upi.audit.compare import Difference, Run, compare, plain
from upi.cli.console import console
from upi.cli.registry import command
from upi.core.errors import ConfigError
from upi.core.storage import write_atomic
from upi.report.comparison import build_comparison


def named(paths: list[Path]) -> list[Run]:
    """Runs by the shortest ends of their paths that tell them apart."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) != len(whole):
        raise ConfigError("a run is named twice")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole):
        depth += 1
    return [Run.read(path, "/".join(whole[n].parts[-depth:])) for n, path in enumerate(paths)]


def show_differences(found: list[Difference]) -> None:
    """A table for each map, norm and radius."""
    for head, lines in groupby(found, key=lambda each: f"{each.map}, {each.norm} radius {each.eps:g}"):
        grid = Table(title=head, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
        for name in ("row", "figure", "run"):
            grid.add_column(name, no_wrap=True)
        for name in ("before", "after", "difference", "95 %", "n"):
            grid.add_column(name, justify="right", no_wrap=True)
        for each in lines:
            known = each.difference is not None
            grid.add_row(
                each.row,
                each.metric,
                escape(each.second),
                f"{each.before:.3f}",
                f"{each.after:.3f}",
                f"{each.difference:+.3f}" if known else "-",
                f"{each.low:+.3f} to {each.high:+.3f}" if known else "-",
                str(each.n or "-"),
            )
        console.print(grid)


@command("compare", order=6)
def compare_runs(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; the first is what others are compared with.")
    ],
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV there.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also write a page there, one HTML file.")] = None,
) -> None:
    """Compare runs: the same maps, norms, radii and rows, image by image where the images are the same.

    Each run's own strongest attack stands in the row 'strongest', so that a defence meets the attack
    that was fitted on it. Differences are paired over the images that count in both runs.
    """
    found = compare(named(runs))
    show_differences(found)
    lines = plain(found)
    if csv is not None:
        buffer = io.StringIO()
        pd.DataFrame(lines).to_csv(buffer, index=False)
        write_atomic(csv, buffer.getvalue())
    if page is not None:
        console.print(f"Page: [bold]{build_comparison(lines, page)}[/]")
