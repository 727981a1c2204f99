"""Small networks, small data: everything the tests share."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import upi
from upi.data.batches import Batch

Batches = list[tuple[Tensor, Tensor]]
torch.set_num_threads(1)  # small tensors; threads only get in each other's way
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job: children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def convolutional(activation: Callable[[], nn.Module], *, seed: int = 0, channels: int = 1) -> nn.Module:
    """A small network for images (channels, 8, 8) with 4 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            activation(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(8 * 16, 4),
        )


def images(count: int, *, seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> Tensor:
    """Images strictly inside [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(count, *shape, generator=rng)


@pytest.fixture
def smooth_net() -> nn.Module:
    return convolutional(nn.Softplus).double()


@pytest.fixture
def relu_net() -> nn.Module:
    return convolutional(nn.ReLU)


@pytest.fixture
def loader(relu_net: nn.Module) -> Batches:
    """Images with the network's own predictions as labels, so that all are eligible."""
    model = upi.Classifier(relu_net)
    return [(x, model.predict(x)) for x in torch.split(images(48), 16)]


@pytest.fixture
def prepared(smooth_net: nn.Module) -> Batch:
    """A float64 batch explained by the smooth network."""
    model = upi.Classifier(smooth_net)
    x = images(5).double()
    target = model.predict(x)
    return Batch(x, target, upi.saliency.Gradient()(model, x, target).detach(), 0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPI_CACHE", str(tmp_path / "cache"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A quick run does not even import the modules that are slow as a whole."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return (
        True if re.search(r"^pytestmark = .*pytest\.mark\.slow", collection_path.read_text(), re.M) else None
    )
