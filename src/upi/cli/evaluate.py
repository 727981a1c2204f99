"""``upi evaluate``: what perturbations do to a classifier's maps, beside controls."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import console, legend, show, stages
from upi.cli.exits import exit_codes
from upi.cli.options import (
    BatchSize,
    Data,
    DataDir,
    Device,
    Dissimilarity,
    Force,
    Mean,
    Model,
    NFit,
    NSelect,
    NTest,
    NTrain,
    Out,
    Pretrained,
    Seed,
    SplitSeed,
    Std,
    Weights,
)
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.core.rows import in_subspace
from upi.evaluation import CONTROLS, origin_flags
from upi.experiments.study import Spec, Splits, Table, tabulate
from upi.models.classifiers import image_size, load_classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace
from upi.report import build_report
from upi.results.folder import RunFolder, new_run


def load_perturbations(paths: list[Path]) -> dict[str, Perturbation]:
    """Perturbations by name, from files or run folders."""
    found: dict[str, Perturbation] = {}
    for path in paths:
        items = RunFolder(path).perturbations() if path.is_dir() else {path.stem: Perturbation.load(path)}
        if not items:
            raise ConfigError(f"--perturbation {path}: no perturbations in this folder")
        for name, item in items.items():
            if name in CONTROLS:
                raise ConfigError(f"--perturbation {path}: {name!r} names a control; rename the file")
            if name in found:
                raise ConfigError(
                    f"--perturbation {path}: two perturbations are called {name!r}; rename a file"
                )
            found[name] = item
    return found


def in_spans(paths: list[Path], ball: Ball, seed: int) -> dict[str, Perturbation]:
    """Noise drawn inside the subspaces of run folders, as further controls; l2 ball only."""
    files = [
        file for path in paths if path.is_dir() for file in sorted((path / "subspaces").glob("*.safetensors"))
    ]
    spans = [Subspace.load(file) for file in files] if ball.norm == "l2" else []
    return {in_subspace(len(span)): span.random(ball.eps, seed=seed) for span in spans}


def common(perturbations: dict[str, Perturbation], key: str, given: str | None) -> str:
    """A choice that the perturbations were fitted for, unless it is given."""
    if given is not None:
        return given
    values = {str(p.provenance.get(key)) for p in perturbations.values() if p.provenance.get(key)}
    if len(values) != 1:
        raise ConfigError(
            f"say --{key}: the perturbations were fitted for {sorted(values) or 'nothing known'}"
        )
    return values.pop()


@exit_codes
def evaluate_command(
    context: typer.Context,
    model: Model,
    perturbation: Annotated[
        list[Path],
        typer.Option(
            "--perturbation", help="A .safetensors file or a run folder of 'upi fit'; repeat for several."
        ),
    ],
    data: Data = "mnist-sample",
    data_dir: DataDir = None,
    saliency: Annotated[
        str | None, typer.Option("--saliency", help="Map to measure; default: what the perturbations attack.")
    ] = None,
    dissimilarity: Dissimilarity = "relative_l2",
    preset: Annotated[
        str | None, typer.Option("--preset", help="protocol or paper; default: that of the perturbations.")
    ] = None,
    per_image_steps: Annotated[
        int, typer.Option("--per-image-steps", min=1, help="Updates of the per-image attack.")
    ] = 40,
    weights: Weights = None,
    pretrained: Pretrained = False,
    mean: Mean = None,
    std: Std = None,
    n_train: NTrain = None,
    n_fit: NFit = 750,
    n_select: NSelect = 250,
    n_test: NTest = 1000,
    split_seed: SplitSeed = 0,
    batch_size: BatchSize = 125,
    device: Device = "auto",
    out: Out = Path("runs/evaluate"),
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Measure perturbations on the test split and write tables, figures and a report.

    Noise of equal norm, a per-image attack of equal budget, another image's map and tiny
    noise are measured on the same images.
    """
    begin = time.perf_counter()
    chosen = DataOptions.given(context)
    with new_run(out, force=force) as folder:
        items = load_perturbations(perturbation)
        ball = next(iter(items.values())).ball
        saliency = common(items, "saliency", saliency)
        spec = Spec(
            key=saliency,
            saliency=saliency,
            dissimilarity=dissimilarity,
            norm=ball.norm,
            eps=ball.eps,
            preset=common(items, "preset", preset),
            seed=seed,
            per_image_steps=per_image_steps,
        )
        with stages() as stage:
            stage("load images")
            parts = chosen.load(image_size(model))
            classifier, about = load_classifier(
                model,
                mean=mean,
                std=std,
                weights=weights,
                pretrained=pretrained,
                shape=parts.shape,
                folder=data_dir,
            )
            classifier.net.to(device_of(device))
            origin = chosen.origin(parts.fingerprint)
            splits = Splits([], [], parts["test"].batches(batch_size), origin)
            rows = {**items, **in_spans(perturbation, ball, seed)}
            evaluation, pictures = tabulate(classifier, spec, splits, rows, stage=stage)
        flags = [*evaluation.flags, *origin_flags(items, origin, classifier.fingerprint())]
        table = Table(spec, evaluation, items, {name: name for name in items}, pictures)
        facts: dict[str, Any] = {
            "model": {**about, "fingerprint": classifier.fingerprint()},
            "classes": parts.classes,
        }
        data_facts = {"name": parts.name, **origin}
        folder.write_json("config.json", config_record(context, data=data_facts, **facts))
        folder.write_per_sample({spec.key: evaluation})
        folder.write_examples({spec.key: pictures})
        for name, item in items.items():
            folder.write_perturbation(name, item)
        folder.write_metrics(
            dataset=parts.name,
            model=facts["model"],
            tables=[table.to_dict()],
            flags=[(spec.key, flag) for flag in flags],
            seconds={"total": time.perf_counter() - begin},
        )
        build_report(folder, shown_as=out)
    show(
        evaluation, flags, f"{spec.saliency}: {ball.norm} eps = {ball.eps:g}, {evaluation.n_test} test images"
    )
    legend()
    console.print(f"Report: [bold]{out / 'report.html'}[/]")
