"""The eps-curve: the same patterns, scaled, at several radii."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from upi.classifier import Classifier
from upi.evaluation.protocol import evaluate
from upi.perturbation import Perturbation
from upi.types import Dissimilarity, Loader, Progress, SaliencyMap

Curve = list[dict[str, object]]


def eps_curve(
    model: Classifier | nn.Module,
    perturbations: Mapping[str, Perturbation],
    loader: Loader,
    radii: Sequence[float],
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str = "protocol",
    seed: int = 0,
    progress: Progress | None = None,
) -> Curve:
    """Mean change of the maps at each radius, for each row of the table.

    Universal perturbations keep their direction and are scaled (a lower bound on what a fit
    at that radius reaches); noise is drawn and the per-image attack run at each radius.

    Returns:
        One record per radius and row: ``eps``, ``name``, ``mean``, ``ci95``, ``changed``.
    """
    records: Curve = []
    for number, eps in enumerate(radii):
        scaled = {name: p.scaled(eps) for name, p in perturbations.items()}
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
