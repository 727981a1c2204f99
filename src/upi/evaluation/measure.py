"""Test images and what is done to them: every row of the table on the same clean maps.

Guards against perturbers that return something else than images in the box, edit their
input in place, overstep the budget, or have no gradient on some of the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from upi import saliency as maps
from upi.attacks import ATTACKS
from upi.core.errors import DataError, ZeroGradientError
from upi.core.memory import in_halves
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
from upi.core.types import Dissimilarity, Perturber, SaliencyMap, Samples
from upi.data.eligibility import correctly_classified, explained
from upi.data.images import check_finite, check_images
from upi.evaluation.controls import TINY, matched, mean_columns, noise, other_image
from upi.evaluation.flags import Flag
from upi.evaluation.metrics import MAP_METRICS, Shown, realised_norm
from upi.network.checks import require_independent
from upi.network.classifier import Classifier
from upi.network.kinks import FLAGGED, find_kinks
from upi.network.surrogate import Witness
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation, in_box
from upi.perturbation.subspace import RANDOM_IN_SUBSPACE
from upi.saliency.checks import require_stable

#: Why an image does not count, as codes of flags.
REPEATED, ZERO, NOT_FINITE = "repeated-images", "zero-map", "not-finite-map"
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
class Piece:
    """Images that are measured together, and what was found.

    Attributes:
        number: Place among all pieces of the pass.
        columns: Figures of the eligible images by row.
        targets, numbers, labels: Of the eligible images: explained class, place in the pass, label.
        flags: What there is to say of them.
        moved: Whether a row could run, by its name.
        left_out: Images that do not count, by reason.
        classes: (2, N) labels and predictions of all images.
        last: Clean map of the last eligible image.
    """

    number: int
    columns: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    targets: Tensor | None = None
    numbers: Tensor | None = None
    labels: Tensor | None = None
    flags: dict[str, Flag] = field(default_factory=dict)
    moved: dict[str, bool] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    classes: Tensor | None = None
    last: Tensor | None = None

    def add(self, name: str, *draws: dict[str, Tensor]) -> None:
        self.columns[name] = {key: value.cpu() for key, value in mean_columns(draws).items()}

    def flag(self, code: str, message: str) -> None:
        self.flags.setdefault(code, Flag(code, message))


@dataclass(frozen=True)
class Kept:
    """The eligible images of a piece."""

    x: Tensor  # (n, C, H, W)
    target: Tensor  # (n,)
    clean: Shown  # (n, H, W)


@dataclass
class Pass:
    """What all pieces of one pass have in common."""

    model: Classifier
    saliency: SaliencyMap
    change: Dissimilarity
    ball: Ball
    seed: int
    draws: int
    beta: float | None = None  # sharpness of the surrogate that attacks of this evaluation are fitted on
    same: bool = True  # whether the network gives the same logits twice

    def check(self, piece: Piece, x: Tensor, target: Tensor) -> None:
        """Refuse a network whose images influence each other, and a map that is no function of its image."""
        if piece.number > 0:
            return
        if self.same:
            require_independent(self.model, x[:16])
        require_stable(self.saliency, self.model, x, target)
        kinks = None if self.beta is None else find_kinks(self.model, x, self.beta)
        if kinks is not None and kinks.share > FLAGGED:
            piece.flag("missed-curvature", f"Attacks see only a part of the network: {kinks}.")

    def explain(self, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of the network itself."""

        def work(some: slice) -> Tensor:
            return maps.explain(self.saliency, self.model, x[some], target[some])

        return torch.cat(in_halves(work, len(x), owner=self.model.net, kind="maps"))

    def compare(self, clean: Shown, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of a pair of maps (N, H, W)."""
        shown = Shown(perturbed)
        values = {name: metric(clean, shown) for name, metric in MAP_METRICS.items()}
        return {"dissimilarity": self.change(clean.maps, perturbed).detach(), **values}

    def measure(self, x: Tensor, target: Tensor, clean: Shown, perturbed: Tensor) -> dict[str, Tensor]:
        """Every figure of perturbed images (N, C, H, W)."""

        def work(some: slice) -> tuple[Tensor, Tensor]:
            witness = Witness(self.model, perturbed[some])
            shown = maps.explain(self.saliency, witness, witness.images, target[some])
            with torch.no_grad():
                return shown, witness.logits.argmax(1)

        parts = in_halves(work, len(x), owner=self.model.net, kind="maps")
        shown, predicted = (torch.cat(each) for each in zip(*parts, strict=True))
        return {
            **self.compare(clean, shown),
            "realised_norm": realised_norm(x, perturbed, self.ball),
            "prediction_changed": (predicted != target).double(),
        }

    def perturb(self, piece: Piece, name: str, perturber: Perturber, x: Tensor, target: Tensor) -> Tensor:
        """Perturbed images, checked; the clean ones where the row has no attack gradient."""
        piece.moved[name] = False
        try:
            perturbed = perturber(x.clone(), target.clone())
        except ZeroGradientError as error:
            piece.flag(
                "zero-gradient", f"{name} could not run on some images, which count as unmoved: {error}"
            )
            return x
        piece.moved[name] = True
        where = f"the output of {name!r}"
        boxed = getattr(perturber, "in_box", True)  # the published one-step attack clips nothing
        perturbed = self.model.place((check_images if boxed else check_finite)(perturbed, where=where))
        if perturbed.shape != x.shape:
            raise DataError(f"{name!r} returned {tuple(perturbed.shape)} for images {tuple(x.shape)}")
        if realised_norm(x, perturbed, self.ball).max() > self.ball.eps * (1 + ROUNDING):
            piece.flag(
                "over-budget", f"{name} moves some images by more than {self.ball.norm} {self.ball.eps:g}."
            )
        return perturbed


def eligible(run: Pass, piece: Piece, sample: Samples, before: int, again: Tensor) -> Kept | None:
    """The images of a piece that count, with their classes and clean maps; None where none does.

    Args:
        run: The pass.
        piece: Is told what was found.
        sample: The images.
        before: Images that came before them in the pass.
        again: (N,) whether the same image came before.
    """
    x = run.model.place(sample.x)
    target = run.model.predict(x)
    keep = correctly_classified(run.model, sample, target)
    run.check(piece, x, target)
    if sample.label is not None and sample.label.ndim == 1 and run.model.label is None:
        piece.classes = torch.stack([sample.label.cpu(), target.cpu()])
    if keep is None:
        piece.flag("no-labels", "The images came without labels: misclassified ones count too.")
        keep = torch.ones_like(target, dtype=torch.bool)
    piece.left_out[REPEATED] += int(again.sum())
    keep &= ~again.to(keep.device)
    if not keep.any():
        return None
    position = keep.nonzero()[:, 0]
    x, target = x[position], target[position]
    clean = run.explain(x, target)
    finite = clean.flatten(1).isfinite().all(1)
    counted = finite & explained(clean)
    piece.left_out[NOT_FINITE] += int((~finite).sum())
    piece.left_out[ZERO] += int((finite & ~counted).sum())
    if not counted.any():
        return None
    x, target, clean, position = x[counted], target[counted], clean[counted], position[counted]
    piece.targets, piece.numbers = target.cpu(), before + position.cpu()
    piece.labels = _labels(sample, target, position)
    piece.last = clean[-1].cpu()
    return Kept(x, target, Shown(clean))


def _labels(sample: Samples, target: Tensor, position: Tensor) -> Tensor:
    """(n,) labels of the images at ``position``: -1 where there are none, the explained class of several."""
    if sample.label is None:
        return torch.full((len(target),), -1)
    return sample.label[position.cpu()] if sample.label.ndim == 1 else target.cpu()


def _controls(
    run: Pass, piece: Piece, wanted: Collection[str], kept: Kept, size: Tensor | None, previous: Tensor | None
) -> None:
    """Fill the rows of the controls that need no fitting and are wanted."""
    x, target, clean = kept.x, kept.target, kept.clean
    patterns = [noise(x, run.ball, run.seed, draw) for draw in range(run.draws)]
    if NOISE in wanted:
        piece.add(NOISE, *[run.measure(x, target, clean, in_box(x + p)) for p in patterns])
    if size is not None and MATCHED_NOISE in wanted:
        same = [matched(x, p, run.ball, size) for p in patterns]
        piece.add(MATCHED_NOISE, *[run.measure(x, target, clean, moved) for moved in same])
    if TINY_NOISE in wanted:
        piece.add(TINY_NOISE, run.measure(x, target, clean, in_box(x + TINY * patterns[0])))
    if OTHER_IMAGE in wanted:
        before = None if previous is None else previous.to(clean.maps)
        ceiling = run.compare(clean, other_image(clean.maps, before))
        nothing = torch.zeros_like(ceiling["dissimilarity"])
        piece.add(
            OTHER_IMAGE, {**ceiling, "realised_norm": nothing * torch.nan, "prediction_changed": nothing}
        )


def measure_piece(
    run: Pass,
    piece: Piece,
    kept: Kept,
    rows: Mapping[str, Perturber],
    controls: Collection[str],
    previous: Tensor | None,
) -> None:
    """Fill the columns of a piece.

    Args:
        run: The pass.
        piece: Takes the columns.
        kept: Its images that count.
        rows: Perturbations by name.
        controls: Controls that are wanted beside them.
        previous: Clean map of the last eligible image before this piece.
    """
    size: Tensor | None = None
    for name, perturber in rows.items():
        moved = run.perturb(piece, name, perturber, kept.x, kept.target)
        column = run.measure(kept.x, kept.target, kept.clean, moved)
        piece.add(name, column)
        if kind_of(name, perturber) == UNIVERSAL:
            reached = column["realised_norm"]
            size = reached if size is None else torch.maximum(size, reached)
    wanted = [name for name in controls if name not in rows]
    if wanted:
        _controls(run, piece, wanted, kept, size, previous)
