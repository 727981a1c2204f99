"""The groups of options that commands share, with help that teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from pydantic import Field

from upi.attacks.protocol import PROTOCOLS
from upi.cli.choices import FreePlace, one_of
from upi.cli.expand import OptionGroup
from upi.cli.record import use_file
from upi.core.devices import device_of
from upi.data.preprocess import Preprocess
from upi.datasets.registry import DATASETS
from upi.datasets.splits import Parts, load_parts, source_of
from upi.dissimilarity import DISSIMILARITIES
from upi.models.classifiers import load_classifier, preprocess_of
from upi.models.registry import SOURCES, forms
from upi.network.classifier import Classifier
from upi.network.outputs import place_of
from upi.perturbation.ball import NORMS
from upi.saliency import MAPS

SALIENCY = f"{MAPS.list()}."
PRESET = f"{' or '.join(PROTOCOLS)}; paper: maps of the softmax output and no surrogate, as published."
KNOWN_MAP = one_of(MAPS.kind, MAPS)
KNOWN_DISSIMILARITY = one_of(DISSIMILARITIES.kind, DISSIMILARITIES)
KNOWN_DATA = one_of("dataset", DATASETS, others="/", paths=True)
#: Forms with a slash or a colon are for their sources to judge, and need their libraries.
KNOWN_MODEL = one_of(
    "model",
    [word for each in SOURCES.values() for word in each.names or (each.form,)],
    others="/:",
    paths=True,
)
KNOWN_PRESET, KNOWN_NORM = one_of("preset", PROTOCOLS), one_of("norm", NORMS)


class RunOptions(OptionGroup):
    """Where a run is written, where it runs, and what fixes its randomness."""

    panel: ClassVar[str] = "Run"

    out: Annotated[Path, typer.Option(help="Run folder to write; it must not exist yet."), FreePlace()]
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")] = False
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0
    config: Annotated[
        Path | None,
        typer.Option(
            callback=use_file,
            is_eager=True,
            help="TOML or JSON file with options, or config.json of a run to repeat. Options given here win.",
        ),
    ] = None


class AuditRunOptions(RunOptions):
    """The same for an audit, which goes on where it was cut short."""

    out: Annotated[Path, typer.Option(help="Run folder; an audit that was cut short goes on.")]
    force: Annotated[bool, typer.Option("--force", help="Begin again in an existing run folder.")] = False


class DeviceOptions(OptionGroup):
    """Where networks run."""

    panel: ClassVar[str] = "Run"

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"

    def put(self, model: Classifier) -> Classifier:
        """The classifier, on the device."""
        model.net.to(device_of(self.device))
        return model


class ShareOptions(OptionGroup):
    """How several workers share the work."""

    panel: ClassVar[str] = "Run"

    shard_size: Annotated[
        int | None,
        typer.Option(
            help="Cut batches into pieces of this many images, which workers share. Equal pieces, equal "
            "bytes, however many workers. Default: 8 under torchrun, else whole batches."
        ),
        Field(ge=1),
    ] = None


class DataOptions(OptionGroup):
    """Which images, and how they are split."""

    panel: ClassVar[str] = "Images"

    data: Annotated[
        str,
        typer.Option(
            help=f"{DATASETS.list()}, or a folder of parquet files (columns image, label) or of images "
            "by class.",
            callback=KNOWN_DATA,
        ),
    ] = "mnist-sample"
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="UPI_DATA", help="Folder with local copies of named datasets; default: the hub."),
    ] = None
    n_train: Annotated[
        int | None,
        typer.Option(
            help="Images to train the classifier on. Default: 3000; all that are left of named datasets."
        ),
        Field(ge=0),
    ] = None
    n_fit: Annotated[int, typer.Option(help="Images to find the perturbation on."), Field(ge=0)] = 750
    n_select: Annotated[int, typer.Option(help="Images to choose sign and component on."), Field(ge=0)] = 250
    n_test: Annotated[
        int | None,
        typer.Option(help="Images to report on; never used otherwise."),
        Field(ge=0),
    ] = 1000
    split_seed: Annotated[int, typer.Option(help="Fixes which image is in which split.")] = 0
    size: Annotated[
        str | None,
        typer.Option(
            help="Size of the images: 224 (centre cut), 224x320 (resized whole), or native. Default: "
            "pictures of folders as the network's configuration says, named datasets as they are."
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that decode pictures which do not fit in memory. Default: up to 4."),
        Field(ge=0),
    ] = None

    def _shared(self) -> bool:
        """Whether all parts are cut from the same images."""
        return not source_of(self.data).official_test

    def sizes(self) -> dict[str, int | None]:
        """Size of each part; without --n-train all images that are left, or 3,000 where the test
        images come from the same ones."""
        train = self.n_train
        if train is None and self._shared():
            train = 0 if source_of(self.data).standard else 3000
        return {"train": train, "fit": self.n_fit, "select": self.n_select, "test": self.n_test}

    def load(self, expected: Preprocess | None = None) -> Parts:
        """The images, cut into parts; pictures of all sizes as a network expects them, or as asked for."""
        form = Preprocess.asked(self.size, expected, varied=source_of(self.data).varied)
        return load_parts(self.data, self.sizes(), seed=self.split_seed, folder=self.data_dir, size=form)

    def origin(self, fingerprint: str) -> dict[str, Any]:
        """Which data were split how: equal for runs whose splits are the same images."""
        return {"fingerprint": fingerprint, "splits": self.sizes(), "seed": self.split_seed}


class BatchOptions(OptionGroup):
    """How many images go through the network together."""

    panel: ClassVar[str] = "Images"

    batch_size: Annotated[int, typer.Option(help="Images per step of an attack."), Field(ge=1)] = 32


class WeightOptions(OptionGroup):
    """What networks without weights or normalisation of their own get."""

    panel: ClassVar[str] = "Network"

    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="State dict for torchvision/NAME, timm/NAME or a public network: safetensors, or .pt read "
            "with weights_only; with several such networks one for each, in their order."
        ),
    ] = None
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Fetch ImageNet weights for torchvision/NAME or timm/NAME.")
    ] = False
    mean: Annotated[
        list[float] | None,
        typer.Option(help="Per-channel mean that the network expects; repeat per channel."),
    ] = None
    std: Annotated[
        list[float] | None,
        typer.Option(help="Per-channel deviation that the network expects; repeat per channel."),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(help="Name or place of the logits in what your own code's network returns."),
    ] = None
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Your own code's network has a yes or no for every class.")
    ] = False
    label: Annotated[
        int | None, typer.Option(help="Of a multi-label network, explain this class. Default: the highest.")
    ] = None

    def load(
        self, spec: str, parts: Parts, data: DataOptions, weights: Path | None
    ) -> tuple[Classifier, dict[str, Any]]:
        """A classifier for these images, and what a report says of it."""
        return load_classifier(
            spec,
            mean=self.mean,
            std=self.std,
            weights=weights,
            pretrained=self.pretrained,
            shape=parts.shape,
            folder=data.data_dir,
            output=place_of(self.output),
            label=self.label,
            multi_label=self.multi_label,
        )


class ModelOptions(OptionGroup):
    """The classifier under test."""

    panel: ClassVar[str] = "Network"

    model: Annotated[str, typer.Option(help=f"{forms()}.", callback=KNOWN_MODEL)]

    @property
    def preprocess(self) -> Preprocess | None:
        """How pictures become the images that it is made for."""
        return preprocess_of(self.model)


class MapOptions(OptionGroup):
    """Which explanation is attacked, and what counts as its change."""

    panel: ClassVar[str] = "Explanation"

    saliency: Annotated[str, typer.Option(help=SALIENCY, callback=KNOWN_MAP)] = "gradient"
    dissimilarity: Annotated[
        str, typer.Option(help=f"{DISSIMILARITIES.list()}.", callback=KNOWN_DISSIMILARITY)
    ] = "relative_l2"
    preset: Annotated[str, typer.Option(help=PRESET, callback=KNOWN_PRESET)] = "protocol"


class BallOptions(OptionGroup):
    """How large the perturbation may be."""

    panel: ClassVar[str] = "Perturbation"

    norm: Annotated[str, typer.Option(help="Norm of the perturbation: l2 or linf.", callback=KNOWN_NORM)] = (
        "l2"
    )
    eps: Annotated[str, typer.Option(help="Largest norm, in units of [0, 1] images; 8/255 is accepted.")] = (
        "2.0"
    )
