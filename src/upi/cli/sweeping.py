"""From ``sweep.toml`` to its page: every network's audit, its pieces done by an engine."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from upi.audit.assemble import write
from upi.audit.file import parsed, read_text
from upi.audit.jobs import Job
from upi.audit.lines import lines_of
from upi.audit.opening import Subject, open_subject
from upi.audit.run import Audit
from upi.audit.sweep import SweepSettings
from upi.audit.verdict import Verdict
from upi.audit.work import Runner, Work, carry_out
from upi.cli.console import console
from upi.cli.record import shareable, write_record
from upi.core.distributed import sharding
from upi.core.engine import Engine
from upi.core.errors import RunFolderError, UPIError
from upi.core.locking import locked
from upi.core.storage import write_atomic
from upi.experiments.stages import Outcome, StageStore
from upi.report import build_report
from upi.report.sweep_page import build_sweep
from upi.results.folder import RunFolder, parse_json
from upi.results.place import CONFIG, check_free

NETWORKS, TABLE = "networks", "sweep.csv"


@dataclass
class Member:
    """A network of a sweep.

    Attributes:
        name: In the sweep.
        subject: Network and images; None where they could not be opened.
        work: Its audit; None likewise.
        error: Why.
        verdict: What its thresholds make of it, once it is measured.
        lines: Its part of the tidy table.
    """

    name: str
    subject: Subject | None = None
    work: Work | None = None
    error: str = ""
    verdict: Verdict | None = None
    lines: tuple[dict[str, Any], ...] = ()

    def shown(self) -> dict[str, Any]:
        """For the page."""
        page = f"{NETWORKS}/{self.name}/report.html" if self.verdict is not None else ""
        said = self.error if self.verdict is None else self.verdict.headline
        return {"name": self.name, "page": page, "headline": said}


def sweep_settings(file: Path) -> SweepSettings:
    """The settings of a file.

    Raises:
        ConfigError: It cannot be read, or something in it is unknown or of a wrong type, with its line.
    """
    text, content = read_text(file, "sweep")
    return parsed(SweepSettings, content, str(file), text)


def _opened(name: str, settings: Any, out: Path) -> Member:
    """A network with its images and its folder; what is wrong with one does not stop the others."""
    folder = out / NETWORKS / name
    try:
        check_free(folder, force=True)
        subject = open_subject(settings)
        write_record(folder, audit=settings.plain(), **subject.facts())
    except RunFolderError:
        raise
    except UPIError as error:
        return Member(name, error=f"{type(error).__name__}: {error}")
    audit = Audit(settings, subject.model, subject.splits, folder)
    return Member(name, subject, Work(audit, StageStore(folder, lambda _: lambda done, total: None)))


class Count:
    """A bar over pieces of work; a line a piece where there is no terminal."""

    def __init__(self, bar: Progress, names: Mapping[int, str]) -> None:
        self.bar, self.names = bar, names
        self.task = bar.add_task("pieces", total=0)
        self.whole = 0

    def counted(self, missing: int) -> None:
        """So many more come."""
        self.whole += missing
        self.bar.update(self.task, total=self.whole)

    def told(self, work: Work, _: Job, outcome: Outcome) -> None:
        """One is done."""
        self.bar.advance(self.task)
        failed = "" if outcome.error is None else f" failed: {outcome.error}"
        if failed or not console.is_terminal:
            words = f"  {self.names[id(work)]}: {outcome.name} ({outcome.seconds:.0f} s){failed}"
            self.bar.console.print(words, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _counting(members: list[Member]) -> Iterator[Count]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Count(bar, {id(member.work): member.name for member in members})


def _finish(member: Member, command: str) -> None:
    """Write results, verdict and page of a network."""
    if member.work is None or member.subject is None:
        return
    work, subject = member.work, member.subject
    try:
        found = work.found()
    except UPIError as error:
        member.error = str(error)
        return
    verdict = work.audit.verdict(found)
    shutil.rmtree(work.audit.folder / "perturbations", ignore_errors=True)  # of cells no longer asked for
    tables = write(
        work.audit,
        found,
        verdict,
        dataset=subject.dataset,
        model=subject.about,
        command=command,
        seconds=sum(found.seconds.values()),
    )
    build_report(RunFolder(work.audit.folder), shown_as=work.audit.folder)
    member.verdict = verdict
    member.lines = tuple(lines_of(member.name, tables, found.failures, str(verdict.outcome)))


def _require_same(out: Path, settings: SweepSettings) -> None:
    """Refuse a folder of something else; other settings are welcome: pieces are known by what they are of."""
    check_free(out, force=True)
    if (out / CONFIG).is_file() and parse_json(out / CONFIG).get("command") != "sweep":
        raise RunFolderError(f"{out} holds another run, not a sweep; choose another place", options=("out",))


def run_sweep(settings: SweepSettings, out: Path, engine: Engine) -> list[Member]:
    """A sweep from its settings to its page.

    Args:
        settings: What is asked for.
        out: Folder; what is there already is not done again.
        engine: Where pieces run.

    Raises:
        UPIError: The folder holds something else, or the engine does not answer.
    """
    begin = time.perf_counter()
    with sharding(settings.shard_size), locked(out):
        _require_same(out, settings)
        record = write_record(out, sweep=settings.plain())
        command = " ".join(shareable(record["argv"]))
        members = []
        for name, alone in settings.audits():
            console.print(f"open {name}", highlight=False)
            members.append(_opened(name, alone, out))
        works = [member.work for member in members if member.work is not None]
        if not works:
            raise UPIError("\n".join(f"{member.name}: {member.error}" for member in members))
        with _counting(members) as count:
            carry_out(works, Runner(engine, settings.threads, count.told, count.counted))
        for member in members:
            console.print(f"write {member.name}", highlight=False)
            _finish(member, command)
        _write(settings, members, out, command=command, engine=engine, begin=begin)
    return members


def _write(
    settings: SweepSettings, members: list[Member], out: Path, *, command: str, engine: Engine, begin: float
) -> None:
    """The sweep's own files: the tidy table, what is known of each network, the page."""
    import pandas as pd

    lines = [line for member in members for line in member.lines]
    buffer = io.StringIO()
    pd.DataFrame(lines).to_csv(buffer, index=False)
    write_atomic(out / TABLE, buffer.getvalue())
    outcomes = [outcome for member in members if member.work for outcome in member.work.store.outcomes]
    shown = [member.shown() for member in members]
    reused = sum(outcome.reused for outcome in outcomes)
    about = {
        "networks": shown,
        "engine": str(engine),
        "pieces": {"done": len(outcomes) - reused, "known": reused},
        "seconds": round(time.perf_counter() - begin, 2),
        "seconds_of_pieces": round(sum(outcome.seconds for outcome in outcomes), 2),
    }
    write_atomic(out / "sweep.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    first = next(member.subject for member in members if member.subject is not None)
    cells = {(line["network"], line["map"], line["norm"], line["eps"]) for line in lines}
    failed = sum(line["error"] is not None for line in lines)
    best = [line for line in lines if line["strongest"] and line["excess_over_noise"] is not None]
    above = sum(line["excess_over_noise"] > 0 for line in best)
    facts = {
        "headline": f"In {above} of {len(best)} cells one fixed pattern changes maps more than noise does.",
        "dataset": first.dataset,
        "n_test": max((line["n"] for line in lines), default=0),
        "seeds": ", ".join(str(settings.seed + number) for number in range(settings.work.fits)),
        "cells": len(cells),
        "failed": failed + sum(member.verdict is None for member in members),
        "command": command,
    }
    build_sweep(lines, shown, out, facts=facts)
    console.print(f"{len(outcomes) - reused} pieces done, {reused} known before.", highlight=False)
