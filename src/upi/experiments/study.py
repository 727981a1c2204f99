"""From a classifier and split data to a table: the fits, the controls, the evaluation.

What ``upi audit``, ``upi evaluate`` and ``upi reproduce`` have in common. Guards against numbers
that depend on a lucky seed: universal attacks are fitted several times and the spread of
their means is reported beside the first fit's row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upi.attacks import PerImageAttack, RandomPerturbation
from upi.core.errors import ConfigError
from upi.core.rows import CLASS_UAP, NOISE, PER_IMAGE
from upi.core.types import Perturber, Progress
from upi.evaluation import Evaluation, Example, Row, evaluate, examples
from upi.experiments.cells import Fit, change_of
from upi.experiments.fitting import STUDIED, UNIVERSAL, Spec, Splits
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

#: Stage of a table: its rows on the test images.
ON_TEST = "evaluate on test"

Stage = Callable[[str], Progress]
Fits = Mapping[str, Sequence[Perturbation]]


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
    model: Classifier, spec: Spec, splits: Splits, first: Evaluation, fits: Fits
) -> dict[str, list[Row]]:
    """The test row of each fit of the methods that were fitted more than once by rule."""
    again = {name: fits[name][1:] for name in UNIVERSAL}
    return {
        name: [first.rows[name], *(change_of(model, spec, pattern, splits.test) for pattern in again[name])]
        for name in UNIVERSAL
    }


def tabulate(
    model: Classifier,
    spec: Spec,
    splits: Splits,
    perturbations: Mapping[str, Perturber],
    *,
    stage: Stage,
    pictures: bool = True,
    keep: Path | None = None,
) -> tuple[Evaluation, list[Example]]:
    """Evaluate perturbations with every control, and pick example images by rule if asked to.

    ``keep`` is a file where figures are kept meanwhile, as in ``upi.evaluate``.
    """
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
        progress=stage(f"{spec.key}: {ON_TEST}"),
        keep=keep,
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


def fits_of(spec: Spec) -> list[Fit]:
    """What ``study`` needs: the universal attacks at every seed, the others once; first fits first."""
    first = [Fit(name) for name in STUDIED]
    return first + [Fit(name, number) for number in range(1, spec.fits) for name in UNIVERSAL]


def study(
    model: Classifier, spec: Spec, splits: Splits, fits: Fits, *, stage: Stage, keep: Path | None = None
) -> Table:
    """Evaluate the first fit of each method beside every control, and the other fits' rows.

    Args:
        model: The classifier.
        spec: What the table is about.
        splits: Data.
        fits: Perturbations of ``fits_of`` by method, in the order of their seeds.
        stage: Called with the name of each stage; returns that stage's progress callback.
        keep: File where figures are kept meanwhile.
    """
    ordered = {name: fits[name][0] for name in STUDIED}
    evaluation, _ = tabulate(model, spec, splits, ordered, stage=stage, pictures=False, keep=keep)
    rows = _spread(model, spec, splits, evaluation, fits)
    files = {name: name if spec.key == "gradient" else f"{name}--{spec.key}" for name in STUDIED}
    return Table(spec, evaluation, ordered, files, (), rows)
