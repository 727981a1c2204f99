"""The step on full-size networks at 224 x 224, for machines with a GPU: ``--device cuda``.

float32 with TF32 off and on, channels last, and the whole step compiled, with and without CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torchvision
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.bench_step import METHODS
from benchmarks.common import Problem, Scale, images, lively, network, peak, problem, timed
from upi.attacks.support.compiled import CompiledGradient
from upi.attacks.support.gradients import gradients

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg16": lambda: torchvision.models.vgg16(),
    "resnet50": lambda: torchvision.models.resnet50(),
    "vit_b_16": lambda: torchvision.models.vit_b_16(),
}
MODES = ("upi, compiled", "upi, compiled with CUDA graphs")
WAYS = ("own pass", "upi", "double backward", "double backward, clean maps each time", "one image at a time")
BATCH = 32


@contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """TF32 in matrix products and convolutions, or nowhere."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _compiled(task: Problem, mode: str) -> Callable[[], Tensor]:
    function = CompiledGradient("reduce-overhead" if "graphs" in mode else "default")
    if task.point.device.type == "cpu":
        function = CompiledGradient(backend="eager")

    def run() -> Tensor:
        with task.surrogate() as surrogate:
            found = gradients(surrogate, task.objective, task.batch, task.point, where="", function=function)
            return found.gradient

    run()
    assert function.graph is not None
    return run


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("tf32", [False, True], ids=("float32", "TF32"))
@pytest.mark.parametrize("method", [*WAYS, *MODES])
@pytest.mark.parametrize("arch", NETWORKS)
def test_gpu_step(
    benchmark: BenchmarkFixture, arch: str, method: str, tf32: bool, layout: str, scale: Scale
) -> None:
    if scale.device == "cpu" and not scale.smoke:
        pytest.skip("not measured: --device cuda asks for it where there is a GPU")
    form = torch.channels_last if layout == "channels last" else torch.contiguous_format
    torch.manual_seed(0)
    built = network("resnet18", 0.125, 64) if scale.smoke else lively(NETWORKS[arch]())
    net = built.to(scale.device, memory_format=form)
    x = images(scale(BATCH, 2), scale(224, 64)).to(scale.device, memory_format=form)
    with precision(tf32):
        task = problem(net, x, tf32=tf32)

        def plain() -> Tensor:
            return METHODS[method](task)

        run = _compiled(task, method) if method in MODES else plain
        facts: dict[str, Any] = {
            "table": "gpu",
            "arch": arch,
            "method": method,
            "tf32": tf32,
            "layout": layout,
        }
        found = timed(
            benchmark,
            run,
            rounds=scale.rounds(1 if method == WAYS[-1] else 5),
            device=scale.device,
            batch=len(x),
            **facts,
        )
        if method != "own pass":
            reference = task.step(fast=False).gradient
            benchmark.extra_info["error"] = float((found - reference).norm() / reference.norm())
        if method != "one image at a time":
            benchmark.extra_info["peak"] = peak(run, scale.device)
