"""Networks by name: shapes, widths, weights, and an attack gradient for each of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import upi
from upi.core.errors import ArtifactError, ConfigError
from upi.data.shape import Shape
from upi.models.architectures import build
from upi.models.classifiers import load_classifier
from upi.models.nets import NETS
from upi.models.weights import read_weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("name", NETS)
def test_every_network_takes_every_image_size(name: str, size: int) -> None:
    shape = Shape(1 if size == 28 else 3, size, 7)
    net = build(name, shape, width=0.2).eval()
    assert net(torch.rand(2, shape.channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", NETS)
def test_every_network_can_be_attacked(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, Shape(3, 16, 4), width=0.2)
    x = torch.rand(6, 3, 16, 16)
    found = upi.UPIGrad(net, eps=1.0, steps=2).fit([x])
    assert float(found.delta.norm()) > 0
    assert found.provenance["history"][1] > 0


def test_width_scales_the_network() -> None:
    count = [
        sum(p.numel() for p in build("vgg16", Shape(3, 32, 10), width=w).parameters()) for w in (0.25, 0.5)
    ]
    assert 3.5 < count[1] / count[0] < 4.5


def test_full_width_vgg16_has_the_published_convolutions() -> None:
    net = build("vgg16", Shape(3, 32, 10))
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 13
    assert [m.out_channels for m in convolutions[-3:]] == [512, 512, 512]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet", {}, "unknown network 'lenet'"),
        ("vgg16", {"width": 0.0}, "above zero"),
        ("vgg16", {"pretrained": True}, "no published weights"),
        ("torchvision/vgg99", {}, "unknown"),
        ("timm/vgg99", {}, "unknown"),
        ("timm/resnet18", {"width": 0.5}, "width multiplier"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, Shape(3, 32, 10), **options)  # type: ignore[arg-type]


def test_torchvision_takes_colour_images_only() -> None:
    with pytest.raises(ConfigError, match="3 channels"):
        build("torchvision/resnet18", Shape(1, 28, 10))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/mobilenetv3_small_050"])
def test_foreign_networks_take_images_in_0_1(name: str) -> None:
    net = build(name, Shape(3, 32, 10)).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    normalise = net[0]  # type: ignore[index]
    assert float(normalise(torch.full((1, 3, 1, 1), 0.456))[0, 1]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_foreign_network(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    shape = Shape(3, 32, 10)
    net = build("timm/mobilenetv3_small_050", shape).eval()
    state = {key: value.contiguous() for key, value in net[1].state_dict().items()}  # type: ignore[index]
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    else:
        save_file(state, path)
    model, _ = load_classifier("timm/mobilenetv3_small_050", weights=path, shape=shape)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x).detach(), net(x).detach())
    with pytest.raises(ArtifactError, match="another network"):
        load_classifier("timm/resnet10t", weights=path, shape=shape)


def test_an_untrained_foreign_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="untrained maps say nothing"):
        load_classifier("timm/resnet18", shape=Shape(3, 32, 10))


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_never_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    torch.save({"weight": Evil(mark)}, path)
    with pytest.raises(ArtifactError, match="read safely"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    with pytest.raises(ArtifactError, match="read safely"):
        read_weights(path)
    assert not mark.exists()


def test_weights_must_be_tensors(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(ArtifactError, match="state dict"):
        read_weights(tmp_path / "list.pt")
