"""Formulas that are one kernel on a GPU: right as C++ on a CPU, as kernels there, left out elsewhere."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upi.core.errors import FallbackWarning
from upi.network import kernels
from upi.network.kernels import fused
from upi.network.kernels.fused import FAR_CLAMP, SILU_BACK, SLOPE, SOFTPLUS, SOFTPLUS_BACK, Fused

pytestmark = pytest.mark.slow
BETA, NUMBERS = 20.0, {"beta": 20.0, "middle": 3.0, "half": 3.0}
X = torch.cat([torch.linspace(-8, 9, 401), torch.tensor([-3.0e4, -0.0, 3.0, 3.0e4])]).double()
A, B = torch.randn(2, len(X), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="element-wise kernels need a GPU")


def _clamp(x: Tensor) -> Tensor:
    return F.softplus(x, BETA, 1e3) - F.softplus(x - 6, BETA, 1e3)


def _derivatives(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and the first two derivatives by autograd."""
    point = x.clone().requires_grad_()
    value = function(point)
    (first,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), point)
    return value.detach(), first.detach(), second


def _expected() -> dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Inputs and right outputs of each formula."""
    value, slope, _ = _derivatives(lambda x: F.softplus(x, BETA, 1e3), X)
    clamp, clamp_slope, clamp_bend = _derivatives(_clamp, X)
    _, silu_slope, silu_bend = _derivatives(F.silu, X)
    return {
        "softplus": ((X,), (value, slope)),
        "slope": ((X,), (slope,)),
        "softplus_back": ((A, B, slope), (A * slope + BETA * B * slope * (1 - slope),)),
        "far_clamp": ((X,), (clamp, clamp_slope, clamp_bend / BETA)),
        "silu_back": ((A, B, X), (A * silu_slope, A * B * silu_bend)),
    }


FORMULAS = {each.name: each for each in (SOFTPLUS, SLOPE, SOFTPLUS_BACK, FAR_CLAMP, SILU_BACK)}


def _compiled(formula: Fused, folder: Path) -> Callable[..., list[Tensor]]:
    """The formula as a function of tensors on the CPU."""
    count = len(formula.inputs), len(formula.outputs)
    read = [f"in[{i} * n + k]" for i in range(count[0])] + [
        f"numbers[{i}]" for i in range(len(formula.numbers))
    ]
    wrote = [f"out[{i} * n + k]" for i in range(count[1])]
    source = f"""#include <cmath>
using namespace std;
{formula.source}
extern "C" void run(const double* in, const double* numbers, double* out, long n) {{
  for (long k = 0; k < n; ++k) upi_{formula.name}<double>({", ".join(read + wrote)});
}}
"""
    (folder / "formula.cpp").write_text(source)
    library = folder / "formula.so"
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-o", library, folder / "formula.cpp"], check=True)
    run = ctypes.CDLL(str(library)).run

    def apply(*tensors: Tensor) -> list[Tensor]:
        given, found = torch.stack(tensors).contiguous(), torch.empty(count[1], tensors[0].numel()).double()
        numbers = torch.tensor([NUMBERS[name] for name in formula.numbers] or [0.0], dtype=torch.float64)
        places = [ctypes.c_void_p(each.data_ptr()) for each in (given, numbers, found)]
        run(*places, ctypes.c_long(tensors[0].numel()))
        return list(found)

    return apply


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs a C++ compiler")
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_what_autograd_finds(name: str, tmp_path: Path) -> None:
    given, expected = _expected()[name]
    for found, right in zip(_compiled(FORMULAS[name], tmp_path)(*given), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_kernels_are_what_autograd_finds(name: str, dtype: torch.dtype) -> None:
    given, expected = _expected()[name]
    formula = FORMULAS[name]
    found = formula.of(
        *(each.to("cuda", dtype) for each in given), **{n: NUMBERS[n] for n in formula.numbers}
    )
    assert found is not None
    rtol, atol = (1e-9, 1e-12) if dtype == torch.float64 else (3e-4, 3e-6)
    for each, right in zip(found, expected, strict=True):
        torch.testing.assert_close(each.double().cpu(), right, rtol=rtol, atol=atol)


@needs_gpu
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_activations_on_a_gpu_are_those_on_a_cpu(inplace: bool, layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forms: list[Callable[[Tensor], Tensor]] = [
        lambda x: kernels.softplus(x * 1, BETA, inplace=inplace),
        lambda x: kernels.hardtanh(3 * x, 0.0, 6.0, BETA),
        kernels.silu,
    ]
    for form in forms:
        there = _derivatives(lambda x, form=form: form(x).square(), x.cuda().contiguous(memory_format=layout))  # type: ignore[misc]
        here = _derivatives(lambda x, form=form: form(x).square(), x)  # type: ignore[misc]
        for found, right in zip(there, here, strict=True):
            torch.testing.assert_close(found.cpu(), right, rtol=1e-9, atol=1e-10)


def test_other_devices_and_tracers_take_the_operations() -> None:
    assert SOFTPLUS.of(X, beta=BETA) is None
    assert not Fused.failed


def test_a_compiler_that_fails_is_left_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **numbers: object) -> None:
        raise RuntimeError("nvrtc: not found\nmore")

    formula = Fused("own", ("x",), (), ("y",), "y = x;")
    monkeypatch.setattr(Fused, "failed", False)
    monkeypatch.setattr(fused, "_plain", lambda x: True)
    formula.__dict__["_kernel"] = fail
    with pytest.warns(FallbackWarning, match=r"kernels failed \(nvrtc: not found\); taking"):
        assert formula.of(X) is None
    assert formula.of(X) is None
    with torch.no_grad():
        torch.testing.assert_close(kernels.softplus(X, BETA), F.softplus(X, BETA, 40.0))


def test_memory_that_is_missing_is_said_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **numbers: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    formula = Fused("own", ("x",), (), ("y",), "y = x;")
    monkeypatch.setattr(fused, "_plain", lambda x: True)
    formula.__dict__["_kernel"] = fail
    with pytest.raises(torch.OutOfMemoryError):
        formula.of(X)
    assert not Fused.failed


def test_nothing_is_fused_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    called = []
    formula = Fused("own", ("x",), (), ("y",), "y = x;")
    monkeypatch.setattr(fused, "_plain", lambda x: True)
    formula.__dict__["_kernel"] = lambda *given: called.append(given)

    def step(x: Tensor) -> Tensor:
        assert formula.of(x) is None
        return x + 1

    make_fx(step)(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        torch.jit.trace(step, X, check_trace=False)  # type: ignore[no-untyped-call]
    assert called == []
