"""Progress bars and tables, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from upi.core.types import Progress as Callback
from upi.evaluation import Evaluation, Flag, Interval

#: What the columns of ``show`` mean.
LEGEND = (
    "change of the map; if kept: among unchanged predictions; top-k: top 5 % of pixels kept; "
    "flips: changed predictions; share: excess over noise as a share of the per-image attack's; "
    "1-step: as a share of that of the paper's one gradient step from each image"
)

console = Console()
if not console.is_terminal:
    console = Console(width=120)


class StageDisplay:
    """Hands out a progress callback per stage; a stage ends when the next one begins."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task: TaskID | None = None

    def close(self) -> None:
        """Mark the running stage as complete."""
        if self.task is not None:
            total = self.bar.tasks[self.task].total or 1
            self.bar.update(self.task, total=total, completed=total)

    def __call__(self, name: str) -> Callback:
        """Begin the stage ``name``."""
        self.close()
        if not self.bar.console.is_terminal:
            self.bar.console.print(f"  {name}")
        self.task = task = self.bar.add_task(name, total=None)

        def callback(done: int, total: int) -> None:
            self.bar.update(task, completed=done, total=total or None)

        return callback


@contextmanager
def stages() -> Iterator[StageDisplay]:
    """Progress bars on a terminal, one line per stage elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        handle = StageDisplay(bar)
        yield handle
        handle.close()


def _short(value: float, form: str = ".3f") -> str:
    return "-" if value != value else format(value, form)


def _range(value: Interval) -> str:
    return "-" if value.n == 0 else f"{value.ci95[0]:.3f}-{value.ci95[1]:.3f}"


def show(evaluation: Evaluation, flags: Iterable[Flag], title: str) -> None:
    """Print a table of results and its flags."""
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("perturbation", no_wrap=True)
    for head in ("change", "95 %", "if kept", "top-k", "flips", "norm", "share", "1-step"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in evaluation.rows.values():
        style = {"universal": "bold", "control": "dim"}.get(row.kind, "")
        table.add_row(
            row.name,
            _short(row.dissimilarity.mean),
            _range(row.dissimilarity),
            _short(row.dissimilarity_unchanged.mean),
            _short(row.top_k_overlap.mean, ".2f"),
            f"{row.prediction_changed:.1%}",
            _short(row.realised_norm.mean, ".2f"),
            _short(row.share_of_per_image, ".0%"),
            _short(row.share_of_one_step, ".0%"),
            style=style,
        )
    console.print(table)
    for flag in flags:
        console.print(f"[yellow]flag[/] {flag.code}: {flag.message}")


def legend() -> None:
    """Say what the columns of ``show`` mean."""
    console.print(LEGEND, style="dim")
