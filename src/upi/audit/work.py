"""Audits carried out: one piece after the other in this process, or many at once by an engine.

Every piece is a stage of its audit's folder, keyed by what it depends on, so that what was finished is not
done again, whoever did it. In this process a cell is finished before the next begins; an engine gets all fits
first and then all tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upi.audit.jobs import Bench, FitJob, Job, TableJob
from upi.audit.remote import Request, answer
from upi.audit.run import Audit, Found
from upi.audit.settings import AuditSettings
from upi.core.engine import Engine
from upi.core.errors import UPIError
from upi.experiments.fitting import Spec
from upi.experiments.stages import Outcome, StageStore

#: Told of every piece that an engine finishes: its audit, what it was, and how it ended.
Told = Callable[["Work", Job, Outcome], None]


@dataclass
class Work:
    """An audit, the folder of its results, and what is known so far."""

    audit: Audit
    store: StageStore
    proposals: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: list[tuple[Spec, Outcome]] = field(default_factory=list)
    error: UPIError | None = None

    def propose(self, norm: str, outcome: Outcome) -> None:
        """Take the radius that was proposed for a norm."""
        if outcome.result is None:
            self.error = UPIError(f"no radius could be proposed: {outcome.error}")
        else:
            self.proposals[norm] = outcome.result

    def specs(self) -> list[Spec]:
        """The cells; none where no radius is known."""
        return [] if self.error is not None else list(self.audit.specs(self.proposals))

    def found(self) -> Found:
        """What was measured.

        Raises:
            UPIError: Nothing was.
        """
        if self.error is not None:
            raise self.error
        return self.audit.found(self.tables, self.proposals, self.store.outcomes)


@dataclass(frozen=True)
class Runner:
    """Carries jobs out.

    Attributes:
        engine: None for this process.
        threads: Of each worker of an engine.
        told: Told of every piece that an engine finished.
        counted: Told how many pieces come, before an engine begins with them.
    """

    engine: Engine | None = None
    threads: int = 1
    told: Told | None = None
    counted: Callable[[int], None] | None = None

    def run(self, jobs: Sequence[tuple[Work, Job]]) -> list[Outcome]:
        """The outcome of each job, in order."""
        if self.engine is None:
            return [_here(work, job) for work, job in jobs]
        known = [work.store.known(job.name, self._inputs(work, job)) for work, job in jobs]
        missing = [number for number, outcome in enumerate(known) if outcome is None]
        if self.counted is not None:
            self.counted(len(missing))
        requests = [self._request(number, *jobs[number]) for number in missing]
        for found in self.engine.map(answer, requests, threads=self.threads):
            work, job = jobs[found.number]
            known[found.number] = work.store.take(found.outcome, self._inputs(work, job), found.files)
            if self.told is not None:
                self.told(work, job, found.outcome)
        return [outcome for outcome in known if outcome is not None]

    def _inputs(self, work: Work, job: Job) -> dict[str, Any]:
        return job.inputs(work.audit.model, work.audit.splits)

    def _request(self, number: int, work: Work, job: Job) -> Request:
        audit = work.audit
        assert self.engine is not None
        return Request(
            number,
            everywhere(audit.settings),
            audit.model.fingerprint(),
            dict(audit.splits.origin),
            job,
            {file: (audit.folder / file).read_bytes() for file in job.needs},
            str(audit.folder.resolve()) if self.engine.same_files else None,
            self.threads,
        )


def _here(work: Work, job: Job) -> Outcome:
    """A job in this process."""
    audit, store = work.audit, work.store
    bench = Bench(audit.model, audit.splits, audit.folder, store.announce)
    return store.run(
        job.name, job.inputs(audit.model, audit.splits), lambda progress: job.make(bench, progress)
    )


def everywhere(settings: AuditSettings) -> dict[str, Any]:
    """Settings with whole places instead of places below this folder."""
    plain = settings.plain()
    network, images = plain["network"], plain["images"]
    file, colon, name = str(network["model"]).partition(":")
    if Path(file).exists():
        network["model"] = f"{Path(file).resolve()}{colon}{name}"
    for part, key in ((network, "weights"), (images, "data"), (images, "data_dir")):
        if part[key] is not None and Path(part[key]).exists():
            part[key] = str(Path(part[key]).resolve())
    return plain


def carry_out(works: Sequence[Work], runner: Runner) -> None:
    """Do everything that is not done yet; results are in the works."""
    asked = [(work, norm, job) for work in works for norm, job in work.audit.radius_jobs().items()]
    for (work, norm, _), outcome in zip(asked, runner.run([(w, job) for w, _, job in asked]), strict=True):
        work.propose(norm, outcome)
    cells = [(work, spec) for work in works for spec in work.specs()]
    for group in [cells] if runner.engine is not None else [[cell] for cell in cells]:
        _cells(group, runner)


def _cells(cells: Sequence[tuple[Work, Spec]], runner: Runner) -> None:
    """Fits and tables of some cells."""
    fits = [(work, job) for work, spec in cells for job in work.audit.fit_jobs(spec)]
    results = iter(runner.run(list(fits)))
    ready: list[tuple[Work, Job]] = []
    for work, spec in cells:
        own = [(job, next(results)) for job in work.audit.fit_jobs(spec)]
        failed = next((outcome for _, outcome in own if outcome.result is None), None)
        if failed is not None:
            work.tables.append((spec, failed))
        else:
            ready.append((work, TableJob(spec, _by_method(own))))
    for (work, job), outcome in zip(ready, runner.run(ready), strict=True):
        work.tables.append((job.spec, outcome))


def _by_method(own: Sequence[tuple[FitJob, Outcome]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for job, outcome in own:
        assert outcome.result is not None
        found.setdefault(job.fit.method, {})[job.fit.number] = outcome.result
    return found
