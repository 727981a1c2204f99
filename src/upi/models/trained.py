"""Classifiers that ``upi train`` has written: a run folder, or its weights file.

Weights are read from safetensors: no object is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from upi.core.errors import ArtifactError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical
from upi.data.shape import Shape
from upi.models.architectures import build
from upi.models.no_relu import with_softplus
from upi.models.registry import SOURCES, ModelSource, Request
from upi.network.classifier import Classifier

FORMAT = "upi-classifier"
FILE = "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """A network with what a report needs to know of it."""

    net: nn.Module
    name: str
    about: dict[str, Any]  # arch, width, channels, size, classes, test_accuracy, ...

    def save(self, path: Path) -> None:
        """Write weights and description as safetensors: the same bytes, however long the training took."""
        lasting = {key: value for key, value in self.about.items() if key != "seconds"}
        metadata = {"format": FORMAT, "version": "1", "about": json.dumps(lasting)}
        weights = {key: value.contiguous() for key, value in self.net.state_dict().items()}
        write_atomic(path, canonical(save(weights, metadata)))


def load_trained(path: Path) -> Trained:
    """Read a classifier written by ``Trained.save``.

    Raises:
        ArtifactError: The file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}")
        about = json.loads(metadata["about"])
        shape = Shape(about["channels"], about["size"], about["classes"])
        _require_fitting(about, shape, weights)
        net = build(about["arch"], shape, width=about.get("width", 1.0))
        if about.get("softplus") is not None:
            net = with_softplus(net, float(about["softplus"]))
        net.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: not a classifier file ({error})") from error
    return Trained(net.eval(), str(about["arch"]), about)


def _require_fitting(about: Mapping[str, Any], shape: Shape, weights: Mapping[str, Tensor]) -> None:
    """Compare shapes before any memory is taken: what a file says of itself may be anything.

    Raises:
        ValueError: They differ from the weights in the file.
    """
    with torch.device("meta"):
        wanted = build(about["arch"], shape, width=about.get("width", 1.0)).state_dict()
    if {k: v.shape for k, v in wanted.items()} != {k: v.shape for k, v in weights.items()}:
        raise ValueError("its weights are not of the network that it names")


class TrainedSource(ModelSource):
    """Run folders of ``upi train``, and their files."""

    form = "a run folder of 'upi train' or its file"

    def accepts(self, spec: str) -> bool:
        return Path(spec).exists()

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        path = Path(request.spec)
        trained = load_trained(path / FILE if path.is_dir() else path)
        return Classifier(trained.net, mean=request.mean, std=request.std), trained.about


SOURCES.add("trained", "trained by upi", order=1)(TrainedSource())
