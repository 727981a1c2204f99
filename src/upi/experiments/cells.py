"""The smallest piece of an audit, a sweep or a reproduction that is kept when done: one fit.

One network, map, norm, radius, method and seed, with its change on the select images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from upi.attacks import ATTACKS
from upi.core.distributed import leads
from upi.core.storage import remove_if_empty
from upi.core.types import Progress
from upi.evaluation import Row, evaluate
from upi.experiments.fitting import Spec, Splits, fit
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

#: Places below a cell's folder: of finished fits, and of what an unfinished one goes on from.
FITS, STATES = "fits", "states"


@dataclass(frozen=True)
class Fit:
    """One fit of a cell.

    Attributes:
        method: The attack.
        number: Of the fit; its seed is the spec's plus this.
    """

    method: str
    number: int = 0

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.method}-{self.number}"

    @property
    def title(self) -> str:
        """Name for people; the same however many other fits there are."""
        return f"{self.method}, fit {self.number + 1}" if self.number else self.method

    def name(self, spec: Spec) -> str:
        """Name of its stage."""
        return f"{spec.key}: {self.title}"

    def inputs(self, fingerprint: str, spec: Spec, origin: Mapping[str, Any]) -> dict[str, Any]:
        """What its result depends on, as plain JSON values.

        Args:
            fingerprint: Of the network.
            spec: What is asked for.
            origin: Which images.
        """
        beside = ("key", "fits", "per_image_steps")  # of a cell, not of a fit in it
        asked = {key: value for key, value in asdict(spec).items() if key not in beside}
        asked["seed"] = spec.seed + self.number
        return {"fit": self.method, "spec": asked, "model": fingerprint, "data": dict(origin)}

    def run(
        self,
        model: Classifier,
        spec: Spec,
        splits: Splits,
        home: Path,
        progress: Progress,
        *,
        states: Path,
        judged: bool = True,
    ) -> dict[str, Any]:
        """Fit, and measure on the select images.

        Args:
            model, spec, splits: Network, what is asked for, images.
            home: Folder of the cell.
            progress: Of this fit.
            states: Where its state is kept meanwhile.
            judged: Measure it on the select images, to choose among fits.

        Returns:
            ``change``, the mean change of maps on the select images (None where not judged), and ``pattern``,
            the name of its file below ``home``.
        """
        seed = spec.seed + self.number
        found = fit(
            self.method, model, spec, splits, seed=seed, progress=progress, keep=states / self.stem
        )  # fmt: skip
        change = change_of(model, spec, found, splits.select).dissimilarity.mean if judged else None
        file = Path(FITS) / f"{self.stem}.safetensors"
        found.save(home / file)
        if leads():
            for path in states.glob(f"{self.stem}.*"):
                path.unlink(missing_ok=True)
            remove_if_empty(states)
        return {"change": change, "pattern": str(file)}


def change_of(model: Classifier, spec: Spec, pattern: Perturbation, images: Any) -> Row:
    """The row of one perturbation, without controls."""
    table = evaluate(
        model,
        {"one": pattern},
        images,
        saliency=spec.saliency,
        dissimilarity=spec.dissimilarity,
        preset=spec.preset,
        controls=False,
    )
    return table.rows["one"]


@dataclass(frozen=True)
class Fitted:
    """Fits of one method at several seeds, the best of them by its change on the select images."""

    method: str
    patterns: tuple[Perturbation, ...]
    changes: tuple[float, ...]  # mean change on the select images

    @property
    def best(self) -> int:
        """Number of the fit that changes maps most on the select images."""
        return max(range(len(self.changes)), key=lambda number: self.changes[number])

    @classmethod
    def read(cls, method: str, home: Path, results: Mapping[int, Mapping[str, Any]]) -> Fitted:
        """From the results of the fits by number, and the files of the cell."""
        patterns = tuple(Perturbation.load(home / str(each["pattern"])) for each in results.values())
        return cls(method, patterns, tuple(float(each["change"]) for each in results.values()))


def cell_inputs(model: Classifier, spec: Spec, splits: Splits, methods: tuple[str, ...]) -> dict[str, Any]:
    """What the table of a cell depends on."""
    return {
        "spec": asdict(replace(spec, key="")),
        "model": model.fingerprint(),
        "data": dict(splits.origin),
        "methods": list(methods),
        "attacks": sorted(ATTACKS),
    }
