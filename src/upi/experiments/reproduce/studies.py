"""Figures 1 to 5 and beyond: correlation, eps-curve, fitting images, spectrum, pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from upi.attacks import UPIPCA, RandomPerturbation
from upi.attacks.per_image import PerImageAttack
from upi.attacks.support.objective import MapChange
from upi.attacks.support.rows import ExplainedImages, GradientRows, RowPlan
from upi.core.distributed import from_lead
from upi.core.rows import NOISE, PER_IMAGE, UPI_GRAD
from upi.core.types import Progress
from upi.evaluation import compare, correlate, eps_curve, evaluate
from upi.experiments.fitting import UNIVERSAL, fit
from upi.experiments.reproduce.lab import Lab, need
from upi.experiments.stages import Outcome
from upi.linalg import gram, power, sketch
from upi.linalg.operator import MatrixRows
from upi.results.folder import write_captioned

#: Quantiles, among test images, of the change under UPI-Grad at which pictures are shown.
SHOWN = (0.5, 0.75)


def correlation(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Cross-correlation of the perturbations over networks and methods (Figures 3 to 5)."""
    cell = lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        names = [(m, a) for m in UNIVERSAL for a in lab.ready() if _has(table1, a, cell.key)]
        patterns = {f"{m}/{a}": lab.perturbation(a, cell, m) for m, a in names}
        return correlate(patterns, seed=lab.settings.seed).to_dict()

    return lab.stages.run("correlation", depends(lab, table1), make)


def _has(table1: list[Outcome], arch: str, key: str) -> bool:
    return any(o.name == f"table1/{arch}/{key}" and o.result is not None for o in table1)


def depends(lab: Lab, table1: list[Outcome]) -> dict[str, Any]:
    """What the results of a study depend on."""
    models = {arch: (o.result or {}).get("fingerprint") for arch, o in lab.trained.items()}
    main = [(o.name, o.seconds) for o in table1 if o.name.endswith(lab.settings.main.key)]
    return {"models": models, "settings": lab.settings.to_dict(), "data": lab.origin, "main": main}


def curve(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Change against the radius, for the lead network."""
    settings, cell = lab.settings, lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        model = lab.model(settings.lead)
        patterns = {method: lab.perturbation(settings.lead, cell, method) for method in UNIVERSAL}
        eps = patterns[UNIVERSAL[0]].ball.eps
        points = eps_curve(
            model,
            patterns,
            lab.test(settings.n_curve),
            [share * eps for share in settings.radii],
            preset=settings.preset,
            seed=settings.seed,
            per_image_steps=cell.work.per_image_steps,
            prediction_price=cell.spec(settings.preset, settings.seed).price,
            progress=progress,
        )
        return {"norm": cell.norm, "n": settings.n_curve, "points": points}

    return lab.stages.run("eps-curve", depends(lab, table1), make)


def fitting_images(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Strength on test images against the number of fitting images, for the lead network."""
    settings, cell = lab.settings, lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        model, spec = lab.model(settings.lead), cell.spec(settings.preset, settings.seed)
        points, done = [], 0
        for count in settings.fit_counts:
            few = lab.parts["fit"].first(count).batches(min(count, cell.work.batch))
            splits = replace(lab.splits(cell.work), fit=few)
            for method in UNIVERSAL:
                pattern = fit(method, model, spec, splits, seed=settings.seed)
                test = lab.test(settings.n_transfer)
                table = evaluate(model, {method: pattern}, test, preset=settings.preset, controls=(NOISE,))
                for row in table.rows.values():
                    points.append(
                        {
                            "count": count,
                            "name": row.name,
                            **row.dissimilarity.to_dict(),
                            "changed": row.prediction_changed,
                        }
                    )
                done += 1
                progress(done, len(settings.fit_counts) * len(UNIVERSAL))
        return {"points": points}

    return lab.stages.run("fitting-images", depends(lab, table1), make)


def spectrum(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Spectrum of G and how fast the stochastic power method reaches its top vector."""
    settings, cell = lab.settings, lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        spec = cell.spec(settings.preset, settings.seed)
        attack = UPIPCA(lab.model(settings.lead), **spec.shared(spec.seed), clip=spec.clip, draws=1)
        loader = lab.splits(cell.work).fit
        objective = MapChange(attack.map, attack.change)
        with attack.fitting(loader, attack.beta("auto"), objective) as (surrogate, first):
            images = ExplainedImages(surrogate, objective, loader, attack.protocol.correct_only, progress)
            plan = RowPlan(attack.deviation(first[0].numel()), 1, spec.seed, spec.clip)
            rows = GradientRows(images, rows="gradient", plan=plan)
            own = torch.cat(list(rows.blocks()))
            matrix = from_lead(lambda: own)  # which of several workers gets the rows
        operator = MatrixRows(matrix, batch_size=cell.work.batch)
        exact = gram(operator, components=1)
        top = exact.vectors[0]
        points = []
        for steps in settings.power_steps:
            for seed in range(3):
                approximate = power(operator, steps=steps, seed=seed)
                cosine = abs(float(approximate.vectors[0] @ top))
                rayleigh = float(approximate.values[0] / exact.values[0])
                points.append({"steps": steps, "seed": seed, "cosine": cosine, "rayleigh": rayleigh})
        small = sketch(operator, rank=64)
        values = exact.values.clamp_min(0).sqrt()
        return {
            "n": len(matrix),
            "batches": -(-len(matrix) // cell.work.batch),
            "values": values.tolist(),
            "power": points,
            "sketch": {"cosine": abs(float(small.vectors[0] @ top)), "bound": small.cosine_bound, "rank": 64},
        }

    inputs = {**depends(lab, table1), "measured": ["cosine", "rayleigh"], "power": power.__kwdefaults__}
    return lab.stages.run("spectrum", inputs, make)


def pictures(lab: Lab, table1: list[Outcome]) -> Outcome:
    """The same test images under every attack, for the lead network (Figure 1)."""
    settings, cell = lab.settings, lab.settings.main

    def make(progress: Progress) -> dict[str, Any]:
        main = next(o for o in table1 if o.name == f"table1/{settings.lead}/{cell.key}")
        values = np.asarray(need(main)["samples"][UPI_GRAD], dtype=float)
        order = np.argsort(values, kind="stable")
        places = [int(order[round(share * (len(order) - 1))]) for share in SHOWN]
        model, spec = lab.model(settings.lead), cell.spec(settings.preset, settings.seed)
        shape = tuple(lab.parts["test"].images.shape[1:])
        rows: dict[str, Any] = {
            NOISE: RandomPerturbation(model, **spec.shared(spec.seed)).pattern(shape),
            **{method: lab.perturbation(settings.lead, cell, method) for method in UNIVERSAL},
            PER_IMAGE: PerImageAttack(
                model, **spec.shared(spec.seed), steps=spec.per_image_steps, prediction_price=spec.price
            ),
        }
        shots = compare(
            model, rows, lab.test(cell.work.n_test), places, saliency=cell.saliency, preset=settings.preset
        )
        write_captioned(lab.folder / "examples.safetensors", {"figure-1": shots})
        classes = list(lab.parts.classes)
        return {"classes": classes, "quantiles": list(SHOWN), "files": ["examples.safetensors"]}

    return lab.stages.run("pictures", depends(lab, table1), make)
