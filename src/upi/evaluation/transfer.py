"""Transfer: perturbations found against one network or map, measured on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from upi.attacks.protocol import Protocol
from upi.core.rows import NOISE
from upi.core.steps import together
from upi.core.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap
from upi.evaluation.protocol import evaluate
from upi.evaluation.result import Evaluation
from upi.network.classifier import Classifier
from upi.saliency import title_of

#: What every column of a transfer matrix has beside the perturbations.
BESIDE = (NOISE,)


@dataclass(frozen=True)
class _Options:
    dissimilarity: str | Dissimilarity
    preset: str | Protocol
    draws: int
    seed: int


def _tables(
    cases: Mapping[str, tuple[Classifier | nn.Module, str | SaliencyMap]],
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    options: _Options,
    progress: Progress | None,
    keep: Path | None,
) -> dict[str, Evaluation]:
    """One table per network and map."""
    tables = {}
    with together():
        for number, (name, (model, saliency)) in enumerate(cases.items()):
            tables[name] = evaluate(
                model,
                perturbations,
                loader,
                saliency=saliency,
                controls=BESIDE,
                keep=None if keep is None else keep.with_name(f"{keep.name}-{number}"),
                **vars(options),
            )
            if progress is not None:
                progress(number + 1, len(cases))
    return tables


def transfer_models(
    models: Mapping[str, Classifier | nn.Module],
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    *,
    saliency: str | SaliencyMap = "gradient",
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str | Protocol = "protocol",
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> dict[str, Evaluation]:
    """Every perturbation on every network, beside noise of equal norm.

    Each network explains the images that it classifies correctly itself.

    Args:
        models: Target networks by name.
        perturbations: By name, all of one ball.
        loader, saliency, dissimilarity, preset, draws, seed: As for ``upi.evaluate``.
        progress: Called with (networks done, networks).
        keep: Stem of files where figures are kept while the matrix is measured, as in ``upi.evaluate``.

    Returns:
        One table per target network, with a row per perturbation and the row ``random``.
    """
    options = _Options(dissimilarity, preset, draws, seed)
    cases = {name: (model, saliency) for name, model in models.items()}
    return _tables(cases, perturbations, loader, options, progress, keep)


def transfer_maps(
    model: Classifier | nn.Module,
    saliencies: Mapping[str, str | SaliencyMap],
    perturbations: Mapping[str, Perturber],
    loader: Loader,
    *,
    dissimilarity: str | Dissimilarity = "relative_l2",
    preset: str | Protocol = "protocol",
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> dict[str, Evaluation]:
    """Every perturbation on every map of one network, beside noise of equal norm.

    Args: as for ``transfer_models``, with maps by name in place of networks.
    """
    options = _Options(dissimilarity, preset, draws, seed)
    cases = {name: (model, saliency) for name, saliency in saliencies.items()}
    return _tables(cases, perturbations, loader, options, progress, keep)


def matrix(tables: Mapping[str, Evaluation]) -> dict[str, Any]:
    """A transfer matrix as plain JSON values: rows are perturbations, columns targets."""
    rows = list(dict.fromkeys(row for table in tables.values() for row in table.rows))
    cells = {
        row: {
            target: {
                **table.rows[row].dissimilarity.to_dict(),
                "unchanged": table.rows[row].dissimilarity_unchanged.to_dict(),
                "changed": table.rows[row].prediction_changed,
            }
            for target, table in tables.items()
            if row in table.rows
        }
        for row in rows
    }
    return {
        "rows": rows,
        "columns": list(tables),
        "titles": {target: title_of(t.saliency) for target, t in tables.items() if target == t.saliency},
        "n_test": {target: table.n_test for target, table in tables.items()},
        "cells": cells,
    }
