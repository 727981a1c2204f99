"""The audit: which radii, fits and tables it takes, what they cost, and what the thresholds make of them.

``upi.audit.work`` does them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upi import saliency as maps
from upi.attacks import ATTACKS
from upi.audit.cells import CEILING, CELLS, key_of, part_before
from upi.audit.cost import ROWS, STEP, Cost, Sizes, evaluation_passes, fit_passes, measured, radius_passes
from upi.audit.decide import decide
from upi.audit.jobs import FitJob, RadiusJob
from upi.audit.radii import ROUNDS, SCALES, START, STEPS
from upi.audit.settings import AuditSettings
from upi.audit.verdict import Verdict
from upi.core.errors import UPIError
from upi.evaluation.ceiling import DRAWS, IMAGES, ceiling_exists
from upi.experiments.cells import Fit
from upi.experiments.fitting import Spec, Splits
from upi.experiments.stages import Outcome
from upi.experiments.study import ON_TEST
from upi.network.classifier import Classifier
from upi.results.folder import Columns, RunFolder
from upi.saliency import title_of


@dataclass(frozen=True)
class Found:
    """What an audit measured.

    Attributes:
        tables, flags: As in metrics.json.
        columns: Figures of each image by (table, row).
        failures: Cells that could not be measured: key, map, norm, radius, error.
        proposals: Radii that were proposed, by norm.
        seconds: Wall time by stage.
        notes: Sentences for the headline.
    """

    tables: Sequence[Mapping[str, Any]]
    flags: Sequence[Mapping[str, Any]]
    columns: Columns
    failures: Sequence[Mapping[str, Any]]
    proposals: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float]
    notes: Sequence[str]


@dataclass(frozen=True)
class Audit:
    """An audit of one network on one set of images.

    Attributes:
        settings: What was asked for.
        model: The classifier.
        splits: Disjoint images.
        folder: Where finished work is kept.
        radii: Radii by norm, in place of proposed ones: those of the run that this one is compared with.
    """

    settings: AuditSettings
    model: Classifier
    splits: Splits
    folder: Path
    radii: Mapping[str, Sequence[float]] | None = None

    @property
    def base(self) -> Spec:
        """What all cells have in common."""
        asked, work = self.settings, self.settings.work
        return Spec(
            key="",
            dissimilarity=asked.explanations.dissimilarity,
            preset=asked.explanations.preset,
            seed=asked.seed,
            steps=work.steps,
            per_image_steps=work.per_image_steps,
            prediction_price=asked.perturbations.prediction_price,
            fits=work.fits,
        )

    def _known_radii(self, norm: str) -> list[float] | None:
        if self.radii is not None:
            return [float(eps) for eps in self.radii.get(norm, ())]
        asked = self.settings.perturbations.radii
        return None if asked == "auto" else [float(eps) for eps in asked]

    def parts(self, step: float = STEP) -> dict[str, float]:
        """Passes of the network by stage, in order; cells of radii not yet known under their number.

        Args:
            step: Passes of an attack's gradient of one image.
        """
        work, sizes, found = self.settings.work, Sizes.of(self.splits), dict[str, float]()
        first = maps.resolve(self.settings.explanations.maps[0], paper=self.base.protocol.paper_maps)
        for norm in self.settings.perturbations.norms:
            known = self._known_radii(norm)
            if known is None:
                one = getattr(first, "passes", 1)
                found[f"radius: {norm}"] = radius_passes(ROUNDS, STEPS, len(SCALES), sizes, one, step)
            for name in self.settings.explanations.maps:
                spec = replace(self.base, saliency=name, norm=norm)
                for place in range(len(work.parts if known is None else known)):
                    key = (
                        part_before(spec, place) if known is None else key_of(replace(spec, eps=known[place]))
                    )
                    found |= {
                        f"{key}: {part}": passes for part, passes in self._cell(name, sizes, step).items()
                    }
        return found

    def _cell(self, name: str, sizes: Sizes, step: float) -> dict[str, float]:
        """Passes of a cell's stages."""
        work = self.settings.work
        explained = maps.resolve(name, paper=self.base.protocol.paper_maps)
        one = getattr(explained, "passes", 1)
        found = dict[str, float]()
        for method in work.methods:
            for number in range(work.fits):
                found[Fit(method, number).title] = fit_passes(method, sizes, work.steps, one, step)
        found[ON_TEST] = evaluation_passes(sizes, work.per_image_steps, one, step)
        if ceiling_exists(explained):
            found[CEILING] = 2.0 * DRAWS * min(IMAGES, sizes.test)
        return found

    def cost(self) -> Cost:
        """What the audit will take on this machine, measured on its images."""
        pace = measured(self.model, replace(self.base, eps=START, fits=1), self.splits)
        parts = self.parts(pace.step)
        rows = ROWS * Sizes.of(self.splits).test * sum(name.endswith(ON_TEST) for name in parts)
        radii = ROUNDS * sum(name.startswith("radius: ") for name in parts)
        fits = sum(": " in name and name.split(": ")[1].split(",")[0] in ATTACKS for name in parts)
        return Cost(parts, pace.unit, pace.figures * rows + pace.start * (fits + radii))

    def radius_jobs(self) -> dict[str, RadiusJob]:
        """A job for each norm whose radius is not known, by norm."""
        limit = self.settings.perturbations.max_changed
        spec = replace(self.base, saliency=self.settings.explanations.maps[0], eps=1.0, fits=1)
        return {
            norm: RadiusJob(replace(spec, norm=norm), limit)
            for norm in self.settings.perturbations.norms
            if self._known_radii(norm) is None
        }

    def specs(self, proposals: Mapping[str, Mapping[str, Any]]) -> Iterator[Spec]:
        """Every cell, given the proposed radii by norm."""
        for norm in self.settings.perturbations.norms:
            radii = self._known_radii(norm)
            if radii is None:
                radii = [part * proposals[norm]["eps"] for part in self.settings.work.parts]
            for name in self.settings.explanations.maps:
                for eps in radii:
                    spec = replace(self.base, saliency=name, norm=norm, eps=eps)
                    yield replace(spec, key=key_of(spec))

    def fit_jobs(self, spec: Spec) -> list[FitJob]:
        """The fits of a cell."""
        work = self.settings.work
        return [FitJob(spec, Fit(method, number)) for method in work.methods for number in range(work.fits)]

    def found(
        self,
        tables: Sequence[tuple[Spec, Outcome]],
        proposals: Mapping[str, Mapping[str, Any]],
        outcomes: Sequence[Outcome],
    ) -> Found:
        """What all cells say together; a cell stands beside its table, or beside the fit that failed.

        Raises:
            UPIError: Not one cell could be measured.
        """
        done = [(spec, outcome.result) for spec, outcome in tables if outcome.result is not None]
        failures = [_failure(spec, outcome) for spec, outcome in tables if outcome.result is None]
        if not done:
            raise UPIError(f"nothing could be measured: {failures[0]['error']}")
        cells = [RunFolder(self.folder / CELLS / spec.key).columns() for spec, _ in done]
        columns = {place: figures for cell in cells for place, figures in cell.items()}
        unsteady = [proposal for proposal in proposals.values() if not proposal["found"]]
        notes = [
            f"Predictions change at every radius that was tried: already at {each['norm']} {each['eps']:g} "
            f"{each['changed']:.0%} of them do."
            for each in unsteady
        ]
        return Found(
            tables=[result["table"] for _, result in done],
            flags=[flag for _, result in done for flag in result["flags"]],
            columns=columns,
            failures=failures,
            proposals=proposals,
            seconds={outcome.name: outcome.seconds for outcome in outcomes},
            notes=notes,
        )

    def verdict(self, found: Found) -> Verdict:
        """What the thresholds make of it."""
        return decide(
            [*found.tables, *found.failures],
            found.columns,
            self.settings.threshold,
            found.flags,
            minimum=self.settings.work.minimum,
            notes=found.notes,
            seed=self.settings.seed,
        )


def _failure(spec: Spec, outcome: Outcome) -> dict[str, Any]:
    """A cell without figures, as thresholds and pages see it."""
    return {
        "key": spec.key,
        "saliency": spec.saliency,
        "map_title": title_of(spec.saliency),
        "norm": spec.norm,
        "eps": spec.eps,
        "error": str(outcome.error),
    }
