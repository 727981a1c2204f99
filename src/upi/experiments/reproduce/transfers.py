"""Table 2: transfer between networks, between maps and between datasets."""

from __future__ import annotations

from typing import Any

from upi.core.types import Progress
from upi.evaluation import Evaluation, matrix, transfer_maps, transfer_models
from upi.experiments.fitting import UNIVERSAL, fit
from upi.experiments.reproduce.lab import Lab, batches_of, need
from upi.experiments.reproduce.settings import Cell
from upi.experiments.stages import Outcome
from upi.models.classifiers import trained_or_cached
from upi.models.recipes import plan
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation


def _sources(lab: Lab, cell: Cell) -> dict[str, Perturbation]:
    """UPI-Grad's and UPI-PCA's perturbation of every network that has them."""
    patterns = {}
    for method in UNIVERSAL:
        for arch in lab.ready():
            path = lab.folder / "perturbations" / f"{lab.stem(arch, cell, method)}.safetensors"
            if path.exists():
                patterns[f"{method}/{arch}"] = Perturbation.load(path)
    return patterns


def _inputs(lab: Lab, table1: list[Outcome], **more: Any) -> dict[str, Any]:
    done = [(o.name, (o.result or {}).get("files"), o.seconds) for o in table1]
    return {"table1": done, "settings": lab.settings.to_dict(), "data": lab.origin, **more}


def between_models(lab: Lab, table1: list[Outcome]) -> Outcome:
    """Every network's perturbations on every network."""

    def make(progress: Progress) -> dict[str, Any]:
        tables = transfer_models(
            {arch: lab.model(arch) for arch in lab.ready()},
            _sources(lab, lab.settings.main),
            lab.test(lab.settings.n_transfer),
            preset=lab.settings.preset,
            seed=lab.settings.seed,
            progress=progress,
        )
        return matrix(tables)

    return lab.stages.run("transfer/networks", _inputs(lab, table1), make)


def between_maps(lab: Lab, table1: list[Outcome]) -> Outcome:
    """The lead network's perturbations, fitted on each kind of map, on every kind of map."""
    ig = next(
        cell
        for cell in lab.settings.cells
        if cell.saliency == "integrated_gradients" and cell.norm == lab.settings.main.norm
    )

    def make(progress: Progress) -> dict[str, Any]:
        lead = lab.settings.lead
        rows = {
            f"{method} on {cell.saliency}": lab.perturbation(lead, cell, method)
            for cell in (lab.settings.main, ig)
            for method in UNIVERSAL
        }
        tables = transfer_maps(
            lab.model(lead),
            {name: name for name in lab.settings.maps},
            rows,
            lab.test(lab.settings.n_transfer),
            preset=lab.settings.preset,
            seed=lab.settings.seed,
            progress=progress,
        )
        return matrix(tables)

    return lab.stages.run("transfer/maps", _inputs(lab, table1), make)


def between_datasets(lab: Lab, table1: list[Outcome]) -> Outcome:
    """The lead network's perturbations of two datasets, each on both."""
    other = lab.settings.other
    assert other is not None

    def make(progress: Progress) -> dict[str, Any]:
        here, lead, cell = lab.settings.dataset, lab.settings.lead, lab.settings.main
        size = lab.parts.shape.size
        parts = {name: part.resized(size) for name, part in lab.parts_of(other).parts.items()}
        chosen = plan(other, lead, lab.settings.scale, seed=lab.settings.seed)
        trained, _ = trained_or_cached(
            lead,
            parts["train"],
            parts["test"],
            chosen.recipe,
            width=chosen.width,
            device=lab.device,
            progress=progress,
        )
        model = Classifier(trained.net.to(lab.device))
        spec, work = cell.spec(lab.settings.preset, lab.settings.seed), cell.work
        theirs = batches_of(
            parts, work, lab.settings.n_transfer, {"name": parts["test"].name}, lab.settings.batch
        )
        others = {
            f"{method}--{other}": fit(method, model, spec, theirs, seed=spec.seed, progress=progress)
            for method in UNIVERSAL
        }
        rows = {f"{method} of {here}": lab.perturbation(lead, cell, method) for method in UNIVERSAL}
        rows |= {f"{method} of {other}": others[f"{method}--{other}"] for method in UNIVERSAL}
        here_images, there_images = lab.test(lab.settings.n_transfer), theirs.test
        tables: dict[str, Evaluation] = {}
        for name, target, images in ((here, lab.model(lead), here_images), (other, model, there_images)):
            tables |= transfer_models(
                {name: target}, rows, images, preset=lab.settings.preset, seed=lab.settings.seed
            )
        about = {"other": parts["test"].name, "other_accuracy": trained.about["test_accuracy"]}
        return {**matrix(tables), **about, "files": lab.keep(others)}

    def checked(progress: Progress) -> dict[str, Any]:
        need(lab.trained[lab.settings.lead])
        return make(progress)

    return lab.stages.run("transfer/datasets", _inputs(lab, table1), checked)
