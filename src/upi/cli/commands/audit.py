"""``upi audit``: can the explanations of a classifier be trusted, by thresholds that are written down?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from upi.audit.file import initial, schema
from upi.cli.auditing import run_audit, settings_of
from upi.cli.console import console
from upi.cli.groups import KNOWN_DATA, KNOWN_DISSIMILARITY, KNOWN_MAP, KNOWN_MODEL, KNOWN_NORM
from upi.cli.registry import command
from upi.core.engine import FORMS, engine_of
from upi.core.errors import ConfigError, RunFolderError
from upi.core.storage import write_atomic
from upi.dissimilarity import DISSIMILARITIES
from upi.models.registry import forms
from upi.saliency import MAPS


@command("audit", order=2, several=True)
def audit(
    model: Annotated[
        str | None, typer.Option(help=f"{forms()}.", callback=KNOWN_MODEL, rich_help_panel="Network")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="State dict for networks that take one.", rich_help_panel="Network")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A known dataset, or a folder of images or parquet.",
            callback=KNOWN_DATA,
            rich_help_panel="Images",
        ),
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
        typer.Option(
            help=f"Repeat for several: {MAPS.list()}.", callback=KNOWN_MAP, rich_help_panel="Explanation"
        ),
    ] = None,
    dissimilarity: Annotated[
        str | None,
        typer.Option(
            help=f"{DISSIMILARITIES.list()}.", callback=KNOWN_DISSIMILARITY, rich_help_panel="Explanation"
        ),
    ] = None,
    norm: Annotated[
        list[str] | None,
        typer.Option(
            help="l2 or linf; repeat for both.", callback=KNOWN_NORM, rich_help_panel="Perturbation"
        ),
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
        Path | None,
        typer.Option(help="audit.toml, or config.json of an audit to repeat. Options given here win."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Images of a piece of a batch that workers share.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help=f"Run pieces of the audit beside each other: {FORMS}. Default: one by one, here."),
    ] = None,
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
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Also put that entry into this repository (user/name) of the Hugging Face hub."),
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
        "shard_size": shard_size,
    }
    verdict = run_audit(
        settings_of(config, given),
        out,
        force=force,
        baseline=baseline,
        junit=junit,
        card=card,
        publish=publish,
        hub_name=push_to_hub,
        engine=None if engine is None else engine_of(engine),
    )
    raise typer.Exit(verdict.exit_code)
