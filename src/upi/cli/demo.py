"""``upi demo``: from nothing to a report on real digits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import Stages, console, legend, show, stages
from upi.cli.exits import exit_codes
from upi.cli.options import Force, Out, Seed
from upi.core.rows import CLASS_UAP
from upi.datasets.splits import Parts
from upi.evaluation import eps_curve
from upi.experiments.study import UNIVERSAL, Spec, Splits, Table, study
from upi.models.classifiers import Trained, trained_or_cached
from upi.models.training import Recipe
from upi.network.classifier import Classifier
from upi.results.folder import RunFolder, new_run

RADII = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


def _classifier(parts: Parts, epochs: int, seed: int, stage: Stages) -> tuple[Trained, bool]:
    progress = stage("train the digit classifier")
    recipe = Recipe(epochs=epochs, seed=seed)
    return trained_or_cached("small-cnn", parts["train"], parts["test"], recipe, progress=progress)


def _cut(splits: Splits, share: float) -> Splits:
    """The first part of each split, for maps that cost several gradients each."""

    def first(batches: Any) -> Any:
        return batches[: max(1, round(share * len(batches)))]

    return Splits(first(splits.fit), first(splits.select), first(splits.test), splits.origin)


def _tables(model: Classifier, main: Spec, splits: Splits, share: float, stage: Stages) -> list[Table]:
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


def _write(folder: RunFolder, tables: list[Table]) -> None:
    evaluations = {table.spec.key: table.evaluation for table in tables}
    folder.write_per_sample(evaluations)
    folder.write_examples({table.spec.key: table.examples for table in tables})
    for table in tables:
        for method, perturbation in table.perturbations.items():
            folder.write_perturbation(table.files[method], perturbation)


@exit_codes
def demo(
    context: typer.Context,
    out: Out = Path("runs/demo"),
    eps: Annotated[
        float, typer.Option("--eps", help="l2 norm of the perturbation; pixels are in [0, 1].")
    ] = 2.0,
    n_train: Annotated[int, typer.Option("--n-train", min=1, help="Digits to train on.")] = 3000,
    n_fit: Annotated[int, typer.Option("--n-fit", min=1, help="Digits to find the perturbation on.")] = 750,
    n_select: Annotated[
        int, typer.Option("--n-select", min=1, help="Digits to choose sign and component on.")
    ] = 250,
    n_test: Annotated[int, typer.Option("--n-test", min=1, help="Digits to report on.")] = 1000,
    n_curve: Annotated[int, typer.Option("--n-curve", min=1, help="Test digits for the eps-curve.")] = 200,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Training epochs.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates of UPI-Grad.")] = 200,
    fits: Annotated[
        int, typer.Option("--fits", min=1, help="Fits per universal attack, for the spread.")
    ] = 3,
    ig_share: Annotated[
        float,
        typer.Option("--ig-share", min=0.0, max=1.0, help="Share of the images for integrated gradients."),
    ] = 0.3,
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Train a small digit classifier, break its explanations with one pattern, write a report.

    Real data (5,000 MNIST digits), two kinds of maps, both attacks, every control; a few
    minutes on two cores. The classifier is cached for the next run.
    """
    begin = time.perf_counter()
    options = DataOptions(n_train=n_train, n_fit=n_fit, n_select=n_select, n_test=n_test, split_seed=seed)
    with new_run(out, force=force) as folder:
        seconds: dict[str, float] = {}
        with stages() as stage:
            stage("load 5,000 digits")
            parts = options.load()
            trained, cached = _classifier(parts, epochs, seed, stage)
            seconds["data and training"] = time.perf_counter() - begin
            model = Classifier(trained.net)
            origin = options.origin(parts.fingerprint)
            splits = Splits(
                parts["fit"].batches(options.batch_size),
                parts["select"].batches(250),
                parts["test"].batches(125),
                origin,
            )
            main = Spec("gradient", eps=eps, seed=seed, steps=steps, fits=fits)
            tables = _tables(model, main, splits, ig_share, stage)
            seconds.update({f"evaluation: {t.spec.key}": t.evaluation.seconds for t in tables})
            curve_start = time.perf_counter()
            few = (
                parts["test"].take(parts["test"].labels.new_tensor(range(min(n_curve, n_test)))).batches(125)
            )
            fitted = {name: tables[0].perturbations[name] for name in UNIVERSAL}
            curve = eps_curve(
                model,
                fitted,
                few,
                [r * eps / 2 for r in RADII],
                seed=seed,
                prediction_price=main.price,
                progress=stage("gradient: eps-curve"),
            )
            seconds["eps-curve"] = time.perf_counter() - curve_start
            stage("write results")
            _write(folder, tables)
            facts = {"model": {**trained.about, "fingerprint": model.fingerprint(), "cached": cached}}
            about = {"name": parts.name, **origin}
            folder.write_json("config.json", config_record(context, data=about, **facts))
            seconds["total"] = time.perf_counter() - begin
            folder.write_metrics(
                dataset=parts.name,
                model=facts["model"],
                tables=[table.to_dict() for table in tables],
                flags=[(table.spec.key, flag) for table in tables for flag in table.evaluation.flags],
                eps_curve={"table": "gradient", "n": n_curve, "points": curve},
                seconds=seconds,
            )
            stage("draw the report")
            from upi.report import build_report

            build_report(folder, shown_as=out)
    for table in tables:
        show(table.evaluation, table.evaluation.flags, _title(table, trained))
    legend()
    console.print(f"Report: [bold]{out / 'report.html'}[/] ({time.perf_counter() - begin:.0f} s)")


def _title(table: Table, trained: Trained) -> str:
    e = table.evaluation
    return (
        f"{table.spec.key}: {e.norm} eps = {e.eps:g}, {e.n_test} test digits, "
        f"classifier accuracy {trained.about['test_accuracy']:.1%}"
    )
