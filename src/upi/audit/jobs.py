"""The pieces of an audit that can run anywhere: a radius to propose, a fit, a table.

A job is a value. What it needs of earlier ones are results as plain JSON and files of the run folder, which
travel with it where its worker sees other files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upi.audit.cells import CEILING, CELLS, run_cell
from upi.audit.radii import propose
from upi.core.types import Progress
from upi.experiments.cells import STATES, Fit, Fitted, cell_inputs
from upi.experiments.fitting import Spec, Splits
from upi.experiments.study import ON_TEST
from upi.network.classifier import Classifier

Stage = Callable[[str], Progress]


@dataclass(frozen=True)
class Bench:
    """Where a job is done.

    Attributes:
        model, splits: Network and images.
        folder: Gets its files, and holds those that it needs.
        stage: Begins a stage of the progress display.
        states: A run folder that outlives ``folder``, where its state is kept meanwhile; None where
            ``folder`` is that itself.
    """

    model: Classifier
    splits: Splits
    folder: Path
    stage: Stage
    states: Path | None = None

    def kept(self, spec: Spec) -> Path:
        """Where states of a cell lie."""
        return (self.states or self.folder) / CELLS / spec.key / STATES


class Job(ABC):
    """A piece of an audit."""

    spec: Spec

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of its stage."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The stages of the progress display that are done with it."""
        return (self.name,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Files of the run folder that it reads."""
        return ()

    @abstractmethod
    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        """What its result depends on, as plain JSON values."""

    @abstractmethod
    def make(self, bench: Bench, progress: Progress) -> dict[str, Any]:
        """Its result, as plain JSON values; ``files`` in it are those that were written."""


@dataclass(frozen=True)
class RadiusJob(Job):
    """The largest radius at which at most a share ``limit`` of the predictions change."""

    spec: Spec
    limit: float

    @property
    def name(self) -> str:
        return f"radius: {self.spec.norm}"

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return {**cell_inputs(model, self.spec, splits, ()), "limit": self.limit}

    def make(self, bench: Bench, progress: Progress) -> dict[str, Any]:
        return propose(bench.model, self.spec, bench.splits, limit=self.limit, progress=progress).to_dict()


@dataclass(frozen=True)
class FitJob(Job):
    """One fit of a cell."""

    spec: Spec
    fit: Fit

    @property
    def name(self) -> str:
        return self.fit.name(self.spec)

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return self.fit.inputs(model.fingerprint(), self.spec, splits.origin)

    def make(self, bench: Bench, progress: Progress) -> dict[str, Any]:
        home = Path(CELLS) / self.spec.key
        found = self.fit.run(
            bench.model,
            self.spec,
            bench.splits,
            bench.folder / home,
            progress,
            states=bench.kept(self.spec),
        )
        return {**found, "files": [str(home / found["pattern"])]}


@dataclass(frozen=True)
class TableJob(Job):
    """A cell's fits beside every control on the test images.

    Attributes:
        spec: The cell.
        fits: Results of its fits, by method and number.
    """

    spec: Spec
    fits: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @property
    def name(self) -> str:
        return f"cell: {self.spec.key}"

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(f"{self.spec.key}: {part}" for part in (ON_TEST, CEILING))

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(file for each in self.fits.values() for one in each.values() for file in one["files"])

    def inputs(self, model: Classifier, splits: Splits) -> dict[str, Any]:
        return cell_inputs(model, self.spec, splits, tuple(self.fits))

    def make(self, bench: Bench, progress: Progress) -> dict[str, Any]:
        home = bench.folder / CELLS / self.spec.key
        found = {name: Fitted.read(name, home, results) for name, results in self.fits.items()}
        return run_cell(
            bench.model,
            self.spec,
            bench.splits,
            bench.folder,
            found=found,
            stage=bench.stage,
            states=bench.kept(self.spec),
        )
