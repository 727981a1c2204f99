"""Options that several commands share, with help that teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Run folder to write; it must not exist yet.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")]
Seed = Annotated[int, typer.Option("--seed", help="Fixes everything random.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="mnist-sample, mnist, cifar10, tiny-imagenet, or a folder of parquet files (columns image, "
        "label) or of images by class.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="UPI_DATA",
        help="Folder with local copies of mnist, cifar10, tiny-imagenet; default: the hub.",
    ),
]
NTrain = Annotated[
    int | None,
    typer.Option(
        "--n-train",
        help="Images to train the classifier on. Default: 3000; all that are left of named datasets.",
    ),
]
NFit = Annotated[int, typer.Option("--n-fit", help="Images to find the perturbation on.")]
NSelect = Annotated[int, typer.Option("--n-select", help="Images to choose sign and component on.")]
NTest = Annotated[int, typer.Option("--n-test", help="Images to report on; never used otherwise.")]
SplitSeed = Annotated[int, typer.Option("--split-seed", help="Fixes which image is in which split.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images per step of an attack.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Run folder of 'upi train', a weights file it wrote, module:factory from your own code, or "
        "torchvision/NAME or timm/NAME.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="State dict for torchvision/NAME or timm/NAME: safetensors, or .pt read with weights_only.",
    ),
]
Pretrained = Annotated[
    bool,
    typer.Option("--pretrained", help="Fetch ImageNet weights for torchvision/NAME or timm/NAME."),
]
Mean = Annotated[
    list[float] | None,
    typer.Option("--mean", help="Per-channel mean that the network expects; repeat per channel."),
]
Std = Annotated[
    list[float] | None,
    typer.Option("--std", help="Per-channel deviation that the network expects; repeat per channel."),
]
Saliency = Annotated[
    str,
    typer.Option(
        "--saliency", help="gradient, integrated_gradients, smoothgrad, input_x_gradient or grad_cam."
    ),
]
Dissimilarity = Annotated[
    str,
    typer.Option(
        "--dissimilarity",
        help="relative_l2, squared_l2, cosine, pearson, ssim, top_k or mass_center.",
    ),
]
Norm = Annotated[str, typer.Option("--norm", help="Norm of the perturbation: l2 or linf.")]
Eps = Annotated[
    str, typer.Option("--eps", help="Largest norm, in units of [0, 1] images; 8/255 is accepted.")
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        help="protocol, or paper: maps of the softmax output and no surrogate, as published.",
    ),
]
