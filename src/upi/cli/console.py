"""Progress bars and tables, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
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


class AuditDisplay:
    """One bar for a whole audit: its share of passes, the time that is left, and what is being done.

    On a terminal a bar; elsewhere a line for each part.
    """

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=1.0)
        self.parts: list[tuple[str, float]] = []
        self.base = 0.0  # passes of the parts before the present one

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[AuditDisplay]:
        """The display, while its block runs."""
        columns = (
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            yield cls(bar)

    def expect(self, schedule: Mapping[str, float]) -> None:
        """Say which parts come, in order, with their passes."""
        self.parts = list(schedule.items())
        self.bar.update(self.task, total=sum(schedule.values()))

    def _take(self, name: str) -> float:
        """Passes of a part; those before it that did not come were done before."""
        end = name.rsplit(": ", 1)[-1]
        for place, (known, passes) in enumerate(self.parts):
            if known == name or (known.startswith("#") and known.rsplit(": ", 1)[-1] == end):
                self.base += sum(each for _, each in self.parts[:place])
                self.parts = self.parts[place + 1 :]
                return passes
        return 0.0

    def __call__(self, name: str) -> Callback:
        """Begin the part ``name``."""
        passes = self._take(name)
        start, self.base = self.base, self.base + passes
        if not self.bar.console.is_terminal and not name.startswith("cell: "):
            self.bar.console.print(f"  {name}", markup=False)
        self.bar.update(self.task, completed=start, description=name)

        def callback(done: int, total: int) -> None:
            share = done / total if total else 0.0
            self.bar.update(self.task, completed=start + passes * share)

        return callback

    def finished(self, name: str, error: str | None) -> None:
        """A stage is done that ran elsewhere, beside others."""
        own = name.removeprefix("cell: ")
        ends = {own.rsplit(": ", 1)[-1]} if own == name else {"evaluate on test", "ceiling"}
        for place in range(len(self.parts) - 1, -1, -1):
            known, passes = self.parts[place]
            fits = known.startswith((own if own == name else f"{own}: ", "#"))
            if fits and known.rsplit(": ", 1)[-1] in ends:
                del self.parts[place]
                self.base += passes
                ends.discard(known.rsplit(": ", 1)[-1])
        failed = "" if error is None else f" failed: {error}"
        if failed or not self.bar.console.is_terminal:
            self.bar.console.print(f"  {name}{failed}", markup=False, highlight=False, soft_wrap=True)
        self.bar.update(self.task, completed=self.base, description=name)
