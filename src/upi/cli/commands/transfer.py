"""``upi transfer``: perturbations of some networks on other networks, and on other maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich import box
from rich.table import Table as Grid

from upi.cli.console import console
from upi.cli.expand import Defaults, OptionGroup
from upi.cli.groups import (
    KNOWN_MAP,
    KNOWN_MODEL,
    SALIENCY,
    BatchOptions,
    DataOptions,
    DeviceOptions,
    RunOptions,
    ShareOptions,
    WeightOptions,
)
from upi.cli.perturbations import PerturbationOptions, common
from upi.cli.registry import command
from upi.cli.session import Images, Outcome, Subject, session
from upi.core.distributed import sharding
from upi.core.errors import ConfigError
from upi.data.preprocess import Preprocess
from upi.evaluation import Evaluation, matrix, origin_flags, transfer_maps, transfer_models
from upi.experiments.study import ON_TEST
from upi.models.classifiers import preprocess_of
from upi.models.registry import forms


class TargetOptions(OptionGroup):
    """The networks under test."""

    panel: ClassVar[str] = "Network"

    model: Annotated[
        list[str],
        typer.Option(help=f"Network to test on; repeat for several. {forms()}.", callback=KNOWN_MODEL),
    ]

    @property
    def preprocess(self) -> Preprocess | None:
        """How pictures become the images that the first of them is made for that says so."""
        return next((form for form in map(preprocess_of, self.model) if form is not None), None)


def _files(specs: list[str], files: list[Path]) -> dict[str, Path]:
    """A file of weights for each network that takes one, in their order."""
    takers = [spec for spec in specs if not Path(spec).exists() and ":" not in spec]
    if files and len(files) != len(takers):
        raise ConfigError(
            f"{len(files)} files of weights for {len(takers)} networks that take one ({', '.join(takers)}): "
            "give none, or one for each"
        )
    return dict(zip(takers, files, strict=False))


def _subjects(
    targets: TargetOptions,
    weights: WeightOptions,
    device: DeviceOptions,
    data: DataOptions,
    images: Images,
) -> dict[str, Subject]:
    """Networks by a short name: that of their folder or file, or what was given."""
    subjects: dict[str, Subject] = {}
    files = _files(targets.model, weights.weights or [])
    for spec in targets.model:
        name = Path(spec).stem if Path(spec).exists() else spec
        if name in subjects:
            raise ConfigError(f"model {spec}: two networks are called {name!r}; rename a folder")
        model, about = weights.load(spec, images.parts, data, files.get(spec))
        subjects[name] = Subject(device.put(model), about)
    return subjects


def _show(cells: dict[str, Any]) -> None:
    grid = Grid(header_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("perturbation", no_wrap=True)
    for column in cells["columns"]:
        grid.add_column(column, justify="right")
    for row in cells["rows"]:
        line = [cells["cells"][row].get(column) for column in cells["columns"]]
        grid.add_row(row, *("-" if c is None else f"{c['mean']:.3f} ({c['changed']:.0%})" for c in line))
    console.print(grid)
    console.print("mean change of the map (changed predictions)", style="dim")


def _entry(key: str, table: Evaluation, preset: str) -> dict[str, Any]:
    """The table of metrics.json for one network or map."""
    extra = {"key": key, "preset": preset, "perturbations": {}, "seed_spread": {}, "tested_on": key}
    return {**extra, **table.to_dict()}


@command("transfer", order=6, several=True)
def transfer(
    targets: TargetOptions,
    patterns: PerturbationOptions,
    data: DataOptions,
    weights: WeightOptions,
    batches: Annotated[BatchOptions, Defaults(batch_size=125)],
    device: DeviceOptions,
    share: ShareOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/transfer"))],
    saliency: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Map to test on, with one network repeat for several: {SALIENCY}", callback=KNOWN_MAP
        ),
    ] = None,
) -> None:
    """Measure perturbations on networks, or on maps, that they were not made for.

    With several networks: every perturbation on every network. With several maps and one
    network: every perturbation on every map. Noise of equal norm stands beside them. For
    transfer between datasets, give the other dataset's network and --data.
    """
    if saliency and len(saliency) > 1 and len(targets.model) > 1:
        raise ConfigError("give several networks or several maps, not both")
    with sharding(share.shard_size), session(run, resumes=True) as job:
        items = patterns.load()
        preset = common(items, "preset", None)
        images = job.images(data, targets.preprocess)
        subjects = _subjects(targets, weights, device, data, images)
        images = images.labelled(next(iter(subjects.values())))
        loader = images.batches("test", batches.batch_size)
        shared: dict[str, Any] = {
            "preset": preset,
            "seed": run.seed,
            "progress": job.stage(ON_TEST),
            "keep": job.folder.state("transfer"),
        }
        if len(subjects) == 1 and saliency:
            only = next(iter(subjects.values())).model
            tables = transfer_maps(only, {kind: kind for kind in saliency}, items, loader, **shared)
        else:
            kind = saliency[0] if saliency else common(items, "saliency", None)
            models = {name: subject.model for name, subject in subjects.items()}
            tables = transfer_models(models, items, loader, saliency=kind, **shared)
        cells, about = matrix(tables), {name: subject.facts() for name, subject in subjects.items()}
        origins = [origin_flags(items, images.origin, each["fingerprint"]) for each in about.values()]
        whole = {flag.message: flag for some in origins for flag in some if flag.code != "another-model"}
        job.record(**images.facts(), models=about, classes=images.parts.classes)
        job.finish(
            Outcome(
                dataset=images.parts.name,
                model={
                    "arch": ", ".join(about),
                    "fingerprint": " ".join(each["fingerprint"][:12] for each in about.values()),
                },
                tables=[_entry(key, table, preset) for key, table in tables.items()],
                evaluations=tables,
                perturbations=items,
                flags=[
                    *((None, flag) for flag in whole.values()),
                    *((key, flag) for key, table in tables.items() for flag in table.flags),
                ],
                more={"transfer": cells},
            )
        )
    _show(cells)
    job.page()
