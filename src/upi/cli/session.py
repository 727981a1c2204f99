"""One run of a command: open a folder, load images and networks, write results, draw the page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from upi.cli.console import StageDisplay, console, stages
from upi.cli.groups import DataOptions, DeviceOptions, ModelOptions, RunOptions, WeightOptions
from upi.cli.record import config_record, current, job_of
from upi.core.distributed import leads, require_same
from upi.core.errors import ConfigError
from upi.data.preprocess import Preprocess
from upi.datasets.splits import Parts
from upi.evaluation import Evaluation, Example, Flag
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation
from upi.report import build_report
from upi.results.building import NewRun, new_run


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        parts: Train, fit, select and test.
        origin: Which data were split how; goes into every perturbation's provenance.
        workers: Processes that decode pictures; None chooses.
    """

    parts: Parts
    origin: Mapping[str, Any]
    workers: int | None = None

    def batches(self, part: str, size: int | None = None) -> Sequence[tuple[Tensor, Tensor]]:
        """The images of a part, ``size`` at a time; by default 250 small ones, fewer large ones."""
        size = size or self.parts.together(part)
        return self.parts[part].batches(size, workers=self.workers)

    def labelled(self, subject: Subject) -> Images:
        """The same images with the labels of the network, where it has names for them."""
        names = subject.about.get("labels")
        return self if names is None else replace(self, parts=self.parts.labelled(names))

    def facts(self) -> dict[str, Any]:
        """For config.json."""
        return {"data": {"name": self.parts.name, **self.origin}}


@dataclass(frozen=True)
class Subject:
    """The classifier under test, and what a report says of it."""

    model: Classifier
    about: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """For config.json and metrics.json."""
        return {**self.about, "fingerprint": self.model.fingerprint()}


@dataclass
class Outcome:
    """What metrics.json and the files beside it hold.

    Attributes:
        dataset, model: The images' name, and what is known of the network.
        tables: Entries of metrics.json.
        evaluations: Figures of each sample, by table.
        perturbations: By the name of their file.
        flags: Each with the key of its table, None for the whole run.
        examples: Pictures by table.
        seconds: Wall time by part.
        more: Further entries of metrics.json.
    """

    dataset: str
    model: Mapping[str, Any]
    tables: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Evaluation]
    perturbations: Mapping[str, Perturbation]
    flags: Sequence[tuple[str | None, Flag]]
    examples: Mapping[str, Sequence[Example]] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


class Session:
    """A run while it goes on.

    Attributes:
        folder: Where it is built; it appears at ``out`` when all is written.
        stage: Begins a stage of the progress display.
    """

    def __init__(self, folder: NewRun, stage: StageDisplay, out: Path) -> None:
        self.folder, self.stage, self.out = folder, stage, out
        self.begin = time.perf_counter()

    def images(
        self, data: DataOptions, expected: Preprocess | None = None, *, title: str = "load images"
    ) -> Images:
        """The images, cut into parts, as a network expects them."""
        self.stage(title)
        parts = data.load(expected)
        require_same("set of images", parts.fingerprint)
        return Images(parts, data.origin(parts.fingerprint), data.workers)

    def subject(
        self,
        options: ModelOptions,
        weights: WeightOptions,
        device: DeviceOptions,
        data: DataOptions,
        images: Images,
    ) -> Subject:
        """The classifier, on its device.

        Raises:
            ConfigError: Several files of weights for one network.
        """
        files = weights.weights or []
        if len(files) > 1:
            raise ConfigError(f"one network takes one file of weights, got {len(files)}")
        model, about = weights.load(options.model, images.parts, data, files[0] if files else None)
        require_same("network", model.fingerprint())
        return Subject(device.put(model), about)

    def record(self, **facts: Any) -> None:
        """Write config.json."""
        self.folder.write_json("config.json", config_record(current(), **facts))

    def finish(self, outcome: Outcome) -> None:
        """Write every results file and move the run to its place; then draw figures and page there."""
        self.folder.write_per_sample(outcome.evaluations)
        if outcome.examples is not None:
            self.folder.write_examples(outcome.examples)
        for name, perturbation in outcome.perturbations.items():
            self.folder.write_perturbation(name, perturbation)
        self.folder.write_metrics(
            dataset=outcome.dataset,
            model=outcome.model,
            tables=outcome.tables,
            flags=outcome.flags,
            seconds={**outcome.seconds, "total": time.perf_counter() - self.begin},
            **outcome.more,
        )
        self.folder.publish()
        if not leads():
            return
        self.stage("draw the report")
        build_report(self.folder, shown_as=self.out)

    def page(self) -> None:
        """Say where the page is, after the run."""
        seconds = time.perf_counter() - self.begin
        console.print(f"Report: [bold]{self.out / 'report.html'}[/] ({seconds:.0f} s)")


@contextmanager
def session(run: RunOptions, *, resumes: bool = False) -> Iterator[Session]:
    """A run in a fresh folder that appears when its numbers are complete.

    Args:
        run: Options of the folder.
        resumes: The command goes on where it was cut short, if it is asked for the same.

    Raises:
        RunFolderError: The folder exists, another run is at work there, or it cannot be written.
    """
    job = job_of(current())
    with new_run(run.out, force=run.force, job=job, resumes=resumes) as folder, stages() as stage:
        yield Session(folder, stage, run.out)
