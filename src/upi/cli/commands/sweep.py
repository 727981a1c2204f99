"""``upi sweep``: many networks, maps, radii, methods and seeds, by many workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from upi.audit.file import initial_sweep, schema
from upi.audit.sweep import SweepSettings
from upi.cli.console import console
from upi.cli.registry import command
from upi.cli.sweeping import TABLE, run_sweep, sweep_settings
from upi.core.engine import FORMS, engine_of
from upi.core.errors import ConfigError, RunFolderError
from upi.core.storage import write_atomic


@command("sweep", order=6)
def sweep(
    file: Annotated[Path | None, typer.Argument(help="sweep.toml: an audit with several networks.")] = None,
    engine: Annotated[str, typer.Option(help=f"Where pieces run: {FORMS}.")] = "local",
    out: Annotated[Path, typer.Option(help="Folder; what is finished there is not done again.")] = Path(
        "runs/sweep"
    ),
    init: Annotated[
        Path | None, typer.Option(help="Write a commented sweep.toml there, and do nothing else.")
    ] = None,
    print_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of sweep.toml, and do nothing else.")
    ] = False,
) -> None:
    """Every network, map, norm, radius, method and seed of a file, in pieces that run anywhere.

    A piece is a radius, a fit or a table; each is kept when it is done, under what it depends on, so that a
    second call does only what is missing. Writes sweep.csv, a page, and a run folder for each network
    as 'upi audit' writes it. Exit code 0: all was measured, whatever the verdicts. 2: something failed.
    """
    if print_schema:
        sys.stdout.write(json.dumps(schema(SweepSettings), indent=2, ensure_ascii=False) + "\n")
        return
    if init is not None:
        if init.exists():
            raise RunFolderError(f"{init} exists already", options=("init",))
        write_atomic(init, initial_sweep())
        console.print(f"Settings: [bold]{init}[/]; run 'upi sweep {init}'")
        return
    if file is None:
        raise ConfigError("name a file such as sweep.toml; a first one can be written", options=("init",))
    members = run_sweep(sweep_settings(file), out, engine_of(engine))
    for member in members:
        said = member.shown()["headline"]
        console.print(f"  {member.name}: {said}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: [bold]{out / 'report.html'}[/]; every row: {out / TABLE}")
    if any(line["error"] for member in members for line in member.lines) or any(
        member.verdict is None for member in members
    ):
        raise typer.Exit(2)
