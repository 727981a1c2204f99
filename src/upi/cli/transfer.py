"""``upi transfer``: perturbations of some networks on other networks, and on other maps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table as Grid

from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import console, stages
from upi.cli.evaluate import common, load_perturbations
from upi.cli.exits import exit_codes
from upi.cli.options import (
    BatchSize,
    Data,
    DataDir,
    Device,
    Force,
    NFit,
    NSelect,
    NTest,
    NTrain,
    Out,
    Seed,
    SplitSeed,
)
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.datasets.splits import Parts
from upi.evaluation import Evaluation, matrix, origin_flags, transfer_maps, transfer_models
from upi.models.classifiers import image_size, load_classifier
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation
from upi.report import build_report
from upi.results.folder import new_run


def _models(
    specs: list[str], parts: Parts, device: str, folder: Path | None
) -> tuple[dict[str, Classifier], dict[str, dict[str, Any]]]:
    """Networks by a short name: that of their folder or file, or what was given."""
    models: dict[str, Classifier] = {}
    about: dict[str, dict[str, Any]] = {}
    for spec in specs:
        name = Path(spec).stem if Path(spec).exists() else spec
        if name in models:
            raise ConfigError(f"--model {spec}: two networks are called {name!r}; rename a folder")
        models[name], found = load_classifier(spec, shape=parts.shape, folder=folder)
        models[name].net.to(device_of(device))
        about[name] = {**found, "fingerprint": models[name].fingerprint()}
    return models, about


def _show(found: dict[str, Any]) -> None:
    grid = Grid(header_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("perturbation", no_wrap=True)
    for column in found["columns"]:
        grid.add_column(column, justify="right")
    for row in found["rows"]:
        cells = [found["cells"][row].get(column) for column in found["columns"]]
        grid.add_row(row, *("-" if c is None else f"{c['mean']:.3f} ({c['changed']:.0%})" for c in cells))
    console.print(grid)
    console.print("mean change of the map (changed predictions)", style="dim")


def _record(key: str, table: Evaluation, preset: str) -> dict[str, Any]:
    """The table of metrics.json for one network or map."""
    extra = {"key": key, "preset": preset, "perturbations": {}, "seed_spread": {}, "tested_on": key}
    return {**extra, **table.to_dict()}


@exit_codes
def transfer_command(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="Network to test on: run folder of 'upi train', its file, or module:factory; repeatable.",
        ),
    ],
    perturbation: Annotated[
        list[Path],
        typer.Option("--perturbation", help="Perturbation file, or folder of a run; repeat for several."),
    ],
    data: Data = "mnist-sample",
    data_dir: DataDir = None,
    saliency: Annotated[
        list[str] | None,
        typer.Option("--saliency", help="Map to test on; repeat for several, with one network."),
    ] = None,
    n_train: NTrain = None,
    n_fit: NFit = 750,
    n_select: NSelect = 250,
    n_test: NTest = 1000,
    split_seed: SplitSeed = 0,
    batch_size: BatchSize = 125,
    device: Device = "auto",
    out: Out = Path("runs/transfer"),
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Measure perturbations on networks, or on maps, that they were not made for.

    With several networks: every perturbation on every network. With several maps and one
    network: every perturbation on every map. Noise of equal norm stands beside them. For
    transfer between datasets, give the other dataset's network and --data.
    """
    begin = time.perf_counter()
    chosen = DataOptions.given(context)
    if saliency and len(saliency) > 1 and len(model) > 1:
        raise ConfigError("give several networks or several maps, not both")
    with new_run(out, force=force) as folder:
        items: dict[str, Perturbation] = load_perturbations(perturbation)
        preset = common(items, "preset", None)
        with stages() as stage:
            stage("load images")
            parts = chosen.load(next((s for s in map(image_size, model) if s is not None), None))
            models, about = _models(model, parts, device, data_dir)
            loader, progress = parts["test"].batches(batch_size), stage("evaluate on test")
            if len(models) == 1 and saliency:
                only = next(iter(models.values()))
                tables = transfer_maps(
                    only, {s: s for s in saliency}, items, loader, preset=preset, seed=seed, progress=progress
                )
            else:
                kind = saliency[0] if saliency else common(items, "saliency", None)
                tables = transfer_models(
                    models, items, loader, saliency=kind, preset=preset, seed=seed, progress=progress
                )
        found = matrix(tables)
        origin = chosen.origin(parts.fingerprint)
        flags = [flag for name in models for flag in origin_flags(items, origin, about[name]["fingerprint"])]
        whole = {flag.message: flag for flag in flags if flag.code != "another-model"}
        facts = {"models": about, "classes": parts.classes}
        folder.write_json("config.json", config_record(context, data={"name": parts.name, **origin}, **facts))
        for name, item in items.items():
            folder.write_perturbation(name, item)
        folder.write_per_sample(tables)
        folder.write_metrics(
            dataset=parts.name,
            model={
                "arch": ", ".join(models),
                "fingerprint": " ".join(each["fingerprint"][:12] for each in about.values()),
            },
            tables=[_record(key, table, preset) for key, table in tables.items()],
            transfer=found,
            flags=[
                *((None, flag) for flag in whole.values()),
                *((key, flag) for key, table in tables.items() for flag in table.flags),
            ],
            seconds={"total": time.perf_counter() - begin},
        )
        build_report(folder, shown_as=out)
    _show(found)
    console.print(f"Report: [bold]{out / 'report.html'}[/]")
