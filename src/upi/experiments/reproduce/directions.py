"""Which directions the rows of G share: how many there are, and what they look like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from upi.attacks import UPIPCA, UPIGrad
from upi.attacks.support.row_search import RowForm, RowSearch
from upi.core.rows import NOISE, UPI_GRAD
from upi.core.types import Progress
from upi.evaluation import evaluate
from upi.experiments.reproduce.lab import Lab
from upi.experiments.reproduce.studies import depends
from upi.experiments.stages import Outcome
from upi.perturbation.pattern import as_perturbation
from upi.perturbation.subspace import Subspace

#: Dimensions at which a random vector of the subspace is measured, and those that UPI-Grad is held to.
DIMENSIONS, RESTRICTED = (1, 2, 4, 8, 16, 32, 64, 128), (8, 32, 128)
#: Random vectors at each dimension.
DRAWS = 5
#: Forms of the rows whose components are drawn: (title, score, surrogate, length of the rows).
FORMS = (
    ("surrogate", None, 20.0, "none"),
    ("surrogate, unit rows", None, 20.0, "unit"),
    ("softmax score, network, unit rows", "softmax", None, "unit"),
)
COMPONENTS = 40


def radial_frequency(pattern: Tensor) -> float:
    """Mean spatial frequency of a pattern (C, H, W), weighted by power, in cycles per pixel (0 to 0.71)."""
    power = torch.fft.fft2(pattern.double()).abs().square().sum(0)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64) for size in pattern.shape[-2:])
    radius = (rows[:, None].square() + columns.square()).sqrt()
    return float((power * radius).sum() / power.sum())


def _attack(lab: Lab, **options: Any) -> UPIPCA:
    spec = lab.settings.main.spec(lab.settings.preset, lab.settings.seed)
    shared = {**spec.shared(spec.seed), "clip": spec.clip, "draws": lab.settings.main.work.pca_draws}
    return UPIPCA(lab.model(lab.settings.lead), **{**shared, **options})


def components(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Leading vectors of several forms of the rows: their frequency, and the change that they make."""
    settings, work = lab.settings, lab.settings.main.work

    def make(progress: Progress) -> dict[str, Any]:
        splits, forms = lab.splits(work), []
        for number, (title, score, beta, scale) in enumerate(FORMS):
            attack = _attack(lab, row_scale=scale, components=COMPONENTS)
            search = RowSearch(attack, attack.plan, attack.deviation, splits.fit, splits.select, None)
            form = RowForm(score, beta)
            search.caches[form] = None
            result = search.solve(form, COMPONENTS)
            vectors = attack.ball.extreme(search.shaped(result))
            both = search.selection.scores(torch.cat([vectors, -vectors])).view(2, -1)
            forms.append(
                {
                    "title": title,
                    "frequency": [radial_frequency(v) for v in vectors],
                    "change": both.amax(0).tolist(),
                    "values": result.values[:COMPONENTS].clamp_min(0).sqrt().tolist(),
                }
            )
            progress(number + 1, len(FORMS))
        noise = search.selection.noise(attack.ball, settings.seed)
        grad = lab.perturbation(settings.lead, settings.main, UPI_GRAD)
        strongest = float(search.selection.scores(grad.delta[None])[0])
        return {
            "forms": forms,
            "noise": noise,
            "upi_grad": {"frequency": radial_frequency(grad.delta), "change": strongest},
            "select_images": search.selection.count,
        }

    return lab.stages.run("components", depends(lab, table1), make)


def subspace(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Random vectors of the span of k leading vectors, and UPI-Grad held to it."""
    settings, cell = lab.settings, lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        spec, splits = cell.spec(settings.preset, settings.seed), lab.splits(cell.work)
        most = cell.work.n_fit * cell.work.pca_draws // 2  # fewer directions than rows
        dimensions, restricted = ([k for k in some if k <= most] for some in (DIMENSIONS, RESTRICTED))
        span = _attack(lab).subspace(splits.fit, max(dimensions))
        span.save(lab.folder / "subspaces" / f"{settings.lead}.safetensors")
        grad = lab.perturbation(settings.lead, cell, UPI_GRAD)
        rows: dict[str, Any] = {
            f"span/{k}/{draw}": span.first(k).random(spec.eps, seed=spec.seed, draw=draw)
            for k in dimensions
            for draw in range(DRAWS)
        }
        for number, k in enumerate(restricted):
            attack = UPIGrad(
                lab.model(settings.lead),
                **spec.shared(spec.seed),
                steps=spec.steps,
                prediction_price=spec.price,
                clip=spec.clip,
                subspace=span.first(k),
            )
            rows[f"grad/{k}/0"] = attack.fit(splits.fit)
            progress(number + 1, len(restricted) + 1)
        rows |= {f"part/{k}/0": _part(span.first(k), grad) for k in restricted}
        rows["whole/0/0"] = grad
        table = evaluate(
            lab.model(settings.lead),
            rows,
            lab.test(settings.n_transfer),
            preset=settings.preset,
            controls=(NOISE,),
            draws=DRAWS,
            seed=settings.seed,
        )
        points = [
            {
                "kind": name.split("/")[0],
                "dimensions": int(name.split("/")[1]) if "/" in name else 0,
                "mean": row.dissimilarity.mean,
                "changed": row.prediction_changed,
            }
            for name, row in table.rows.items()
        ]
        shares = {str(k): span.first(k).share(grad.delta) for k in restricted}
        size = grad.delta.numel()
        return {
            "points": points,
            "share_of_upi_grad": shares,
            "dimensions_of_images": size,
            "n": table.n_test,
            "files": [f"subspaces/{settings.lead}.safetensors"],
        }

    return lab.stages.run("subspace", depends(lab, table1), make)


def _part(span: Subspace, grad: Any) -> Any:
    """UPI-Grad's pattern projected on the span, at full radius."""
    inside = grad.ball.extreme(span.project(grad.delta[None]))
    return as_perturbation(inside, grad.ball, {"method": "ProjectedUPIGrad"})
