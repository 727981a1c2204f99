"""The eps-curve: the same patterns, scaled, at several radii."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from upi.attacks import PerImageAttack
from upi.attacks.protocol import Protocol
from upi.core.rows import PER_IMAGE
from upi.core.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap
from upi.evaluation.protocol import evaluate
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

Curve = list[dict[str, object]]


def eps_curve(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturbation],
    loader: Loader,
    radii: Sequence[float],
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str | Protocol = "protocol",
    seed: int = 0,
    per_image_steps: int = PerImageAttack.steps,
    prediction_price: float = 0.0,
    progress: Progress | None = None,
) -> Curve:
    """Mean change of the maps at each radius, for each row of the table.

    Universal perturbations keep their direction and are scaled (a lower bound on what a fit
    at that radius reaches); noise is drawn and the per-image attack run at each radius.

    Args:
        model, perturbations, loader, saliency, dissimilarity, preset, seed, progress: As for
            ``upi.evaluate``.
        radii: In units of [0, 1] images.
        per_image_steps, prediction_price: Of the per-image attack at each radius.

    Returns:
        One record per radius and row: ``eps``, ``name``, ``mean``, ``ci95``, ``changed``.
    """
    records: Curve = []
    for number, eps in enumerate(radii):
        scaled: dict[str, Perturber] = {name: p.scaled(eps) for name, p in perturbations.items()}
        norm = next(iter(perturbations.values())).ball.norm
        scaled[PER_IMAGE] = PerImageAttack(
            model,
            saliency=saliency,
            dissimilarity=dissimilarity,
            norm=norm,
            eps=eps,
            seed=seed,
            preset=preset,
            steps=per_image_steps,
            prediction_price=prediction_price,
        )
        table = evaluate(
            model,
            scaled,
            loader,
            saliency=saliency,
            dissimilarity=dissimilarity,
            preset=preset,
            draws=3,
            seed=seed,
        )
        for row in table.rows.values():
            records.append(
                {
                    "eps": eps,
                    "name": row.name,
                    **row.dissimilarity.to_dict(),
                    "changed": row.prediction_changed,
                }
            )
        if progress is not None:
            progress(number + 1, len(radii))
    return records
