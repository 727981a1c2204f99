"""``upi reproduce``: every table and figure of the paper for one dataset, or for public networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from upi.cli.console import console, stages
from upi.cli.groups import KNOWN_PRESET, DeviceOptions, ShareOptions
from upi.cli.record import shareable, write_record
from upi.cli.registry import command
from upi.core.devices import device_of
from upi.core.distributed import from_lead, leads, sharding
from upi.core.errors import RunFolderError
from upi.core.locking import locked
from upi.core.storage import write_atomic
from upi.experiments.reproduce import (
    DATASETS,
    GROUPS,
    PANEL,
    Lab,
    Settings,
    StageStore,
    panel_settings,
    run,
    settings,
)
from upi.models.recipes import ARCHITECTURES
from upi.report.reproduction import RESULTS, build_reproduction
from upi.results.folder import parse_json
from upi.results.place import CONFIG, check_free

Architectures = Annotated[
    list[str] | None,
    typer.Option("--arch", help=f"Network; repeat for several. Default: {', '.join(ARCHITECTURES)}."),
]


def _check(out: Path, asked: dict[str, object]) -> None:
    """Refuse to mix two runs in a folder; the same one goes on."""
    check_free(out, force=True)
    if not (out / CONFIG).exists():
        return
    before = parse_json(out / CONFIG).get("options", {})
    differing = [key for key, value in asked.items() if (before.get(key) or None) != (value or None)]
    if differing:
        raise RunFolderError(
            f"{out} holds a run with other options ({', '.join(differing)}); choose another --out"
        )


def _one(
    chosen: Settings,
    out: Path,
    asked: dict[str, object],
    device: DeviceOptions,
    data_dir: Path | None,
    publish: Path | None,
) -> bool:
    """One reproduction in its folder; whether every stage worked."""
    with locked(out), stages() as stage:
        from_lead(lambda: _check(out, asked))
        record = write_record(out, options=asked)
        lab = Lab(chosen, StageStore(out, stage), device_of(device.device), data_dir)
        results = {"command": shareable(record["argv"]), **run(lab)}
        if not leads():
            return not results["failures"]
        stage("write tables and figures")
        write_atomic(out / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
        page = build_reproduction(out, publish=publish)
    for failure in results["failures"]:
        console.print(f"[red]failed[/] {failure['stage']}: ", end="")
        console.print(failure["error"], markup=False, soft_wrap=True)
    console.print(f"Report: [bold]{page}[/] ({sum(results['seconds'].values()) / 60:.0f} min of stages)")
    return not results["failures"]


@command("reproduce", order=7, several=True)
def reproduce(
    device: DeviceOptions,
    share: ShareOptions,
    dataset: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(DATASETS)}; or {PANEL}: networks that other people trained, on CIFAR-10 and on "
            f"photographs (also one by one: {', '.join(GROUPS)})."
        ),
    ],
    scale: Annotated[
        str,
        typer.Option("--scale", help="small: two cores, at most 90 minutes. full: a GPU, published widths."),
    ] = "small",
    preset: Annotated[
        str, typer.Option("--preset", help="protocol, or paper: as published.", callback=KNOWN_PRESET)
    ] = "protocol",
    arch: Architectures = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="UPI_DATA", help="Folder with local copies of the datasets; default: the hub."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder. Default: runs/reproduce-DATASET.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Not needed any more: the same run in --out goes on.", hidden=True),
    ] = False,
    publish: Annotated[
        Path | None,
        typer.Option("--publish", help="Also write results.json, the tables and small figures there."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
) -> None:
    """Reproduce the paper for one dataset: networks, tables, figures, formal statements.

    Trains each network (or takes it from the cache; public networks are loaded), measures every
    attack and control, transfer, correlation, curves and the propositions, and writes results.json,
    tables.md, figures and report.html. Interrupt it whenever you like: the same command goes on.
    """
    del resume  # every run does
    out = out or Path("runs") / f"reproduce-{dataset}"
    good = True
    for name in GROUPS if dataset == PANEL else (dataset,):
        make = panel_settings if name in GROUPS else settings
        chosen = make(name, scale, preset, seed=seed)
        if arch:
            known = chosen.architectures
            wanted = tuple(each for each in dict.fromkeys(arch) if not chosen.public or each in known)
            if not wanted:
                continue
            chosen = replace(chosen, architectures=wanted)
        asked: dict[str, object] = {
            "dataset": name,
            "scale": scale,
            "preset": preset,
            "seed": seed,
            "arch": arch,
        }
        inner = GROUPS[name] if dataset == PANEL else ""
        shown = None if publish is None else publish / inner
        with sharding(share.shard_size):
            good &= _one(chosen, out / inner, asked, device, data_dir, shown)
    if not good:
        raise typer.Exit(2)
