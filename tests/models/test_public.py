"""Public networks: their architecture, their weights, and what is said where these are missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from upi.core.errors import ArtifactError, ConfigError, ModelError
from upi.data.preprocess import Preprocess
from upi.data.shape import Shape
from upi.datasets.splits import load, load_parts
from upi.models.architectures import build
from upi.models.classifiers import load_classifier, preprocess_of
from upi.models.nets import NETS
from upi.models.nets.cifar_resnet import CifarResNet
from upi.models.public import PUBLIC

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED / "networks").is_dir(), reason=f"public weights are not in {SHARED}"
)
needs_lite = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="the extra 'pretrained' is missing"
)

pytestmark = pytest.mark.slow
#: Test accuracy of the public weights on the first 500 JPEG copies of the test images, measured once.
ACCURACY = {"cifar10-resnet32": 0.816, "cifar10-resnet44": 0.804, "cifar10-resnet56": 0.822}


def weights(folder: Path, depth: int = 20) -> Path:
    """Random weights in the place where public ones are looked for, without the newer counters."""
    torch.manual_seed(0)
    state = CifarResNet(Shape(3, 32, 10), depth).state_dict()
    path = folder / "networks" / f"cifar10-resnet{depth}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return path


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_cifar_resnets_have_the_published_size(depth: int, parameters: int) -> None:
    """He et al. 2016, table 6, gives 0.27 M, 0.46 M and 0.85 M."""
    net = build(f"cifar-resnet{depth}", Shape(3, 32, 10))
    assert sum(p.numel() for p in net.parameters()) == parameters
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth


def test_shortcuts_take_every_second_pixel_and_pad_channels_with_zeros() -> None:
    net = CifarResNet(Shape(3, 8, 10), 20)
    x = torch.randn(2, 16, 8, 8)
    out = net.get_submodule("layer2.0.shortcut")(x)
    assert out.shape == (2, 32, 4, 4)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_other_depths_are_refused() -> None:
    with pytest.raises(ConfigError, match="20, 32, 44, 56, 110 layers, got 33"):
        CifarResNet(Shape(3, 32, 10), 33)


def test_weights_are_found_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(tmp_path)
    given, about = load_classifier("cifar10-resnet20", folder=tmp_path)
    monkeypatch.setenv("UPI_DATA", str(tmp_path))
    found, _ = load_classifier("cifar10-resnet20")
    assert given.fingerprint() == found.fingerprint()
    assert about["origin"] == "akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)"
    torch.testing.assert_close(given.mean.flatten(), torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64))


def test_missing_weights_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPI_DATA", raising=False)
    with pytest.raises(
        ModelError, match=r"networks/cifar10-resnet44\{.safetensors.*as data directory or in UPI_DATA"
    ):
        load_classifier("cifar10-resnet44")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModelError, match=r"pip install 'upi-xai\[pretrained\]'"):
        load_classifier("efficientnet-lite0")


def test_weights_of_another_architecture_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = weights(tmp_path, 32)
    net = CifarResNet(Shape(3, 32, 10), 20)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    from upi.models.weights import fill

    with pytest.raises(
        ArtifactError, match=r"another network than mine: unexpected layer1.3.*nothing was loaded"
    ):
        fill(net, path, "mine")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(ArtifactError, match="no such file"):
        load_classifier("cifar10-resnet20", weights=tmp_path / "nowhere.pt")


def test_images_of_another_kind_are_refused(tmp_path: Path) -> None:
    weights(tmp_path)
    with pytest.raises(ConfigError, match=r"tells 10 classes of cifar10 apart .* 1 channels and 7 classes"):
        load_classifier("cifar10-resnet20", folder=tmp_path, shape=Shape(1, 32, 7))


def test_every_public_name_is_told_where_a_model_is_unknown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_classifier("resnet-of-nobody")
    assert all(name in str(caught.value) for name in PUBLIC)
    assert preprocess_of("efficientnet-lite1") == Preprocess(240, 240, 274, "bicubic", 3)
    assert preprocess_of("runs/mine") is None
    assert {"cifar-resnet32", "cifar-resnet56"} <= set(NETS)


@needs_shared
@pytest.mark.parametrize("name", ACCURACY)
def test_public_weights_classify(name: str) -> None:
    model, _ = load_classifier(name, folder=SHARED)
    test = load("cifar10", split="test", folder=SHARED).first(500)
    right = sum(int((model.predict(x) == y).sum()) for x, y in test.batches(100))
    assert right / 500 == pytest.approx(ACCURACY[name], abs=0.005)


@needs_shared
@needs_lite
def test_efficientnet_lite_classifies_photographs() -> None:
    sizes = {"train": 0, "fit": 0, "select": 0, "test": 60}
    parts = load_parts("imagenet-sample", sizes, seed=0, folder=SHARED, size=Preprocess.imagenet(224))
    model, about = load_classifier("efficientnet-lite0", shape=parts.shape)
    assert parts["test"].images.shape == (60, 3, 224, 224)
    right = sum(int((model.predict(x) == y).sum()) for x, y in parts["test"].batches(20))
    assert right / 60 > 0.75  # 87.7 % of all 700
    assert about["parameters"] == 4_652_008


@needs_lite
def test_lite_networks_are_built_for_the_size_of_the_images() -> None:
    model, about = load_classifier("efficientnet-lite1", shape=Shape(3, 64, 1000))
    assert about["size"] == 64
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1000)
