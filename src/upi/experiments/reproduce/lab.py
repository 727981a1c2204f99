"""What every stage of a reproduction works with: settings, images, networks, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from upi.core.errors import UPIError
from upi.core.types import Progress
from upi.data.preprocess import Preprocess
from upi.datasets.dataset import Dataset
from upi.datasets.splits import Parts, load_parts
from upi.experiments.fitting import Splits
from upi.experiments.reproduce.settings import Cell, Settings, Work
from upi.experiments.stages import Outcome, StageStore
from upi.models.classifiers import Trained, load_trained, public_classifier, trained_or_cached
from upi.models.nets import TITLES
from upi.models.recipes import Plan, plan
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation


class StageError(UPIError):
    """A stage needs the result of one that failed."""


def title_of(about: Mapping[str, Any]) -> str:
    """Name of a network for people, with its width where it is not the published one."""
    title = TITLES.get(about["arch"], str(about["arch"]))
    return title if about["width"] == 1 else f"{title} ×{about['width']:g}"


def batches_of(
    parts: Parts | Mapping[str, Dataset], work: Work, n_test: int, origin: Mapping[str, Any], size: int
) -> Splits:
    """The first images of each part in batches, as one cell of Table 1 needs them; those that are
    not fitted on in batches of ``size``."""
    return Splits(
        parts["fit"].first(work.n_fit).batches(work.batch),
        parts["select"].first(work.n_select).batches(size),
        parts["test"].first(n_test).batches(size),
        origin,
    )


def need(outcome: Outcome) -> dict[str, Any]:
    """The result of a stage.

    Raises:
        StageError: It has none.
    """
    if outcome.result is None:
        raise StageError(f"stage {outcome.name} failed: {outcome.error}")
    return outcome.result


def model_accuracy(model: Classifier, batches: Sequence[Any], progress: Progress) -> float:
    """Share of labelled images that are classified correctly."""
    right = count = 0
    for number, (x, label) in enumerate(batches):
        right += int((model.predict(model.place(x)).cpu() == label).sum())
        count += len(label)
        progress(number + 1, len(batches))
    return right / count


@dataclass
class Lab:
    """Settings, images and networks of one reproduction; networks are loaded when first needed.

    Attributes:
        settings: What is measured.
        stages: Where results are kept.
        device: Where networks run.
        data_dir: Where local copies of the datasets lie.
    """

    settings: Settings
    stages: StageStore
    device: torch.device
    data_dir: Path | None = None
    trained: dict[str, Outcome] = field(default_factory=dict)
    _models: dict[str, Classifier] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.stages.folder

    def parts_of(self, dataset: str) -> Parts:
        """Fit, select and the rest of a training split, and the whole test split, in an order
        fixed by the seed 0: accuracy is measured on all of it, tables use its first images."""
        train = 0 if self.settings.public else None
        sizes = {"fit": self.settings.n_fit, "select": self.settings.n_select, "train": train, "test": None}
        size = self.settings.size
        form = None if size is None else Preprocess.imagenet(size)
        return load_parts(dataset, sizes, seed=0, folder=self.data_dir, size=form)

    @cached_property
    def parts(self) -> Parts:
        """The images of this reproduction."""
        return self.parts_of(self.settings.source)

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Which images: goes into every perturbation's provenance."""
        prints = {part: self.parts[part].fingerprint() for part in ("fit", "select", "test")}
        return {"name": self.settings.source, **prints}

    def splits(self, work: Work) -> Splits:
        """Batches for one cell of Table 1."""
        return batches_of(self.parts, work, work.n_test, self.origin, self.settings.batch)

    def test(self, count: int) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """The first ``count`` test images in batches."""
        return self.parts["test"].first(count).batches(self.settings.batch)

    def train(self, arch: str) -> Outcome:
        """Train a network, or take it from an earlier run or from its public weights; the result
        describes it."""
        if self.settings.public:
            self.trained[arch] = self._public(arch)
            return self.trained[arch]
        chosen = plan(self.settings.dataset, arch, self.settings.scale, seed=self.settings.seed)
        inputs = {"arch": arch, "plan": asdict(chosen), "data": self.origin}

        def make(progress: Progress) -> dict[str, Any]:
            found, cached = self._trained(arch, chosen, progress)
            file = f"classifiers/{arch}.safetensors"
            found.save(self.folder / file)
            about = {**found.about, "training_seconds": found.about["seconds"]}
            del about["seconds"]
            return {
                **about,
                "title": title_of(about),
                "fingerprint": Classifier(found.net).fingerprint(),
                "cached": cached,
                "files": [file],
            }

        self.trained[arch] = self.stages.run(f"train/{arch}", inputs, make)
        return self.trained[arch]

    def _public(self, arch: str) -> Outcome:
        def make(progress: Progress) -> dict[str, Any]:
            model, about = public_classifier(arch, folder=self.data_dir, shape=self.parts.shape)
            model.net.to(self.device)
            score = model_accuracy(model, self.parts["test"].batches(self.settings.batch), progress)
            return {**about, "fingerprint": model.fingerprint(), "test_accuracy": score}

        return self.stages.run(f"load/{arch}", {"arch": arch, "data": self.origin}, make)

    def _trained(self, arch: str, chosen: Plan, progress: Progress) -> tuple[Trained, bool]:
        images = self.parts["train"]
        images = images.first(chosen.n_train) if chosen.n_train else images
        return trained_or_cached(
            arch,
            images,
            self.parts["test"],
            chosen.recipe,
            width=chosen.width,
            device=self.device,
            progress=progress,
        )

    def model(self, arch: str) -> Classifier:
        """A trained network on the device.

        Raises:
            StageError: Its training failed.
        """
        if arch not in self._models:
            self._models[arch] = self._loaded(arch)
        return self._models[arch]

    def _loaded(self, arch: str) -> Classifier:
        about = need(self.trained[arch])
        if self.settings.public:
            model, _ = public_classifier(arch, folder=self.data_dir, shape=self.parts.shape)
            model.net.to(self.device)
            return model
        return Classifier(load_trained(self.folder / about["files"][0]).net.to(self.device))

    def ready(self) -> list[str]:
        """Networks whose training worked."""
        return [arch for arch, outcome in self.trained.items() if outcome.result is not None]

    def stem(self, arch: str, cell: Cell, method: str) -> str:
        """Name of a perturbation's file."""
        return f"{arch}--{cell.key}--{method}"

    def keep(self, stems: Mapping[str, Perturbation]) -> list[str]:
        """Write perturbations; returns their paths below the folder."""
        files = []
        for stem, perturbation in stems.items():
            files.append(f"perturbations/{stem}.safetensors")
            perturbation.save(self.folder / files[-1])
        return files

    def perturbation(self, arch: str, cell: Cell, method: str) -> Perturbation:
        """A perturbation that an earlier stage wrote."""
        return Perturbation.load(
            self.folder / "perturbations" / f"{self.stem(arch, cell, method)}.safetensors"
        )
