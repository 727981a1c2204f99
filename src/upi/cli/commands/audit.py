"""``upi audit``: can the explanations of a classifier be trusted, by thresholds that are written down?"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from upi.audit.assemble import write
from upi.audit.compare import Run, radii_of, require_same_images
from upi.audit.file import checked, initial, read_text, schema
from upi.audit.opening import Subject, open_subject
from upi.audit.publish import publish as publish_entry
from upi.audit.run import Audit
from upi.audit.settings import AuditSettings
from upi.audit.verdict import Outcome, Verdict
from upi.cli.console import AuditDisplay, console
from upi.cli.record import config_record, current, shareable
from upi.cli.registry import command
from upi.core.errors import ConfigError, RunFolderError
from upi.core.storage import write_atomic
from upi.dissimilarity import DISSIMILARITIES
from upi.experiments.stages import StageStore
from upi.models.registry import forms
from upi.report import build_report
from upi.results.folder import CONFIG, RunFolder, parse_json
from upi.saliency import MAPS

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
    if out.is_dir() and any(out.iterdir()):
        if not (out / CONFIG).is_file():
            raise RunFolderError(f"{out} exists and is not a run folder (no {CONFIG}); it is never replaced")
        if not force:
            _require_same(out, settings)
            return True
        shutil.rmtree(out)
    elif out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} exists and is not a folder; choose another place", options=("out",))
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
) -> Verdict:
    """An audit from its settings to its page."""
    begin = time.perf_counter()
    again = prepare(out, settings, force)
    with AuditDisplay.running() as display:
        display("load images and network")
        subject = open_subject(settings)
        before = None if baseline is None else _baseline(baseline, settings, subject)
        radii = None if before is None else radii_of(before, *_asked(settings))
        audit = Audit(settings, subject.model, subject.splits, out, radii)
        cost = audit.cost()
        console.print(f"{'Going on with' if again else 'Audit'}: {len(audit.schedule)} parts, {cost}.")
        record = config_record(current(), audit=settings.plain(), **subject.facts())
        write_atomic(out / CONFIG, json.dumps(record, indent=2, default=str) + "\n")
        display.expect(audit.schedule)
        found = audit.run(StageStore(out, display))
        verdict = audit.verdict(found)
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
        if publish is not None:
            entry = publish_entry(
                out,
                publish,
                verdict,
                model=subject.about,
                dataset=subject.dataset,
                data_fingerprint=str(subject.splits.origin["fingerprint"]),
                tables=tables,
                command=" ".join(shareable(record["argv"])),
                versions=record["versions"],
            )
            console.print(f"Entry: [bold]{entry}[/]")
        build_report(RunFolder(out), shown_as=out)
    announce_verdict(verdict)
    console.print(f"Report: [bold]{out / 'report.html'}[/] ({time.perf_counter() - begin:.0f} s)")
    return verdict


@command("audit", order=2)
def audit(
    model: Annotated[str | None, typer.Option(help=f"{forms()}.", rich_help_panel="Network")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="State dict for networks that take one.", rich_help_panel="Network")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A known dataset, or a folder of images or parquet.", rich_help_panel="Images"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="UPI_DATA", help="Folder with named datasets.", rich_help_panel="Images"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="224, 224x320 or native.", rich_help_panel="Images")
    ] = None,
    n_test: Annotated[
        int | None, typer.Option(min=1, help="Images to report on.", rich_help_panel="Images")
    ] = None,
    saliency: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeat for several: {MAPS.list()}.", rich_help_panel="Explanation"),
    ] = None,
    dissimilarity: Annotated[
        str | None, typer.Option(help=f"{DISSIMILARITIES.list()}.", rich_help_panel="Explanation")
    ] = None,
    norm: Annotated[
        list[str] | None, typer.Option(help="l2 or linf; repeat for both.", rich_help_panel="Perturbation")
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(
            help="Radius; repeat for several. Default: the largest at which at most 5 % of predictions "
            "change, and a half of it.",
            rich_help_panel="Perturbation",
        ),
    ] = None,
    fits: Annotated[
        int | None, typer.Option(min=1, help="Fits of each attack.", rich_help_panel="Perturbation")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Least work: one attack, one radius.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Most work: three fits, four radii.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="audit.toml: settings and thresholds. Options given here win.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    out: Annotated[Path, typer.Option(help="Run folder; an audit that was cut short goes on.")] = Path(
        "runs/audit"
    ),
    force: Annotated[bool, typer.Option("--force", help="Begin again in an existing run folder.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML there.")] = None,
    card: Annotated[Path | None, typer.Option(help="Also write the Markdown card there.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Audit of another network on the same images, to compare with.")
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="Also write an entry of a leaderboard into this folder.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Write a commented audit.toml there, and do nothing else.")
    ] = None,
    print_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of audit.toml, and do nothing else.")
    ] = False,
) -> None:
    """Say whether the explanations of a classifier hold, by thresholds that are written down.

    Looks for a radius that leaves predictions alone, fits every attack at it and at parts of it,
    measures them beside every control, and holds the figures against the thresholds. Exit code 0:
    all hold. 1: one is crossed. 2: the audit could not run. 3: some could not be decided.
    """
    if print_schema:
        sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
        return
    if init is not None:
        if init.exists() and not force:
            raise RunFolderError(f"{init} exists already", options=("force", "init"))
        write_atomic(init, initial(model or "PATH_OR_NAME", data))
        console.print(f"Settings and thresholds: [bold]{init}[/]; run 'upi audit --config {init}'")
        return
    if quick and thorough:
        raise ConfigError("an audit is quick or thorough, not both", options=("quick", "thorough"))
    given = {
        "network.model": model,
        "network.weights": weights,
        "images.data": data,
        "images.data_dir": data_dir,
        "images.size": size,
        "images.n_test": n_test,
        "explanations.maps": saliency,
        "explanations.dissimilarity": dissimilarity,
        "perturbations.norms": norm,
        "perturbations.radii": eps,
        "perturbations.fits": fits,
        "effort": "quick" if quick else "thorough" if thorough else None,
        "seed": seed,
        "device": device,
    }
    verdict = run_audit(
        settings_of(config, given),
        out,
        force=force,
        baseline=baseline,
        junit=junit,
        card=card,
        publish=publish,
    )
    raise typer.Exit(verdict.exit_code)
