"""One pass over the test images: every row of the table on the same clean maps.

Guards against perturbers that return something else than images in the box, edit their
input in place, overstep the budget, or have no gradient on some of the images.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from upi import saliency as maps
from upi.attacks import ATTACKS
from upi.core.errors import DataError, ZeroGradientError
from upi.core.rows import (
    CONTROL,
    MATCHED_NOISE,
    NOISE,
    OTHER_IMAGE,
    PER_IMAGE_KIND,
    ROWS,
    TINY_NOISE,
    UNIVERSAL,
)
from upi.core.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap, Samples
from upi.data.eligibility import correctly_classified, explained
from upi.data.images import check_finite, check_images, count_of, samples
from upi.evaluation.controls import TINY, matched, mean_columns, noise, other_image
from upi.evaluation.flags import Flag, model_flags
from upi.evaluation.metrics import MAP_METRICS, realised_norm
from upi.network.classifier import Classifier
from upi.network.surrogate import Witness
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation, in_box
from upi.perturbation.subspace import RANDOM_IN_SUBSPACE

#: Relative excess of a realised norm over the radius that is put down to rounding.
ROUNDING = 1e-3


def kind_of(name: str, perturber: Perturber) -> str:
    """``universal``, ``per-image`` or ``control``."""
    if name in ROWS and ROWS[name].kind == CONTROL:
        return CONTROL
    if not isinstance(perturber, Perturbation):
        return PER_IMAGE_KIND
    method = perturber.provenance.get("method")
    rows = {entry.value.__name__: ROWS[entry.name].kind for entry in ATTACKS.entries()}
    return CONTROL if method == RANDOM_IN_SUBSPACE else rows.get(str(method), UNIVERSAL)


@dataclass
class Pass:
    """One pass over the test images, filling columns row by row."""

    model: Classifier
    saliency: SaliencyMap
    change: Dissimilarity
    ball: Ball
    seed: int
    draws: int
    columns: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)  # batches in which a row could run
    previous: Tensor | None = None

    def add(self, name: str, *draws: dict[str, Tensor]) -> None:
        self.columns.setdefault(name, []).append({k: v.cpu() for k, v in mean_columns(draws).items()})

    def flag(self, code: str, message: str) -> None:
        self.flags.setdefault(code, Flag(code, message))

    def explain(self, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of the network itself."""
        return maps.explain(self.saliency, self.model, x, target)

    def compare(self, clean: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of a pair of maps (N, H, W)."""
        values = {name: metric(clean, perturbed) for name, metric in MAP_METRICS.items()}
        return {"dissimilarity": self.change(clean, perturbed).detach(), **values}

    def measure(self, x: Tensor, target: Tensor, clean: Tensor, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of perturbed images (N, C, H, W)."""
        witness = Witness(self.model, perturbed)
        shown = maps.explain(self.saliency, witness, perturbed, target)
        with torch.no_grad():
            predicted = witness.logits.argmax(1)
        return {
            **self.compare(clean, shown),
            "realised_norm": realised_norm(x, perturbed, self.ball),
            "prediction_changed": (predicted != target).double(),
        }

    def perturb(self, name: str, perturber: Perturber, x: Tensor, target: Tensor) -> Tensor:
        """Perturbed images, checked; the clean ones where the row has no attack gradient."""
        self.moved.setdefault(name, 0)
        try:
            perturbed = perturber(x.clone(), target.clone())
        except ZeroGradientError as error:
            self.flag(
                "zero-gradient", f"{name} could not run on some images, which count as unmoved: {error}"
            )
            return x
        self.moved[name] += 1
        where = f"the output of {name!r}"
        boxed = getattr(perturber, "in_box", True)  # the published one-step attack clips nothing
        perturbed = self.model.place((check_images if boxed else check_finite)(perturbed, where=where))
        if perturbed.shape != x.shape:
            raise DataError(f"{name!r} returned {tuple(perturbed.shape)} for images {tuple(x.shape)}")
        if realised_norm(x, perturbed, self.ball).max() > self.ball.eps * (1 + ROUNDING):
            self.flag(
                "over-budget", f"{name} moves some images by more than {self.ball.norm} {self.ball.eps:g}."
            )
        return perturbed


def _eligible(run: Pass, sample: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Images, classes, clean maps and positions of the eligible images of a batch."""
    x = run.model.place(sample.x)
    target = run.model.predict(x)
    keep = correctly_classified(sample, target)
    if keep is None:
        run.flag("no-labels", "The images came without labels: misclassified ones count too.")
        keep = torch.ones_like(target, dtype=torch.bool)
    if not keep.any():
        return None
    position = keep.nonzero()[:, 0]
    x, target = x[position], target[position]
    clean = run.explain(x, target)
    counted = explained(clean)
    if not counted.all():
        run.flag("zero-map", "Some clean maps are zero everywhere; those images are left out.")
    return (x[counted], target[counted], clean[counted], position[counted]) if counted.any() else None


def _controls(
    run: Pass, wanted: Collection[str], x: Tensor, target: Tensor, clean: Tensor, size: Tensor | None
) -> None:
    """Fill the rows of the controls that need no fitting and are wanted."""
    patterns = [noise(x, run.ball, run.seed, draw) for draw in range(run.draws)]
    if NOISE in wanted:
        run.add(NOISE, *[run.measure(x, target, clean, in_box(x + p)) for p in patterns])
    if size is not None and MATCHED_NOISE in wanted:
        same = [matched(x, p, run.ball, size) for p in patterns]
        run.add(MATCHED_NOISE, *[run.measure(x, target, clean, moved) for moved in same])
    if TINY_NOISE in wanted:
        run.add(TINY_NOISE, run.measure(x, target, clean, in_box(x + TINY * patterns[0])))
    if OTHER_IMAGE in wanted:
        ceiling = run.compare(clean, other_image(clean, run.previous))
        nothing = torch.zeros_like(ceiling["dissimilarity"])
        run.add(OTHER_IMAGE, {**ceiling, "realised_norm": nothing * torch.nan, "prediction_changed": nothing})
    run.previous = clean[-1]


def run_pass(
    run: Pass,
    rows: dict[str, Perturber],
    loader: Loader,
    controls: Collection[str],
    progress: Progress | None,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Fill the columns; returns classes, sample numbers, labels, and how many images came.

    Raises:
        DataError: No image is eligible.
    """
    targets, numbers, labels, seen = [], [], [], 0
    total = count_of(loader)
    with run.model.frozen():
        for sample in samples(loader):
            if seen == 0:
                probe = run.model.place(sample.x[:16])
                run.flags.update({flag.code: flag for flag in model_flags(run.model, probe)})
            kept = _eligible(run, sample)
            if kept is not None:
                x, target, clean, position = kept
                _measure_batch(run, rows, x, target, clean, controls)
                targets.append(target.cpu())
                numbers.append(seen + position.cpu())
                known = sample.label if sample.label is not None else torch.full((len(sample.x),), -1)
                labels.append(known[position.cpu()])
            seen += sample.x.shape[0]
            if progress is not None:
                progress(sample.index + 1, total)
    if not targets:
        zero = " and has a map that is not zero" if "zero-map" in run.flags else ""
        raise DataError(f"none of the {seen} images is classified correctly{zero}: nothing to evaluate")
    for name in [name for name, batches in run.moved.items() if batches == 0]:
        del run.columns[name]
    return torch.cat(targets), torch.cat(numbers), torch.cat(labels), seen


def _measure_batch(
    run: Pass,
    rows: dict[str, Perturber],
    x: Tensor,
    target: Tensor,
    clean: Tensor,
    controls: Collection[str],
) -> None:
    size: Tensor | None = None
    for name, perturber in rows.items():
        column = run.measure(x, target, clean, run.perturb(name, perturber, x, target))
        run.add(name, column)
        if kind_of(name, perturber) == UNIVERSAL:
            reached = column["realised_norm"]
            size = reached if size is None else torch.maximum(size, reached)
    wanted = [name for name in controls if name not in rows]
    if wanted:
        _controls(run, wanted, x, target, clean, size)
