"""The protocol: one pass over test images, every perturbation and control on the same maps.

Guards against the usual unfair comparisons: maps of the surrogate instead of the network,
images that were misclassified to begin with, noise of another size, a missing upper
control, and figures dominated by images whose prediction changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upi import dissimilarity as dissimilarities
from upi import saliency as maps
from upi.attacks import ClassUAP, PerImageAttack, RandomPerturbation
from upi.balls import Ball
from upi.classifier import Classifier
from upi.errors import ConfigError, DataError, ZeroGradientError
from upi.evaluation.controls import TINY, matched, mean_columns, noise, other_image
from upi.evaluation.flags import Flag, Standing, model_flags, table_flags
from upi.evaluation.intervals import interval
from upi.evaluation.metrics import MAP_METRICS, realised_norm
from upi.evaluation.result import METRICS, Column, Evaluation, Row, mean_of
from upi.loading import count_of, samples
from upi.perturbation import Perturbation, in_box
from upi.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap, Samples

_CONTROLS = {RandomPerturbation.__name__, ClassUAP.__name__}
_CONTROL_NAMES = {"random", "random-matched", "class-uap", "other-image", "tiny-noise"}


def kind_of(name: str, perturber: Perturber) -> str:
    """``universal``, ``per-image`` or ``control``."""
    method = getattr(perturber, "provenance", {}).get("method")
    if name in _CONTROL_NAMES or method in _CONTROLS:
        return "control"
    return "universal" if isinstance(perturber, Perturbation) else "per-image"


def shared_ball(perturbations: Mapping[str, Perturber], norm: str | None, eps: float | str | None) -> Ball:
    """The ball of the comparison: as given, or that of the first universal perturbation.

    Raises:
        ConfigError: Nothing says which ball, or a perturbation is larger than it.
    """
    balls = [p.ball for p in perturbations.values() if isinstance(p, (Perturbation, PerImageAttack))]
    if eps is None and not balls:
        raise ConfigError("say norm=... and eps=...: none of the perturbations knows its ball")
    ball = Ball(norm or (balls[0].norm if balls else "l2"), balls[0].eps if eps is None else eps)
    for name, perturber in perturbations.items():
        own = getattr(perturber, "ball", ball)
        if own.norm != ball.norm or own.eps > ball.eps * (1 + 1e-6):
            raise ConfigError(
                f"{name!r} lives in the {own.norm} ball of radius {own.eps:g}, the comparison is in the "
                f"{ball.norm} ball of radius {ball.eps:g}: evaluate different budgets separately"
            )
    return ball


@dataclass
class _Pass:
    """One pass over the test images, filling columns row by row."""

    model: Classifier
    saliency: SaliencyMap
    change: Dissimilarity
    ball: Ball
    seed: int
    columns: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    previous: Tensor | None = None

    def add(self, name: str, column: dict[str, Tensor]) -> None:
        self.columns.setdefault(name, []).append({k: v.detach().cpu() for k, v in column.items()})

    def flag(self, code: str, message: str) -> None:
        self.flags.setdefault(code, Flag(code, message))

    def compare(self, clean: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of a pair of maps (N, H, W)."""
        values = {name: metric(clean, perturbed) for name, metric in MAP_METRICS.items()}
        return {"dissimilarity": self.change(clean, perturbed).detach(), **values}

    def measure(self, x: Tensor, target: Tensor, clean: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of perturbed images (N, C, H, W)."""
        perturbed = self.model.place(perturbed)
        moved = self.saliency(self.model, perturbed, target).detach()
        return {
            **self.compare(clean, moved),
            "realised_norm": realised_norm(x, perturbed, self.ball),
            "prediction": self.model.predict(perturbed),
        }


def _eligible(run: _Pass, sample: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Images, classes, clean maps and positions of the eligible images of a batch."""
    x = run.model.place(sample.x)
    target = run.model.predict(x)
    keep = torch.ones_like(target, dtype=torch.bool)
    if sample.label is None:
        run.flag("no-labels", "The images came without labels: misclassified ones count too.")
    else:
        keep = target == sample.label.to(target.device)
    if not keep.any():
        return None
    position = keep.nonzero()[:, 0]
    x, target = x[position], target[position]
    clean = run.saliency(run.model, x, target).detach()
    alive = clean.abs().flatten(1).amax(1) > 0
    if not alive.all():
        run.flag("zero-map", "Some clean maps are zero everywhere; those images are left out.")
    return (x[alive], target[alive], clean[alive], position[alive]) if alive.any() else None


def _controls(run: _Pass, x: Tensor, target: Tensor, clean: Tensor, size: Tensor | None, draws: int) -> None:
    """Fill the rows of the controls that need no fitting."""
    patterns = [noise(x, run.ball, run.seed, draw) for draw in range(draws)]
    run.add("random", mean_columns([run.measure(x, target, clean, in_box(x + p)) for p in patterns]))
    if size is not None:
        same = [run.measure(x, target, clean, matched(x, p, run.ball, size)) for p in patterns]
        run.add("random-matched", mean_columns(same))
    run.add("tiny-noise", run.measure(x, target, clean, in_box(x + TINY * patterns[0])))
    ceiling = run.compare(clean, other_image(clean, run.previous))
    zeros = torch.zeros_like(ceiling["dissimilarity"])
    run.add("other-image", {**ceiling, "realised_norm": zeros * torch.nan, "prediction": target})
    run.previous = clean[-1]


def _changed(run: _Pass, name: str, target: Tensor) -> Tensor:
    return (torch.cat([part["prediction"] for part in run.columns[name]]).double() != target).double()


def _row(
    name: str, kind: str, column: Column, changed: np.ndarray[Any, Any], scales: dict[str, float], seed: int
) -> Row:
    """Means and intervals of one row's figures."""
    stays = {metric: np.where(changed == 0, column[metric], np.nan) for metric in METRICS}
    unchanged = {metric: interval(values, seed=seed) for metric, values in stays.items()}
    noise_mean, matched_mean, per_image = scales["random"], scales["random-matched"], scales["per-image"]
    every = {metric: interval(column[metric], seed=seed) for metric in METRICS}
    excess = every["dissimilarity"].mean - noise_mean
    room = per_image - noise_mean
    return Row(
        name=name,
        kind=kind,
        **every,
        dissimilarity_unchanged=unchanged["dissimilarity"],
        prediction_changed=float(changed.mean()),
        unchanged=unchanged,
        excess_over_noise=excess,
        excess_over_matched_noise=every["dissimilarity"].mean - matched_mean,
        share_of_per_image=excess / room if room > 0 else float("nan"),
    )


def evaluate(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str = "protocol",
    norm: str | None = None,
    eps: float | str | None = None,
    controls: bool = True,
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure how far perturbations change the maps of test images, beside controls.

    Maps are those of the network itself for the class predicted on the clean image. Images
    count if they are classified correctly (all of them where labels are missing, which is
    flagged) and their clean map is not zero. Added controls: ``random`` (noise of equal norm,
    mean over draws), ``random-matched`` (noise scaled, image by image, to the largest
    realised norm among the universal perturbations), ``per-image`` (projected ascent of equal
    budget), ``other-image`` (another image's map: the ceiling) and ``tiny-noise`` (the floor).

    Args:
        model: A ``Classifier``, or any module from [0, 1] images to logits.
        perturbations: Name to anything with ``(x, target) -> x'``.
        loader: Test images and labels, never used for fitting or selection; one pass.
        saliency, dissimilarity, preset: As in the attacks.
        norm, eps: Ball of the comparison; that of the first perturbation by default.
        controls: Add the controls that are not among ``perturbations`` already.
        draws: Noise patterns averaged, at least 1.
        seed: Fixes noise and resampling.
        progress: Called with (batches done, batches), the latter 0 where unknown.

    Returns:
        A table with a row per perturbation and control, flags, and per-sample figures.

    Raises:
        ConfigError: An option is unknown, or budgets differ.
        DataError: Malformed images, or none that is eligible.
    """
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, got {draws}")
    begin = time.perf_counter()
    classifier = Classifier.wrap(model)
    chosen = maps.resolve(saliency, paper=preset == "paper")
    run = _Pass(
        classifier,
        chosen,
        dissimilarities.resolve(dissimilarity),
        shared_ball(perturbations, norm, eps),
        seed,
    )
    rows = dict(perturbations)
    if controls and "per-image" not in rows:
        rows["per-image"] = PerImageAttack(
            classifier,
            saliency=chosen,
            dissimilarity=run.change,
            norm=run.ball.norm,
            eps=run.ball.eps,
            seed=seed,
            preset=preset,
        )
    targets, index, label, seen = _run(run, rows, loader, controls, draws, progress)
    kinds = {name: kind_of(name, rows[name]) if name in rows else "control" for name in run.columns}
    columns = {name: _column(run, name, targets) for name in run.columns}
    scales = {name: mean_of(columns, name) for name in ("random", "random-matched", "per-image")}
    table = {
        name: _row(name, kinds[name], column, column["prediction_changed"], scales, seed)
        for name, column in columns.items()
    }
    standing = {
        name: Standing(row.kind, row.dissimilarity.mean, row.prediction_changed)
        for name, row in table.items()
    }
    shared = {"sample": index.numpy(), "label": label.numpy(), "target": targets.long().numpy()}
    return Evaluation(
        saliency=saliency if isinstance(saliency, str) else dissimilarities.name_of(saliency),
        dissimilarity=dissimilarities.name_of(dissimilarity),
        norm=run.ball.norm,
        eps=run.ball.eps,
        n_test=len(targets),
        n_seen=seen,
        rows=table,
        flags=(*run.flags.values(), *table_flags(standing)),
        per_sample={name: {**shared, **column} for name, column in columns.items()},
        seconds=time.perf_counter() - begin,
    )


def _column(run: _Pass, name: str, targets: Tensor) -> Column:
    parts = run.columns[name]
    column: Column = {
        metric: torch.cat([part[metric].double() for part in parts]).numpy() for metric in METRICS
    }
    return {**column, "prediction_changed": _changed(run, name, targets).numpy()}


def _run(
    run: _Pass,
    rows: dict[str, Perturber],
    loader: Loader,
    controls: bool,
    draws: int,
    progress: Progress | None,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Fill the columns; returns classes, sample numbers, labels, and how many images came."""
    targets, numbers, labels, seen = [], [], [], 0
    total = count_of(loader)
    with run.model.frozen():
        for sample in samples(loader):
            if sample.index == 0:
                run.flags.update({f.code: f for f in model_flags(run.model, run.model.place(sample.x[:16]))})
            kept = _eligible(run, sample)
            if kept is not None:
                x, target, clean, position = kept
                _measure_batch(run, rows, x, target, clean, controls, draws)
                targets.append(target.cpu())
                numbers.append(seen + position.cpu())
                known = sample.label if sample.label is not None else torch.full((len(sample.x),), -1)
                labels.append(known[position.cpu()])
            seen += sample.x.shape[0]
            if progress is not None:
                progress(sample.index + 1, total)
    if not targets:
        raise DataError(f"none of the {seen} images is classified correctly: nothing to evaluate")
    return torch.cat(targets).double(), torch.cat(numbers), torch.cat(labels), seen


def _measure_batch(
    run: _Pass,
    rows: dict[str, Perturber],
    x: Tensor,
    target: Tensor,
    clean: Tensor,
    controls: bool,
    draws: int,
) -> None:
    size: Tensor | None = None
    for name, perturber in list(rows.items()):
        try:
            perturbed = perturber(x, target)
        except ZeroGradientError as error:
            run.flag("zero-gradient", f"{name} could not run, its row is missing: {error}")
            del rows[name]
            continue
        column = run.measure(x, target, clean, perturbed)
        run.add(name, column)
        if kind_of(name, perturber) == "universal":
            reached = column["realised_norm"]
            size = reached if size is None else torch.maximum(size, reached)
    if controls:
        _controls(run, x, target, clean, size, draws)
