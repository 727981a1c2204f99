"""From a classifier and split data to a table: the fits, the controls, the evaluation.

What ``upi demo``, ``upi fit`` and ``upi evaluate`` have in common. Guards against numbers
that depend on a lucky seed: universal attacks are fitted several times and the spread of
their means is reported beside the first fit's row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upi.attacks import PerImageAttack, RandomPerturbation
from upi.core.errors import ConfigError
from upi.core.rows import CLASS_UAP, NOISE, PER_IMAGE
from upi.core.types import Perturber, Progress
from upi.evaluation import Evaluation, Example, Row, evaluate, examples
from upi.experiments.fitting import STUDIED, UNIVERSAL, Spec, Splits, fit
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

Stage = Callable[[str], Progress]


@dataclass(frozen=True)
class Table:
    """An evaluation with what belongs beside it."""

    spec: Spec
    evaluation: Evaluation
    perturbations: Mapping[str, Perturbation]
    files: Mapping[str, str]  # row to the stem of its file in perturbations/
    examples: Sequence[Example] = ()
    seed_rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # row of each fit

    def to_dict(self) -> dict[str, Any]:
        """The table of metrics.json."""
        spread = {}
        for name, rows in self.seed_rows.items():
            means = [row.dissimilarity.mean for row in rows]
            changed = [row.prediction_changed for row in rows]
            spread[name] = {"means": means, "min": min(means), "max": max(means), "changed": changed}
        extra = {
            "key": self.spec.key,
            "preset": self.spec.preset,
            "perturbations": dict(self.files),
            "seed_spread": spread,
        }
        return {**extra, **self.evaluation.to_dict()}


def _spread(
    model: Classifier, spec: Spec, splits: Splits, first: Evaluation, stage: Stage
) -> dict[str, list[Row]]:
    rows = {name: [first.rows[name]] for name in UNIVERSAL}
    for number in range(1, spec.fits):
        for name in UNIVERSAL:
            again = fit(
                name,
                model,
                spec,
                splits,
                seed=spec.seed + number,
                progress=stage(f"{spec.key}: {name}, fit {number + 1} of {spec.fits}"),
            )
            table = evaluate(
                model,
                {name: again},
                splits.test,
                saliency=spec.saliency,
                dissimilarity=spec.dissimilarity,
                preset=spec.preset,
                controls=False,
            )
            rows[name].append(table.rows[name])
    return rows


def tabulate(
    model: Classifier,
    spec: Spec,
    splits: Splits,
    perturbations: Mapping[str, Perturber],
    *,
    stage: Stage,
    pictures: bool = True,
) -> tuple[Evaluation, list[Example]]:
    """Evaluate perturbations with every control, and pick example images by rule if asked to."""
    if not splits.test:
        raise ConfigError("the test split is empty; give it images", options=("n_test",))
    per_image = PerImageAttack(
        model,
        **spec.shared(spec.seed),
        steps=spec.per_image_steps,
        prediction_price=spec.price,
        compile=spec.compile,
    )
    rows: dict[str, Perturber] = {**perturbations, PER_IMAGE: per_image}
    evaluation = evaluate(
        model,
        rows,
        splits.test,
        saliency=spec.saliency,
        dissimilarity=spec.dissimilarity,
        preset=spec.preset,
        seed=spec.seed,
        progress=stage(f"{spec.key}: evaluate on test"),
    )
    if not pictures:
        return evaluation, []
    shown = {name: p for name, p in rows.items() if name in evaluation.rows and name != CLASS_UAP}
    noise = RandomPerturbation(model, **spec.shared(spec.seed))
    shown[NOISE] = noise.pattern(tuple(splits.test[0][0].shape[1:]))
    found = examples(
        model,
        shown,
        splits.test,
        evaluation.per_sample,
        saliency=spec.saliency,
        dissimilarity=spec.dissimilarity,
        preset=spec.preset,
    )
    return evaluation, found


def study(
    model: Classifier,
    spec: Spec,
    splits: Splits,
    *,
    stage: Stage,
    ready: Mapping[str, Perturbation] | None = None,
    pictures: bool = True,
) -> Table:
    """Fit UPI-PCA, UPI-Grad and ClassUAP, then evaluate them beside every control.

    Args:
        model: The classifier.
        spec: What the table is about.
        splits: Data.
        stage: Called with the name of each stage; returns that stage's progress callback.
        ready: Perturbations that need no fitting again.
        pictures: Pick example images.
    """
    perturbations = dict(ready or {})
    for name in STUDIED:
        if name not in perturbations:
            progress = stage(f"{spec.key}: {name}")
            perturbations[name] = fit(name, model, spec, splits, seed=spec.seed, progress=progress)
    ordered = {name: perturbations[name] for name in STUDIED}
    evaluation, shown = tabulate(model, spec, splits, ordered, stage=stage, pictures=pictures)
    rows = _spread(model, spec, splits, evaluation, stage)
    files = {name: name if spec.key == "gradient" else f"{name}--{spec.key}" for name in STUDIED}
    return Table(spec, evaluation, ordered, files, shown, rows)
