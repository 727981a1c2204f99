"""``upi train``: a classifier from images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.classifier import Classifier
from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import console, stages
from upi.cli.exits import exit_codes
from upi.cli.options import Data, Force, NFit, NSelect, NTest, NTrain, Out, Seed, SplitSeed
from upi.errors import ConfigError
from upi.runs import new_run
from upi.zoo.classifiers import FILE, train_new
from upi.zoo.datasets import load, split
from upi.zoo.training import Recipe


@exit_codes
def train_command(
    context: typer.Context,
    data: Data = "mnist-sample",
    arch: Annotated[str, typer.Option("--arch", help="Network: small-cnn.")] = "small-cnn",
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training images.")] = 20,
    n_train: NTrain = 3000,
    n_fit: NFit = 750,
    n_select: NSelect = 250,
    n_test: NTest = 1000,
    split_seed: SplitSeed = 0,
    out: Out = Path("runs/train"),
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Train a classifier on the train split and report its accuracy on the test split.

    The other splits stay untouched, so that 'upi fit' and 'upi evaluate' with the same
    --data and --split-seed work on images this classifier never saw.
    """
    chosen = DataOptions(
        data=data, n_train=n_train, n_fit=n_fit, n_select=n_select, n_test=n_test, split_seed=split_seed
    )
    if min(n_train, n_test) < 1:
        raise ConfigError("training needs at least one image in --n-train and in --n-test")
    with new_run(out, force=force) as folder:
        with stages() as stage:
            stage("load images")
            parts = split(load(data), chosen.sizes(), seed=split_seed)
            recipe = Recipe(epochs=epochs, seed=seed)
            trained = train_new(arch, parts["train"], parts["test"], recipe, progress=stage("train"))
        trained.save(folder.path / FILE)
        about = {**trained.about, "fingerprint": Classifier(trained.net).fingerprint()}
        folder.write_json("config.json", config_record(context, model=about))
    console.print(f"Test accuracy [bold]{trained.about['test_accuracy']:.2%}[/]; classifier in {out}")
