"""How time and memory grow with the number of images, the image size and the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import upi
from benchmarks.common import Scale, images, network, peak, problem, timed

COUNTS = (250, 1000, 4000, 8000)
SIZES = (28, 56, 112, 224)
WIDTHS = (0.125, 0.25, 0.5, 1.0)
BATCH = 50


class Drawn:
    """Images made when they are asked for, so that the data itself takes no memory."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count // BATCH

    def __iter__(self) -> Iterator[Tensor]:
        for number in range(self.count // BATCH):
            rng = torch.Generator().manual_seed(number)
            yield torch.rand(BATCH, 1, self.size, self.size, generator=rng)


@pytest.mark.parametrize("method", ["upi-grad", "upi-pca, sketch"])
@pytest.mark.parametrize("count", COUNTS)
def test_images(benchmark: BenchmarkFixture, method: str, count: int, scale: Scale) -> None:
    """One pass over the images."""
    count = scale(count, 2 * BATCH)
    model = upi.Classifier(network("small-cnn", 1.0, 28, 1).to(scale.device))
    steps = count // BATCH

    def run() -> upi.Perturbation:
        loader = Drawn(count, 28)
        if method == "upi-grad":
            return upi.UPIGrad(model, eps=2.0, steps=steps).fit(loader)
        one_pass: dict[str, Any] = {"surrogate": 20.0, "refinements": 0}
        attack = upi.UPIPCA(model, eps=2.0, solver="sketch", draws=1, components=1, **one_pass)
        return attack.fit(loader, select=Drawn(BATCH, 28))

    facts: dict[str, Any] = {"table": "growth", "against": "images", "method": method, "value": count}
    timed(benchmark, run, rounds=1, warm=False, device=scale.device, **facts)
    benchmark.extra_info["peak"] = peak(run, scale.device)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["own pass", "upi"])
def test_image_size(benchmark: BenchmarkFixture, method: str, size: int, scale: Scale) -> None:
    size = scale(size, 28)
    net = network("resnet18", 0.125 if scale.smoke else 0.25, size).to(scale.device)
    task = problem(net, images(scale(16, 2), size).to(scale.device))
    run = task.own if method == "own pass" else task.step
    facts: dict[str, Any] = {"table": "growth", "against": "image size", "method": method, "value": size}
    timed(benchmark, run, rounds=scale.rounds(3), device=scale.device, **facts)
    benchmark.extra_info["peak"] = peak(run, scale.device)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", ["own pass", "upi"])
def test_network_size(benchmark: BenchmarkFixture, method: str, width: float, scale: Scale) -> None:
    net = network("vgg16", 0.125 if scale.smoke else width, 32).to(scale.device)
    task = problem(net, images(scale(32, 2), 32).to(scale.device))
    run = task.own if method == "own pass" else task.step
    parameters = sum(p.numel() for p in net.parameters())
    facts: dict[str, Any] = {
        "table": "growth",
        "against": "parameters",
        "method": method,
        "value": parameters,
    }
    timed(benchmark, run, rounds=scale.rounds(3), device=scale.device, **facts)
    benchmark.extra_info["peak"] = peak(run, scale.device)
