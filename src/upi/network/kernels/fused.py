"""Element-wise formulas as one kernel each on a GPU.

What a chain of tensor operations reads and writes ten times over, one kernel reads and writes once; on a GPU
such chains are up to half of an attack's step. PyTorch's jiterator compiles the kernels when they are first
used, with CUDA's run-time compiler. Guards against it where it cannot be: on other devices and types, under
tracers, which would take its results for constants, and where it fails.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from upi.core.errors import FallbackWarning, first_line
from upi.core.memory import is_out_of_memory

TYPES = (torch.float32, torch.float64)


class Fused:
    """One formula, element by element.

    Args:
        name: Of the function in ``code``.
        inputs, numbers, outputs: Names of tensors, numbers and results.
        code: C++ statements that set them; ``T`` is the floating-point type.
    """

    failed = False  # of all: a machine without the compiler has it for none

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        numbers: tuple[str, ...],
        outputs: tuple[str, ...],
        code: str,
    ):
        self.name, self.inputs, self.numbers, self.outputs, self.code = name, inputs, numbers, outputs, code

    @cached_property
    def _kernel(self) -> Any:
        from torch.cuda.jiterator import _create_multi_output_jit_fn

        return _create_multi_output_jit_fn(self.source, len(self.outputs), **dict.fromkeys(self.numbers, 0.0))

    @property
    def source(self) -> str:
        """The function in C++."""
        given = [f"T {name}" for name in (*self.inputs, *self.numbers)]
        made = [f"T& {name}" for name in self.outputs]
        return f"template <typename T> void upi_{self.name}({', '.join(given + made)}) {{ {self.code} }}"

    def of(self, *tensors: Tensor, **numbers: float) -> tuple[Tensor, ...] | None:
        """The results for tensors of one shape and type, or None where the formula cannot be one kernel."""
        if Fused.failed or not all(map(_plain, tensors)) or _traced() or not _alike(tensors):
            return None
        try:
            with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
                found = self._kernel(*tensors, **numbers)
        except (RuntimeError, AttributeError, ImportError) as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            Fused.failed = True
            warnings.warn(
                f"element-wise kernels failed ({first_line(error)[:200]}); taking "
                "PyTorch's operations one by one, which is slower",
                FallbackWarning,
                stacklevel=2,
            )
            return None
        return (found,) if isinstance(found, Tensor) else tuple(found)


def _alike(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all have one shape, type and device."""
    return len({(each.shape, each.dtype, each.device) for each in tensors}) == 1


def _traced() -> bool:
    return _get_current_dispatch_mode() is not None or torch._C._get_tracing_state() is not None


def _plain(x: Tensor) -> bool:
    return (
        x.device.type == "cuda"
        and x.dtype in TYPES
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


#: x to its softplus and the slope of it.
SOFTPLUS = Fused(
    "softplus",
    ("x",),
    ("beta",),
    ("value", "slope"),
    "const T z = x * beta; const T e = exp(-fabs(z)); "
    "value = (z > T(0) ? x : T(0)) + log1p(e) / beta; "
    "slope = (z > T(0) ? T(1) : e) / (T(1) + e);",
)
#: x to the slope of its softplus.
SLOPE = Fused(
    "slope",
    ("x",),
    ("beta",),
    ("slope",),
    "const T z = x * beta; const T e = exp(-fabs(z)); slope = (z > T(0) ? T(1) : e) / (T(1) + e);",
)
#: What flows back into x from what flows back into its softplus and the slope of it.
SOFTPLUS_BACK = Fused(
    "softplus_back",
    ("grad", "bend", "slope"),
    ("beta",),
    ("found",),
    "found = slope * (grad + beta * bend * (T(1) - slope));",
)
#: x to a clamp, smooth at limits that do not see each other, its slope, and its bend without the factor beta.
FAR_CLAMP = Fused(
    "far_clamp",
    ("x",),
    ("middle", "half", "beta"),
    ("value", "slope", "bend"),
    "const T off = x - middle; const T side = off < T(0) ? T(-1) : T(1); const T t = half - fabs(off); "
    "const T z = t * beta; const T e = exp(-fabs(z)); "
    "value = middle + side * (half - (z > T(0) ? t : T(0)) - log1p(e) / beta); "
    "slope = (z > T(0) ? T(1) : e) / (T(1) + e); "
    "bend = -side * e / ((T(1) + e) * (T(1) + e));",
)
#: What flows back into an adjoint g of SiLU, and into x from g times its slope.
SILU_BACK = Fused(
    "silu_back",
    ("back", "grad", "x"),
    (),
    ("by_grad", "by_x"),
    "const T s = T(1) / (T(1) + exp(-x)); const T rest = T(1) - s; "
    "by_grad = back * s * (T(1) + x * rest); "
    "by_x = back * grad * s * rest * (T(2) + x * (rest - s));",
)
