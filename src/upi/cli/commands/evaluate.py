"""``upi evaluate``: what perturbations do to a classifier's maps, beside controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.attacks import PerImageAttack
from upi.cli.console import legend, show
from upi.cli.expand import Defaults
from upi.cli.groups import (
    KNOWN_DISSIMILARITY,
    KNOWN_MAP,
    KNOWN_PRESET,
    SALIENCY,
    BatchOptions,
    DataOptions,
    DeviceOptions,
    ModelOptions,
    RunOptions,
    ShareOptions,
    WeightOptions,
)
from upi.cli.perturbations import PerturbationOptions, common
from upi.cli.registry import command
from upi.cli.session import Outcome, session
from upi.core.distributed import sharding
from upi.dissimilarity import DISSIMILARITIES
from upi.evaluation import origin_flags
from upi.experiments.fitting import Spec, Splits
from upi.experiments.study import Table, tabulate


@command("evaluate", order=4, several=True)
def evaluate(
    model: ModelOptions,
    patterns: PerturbationOptions,
    data: DataOptions,
    weights: WeightOptions,
    batches: Annotated[BatchOptions, Defaults(batch_size=125)],
    device: DeviceOptions,
    share: ShareOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/evaluate"))],
    saliency: Annotated[
        str | None,
        typer.Option(
            help=f"Map to measure: {SALIENCY} Default: what the perturbations attack.", callback=KNOWN_MAP
        ),
    ] = None,
    dissimilarity: Annotated[
        str, typer.Option(help=f"{DISSIMILARITIES.list()}.", callback=KNOWN_DISSIMILARITY)
    ] = "relative_l2",
    preset: Annotated[
        str | None,
        typer.Option(help="protocol or paper; default: that of the perturbations.", callback=KNOWN_PRESET),
    ] = None,
    per_image_steps: Annotated[int, typer.Option(min=1, help="Updates of the per-image attack.")] = (
        PerImageAttack.steps
    ),
) -> None:
    """Measure perturbations on the test split and write tables, figures and a report.

    Noise of equal norm, a per-image attack of equal budget, another image's map and tiny
    noise are measured on the same images. Cut short, the same command goes on behind the last batch kept.
    """
    with sharding(share.shard_size), session(run, resumes=True) as job:
        items = patterns.load()
        ball = next(iter(items.values())).ball
        saliency = common(items, "saliency", saliency)
        spec = Spec(
            key=saliency,
            saliency=saliency,
            dissimilarity=dissimilarity,
            norm=ball.norm,
            eps=ball.eps,
            preset=common(items, "preset", preset),
            seed=run.seed,
            per_image_steps=per_image_steps,
        )
        images = job.images(data, model.preprocess)
        subject = job.subject(model, weights, device, data, images)
        images = images.labelled(subject)
        splits = Splits([], [], images.batches("test", batches.batch_size), images.origin)
        rows = {**items, **patterns.in_spans(ball, run.seed)}
        keep = job.folder.state("evaluate.state")
        evaluation, pictures = tabulate(subject.model, spec, splits, rows, stage=job.stage, keep=keep)
        flags = [*evaluation.flags, *origin_flags(items, images.origin, subject.model.fingerprint())]
        table = Table(spec, evaluation, items, {name: name for name in items}, pictures)
        job.record(**images.facts(), model=subject.facts(), classes=images.parts.classes)
        job.finish(
            Outcome(
                dataset=images.parts.name,
                model=subject.facts(),
                tables=[table.to_dict()],
                evaluations={spec.key: evaluation},
                perturbations=items,
                flags=[(spec.key, flag) for flag in flags],
                examples={spec.key: pictures},
            )
        )
    title = f"{spec.saliency}: {ball.norm} eps = {ball.eps:g}, {evaluation.n_test} test images"
    show(evaluation, flags, title)
    legend()
    job.page()
