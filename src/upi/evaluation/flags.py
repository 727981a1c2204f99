"""Flags: what a sceptical reader should know before trusting a table.

In the manner of AutoAttack: they do not stop an evaluation, they stand beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upi.core.rows import NOISE, PER_IMAGE, UNIVERSAL
from upi.data.content import shared
from upi.network.checks import gives_probabilities, nondeterminism
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

#: Share of changed predictions above which map changes say little about explanations.
MANY_CHANGED = 0.1


@dataclass(frozen=True)
class Flag:
    """A short code for machines and a sentence for people."""

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@torch.no_grad()
def model_flags(model: Classifier, x: Tensor) -> Iterator[Flag]:
    """Probe the model on a few images (N, C, H, W)."""
    if nondeterminism(model, x) != 0:
        yield Flag(
            "non-deterministic-model",
            "Two passes over the same images gave different outputs in eval mode: maps differ without "
            "any perturbation.",
        )
    if gives_probabilities(model, x):
        yield Flag(
            "softmax-output",
            "The model's outputs are probabilities (softmax) where logits were expected: 'logit' maps are "
            "maps of the probability, and softmax scores are taken twice.",
        )


#: Test images below which intervals are wide and bootstrap ones too short.
FEW_IMAGES = 100


def sample_flags(eligible: int, seen: int) -> Iterator[Flag]:
    """Say where a table rests on few images, or on a model that is mostly wrong."""
    if eligible < FEW_IMAGES:
        yield Flag("few-images", f"Only {eligible} test images count: intervals are wide and too optimistic.")
    if 2 * eligible < seen:
        yield Flag(
            "mostly-misclassified",
            f"Only {eligible} of {seen} test images count: explanations of a model that is mostly wrong "
            "say little.",
        )


#: Images a class, in the mean, from which an order of classes can be told from chance.
PER_CLASS = 5


def order_flags(labels: NDArray[Any], predicted: NDArray[Any]) -> Iterator[Flag]:
    """Say where the predictions follow the labels in another order than they are given in.

    Args:
        labels, predicted: Classes (n,) of all images that came.
    """
    from scipy.optimize import linear_sum_assignment  # imported here: it costs time

    classes = np.union1d(labels, predicted)
    if len(labels) < PER_CLASS * len(np.unique(labels)) or len(classes) < 2:
        return
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (np.searchsorted(classes, labels), np.searchsorted(classes, predicted)), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    right, best = np.trace(counts) / len(labels), counts[rows, columns].sum() / len(labels)
    if best >= 0.5 and right < best / 2:
        swaps = [
            f"{classes[a]} as {classes[b]}"
            for a, b in zip(rows, columns, strict=True)
            if a != b and counts[a, b]
        ]
        yield Flag(
            "labels-look-permuted",
            f"{right:.0%} of the images are classified as their labels say, but {best:.0%} would be with the "
            f"classes in another order (label {', '.join(swaps[:3])}{', ...' if len(swaps) > 3 else ''}): "
            "check the order of the classes.",
        )


@dataclass(frozen=True)
class RowSummary:
    """What flags need to know of a row."""

    kind: str
    mean: float
    changed: float


def table_flags(rows: Mapping[str, RowSummary]) -> Iterator[Flag]:
    """Compare the rows of one table."""
    noise, per_image = rows.get(NOISE), rows.get(PER_IMAGE)
    for name, row in rows.items():
        if row.kind != UNIVERSAL:
            continue
        if per_image is not None and row.mean > per_image.mean:
            yield Flag(
                "universal-beats-per-image",
                f"{name} ({row.mean:.3f}) changes maps more than the per-image attack "
                f"({per_image.mean:.3f}): the per-image attack is too weak to be an upper control.",
            )
        if noise is not None and row.mean <= noise.mean:
            yield Flag(
                "random-beats-universal",
                f"{name} ({row.mean:.3f}) changes maps no more than noise of equal norm ({noise.mean:.3f}).",
            )
        if row.changed > MANY_CHANGED:
            yield Flag(
                "many-predictions-changed",
                f"{name} changes {row.changed:.0%} of predictions: read its figures among unchanged "
                "predictions.",
            )


def fitting_flags(perturbations: Mapping[str, object]) -> Iterator[Flag]:
    """Repeat what a fit said of its own result."""
    for name, item in perturbations.items():
        found = item.provenance.get("flags") if isinstance(item, Perturbation) else None
        for flag in found if isinstance(found, list) else []:
            if isinstance(flag, Mapping) and {"code", "message"} <= set(flag):
                yield Flag(str(flag["code"]), f"{name}: {flag['message']}")


def overlap_flags(perturbations: Mapping[str, object], images: Collection[bytes]) -> Iterator[Flag]:
    """Say where test images are among those that a perturbation was fitted on, seen by their content.

    Args:
        perturbations: With ``fitted_on`` in their provenance (``upi.data.content.sketch``).
        images: Digests of the test images.
    """
    for name, item in perturbations.items():
        kept = item.provenance.get("fitted_on") if isinstance(item, Perturbation) else None
        share = shared(images, kept) if isinstance(kept, Mapping) else 0.0
        if share > 0:
            yield Flag(
                "fitted-on-test-images",
                f"{name} was fitted on about {max(1, round(share * len(images)))} of the {len(images)} "
                "different test images: its row is not about new images.",
            )


def origin_flags(
    perturbations: Mapping[str, Perturbation], origin: Mapping[str, Any], fingerprint: str
) -> Iterator[Flag]:
    """Say where test images may have been used for fitting, and where the model is another one.

    Args:
        perturbations: With ``data`` in their provenance: which data were split how.
        origin: The same facts for the test images.
        fingerprint: Of the evaluated model.
    """
    for name, item in perturbations.items():
        fitted = item.provenance.get("data")
        if not isinstance(fitted, Mapping):
            message = f"{name} does not say which images it was fitted on; they may be these."
            yield Flag("unknown-fitting-data", message)
        elif fitted.get("fingerprint") == origin["fingerprint"] and dict(fitted) != dict(origin):
            yield Flag(
                "splits-differ",
                f"{name} was fitted on another split of the same data: images of this test split may have "
                "been used for fitting. Use the same split options as in the fit.",
            )
        if item.provenance.get("model") != fingerprint:
            yield Flag("another-model", f"{name} was fitted on another model: its row shows transfer.")
