"""``upi train``: a classifier from images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import console, stages
from upi.cli.exits import exit_codes
from upi.cli.options import (
    Data,
    DataDir,
    Device,
    Force,
    NFit,
    NSelect,
    NTrain,
    Out,
    Pretrained,
    Seed,
    SplitSeed,
)
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.datasets.splits import source_of
from upi.models.classifiers import FILE, cache_folder, cache_key, train_new
from upi.models.nets import NETS
from upi.models.recipes import plan
from upi.network.classifier import Classifier
from upi.results.folder import new_run


@exit_codes
def train_command(
    context: typer.Context,
    data: Data = "mnist-sample",
    data_dir: DataDir = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help=f"{', '.join(NETS)}, torchvision/NAME or timm/NAME. Default: small-cnn; vgg16 for named "
            "datasets.",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option("--scale", help="Recipe for named datasets: small for two cores, full for a GPU."),
    ] = "small",
    width: Annotated[
        float | None, typer.Option("--width", min=0.01, help="Width multiplier. Default: the recipe's.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Passes over the training images. Default: the recipe's."),
    ] = None,
    pretrained: Pretrained = False,
    n_train: NTrain = None,
    n_fit: NFit = 750,
    n_select: NSelect = 250,
    n_test: Annotated[
        int | None,
        typer.Option("--n-test", help="Test images. Default: 1000; all of named datasets."),
    ] = None,
    split_seed: SplitSeed = 0,
    device: Device = "auto",
    out: Out = Path("runs/train"),
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Train a classifier on the train split and report its accuracy on the test split.

    The other splits stay untouched, so that 'upi fit' and 'upi evaluate' with the same
    --data and --split-seed work on images this classifier never saw. Training that was cut
    short goes on where its last epoch ended when the same command is given again.
    """
    named = source_of(data).standard
    arch = arch or ("vgg16" if named else "small-cnn")
    chosen = plan(data, arch, scale, seed=seed)
    recipe = replace(chosen.recipe, epochs=epochs) if epochs else chosen.recipe
    options = DataOptions.given(context, n_test=n_test if n_test is not None or named else 1000)
    if 0 in (n_train, n_test):
        raise ConfigError("training needs at least one image in --n-train and in --n-test")
    with new_run(out, force=force) as folder:
        with stages() as stage:
            stage("load images")
            parts = options.load()
            images = parts["train"]
            if n_train is None and chosen.n_train is not None:
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
                device=device_of(device),
                checkpoint=cache_folder() / "checkpoints" / f"{key}{'-pretrained' * pretrained}.pt",
                progress=stage(f"train {arch}"),
            )
        trained.save(folder.path / FILE)
        about = {**trained.about, "fingerprint": Classifier(trained.net).fingerprint()}
        folder.write_json("config.json", config_record(context, model=about))
    score, count = trained.about["test_accuracy"], trained.about["n_test"]
    console.print(f"Test accuracy [bold]{score:.2%}[/] on {count} images; classifier in {out}")
