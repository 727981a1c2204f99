"""``upi fit``: a universal perturbation against a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.attacks.registry import fitted
from upi.cli.config import ConfigFile, DataOptions, config_record
from upi.cli.console import console, stages
from upi.cli.exits import exit_codes
from upi.cli.options import (
    BatchSize,
    Data,
    DataDir,
    Device,
    Dissimilarity,
    Eps,
    Force,
    Mean,
    Model,
    NFit,
    Norm,
    NSelect,
    NTest,
    NTrain,
    Out,
    Preset,
    Pretrained,
    Saliency,
    Seed,
    SplitSeed,
    Std,
    Weights,
)
from upi.core.devices import device_of
from upi.core.errors import ConfigError, unknown_name
from upi.experiments.study import UNIVERSAL, Spec, Splits, fit, span_of
from upi.models.classifiers import image_size, load_classifier
from upi.results.folder import new_run


@exit_codes
def fit_command(
    context: typer.Context,
    model: Model,
    data: Data = "mnist-sample",
    data_dir: DataDir = None,
    method: Annotated[
        list[str], typer.Option("--method", help=f"{', '.join(fitted())}; repeat for several.")
    ] = list(UNIVERSAL),  # noqa: B006
    saliency: Saliency = "gradient",
    dissimilarity: Dissimilarity = "relative_l2",
    norm: Norm = "l2",
    eps: Eps = "2.0",
    preset: Preset = "protocol",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates of UPI-Grad and class-uap.")] = 200,
    prediction_price: Annotated[
        float,
        typer.Option("--prediction-price", min=0.0, help="Price on changing the prediction; 0 for none."),
    ] = 0.5,
    clip: Annotated[
        bool, typer.Option(help="Fit for images clipped to [0, 1], as the evaluation uses them.")
    ] = True,
    subspace: Annotated[
        int,
        typer.Option(
            "--subspace", min=0, help="Also write the span of this many leading directions; 0 for none."
        ),
    ] = 0,
    compile_step: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile", help="Compile the attack's step: for GPUs, takes a minute at first."
        ),
    ] = False,
    weights: Weights = None,
    pretrained: Pretrained = False,
    mean: Mean = None,
    std: Std = None,
    n_train: NTrain = None,
    n_fit: NFit = 750,
    n_select: NSelect = 250,
    n_test: NTest = 1000,
    split_seed: SplitSeed = 0,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    out: Out = Path("runs/fit"),
    seed: Seed = 0,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Find one pattern that changes the saliency map of every image, on the fit split.

    Writes perturbations/NAME.safetensors, one per method, and subspaces/MAP.safetensors where asked
    for. Measure them with 'upi evaluate',
    on images that were not used here.
    """
    chosen = DataOptions.given(context)
    spec = Spec(
        key=saliency,
        saliency=saliency,
        dissimilarity=dissimilarity,
        norm=norm,
        eps=eps,
        preset=preset,
        seed=seed,
        steps=steps,
        prediction_price=prediction_price,
        clip=clip,
        compile=compile_step,
    )
    if not method:
        raise ConfigError("name at least one --method")
    for name in method:
        if name not in fitted():
            raise unknown_name("method", name, fitted())
    with new_run(out, force=force) as folder:
        with stages() as stage:
            stage("load images")
            parts = chosen.load(image_size(model))
            classifier, about = load_classifier(
                model,
                mean=mean,
                std=std,
                weights=weights,
                pretrained=pretrained,
                shape=parts.shape,
                folder=data_dir,
            )
            classifier.net.to(device_of(device))
            origin = chosen.origin(parts.fingerprint)
            splits = Splits(parts["fit"].batches(batch_size), parts["select"].batches(250), [], origin)
            for name in method:
                found = fit(name, classifier, spec, splits, seed=seed, progress=stage(name))
                folder.write_perturbation(name, found)
            if subspace:
                span = span_of(classifier, spec, splits, subspace, progress=stage(f"{subspace} directions"))
                span.save(folder.path / "subspaces" / f"{saliency}.safetensors")
        facts = {"model": {**about, "fingerprint": classifier.fingerprint()}, "classes": parts.classes}
        data_facts = {"name": parts.name, **origin}
        folder.write_json("config.json", config_record(context, data=data_facts, **facts))
    console.print(f"{', '.join(method)}: perturbations in {out / 'perturbations'}")
