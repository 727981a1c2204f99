"""The pieces of an audit that can run anywhere: a radius to propose, a fit, a table.

A job is a value. What it needs of earlier ones are results as plain JSON and files of the run folder, which
travel with it where its worker sees other files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from upi.audit.cells import CELLS, run_cell
from upi.audit.radii import propose
from upi.core.types import Progress
from upi.experiments.cells import STATES, Fit, Fitted, cell_inputs
from upi.experiments.fitting import Spec, Splits
from upi.network.classifier import Classifier

Stage = Callable[[str], Progress]


class Job(Protocol):
    """A piece of an audit."""

    @property
    def name(self) -> str:
        """Name of its stage."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Files of the run folder that it reads."""

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        """What its result depends on."""

    def make(
        self,
        model: Classifier,
        splits: Splits,
        folder: Path,
        stage: Stage,
        progress: Progress,
        states: Path | None = None,
    ) -> dict[str, Any]:
        """Its result; files are written into ``folder``, a state meanwhile below ``states``."""


@dataclass(frozen=True)
class RadiusJob:
    """The largest radius at which few predictions change."""

    spec: Spec
    limit: float

    @property
    def name(self) -> str:
        return f"radius: {self.spec.norm}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return {**cell_inputs(model, self.spec, splits, ()), "limit": self.limit}

    def make(
        self,
        model: Classifier,
        splits: Splits,
        folder: Path,
        stage: Stage,
        progress: Progress,
        states: Path | None = None,
    ) -> dict[str, Any]:
        return propose(model, self.spec, splits, limit=self.limit, progress=progress).to_dict()


@dataclass(frozen=True)
class FitJob:
    """One fit of a cell."""

    spec: Spec
    fit: Fit

    @property
    def name(self) -> str:
        return self.fit.name(self.spec)

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return self.fit.inputs(model, self.spec, splits)

    def make(
        self,
        model: Classifier,
        splits: Splits,
        folder: Path,
        stage: Stage,
        progress: Progress,
        states: Path | None = None,
    ) -> dict[str, Any]:
        home = Path(CELLS) / self.spec.key
        kept = None if states is None else states / home / STATES
        found = self.fit.run(model, self.spec, splits, folder / home, progress, states=kept)
        return {**found, "files": [str(home / found["pattern"])]}


@dataclass(frozen=True)
class TableJob:
    """A cell's fits beside every control on the test images.

    Attributes:
        spec: The cell.
        fits: Results of its fits, by method and number.
    """

    spec: Spec
    fits: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"cell: {self.spec.key}"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(file for each in self.fits.values() for one in each.values() for file in one["files"])

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return cell_inputs(model, self.spec, splits, tuple(self.fits))

    def make(
        self,
        model: Classifier,
        splits: Splits,
        folder: Path,
        stage: Stage,
        progress: Progress,
        states: Path | None = None,
    ) -> dict[str, Any]:
        home = folder / CELLS / self.spec.key
        found = {name: Fitted.read(name, home, results) for name, results in self.fits.items()}
        kept = None if states is None else states / CELLS / self.spec.key / STATES
        return run_cell(model, self.spec, splits, folder, found=found, stage=stage, states=kept)
