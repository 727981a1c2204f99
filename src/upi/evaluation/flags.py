"""Flags: what a sceptical reader should know before trusting a table.

In the manner of AutoAttack: they do not stop an evaluation, they stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from upi.classifier import Classifier

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
    first, second = model(x), model(x)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        yield Flag(
            "non-deterministic-model",
            "Two passes over the same images gave different outputs in eval mode: maps differ without "
            "any perturbation.",
        )
    if bool((first >= 0).all()) and torch.allclose(first.sum(1), torch.ones_like(first[:, 0]), atol=1e-3):
        yield Flag(
            "softmax-output",
            "The model's outputs are probabilities (softmax) where logits were expected: 'logit' maps are "
            "maps of the probability, and softmax scores are taken twice.",
        )


@dataclass(frozen=True)
class Standing:
    """What flags need to know of a row."""

    kind: str
    mean: float
    changed: float


def table_flags(rows: Mapping[str, Standing]) -> Iterator[Flag]:
    """Compare the rows of one table."""
    noise, per_image = rows.get("random"), rows.get("per-image")
    for name, row in rows.items():
        if row.kind != "universal":
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
