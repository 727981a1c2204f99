"""One pass over the test images: every row of the table on the same clean maps.

Guards against perturbers that return something else than images in the box, edit their
input in place, overstep the budget, or have no gradient on some of the images.
"""

from __future__ import annotations

from collections import Counter
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
from upi.data.content import digests, repeated
from upi.data.eligibility import correctly_classified, explained
from upi.data.images import check_finite, check_images, count_of, samples
from upi.evaluation.controls import TINY, matched, mean_columns, noise, other_image
from upi.evaluation.flags import Flag, model_flags, order_flags
from upi.evaluation.metrics import MAP_METRICS, realised_norm
from upi.network.checks import require_independent
from upi.network.classifier import Classifier
from upi.network.kinks import FLAGGED, find_kinks
from upi.network.surrogate import Witness
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation, in_box
from upi.perturbation.subspace import RANDOM_IN_SUBSPACE
from upi.saliency.checks import require_stable

#: Why an image does not count, as codes of flags, and what the flag says of so many.
REPEATED, ZERO, NOT_FINITE = "repeated-images", "zero-map", "not-finite-map"
LEFT_OUT = {
    REPEATED: "{count} of {seen} images came before with the same pixels: each counts once.",
    ZERO: "{count} of {seen} images have a clean map that is zero everywhere; they are left out.",
    NOT_FINITE: "{count} of {seen} images have a clean map with NaN or infinity; they are left out.",
}
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
    beta: float | None = None  # sharpness of the surrogate that attacks of this evaluation are fitted on
    columns: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)  # batches in which a row could run
    previous: Tensor | None = None
    known: set[bytes] = field(default_factory=set)  # digests of the images that came
    left_out: Counter[str] = field(default_factory=Counter)  # images that do not count, by reason
    classes: list[Tensor] = field(default_factory=list)  # (2, N) labels and predictions of all that came
    checked: bool = False  # whether network and map were looked at

    def add(self, name: str, *draws: dict[str, Tensor]) -> None:
        self.columns.setdefault(name, []).append({k: v.cpu() for k, v in mean_columns(draws).items()})

    def flag(self, code: str, message: str) -> None:
        self.flags.setdefault(code, Flag(code, message))

    def check(self, x: Tensor, target: Tensor) -> None:
        """Refuse a network whose images influence each other, and a map that is no function of its image."""
        if not self.checked:
            if "non-deterministic-model" not in self.flags:
                require_independent(self.model, x[:16])
            require_stable(self.saliency, self.model, x, target)
            kinks = None if self.beta is None else find_kinks(self.model, x, self.beta)
            if kinks is not None and kinks.share > FLAGGED:
                self.flag("missed-curvature", f"Attacks see only a part of the network: {kinks}.")
            self.checked = True

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
    keep = correctly_classified(run.model, sample, target)
    run.check(x, target)
    if sample.label is not None and sample.label.ndim == 1 and run.model.label is None:
        run.classes.append(torch.stack([sample.label.cpu(), target.cpu()]))
    if keep is None:
        run.flag("no-labels", "The images came without labels: misclassified ones count too.")
        keep = torch.ones_like(target, dtype=torch.bool)
    again = repeated(digests(sample.x), run.known).to(keep.device)
    run.left_out[REPEATED] += int(again.sum())
    keep &= ~again
    if not keep.any():
        return None
    position = keep.nonzero()[:, 0]
    x, target = x[position], target[position]
    clean = run.explain(x, target)
    finite = clean.flatten(1).isfinite().all(1)
    counted = finite & explained(clean)
    run.left_out[NOT_FINITE] += int((~finite).sum())
    run.left_out[ZERO] += int((finite & ~counted).sum())
    return (x[counted], target[counted], clean[counted], position[counted]) if counted.any() else None


def _labels(sample: Samples, target: Tensor, position: Tensor) -> Tensor:
    """(n,) labels of the images at ``position``: -1 where there are none, the explained class of several."""
    if sample.label is None:
        return torch.full((len(target),), -1)
    return sample.label[position.cpu()] if sample.label.ndim == 1 else target.cpu()


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
                labels.append(_labels(sample, target, position))
            seen += sample.x.shape[0]
            if progress is not None:
                progress(sample.index + 1, total)
    for code, message in LEFT_OUT.items():
        if run.left_out[code]:
            run.flag(code, message.format(count=run.left_out[code], seen=seen))
    if run.classes:
        given, predicted = torch.cat(run.classes, 1).numpy()
        run.flags.update({flag.code: flag for flag in order_flags(given, predicted)})
    if not targets:
        order = run.flags.get("labels-look-permuted")
        if order is not None:
            raise DataError(f"none of the {seen} images is classified correctly. {order.message}")
        zero = " and has a map that is finite and not zero" if {ZERO, NOT_FINITE} & set(run.flags) else ""
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
