"""The progress of a whole audit, by rich."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from upi.audit.cells import is_part
from upi.audit.jobs import Job
from upi.cli.console import console
from upi.core.types import Progress as Callback
from upi.experiments.stages import Outcome


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

    def _place(self, name: str) -> int | None:
        """Where a part stands among those that are not done; None where it is none of them."""
        places = (place for place, (known, _) in enumerate(self.parts) if is_part(known, name))
        return next(places, None)

    def _take(self, name: str) -> float:
        """Passes of a part; those before it that did not come were done before."""
        place = self._place(name)
        if place is None:
            return 0.0
        self.base += sum(each for _, each in self.parts[:place])
        passes = self.parts[place][1]
        self.parts = self.parts[place + 1 :]
        return passes

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

    def finished(self, job: Job, outcome: Outcome) -> None:
        """A piece is done that ran elsewhere, beside others."""
        for part in job.parts:
            place = self._place(part)
            if place is not None:
                self.base += self.parts.pop(place)[1]
        failed = "" if outcome.error is None else f" failed: {outcome.error}"
        if failed or not self.bar.console.is_terminal:
            self.bar.console.print(f"  {job.name}{failed}", markup=False, highlight=False, soft_wrap=True)
        self.bar.update(self.task, completed=self.base, description=job.name)
