"""From the settings of an audit to its verdict and its page: what ``upi audit`` and ``upi demo`` share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from upi.audit.assemble import VERDICT, write
from upi.audit.compare import Run, radii_of, require_same_images
from upi.audit.file import checked, read_text
from upi.audit.opening import Subject, open_subject
from upi.audit.publish import entry_of, files_of, publish as publish_entry
from upi.audit.run import Audit
from upi.audit.settings import AuditSettings
from upi.audit.verdict import Outcome, Verdict
from upi.audit.work import Runner, Work, carry_out
from upi.cli.audit_display import AuditDisplay
from upi.cli.console import console
from upi.cli.record import shareable, write_record
from upi.core.distributed import from_lead, leads, require_same, sharding, team
from upi.core.engine import Engine
from upi.core.errors import ConfigError, RunFolderError
from upi.core.locking import locked
from upi.experiments.stages import StageStore
from upi.perturbation.hub import push_files, require_hub
from upi.report import build_report
from upi.results.folder import RunFolder, parse_json
from upi.results.place import CONFIG, check_free

COLOURS = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.INCONCLUSIVE: "yellow"}


def _set(content: dict[str, Any], place: str, value: Any) -> None:
    """Put a value at a dotted place."""
    *tables, key = place.split(".")
    for table in tables:
        content = content.setdefault(table, {})
    content[key] = value


def settings_of(config: Path | None, given: Mapping[str, Any]) -> AuditSettings:
    """The file's settings with what the command line says instead.

    Raises:
        ConfigError: Something is unknown or of a wrong type, with its line; or no network is named.
    """
    text, content = ("", dict[str, Any]()) if config is None else read_text(config)
    for place, value in given.items():
        if value not in (None, [], ()):
            _set(content, place, value)
    if "model" not in content.get("network", {}):
        raise ConfigError("name a network, on the command line or in a file", options=("model", "config"))
    return checked(content, str(config or "command line"), text)


def prepare(out: Path, settings: AuditSettings, force: bool) -> bool:
    """The run folder, made or gone on with; whether it was there.

    Raises:
        RunFolderError: It holds something else, or an audit with other settings.
    """
    check_free(out, force=True)
    if not (out / CONFIG).is_file():
        return False
    if not force:
        _require_same(out, settings)
        return True
    shutil.rmtree(out)
    return False


def _require_same(out: Path, settings: AuditSettings) -> None:
    """Thresholds and device may differ: they change no figure."""
    before = parse_json(out / CONFIG).get("audit")
    if not isinstance(before, dict):
        raise RunFolderError(f"{out} holds another run, not an audit; choose another place", options=("out",))
    now = settings.plain()
    differing = sorted(
        key for key in now if key not in ("threshold", "device") and now[key] != before.get(key)
    )
    if differing:
        raise RunFolderError(
            f"{out} holds an audit with other settings ({', '.join(differing)}); force its replacement, or "
            "choose another place",
            options=("force", "out"),
        )


def announce_verdict(verdict: Verdict) -> None:
    """The headline and a line a threshold."""
    console.print()
    console.print(f"[bold {COLOURS[verdict.outcome]}]{verdict.headline.split(':')[0]}[/]", end="")
    console.print(verdict.headline[len(verdict.headline.split(":")[0]) :], markup=False)
    for check in verdict.checks:
        console.print(f"  [{COLOURS[check.outcome]}]{check.outcome:12}[/] ", end="")
        line = f"{check.demand} ({check.row}, {check.among}) | {check.where} | {check.figure}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _asked(settings: AuditSettings) -> tuple[list[str], list[str]]:
    return list(settings.explanations.maps), list(settings.perturbations.norms)


def _baseline(path: Path, settings: AuditSettings, subject: Subject) -> Run:
    """The run that this audit is compared with, on the same images."""
    if settings.perturbations.radii != "auto":
        raise ConfigError("radii are those of the baseline; name none", options=("eps",))
    run = Run.read(path)
    require_same_images(run, subject.splits.origin)
    return run


def run_audit(
    settings: AuditSettings,
    out: Path,
    *,
    force: bool = False,
    baseline: Path | None = None,
    junit: Path | None = None,
    card: Path | None = None,
    publish: Path | None = None,
    hub_name: str | None = None,
    engine: Engine | None = None,
    first: Callable[[AuditDisplay], None] | None = None,
) -> Verdict:
    """An audit from its settings to its page.

    Args:
        settings: What is asked for.
        out: Run folder; an audit with the same settings goes on.
        force: Begin again in a folder that is there.
        baseline: Run folder of another network's audit, to compare with.
        junit, card, publish: Further places for the verdict.
        hub_name: ``user/name`` of a repository of the Hugging Face hub that gets the entry.
        engine: Runs the pieces of the audit, beside each other; None for one after the other in this process.
        first: Called before images and network are loaded.

    Raises:
        UPIError: The audit cannot run.
    """
    begin = time.perf_counter()
    if hub_name is not None:
        require_hub(hub_name)
    if engine is not None and team().size > 1:
        raise ConfigError("an engine or a launcher of several workers, not both", options=("engine",))
    with sharding(settings.shard_size), locked(out), AuditDisplay.running() as display:
        again = from_lead(lambda: prepare(out, settings, force))
        if first is not None:
            first(display)
        display("load images and network")
        subject = open_subject(settings)
        require_same("set of images", subject.splits.origin["fingerprint"])
        require_same("network", subject.about["fingerprint"])
        before = None if baseline is None else _baseline(baseline, settings, subject)
        radii = None if before is None else radii_of(before, *_asked(settings))
        audit = Audit(settings, subject.model, subject.splits, out, radii)
        if from_lead((out / VERDICT).is_file):
            parts = audit.parts()
            console.print(f"Going on with an audit of {len(parts)} parts that was finished.")
        else:
            display("measure the pace of this machine")
            cost = audit.cost()
            parts = dict(cost.parts)
            console.print(f"{'Going on with' if again else 'Audit'}: {len(parts)} parts, {cost}.")
        record = write_record(out, audit=settings.plain(), **subject.facts())
        display.expect(parts)
        work = Work(audit, StageStore(out, display))
        carry_out([work], Runner(engine, told=lambda _, *done: display.finished(*done)))
        found = work.found()
        verdict = audit.verdict(found)
        if not leads():
            return verdict
        display("write results and page")
        seconds = time.perf_counter() - begin
        tables = write(
            audit,
            found,
            verdict,
            dataset=subject.dataset,
            model=subject.about,
            command=" ".join(shareable(record["argv"])),
            seconds=seconds,
            baseline=before,
            junit_file=junit,
            card_file=card,
        )
        if publish is not None or hub_name is not None:
            entry = entry_of(
                verdict,
                model=subject.about,
                dataset=subject.dataset,
                data_fingerprint=str(subject.splits.origin["fingerprint"]),
                tables=tables,
                command=" ".join(shareable(record["argv"])),
                versions=record["versions"],
            )
        build_report(RunFolder(out), shown_as=out)
    if publish is not None:
        console.print(f"Entry: [bold]{publish_entry(entry, out, publish)}[/]")
    if hub_name is not None:
        place = push_files(files_of(entry, out), hub_name, message=f"Audit: {verdict.outcome}")
        console.print(f"On the hub: [bold]{place}[/]")
    announce_verdict(verdict)
    console.print(f"Report: [bold]{out / 'report.html'}[/] ({time.perf_counter() - begin:.0f} s)")
    return verdict
