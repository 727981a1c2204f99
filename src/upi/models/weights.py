"""State dicts from files, read as tensors and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from upi.core.errors import ArtifactError, first_line
from upi.models.nets.layers import Normalise


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from ``.pt`` and ``.pth`` without unpickling objects.

    A checkpoint that holds it under ``state_dict`` or ``model`` is looked into, and the prefix
    ``module.`` of data-parallel training is dropped.

    Raises:
        ArtifactError: The file is damaged, or holds more than tensors in plain containers.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds for damaged files
        reason = first_line(error)
        raise ArtifactError(
            f"{path}: not weights that can be read safely (safetensors, or tensors in a .pt file): {reason}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ArtifactError(f"{path}: expected a state dict of tensors, got {type(content).__name__}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def inner(net: nn.Module) -> nn.Module:
    """The network behind a Normalise, where one stands before it: what published weights are of."""
    pair = isinstance(net, nn.Sequential) and len(net) == 2 and isinstance(net[0], Normalise)
    return net[1] if pair else net  # type: ignore[index]


def fill(net: nn.Module, path: Path, name: str) -> None:
    """Load a state dict into ``net``, whole or not at all: names and shapes are compared first.

    Raises:
        ArtifactError: The file is damaged, or of another network than ``name``.
    """
    given, own = read_weights(path), inner(net).state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # older files have none
    differing = [
        *(f"missing {key}" for key in own if key not in given and key not in counters),
        *(f"unexpected {key}" for key in given if key not in own),
        *(
            f"{key} is {tuple(given[key].shape)}, not {tuple(value.shape)}"
            for key, value in own.items()
            if key in given and given[key].shape != value.shape
        ),
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ArtifactError(
            f"{path}: weights of another network than {name}: {', '.join(differing[:3])}{more}; "
            "nothing was loaded"
        )
    inner(net).load_state_dict({**{key: own[key] for key in counters}, **given})
