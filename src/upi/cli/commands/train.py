"""``upi train``: a classifier from images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from upi.cli.choices import one_of
from upi.cli.console import console
from upi.cli.expand import Defaults
from upi.cli.groups import DataOptions, DeviceOptions, RunOptions
from upi.cli.registry import command
from upi.cli.session import Subject, session
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.datasets.splits import source_of
from upi.models.classifiers import FILE, cache_folder, cache_key, train_new
from upi.models.nets import NETS
from upi.models.recipes import plan
from upi.network.classifier import Classifier

ARCH = f"{', '.join(NETS)}, torchvision/NAME or timm/NAME. Default: small-cnn; vgg16 for named datasets."


@command("train", order=2)
def train(
    data: Annotated[DataOptions, Defaults(n_test=None)],
    device: DeviceOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/train"))],
    arch: Annotated[str | None, typer.Option(help=ARCH, callback=one_of("network", NETS, others="/"))] = None,
    scale: Annotated[
        str, typer.Option(help="Recipe for named datasets: small for two cores, full for a GPU.")
    ] = "small",
    width: Annotated[
        float | None, typer.Option(min=0.01, help="Width multiplier. Default: the recipe's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images. Default: the recipe's.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Fetch ImageNet weights for torchvision/NAME or timm/NAME.")
    ] = False,
) -> None:
    """Train a classifier on the train split and report its accuracy on the test split.

    The other splits stay untouched, so that 'upi fit' and 'upi evaluate' with the same
    --data and --split-seed work on images this classifier never saw. Training that was cut
    short goes on where its last epoch ended when the same command is given again. Without --n-test
    accuracy is measured on 1,000 images, on all of named datasets.
    """
    named = source_of(data.data).standard
    arch = arch or ("vgg16" if named else "small-cnn")
    chosen = plan(data.data, arch, scale, seed=run.seed)
    recipe = replace(chosen.recipe, epochs=epochs) if epochs else chosen.recipe
    if 0 in (data.n_train, data.n_test):
        raise ConfigError("training needs at least one image in --n-train and in --n-test")
    if data.n_test is None and not named:
        data = data.model_copy(update={"n_test": 1000})
    with session(run) as job:
        loaded = job.images(data)
        parts = loaded.parts
        images = parts["train"]
        if data.n_train is None and chosen.n_train is not None:
            images = images.first(chosen.n_train)
        multiplier = width if width is not None else chosen.width
        key = cache_key(arch, multiplier, recipe, images, parts["test"])
        trained = train_new(
            arch,
            images,
            parts["test"],
            recipe,
            width=multiplier,
            pretrained=pretrained,
            device=device_of(device.device),
            checkpoint=cache_folder() / "checkpoints" / f"{key}{'-pretrained' * pretrained}.pt",
            progress=job.stage(f"train {arch}"),
        )
        trained.save(job.folder.path / FILE)
        job.record(**loaded.facts(), model=Subject(Classifier(trained.net), trained.about).facts())
    score, count = trained.about["test_accuracy"], trained.about["n_test"]
    console.print(f"Test accuracy [bold]{score:.2%}[/] on {count} images; classifier in {run.out}")
