"""What is fitted, how, and on what; and one fit, which goes on where it was cut short."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from upi.attacks import ATTACKS, UPIPCA, Attack, PerImageAttack
from upi.attacks.base import SharedAscent
from upi.attacks.protocol import Protocol, resolve
from upi.attacks.registry import fitted
from upi.core.distributed import from_lead
from upi.core.errors import ConfigError, unknown_name
from upi.core.rows import CLASS_UAP, UPI_GRAD, UPI_PCA
from upi.core.storage import write_atomic
from upi.core.types import Progress
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace

Batches = Sequence[tuple[Tensor, Tensor]]


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
        compile: How the steps of the iterative attacks become a graph, as in those.
    """

    key: str
    saliency: str = "gradient"
    dissimilarity: str = "relative_l2"
    norm: str = "l2"
    eps: float | str = 2.0
    preset: str = "protocol"
    seed: int = 0
    steps: int = 200
    per_image_steps: int = PerImageAttack.steps
    prediction_price: float = 0.5
    clip: bool = True
    fits: int = 3
    pca_draws: int | None = None
    compile: bool | str = "auto"

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
    name: str,
    model: Classifier,
    spec: Spec,
    splits: Splits,
    *,
    seed: int,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Perturbation:
    """Fit one method by name.

    Args:
        name, model, spec, splits, seed, progress: What is fitted, on what.
        keep: Stem of files for what is finished: the pattern, what it is of, and the state of a fit that
            is cut short. Where they hold this very fit's pattern, that is taken.

    Raises:
        ArtifactError: What is kept is damaged, or of another fit.
        ConfigError: The name is unknown, or a split is empty.
    """
    attack = attack_of(name, model, spec, seed)
    for part in ("fit", "select"):
        if not getattr(splits, part):
            raise ConfigError(f"the {part} split is empty; give it images", options=(f"n_{part}",))
    if keep is None:
        return _fitted(attack, splits, progress)
    pattern, mark, state = (keep.with_name(keep.name + end) for end in (".safetensors", ".job", ".state"))
    job = json.dumps({**attack.record(splits.fit), "data": dict(splits.origin)}, sort_keys=True)
    known = from_lead(lambda: _known(pattern, mark, job))
    if known is not None:
        return known
    found = _fitted(attack, splits, progress, state)
    found.save(pattern)
    write_atomic(mark, job)
    return found


def _known(pattern: Path, mark: Path, job: str) -> Perturbation | None:
    """The pattern that this very fit has left; None where there is none."""
    try:
        same = mark.read_text() == job
    except FileNotFoundError:
        return None
    return Perturbation.load(pattern) if same and pattern.exists() else None


def _fitted(
    attack: Attack, splits: Splits, progress: Progress | None, state: Path | None = None
) -> Perturbation:
    """The pattern of an attack, with the data in its provenance."""
    kept = {"keep": state} if isinstance(attack, (SharedAscent, UPIPCA)) else {}
    found = attack.fit(splits.fit, select=splits.select, progress=progress, **kept)
    assert isinstance(found, Perturbation)
    return found.noting(data=dict(splits.origin))


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
