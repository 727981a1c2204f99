"""``upi demo``: from nothing to a report on real digits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from upi.cli.console import StageDisplay, legend, show
from upi.cli.expand import Defaults
from upi.cli.groups import DataOptions, RunOptions
from upi.cli.registry import command
from upi.cli.session import Outcome, session
from upi.core.rows import CLASS_UAP
from upi.datasets.splits import Parts
from upi.evaluation import eps_curve
from upi.experiments.study import UNIVERSAL, Spec, Splits, Table, study
from upi.models.classifiers import Trained, trained_or_cached
from upi.models.training import Recipe
from upi.network.classifier import Classifier

RADII = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


def _classifier(parts: Parts, epochs: int, seed: int, stage: StageDisplay) -> tuple[Trained, bool]:
    progress = stage("train the digit classifier")
    recipe = Recipe(epochs=epochs, seed=seed)
    return trained_or_cached("small-cnn", parts["train"], parts["test"], recipe, progress=progress)


def _cut(splits: Splits, share: float) -> Splits:
    """The first part of each split, for maps that cost several gradients each."""

    def first(batches: Any) -> Any:
        return batches[: max(1, round(share * len(batches)))]

    return Splits(first(splits.fit), first(splits.select), first(splits.test), splits.origin)


def _tables(model: Classifier, main: Spec, splits: Splits, share: float, stage: StageDisplay) -> list[Table]:
    gradient = study(model, main, splits, stage=stage)
    ready = {CLASS_UAP: gradient.perturbations[CLASS_UAP]}
    fewer = replace(
        main,
        key="integrated_gradients",
        saliency="integrated_gradients",
        steps=max(1, main.steps // 2),
        per_image_steps=max(1, main.per_image_steps // 2),
        fits=1,
    )
    integrated = study(model, fewer, _cut(splits, share), stage=stage, ready=ready)
    paper = study(
        model, replace(main, key="gradient-paper", preset="paper"), splits, stage=stage, ready=ready
    )
    return [gradient, integrated, paper]


def _title(table: Table, trained: Trained) -> str:
    e = table.evaluation
    return (
        f"{table.spec.key}: {e.norm} eps = {e.eps:g}, {e.n_test} test digits, "
        f"classifier accuracy {trained.about['test_accuracy']:.1%}"
    )


@command("demo", order=1)
def demo(
    run: Annotated[RunOptions, Defaults(out=Path("runs/demo"))],
    eps: Annotated[float, typer.Option(help="l2 norm of the perturbation; pixels are in [0, 1].")] = 2.0,
    n_train: Annotated[int, typer.Option(min=1, help="Digits to train on.")] = 3000,
    n_fit: Annotated[int, typer.Option(min=1, help="Digits to find the perturbation on.")] = 750,
    n_select: Annotated[int, typer.Option(min=1, help="Digits to choose sign and component on.")] = 250,
    n_test: Annotated[int, typer.Option(min=1, help="Digits to report on.")] = 1000,
    n_curve: Annotated[int, typer.Option(min=1, help="Test digits for the eps-curve.")] = 200,
    epochs: Annotated[int, typer.Option(min=1, help="Training epochs.")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="Updates of UPI-Grad.")] = 200,
    fits: Annotated[int, typer.Option(min=1, help="Fits per universal attack, for the spread.")] = 3,
    ig_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the images for integrated gradients.")
    ] = 0.3,
) -> None:
    """Train a small digit classifier, break its explanations with one pattern, write a report.

    Real data (5,000 MNIST digits), two kinds of maps, both attacks, every control; a few
    minutes on two cores. The classifier is cached for the next run.
    """
    data = DataOptions(n_train=n_train, n_fit=n_fit, n_select=n_select, n_test=n_test, split_seed=run.seed)
    with session(run) as job:
        seconds: dict[str, float] = {}
        images = job.images(data, title="load 5,000 digits")
        parts = images.parts
        trained, cached = _classifier(parts, epochs, run.seed, job.stage)
        seconds["data and training"] = time.perf_counter() - job.begin
        model = Classifier(trained.net)
        splits = Splits(
            parts["fit"].batches(32), parts["select"].batches(250), parts["test"].batches(125), images.origin
        )
        main = Spec("gradient", eps=eps, seed=run.seed, steps=steps, fits=fits)
        tables = _tables(model, main, splits, ig_share, job.stage)
        seconds.update({f"evaluation: {t.spec.key}": t.evaluation.seconds for t in tables})
        curve_start = time.perf_counter()
        points = eps_curve(
            model,
            {name: tables[0].perturbations[name] for name in UNIVERSAL},
            parts["test"].first(n_curve).batches(125),
            [r * eps / 2 for r in RADII],
            seed=run.seed,
            prediction_price=main.price,
            progress=job.stage("gradient: eps-curve"),
        )
        seconds["eps-curve"] = time.perf_counter() - curve_start
        job.stage("write results")
        about = {**trained.about, "fingerprint": model.fingerprint(), "cached": cached}
        job.record(**images.facts(), model=about)
        job.finish(
            Outcome(
                dataset=parts.name,
                model=about,
                tables=[table.to_dict() for table in tables],
                evaluations={table.spec.key: table.evaluation for table in tables},
                perturbations={t.files[method]: p for t in tables for method, p in t.perturbations.items()},
                flags=[(table.spec.key, flag) for table in tables for flag in table.evaluation.flags],
                examples={table.spec.key: table.examples for table in tables},
                seconds=seconds,
                more={"eps_curve": {"table": "gradient", "n": n_curve, "points": points}},
            )
        )
    for table in tables:
        show(table.evaluation, table.evaluation.flags, _title(table, trained))
    legend()
    job.page()
