# ruff: noqa: E501
"""Networks, images and maps as people bring them; each case is fitted and evaluated as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import upi
from tests.conftest import convolutional, images
from upi.adapters.captum import Captum
from upi.adapters.grad_cam import CAM
from upi.adapters.quantus import Quantus
from upi.adapters.zennit import Zennit
from upi.core.errors import UPIError

COLOUR = (3, 32, 32)
WORKS, EVALUATED, REFUSED = "fit and evaluation", "evaluation only", "refused, with the remedy"


@dataclass(frozen=True)
class Case:
    """One combination.

    Attributes:
        group: Heading of the table.
        title: What it is, for people.
        outcome: What happens.
        net: Makes the network.
        loader: Makes the images; by default those that the network's shape asks for.
        saliency: The map.
        shape: (C, H, W) of the images.
        packages: What must be installed.
    """

    group: str
    title: str
    outcome: str = WORKS
    net: Callable[[], Any] = lambda: convolutional(nn.ReLU)
    loader: Callable[[], Any] | None = None
    saliency: Any = "gradient"
    shape: tuple[int, int, int] = (1, 8, 8)
    packages: tuple[str, ...] = ()

    def run(self) -> str:
        """What happens in fact."""
        loader = self.loader or (lambda: [images(6, shape=self.shape)])
        options: dict[str, Any] = {"saliency": self.saliency, "norm": "l2", "eps": 0.5}
        evaluated = fitted = True
        try:
            upi.evaluate(self.net(), {}, loader(), controls=("random",), **options)
        except UPIError:
            evaluated = False
        try:
            upi.UPIGrad(self.net(), **options, steps=2).fit(loader())
        except UPIError:
            fitted = False
        return WORKS if fitted and evaluated else EVALUATED if evaluated else REFUSED


class Around(nn.Module):
    """A small network with something around it."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.run = convolutional(nn.ReLU), forward

    def forward(self, x: Tensor) -> Any:
        return self.run(self.net, x)


def _no_grad(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def _flash(net: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2)[:, :, :, None].expand(-1, -1, -1, 8).contiguous()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    return net(x + mixed.mean(-1).view_as(x))


def _around(title: str, forward: Callable[[nn.Module, Tensor], Any], outcome: str = WORKS) -> Case:
    return Case("Networks", title, outcome, lambda: Around(forward))


def _timm(name: str, size: int = 32, **options: Any) -> Case:
    def make() -> Any:
        torch.manual_seed(0)
        return import_module("timm").create_model(name, pretrained=False, num_classes=4, **options).eval()

    return Case("Networks", f"timm `{name}`", net=make, shape=(3, size, size), packages=("timm",))


def _torchvision(name: str) -> Case:
    def make() -> Any:
        torch.manual_seed(0)
        return import_module("torchvision").models.get_model(name, weights=None, num_classes=4).eval()

    return Case("Networks", f"torchvision `{name}`", net=make, shape=COLOUR, packages=("torchvision",))


def _transformers(kind: str, **config: Any) -> Case:
    def make() -> Any:
        torch.manual_seed(0)
        library = import_module("transformers")
        settings = getattr(library, f"{kind}Config")(num_labels=4, **config)
        return getattr(library, f"{kind}ForImageClassification")(settings).eval()

    title = f"transformers `{kind}ForImageClassification`"
    return Case("Networks", title, net=make, shape=COLOUR, packages=("transformers",))


def _binary() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 1))


class _Peak(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def _pooled() -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(8, 8, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveMaxPool2d(2), _Peak(), nn.Linear(8, 4))


def _inferred() -> nn.Module:
    with torch.inference_mode():
        return convolutional(nn.ReLU)


_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NETWORKS = [
    Case("Networks", "`nn.Module` with (N, K) logits"),
    Case("Networks", "one logit (binary)", net=_binary),
    _around("logits in an object, a dictionary or a named tuple", lambda net, x: {"logits": net(x)}),
    _around("a plain tuple", lambda net, x: (net(x), x), REFUSED),
    Case("Networks", "a plain tuple, `output=0`", net=lambda: upi.Classifier(Around(lambda n, x: (n(x), x)), output=0)),
    Case("Networks", "multi-label, the highest label", net=lambda: upi.Classifier(convolutional(nn.ReLU), multi_label=True)),
    Case("Networks", "multi-label, a given label", net=lambda: upi.Classifier(convolutional(nn.ReLU), multi_label=True, label=1)),
    Case("Networks", "`torch.compile`", net=lambda: torch.compile(convolutional(nn.ReLU), backend="eager")),
    Case("Networks", "`DataParallel`", net=lambda: nn.DataParallel(convolutional(nn.ReLU))),
    Case("Networks", "bfloat16 (fitted in float32)", net=lambda: convolutional(nn.ReLU).bfloat16()),
    Case("Networks", "float16 (fitted in float32)", net=lambda: convolutional(nn.ReLU).half()),
    Case("Networks", "float64", net=lambda: convolutional(nn.ReLU).double()),
    _around("activation checkpointing", lambda net, x: checkpoint(net, x, use_reentrant=False)),
    _around("activation checkpointing, reentrant", lambda net, x: checkpoint(net, x, use_reentrant=True)),
    _around("attention in a kernel of its own choice", _flash),
    Case("Networks", "a scripted network", EVALUATED, lambda: torch.jit.script(convolutional(nn.ReLU))),
    _around("an activation that the surrogate does not know, `x * (x > 0)`", lambda net, x: net(x * (x > 0.5)), EVALUATED),
    Case("Networks", "`torch.export`", EVALUATED, lambda: torch.export.export(convolutional(nn.ReLU).eval(), (images(6),), dynamic_shapes={"input": {0: torch.export.Dim("n")}}).module()),
    Case("Networks", "`torch.fx` graphs", net=lambda: torch.fx.symbolic_trace(convolutional(nn.ReLU))),
    Case("Networks", "max-pooling that rounds up, adaptive or global", net=_pooled),
    Case("Networks", "weights made in inference mode", REFUSED, _inferred),
    Case("Networks", "weights on the meta device", REFUSED, lambda: convolutional(nn.ReLU).to("meta")),
    _around("forward under `no_grad`", _no_grad, REFUSED),
    _around("forward through NumPy", lambda net, x: torch.from_numpy(np.asarray(net(x).detach())), REFUSED),
    _around("images of a batch that influence each other", lambda net, x: net(x - x.mean(0, keepdim=True)), REFUSED),
    Case("Networks", "lazily built modules", REFUSED, lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4))),
    *(_torchvision(name) for name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")),
    *(_timm(name) for name in ("resnet18", "mobilenetv3_small_050", "convnext_atto", "efficientnet_lite0")),
    *(_timm(name, img_size=32) for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")),
    _transformers("ViT", image_size=32, patch_size=8, **_SMALL),
    _transformers("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    _transformers("ConvNext", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]),
    _transformers("Dinov2", image_size=32, patch_size=8, **{k: v for k, v in _SMALL.items() if k != "intermediate_size"}),
]  # fmt: skip


class _Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Tensor]:
        yield from images(6)


def _pictures() -> list[Any]:
    image = import_module("PIL.Image")
    return [image.fromarray((255 * one[0]).byte().numpy()) for one in images(6)]


def _images(title: str, loader: Callable[[], Any], outcome: str = WORKS) -> Case:
    return Case("Images", title, outcome, loader=loader)


LOADERS = [
    _images("a list of batches", lambda: [images(6)]),
    _images("(images, labels), labels of size (N,) or one-hot", lambda: [(images(6), torch.eye(4, dtype=torch.long)[upi.Classifier(convolutional(nn.ReLU)).predict(images(6))])]),
    _images("a generator, read once", lambda: (batch for batch in torch.split(images(6), 3))),
    _images("`DataLoader`", lambda: torch.utils.data.DataLoader(images(6), batch_size=3)),
    _images("`DataLoader` of an `IterableDataset`", lambda: torch.utils.data.DataLoader(_Stream(), batch_size=3)),
    _images("dictionaries, `{'pixel_values', 'labels'}`", lambda: [{"pixel_values": images(6)}]),
    _images("NumPy arrays", lambda: [images(6).numpy()]),
    _images("8-bit tensors", lambda: [(255 * images(6)).byte()]),
    _images("lists of Pillow pictures of one size", lambda: [_pictures()]),
    _images("lists of images of several sizes", lambda: [[torch.rand(1, 8, 8), torch.rand(1, 9, 9)]], REFUSED),
    Case("Images", "non-square images", net=_pooled, shape=(1, 12, 20)),
    _images("normalised images", lambda: [4 * images(6) - 2], REFUSED),
    _images("images in 0 to 255 as floats", lambda: [255 * images(6)], REFUSED),
    _images("NaN pixels", lambda: [images(6).log().sub(9).sqrt()], REFUSED),
]  # fmt: skip


def _other(title: str, saliency: Any, outcome: str, package: str) -> Case:
    return Case("Explanations", title, outcome, saliency=saliency, packages=(package,))


def _raw_captum(model: Any, x: Tensor, target: Tensor) -> Tensor:
    method = import_module("captum.attr").IntegratedGradients(model)
    found: Tensor = method.attribute(x, target=target, n_steps=4).abs().sum(1)
    return found


MAPS = [
    *(
        Case("Explanations", f"`{name}`", saliency=name)
        for name in ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "vargrad", "grad_cam")
    ),
    Case("Explanations", "`guided_backprop`", saliency="guided_backprop"),
    Case("Explanations", "`attention_rollout` of a network without attention", REFUSED, saliency="attention_rollout"),
    _other("captum Saliency", Captum("Saliency"), WORKS, "captum"),
    _other("captum InputXGradient", Captum("InputXGradient"), WORKS, "captum"),
    _other("captum IntegratedGradients", Captum("IntegratedGradients", attribute={"n_steps": 4}), WORKS, "captum"),
    _other("captum IntegratedGradients, without the adapter", _raw_captum, EVALUATED, "captum"),
    _other("captum NoiseTunnel", Captum("Saliency", tunnel={"nt_samples": 2, "stdevs": 0.1}), EVALUATED, "captum"),
    _other("captum GuidedBackprop", Captum("GuidedBackprop"), EVALUATED, "captum"),
    _other("captum DeepLift", Captum("DeepLift"), EVALUATED, "captum"),
    _other("captum LayerGradCam", Captum("LayerGradCam", layer="3"), EVALUATED, "captum"),
    _other("zennit EpsilonPlus (LRP)", Zennit("EpsilonPlus"), EVALUATED, "zennit"),
    _other("zennit EpsilonGammaBox (LRP)", Zennit("EpsilonGammaBox", options={"low": 0.0, "high": 1.0}), EVALUATED, "zennit"),
    _other("pytorch-grad-cam GradCAM", CAM("GradCAM", layers=("3",)), EVALUATED, "pytorch_grad_cam"),
    _other("Quantus `explain`", Quantus(words={"method": "Gradient", "xai_lib": "captum"}), EVALUATED, "quantus"),
]  # fmt: skip

CASES = [*NETWORKS, *LOADERS, *MAPS]
