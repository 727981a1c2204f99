"""The protocol: one pass over test images, every perturbation and control on the same maps.

Guards against the usual unfair comparisons: maps of the surrogate instead of the network,
images that were misclassified to begin with, noise of another size, a missing upper
control, and figures dominated by images whose prediction changed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import nn

from upi import dissimilarity as dissimilarities, saliency as maps
from upi.attacks import OneStepAttack, PerImageAttack
from upi.attacks.protocol import Protocol, resolve
from upi.core.errors import ConfigError, unknown_name
from upi.core.naming import name_of
from upi.core.rows import CONTROL, MATCHED_NOISE, NOISE, ONE_STEP, OTHER_IMAGE, PER_IMAGE, TINY_NOISE
from upi.core.steps import Steps
from upi.core.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap
from upi.evaluation.flags import RowSummary, fitting_flags, overlap_flags, sample_flags, table_flags
from upi.evaluation.gathering import gather
from upi.evaluation.intervals import intervals
from upi.evaluation.kept import keeper_of
from upi.evaluation.measure import REPEATED, Pass, kind_of
from upi.evaluation.result import METRICS, Column, Evaluation, Row, mean_of
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation

#: The paper's per-image attack with the opposite sign, while both are measured.
OPPOSITE = f"{ONE_STEP}, opposite"
#: Rows that an evaluation adds by itself.
CONTROLS = (PER_IMAGE, ONE_STEP, NOISE, MATCHED_NOISE, TINY_NOISE, OTHER_IMAGE)
#: Rows whose excess over noise others are measured in.
OPPONENTS = (PER_IMAGE, ONE_STEP)


def _check_rows(perturbations: Mapping[str, Perturber]) -> None:
    if not isinstance(perturbations, Mapping):
        raise ConfigError(
            f"expected a mapping from names to perturbations, got {type(perturbations).__name__}"
        )
    for name, perturber in perturbations.items():
        if not callable(perturber):
            raise ConfigError(f"{name!r} must be callable as (x, target), got {type(perturber).__name__}")
        if name == PER_IMAGE and isinstance(perturber, Perturbation):
            raise ConfigError(
                f"the row {PER_IMAGE!r} is the upper control; give the universal perturbation another name"
            )


def shared_ball(perturbations: Mapping[str, Perturber], norm: str | None, eps: float | str | None) -> Ball:
    """The ball of the comparison: as given, or that of the first universal perturbation.

    Raises:
        ConfigError: Nothing says which ball, or a perturbation lives in another one.
    """
    balls = [p.ball for p in perturbations.values() if isinstance(p, (Perturbation, PerImageAttack))]
    if eps is None and not balls:
        raise ConfigError("say norm=... and eps=...: none of the perturbations knows its ball")
    ball = Ball(norm or (balls[0].norm if balls else "l2"), balls[0].eps if eps is None else eps)
    for name, perturber in perturbations.items():
        own = getattr(perturber, "ball", ball)
        if own.norm != ball.norm or abs(own.eps - ball.eps) > 1e-6 * ball.eps:
            raise ConfigError(
                f"{name!r} lives in the {own.norm} ball of radius {own.eps:g}, the comparison is in the "
                f"{ball.norm} ball of radius {ball.eps:g}: evaluate different budgets separately"
            )
    return ball


def _wanted(controls: bool | Collection[str]) -> Collection[str]:
    if isinstance(controls, bool):
        return CONTROLS if controls else ()
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    return controls


def _row(name: str, kind: str, column: Column, scales: dict[str, float], seed: int) -> Row:
    """Means and intervals of one row's figures."""
    unchanged = intervals({metric: column[f"{metric}|unchanged"] for metric in METRICS}, seed=seed)
    noise_mean, matched_mean = scales[NOISE], scales[MATCHED_NOISE]
    every = intervals({metric: column[metric] for metric in METRICS}, seed=seed)
    excess = every["dissimilarity"].mean - noise_mean
    rooms = {name: scales[name] - noise_mean for name in OPPONENTS}
    shares = {name: excess / room if room > 0 else float("nan") for name, room in rooms.items()}
    return Row(
        name=name,
        kind=kind,
        **every,
        dissimilarity_unchanged=unchanged["dissimilarity"],
        prediction_changed=float(column["prediction_changed"].mean()),
        unchanged=unchanged,
        excess_over_noise=excess,
        excess_over_matched_noise=every["dissimilarity"].mean - matched_mean,
        share_of_per_image=shares[PER_IMAGE],
        share_of_one_step=shares[ONE_STEP],
    )


def evaluate(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str | Protocol = "protocol",
    norm: str | None = None,
    eps: float | str | None = None,
    controls: bool | Collection[str] = True,
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Evaluation:
    """Measure how far perturbations change the maps of test images, beside controls.

    Maps are those of the network itself for the class predicted on the clean image. Images
    count if they are classified correctly (all of them where labels are missing, which is
    flagged) and their clean map is not zero. Added controls: ``random`` (noise of equal norm,
    mean over draws), ``random-matched`` (noise scaled, image by image, to the largest
    realised norm among the universal perturbations), ``per-image`` (projected ascent of equal
    budget), ``per-image-one-step`` (the paper's per-image attack: one gradient step, the better of its two
    signs over all images), ``other-image`` (another image's map: the ceiling) and ``tiny-noise`` (the floor).

    Args:
        model: A ``Classifier``, or any module from [0, 1] images to logits.
        perturbations: Name to anything with ``(x, target) -> x'``.
        loader: Test images and labels, never used for fitting or selection; one pass.
        saliency, dissimilarity, preset: As in the attacks.
        norm, eps: Ball of the comparison; that of the first perturbation by default.
        controls: Add the controls that are not among ``perturbations`` already; or the names of
            those to add.
        draws: Noise patterns averaged, at least 1.
        seed: Fixes noise and resampling.
        progress: Called with (batches done, batches), the latter 0 where unknown.
        keep: File where the figures of each batch are kept while the evaluation runs (at most 2 % of its
            time). Where one is left of the same evaluation, cut short, it goes on behind them, to the same
            figures. Rows that are functions of your own are known by their names alone.

    Returns:
        A table with a row per perturbation and control, flags, and per-sample figures.

    Raises:
        ArtifactError: What is kept is damaged, or of another evaluation.
        ConfigError: An option is unknown, or budgets differ.
        DataError: Malformed images, or none that is eligible.
    """
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, got {draws}")
    begin = time.perf_counter()
    _check_rows(perturbations)
    classifier = Classifier.wrap(model)
    chosen = maps.resolve(saliency, paper=resolve(preset).paper_maps)
    ball = shared_ball(perturbations, norm, eps)
    run = Pass(classifier, chosen, dissimilarities.resolve(dissimilarity), ball, seed, draws)
    rows = dict(perturbations)
    wanted = _wanted(controls)
    if PER_IMAGE in wanted and PER_IMAGE not in rows:
        rows[PER_IMAGE] = PerImageAttack(
            classifier,
            saliency=chosen,
            dissimilarity=run.change,
            norm=run.ball.norm,
            eps=run.ball.eps,
            seed=seed,
            preset=preset,
        )
    if ONE_STEP in wanted and ONE_STEP not in rows:
        rows |= _one_step(classifier, chosen, run.ball, preset, seed)
    if any(name in rows for name in OPPONENTS):
        run.beta = resolve(preset).surrogate
    with Steps(keeper_of(keep, run, rows, wanted)) as steps:
        found = gather(run, rows, loader, wanted, progress, steps)
    columns = {
        name: {key: values.numpy() for key, values in column.items()}
        for name, column in found.columns.items()
    }
    _keep_better_sign(columns)
    kinds = {name: kind_of(name, rows[name]) if name in rows else CONTROL for name in columns}
    scales = {name: mean_of(columns, name) for name in (NOISE, MATCHED_NOISE, *OPPONENTS)}
    table = {name: _row(name, kinds[name], column, scales, seed) for name, column in columns.items()}
    summaries = {
        name: RowSummary(row.kind, row.dissimilarity.mean, row.prediction_changed)
        for name, row in table.items()
    }
    shared = {
        "sample": found.numbers.numpy(),
        "label": found.labels.numpy(),
        "target": found.targets.numpy(),
    }
    count = len(found.targets)
    return Evaluation(
        saliency=saliency if isinstance(saliency, str) else name_of(saliency),
        dissimilarity=name_of(dissimilarity),
        norm=run.ball.norm,
        eps=run.ball.eps,
        n_test=count,
        n_seen=found.seen,
        rows=table,
        flags=(
            *found.flags.values(),
            *sample_flags(count, found.seen - found.left_out.get(REPEATED, 0)),
            *table_flags(summaries),
            *fitting_flags(perturbations),
            *overlap_flags(perturbations, found.known),
        ),
        per_sample={name: {**shared, **column} for name, column in columns.items()},
        seconds=time.perf_counter() - begin,
    )


def _one_step(
    model: Classifier, saliency: SaliencyMap, ball: Ball, preset: str | Protocol, seed: int
) -> dict[str, Perturber]:
    """The one-step attack and its opposite."""

    def attack(sign: int) -> OneStepAttack:
        return OneStepAttack(
            model, saliency=saliency, norm=ball.norm, eps=ball.eps, seed=seed, preset=preset, sign=sign
        )

    return {ONE_STEP: attack(1), OPPOSITE: attack(-1)}


def _keep_better_sign(columns: dict[str, Column]) -> None:
    """Of the one-step attack and its opposite the one that changes maps more, as its authors do."""
    opposite = columns.pop(OPPOSITE, None)
    if opposite is not None and opposite["dissimilarity"].mean() > columns[ONE_STEP]["dissimilarity"].mean():
        columns[ONE_STEP] = opposite
