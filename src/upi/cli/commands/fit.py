"""``upi fit``: a universal perturbation against a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.attacks.registry import fitted
from upi.cli.choices import one_of
from upi.cli.console import console
from upi.cli.expand import Defaults
from upi.cli.groups import (
    BallOptions,
    BatchOptions,
    DataOptions,
    DeviceOptions,
    MapOptions,
    ModelOptions,
    RunOptions,
    ShareOptions,
    WeightOptions,
)
from upi.cli.registry import command
from upi.cli.session import session
from upi.core.distributed import sharding
from upi.core.errors import ConfigError
from upi.experiments.fitting import UNIVERSAL, Spec, Splits, fit as fit_one, span_of


@command("fit", order=3, several=True)
def fit(
    model: ModelOptions,
    data: DataOptions,
    maps: MapOptions,
    ball: BallOptions,
    weights: WeightOptions,
    batches: BatchOptions,
    device: DeviceOptions,
    share: ShareOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/fit"))],
    method: Annotated[
        list[str],
        typer.Option(help=f"{', '.join(fitted())}; repeat for several.", callback=one_of("method", fitted())),
    ] = list(UNIVERSAL),  # noqa: B006
    steps: Annotated[int, typer.Option(min=1, help="Updates of UPI-Grad and class-uap.")] = 200,
    prediction_price: Annotated[
        float, typer.Option(min=0.0, help="Price on changing the prediction; 0 for none.")
    ] = 0.5,
    clip: Annotated[
        bool, typer.Option(help="Fit for images clipped to [0, 1], as the evaluation uses them.")
    ] = True,
    subspace: Annotated[
        int, typer.Option(min=0, help="Also write the span of this many leading directions; 0 for none.")
    ] = 0,
    compile_step: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the attack's step, which takes a minute; or not even capture it on a GPU, "
            "as is done by default.",
        ),
    ] = None,
) -> None:
    """Find one pattern that changes the saliency map of every image, on the fit split.

    Writes perturbations/NAME.safetensors, one per method, and subspaces/MAP.safetensors where asked
    for. Measure them with 'upi evaluate', on images that were not used here. Cut short, the same
    command goes on: finished methods are kept, UPI-Grad and class-uap go on from their last step.
    """
    spec = Spec(
        key=maps.saliency,
        **maps.model_dump(),
        **ball.model_dump(),
        seed=run.seed,
        steps=steps,
        prediction_price=prediction_price,
        clip=clip,
        compile="auto" if compile_step is None else compile_step,
    )
    if not method:
        raise ConfigError("name at least one --method")
    with sharding(share.shard_size), session(run, resumes=True) as job:
        images = job.images(data, model.preprocess)
        subject = job.subject(model, weights, device, data, images)
        images = images.labelled(subject)
        few = images.batches("fit", batches.batch_size)
        held_out = images.batches("select")
        splits = Splits(few, held_out, [], images.origin)
        for name in method:
            pattern = fit_one(
                name,
                subject.model,
                spec,
                splits,
                seed=run.seed,
                progress=job.stage(name),
                keep=job.folder.state(name),
            )
            job.folder.write_perturbation(name, pattern)
        if subspace:
            progress = job.stage(f"{subspace} directions")
            span = span_of(subject.model, spec, splits, subspace, progress=progress)
            span.save(job.folder.path / "subspaces" / f"{maps.saliency}.safetensors")
        job.record(**images.facts(), model=subject.facts(), classes=images.parts.classes)
    console.print(f"{', '.join(method)}: perturbations in {run.out / 'perturbations'}")
