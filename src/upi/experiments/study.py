"""From a classifier and split data to a table: the fits, the controls, the evaluation.

What ``upi demo``, ``upi fit`` and ``upi evaluate`` have in common. Guards against numbers
that depend on a lucky seed: universal attacks are fitted several times and the spread of
their means is reported beside the first fit's row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from upi.attacks import ATTACKS, UPIPCA, Attack, PerImageAttack, RandomPerturbation
from upi.attacks.protocol import Protocol, resolve
from upi.attacks.registry import fitted
from upi.core.errors import ConfigError, unknown_name
from upi.core.rows import CLASS_UAP, NOISE, PER_IMAGE, UPI_GRAD, UPI_PCA
from upi.core.types import Perturber, Progress
from upi.evaluation import Evaluation, Example, Row, evaluate, examples
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace

Batches = Sequence[tuple[Tensor, Tensor]]
Stage = Callable[[str], Progress]


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of the data; test is for reporting only.

    ``origin`` says which data were split how, and goes into every perturbation's provenance.
    """

    fit: Batches
    select: Batches
    test: Batches
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What one table is about.

    Attributes:
        key: Name of the table in files.
        saliency, dissimilarity, norm, eps, preset, seed: As in the attacks.
        steps: Updates of UPI-Grad and ClassUAP.
        per_image_steps: Updates of the per-image attack.
        prediction_price: Price of UPI-PCA, UPI-Grad and the per-image attack on changing the
            prediction.
        clip: Fit for the clipped images that the evaluation looks at.
        fits: Fits of each universal attack, at seeds seed, seed + 1, ...
        pca_draws: Draws of Z per image of UPI-PCA; None takes the attack's default.
        compile: Compile the steps of the iterative attacks.
    """

    key: str
    saliency: str = "gradient"
    dissimilarity: str = "relative_l2"
    norm: str = "l2"
    eps: float | str = 2.0
    preset: str = "protocol"
    seed: int = 0
    steps: int = 200
    per_image_steps: int = 40
    prediction_price: float = 0.5
    clip: bool = True
    fits: int = 3
    pca_draws: int | None = None
    compile: bool = False

    @property
    def price(self) -> float:
        """The price that these attacks pay; the paper knows none."""
        return self.prediction_price if self.protocol.priced else 0.0

    @property
    def protocol(self) -> Protocol:
        """What the preset stands for."""
        return resolve(self.preset)

    def shared(self, seed: int) -> dict[str, Any]:
        """The constructor's first words of every attack."""
        names = ("saliency", "dissimilarity", "norm", "eps", "preset")
        return {**{name: getattr(self, name) for name in names}, "seed": seed}

    def options(self) -> dict[str, Any]:
        """What attacks may ask for beside these, by the names of their own options."""
        return {
            "steps": self.steps,
            "prediction_price": self.price,
            "clip": self.clip and self.protocol.clip,
            "draws": self.pca_draws,
            "compile": self.compile,
        }


#: The paper's two methods.
UNIVERSAL = (UPI_PCA, UPI_GRAD)
#: What a study fits, in the order of its table.
STUDIED = (*UNIVERSAL, CLASS_UAP)


def attack_of(name: str, model: Classifier, spec: Spec, seed: int) -> Attack:
    """An attack with the options of a study.

    Raises:
        ConfigError: The name is unknown, or nothing is fitted under it.
    """
    entry = ATTACKS.entry(name)
    wanted = entry.facts["options"]
    if wanted is None:
        raise unknown_name("method", name, fitted())
    return entry.value(model, **spec.shared(seed), **{key: spec.options()[key] for key in wanted})


def fit(
    name: str, model: Classifier, spec: Spec, splits: Splits, *, seed: int, progress: Progress | None = None
) -> Perturbation:
    """Fit one method by name.

    Raises:
        ConfigError: The name is unknown, or a split is empty.
    """
    attack = attack_of(name, model, spec, seed)
    for part in ("fit", "select"):
        if not getattr(splits, part):
            raise ConfigError(f"the {part} split is empty; give it images", options=(f"n_{part}",))
    perturbation = attack.fit(splits.fit, select=splits.select, progress=progress)
    assert isinstance(perturbation, Perturbation)
    return perturbation.noting(data=dict(splits.origin))


def span_of(
    model: Classifier, spec: Spec, splits: Splits, k: int, *, progress: Progress | None = None
) -> Subspace:
    """The k directions that UPI-PCA's rows share most.

    Raises:
        ConfigError: k is out of range.
    """
    attack = attack_of(UPI_PCA, model, spec, spec.seed)
    assert isinstance(attack, UPIPCA)
    return attack.subspace(splits.fit, k, progress=progress)


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
