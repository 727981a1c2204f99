"""A module held still while anybody uses it: eval mode, frozen weights, plain attention, no compiled graphs.

The state of a module belongs to all who use it, in whatever thread: it changes when the first user comes and
is put back when the last one leaves, so that a fit beside an evaluation finds the network as it needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from upi.core.errors import ModelError

_LOCK = RLock()


class _Shared:
    """Something entered by the first user and left by the last."""

    def __init__(self) -> None:
        self.users = 0
        self.stack = ExitStack()


_MODULES: WeakKeyDictionary[nn.Module, _Shared] = WeakKeyDictionary()
_ATTENTION, _EAGER, _PRECISION = _Shared(), _Shared(), _Shared()


def _to_eval(net: nn.Module) -> None:
    try:
        net.eval()
    except NotImplementedError:  # exported programs: their mode is part of them
        return


def _hold(net: nn.Module, stack: ExitStack) -> None:
    """Eval mode and frozen weights, and what puts the former state back."""
    for name, parameter in net.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(
                f"{name} is not built yet (a lazy module): run the network once on an image, net(x[:1])"
            )
        if parameter.is_meta:
            raise ModelError(f"{name} is on the meta device and has no values: load the network's weights")
        if parameter.is_inference():
            raise ModelError(
                f"{name} was made in inference mode, which autograd refuses: build or load the network "
                "outside it"
            )
    modes = [(module, module.training) for module in net.modules() if hasattr(module, "training")]
    flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]

    def restore() -> None:
        for module, training in modes:
            if module.training != training:
                module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    stack.callback(restore)
    if any(training for _, training in modes):
        _to_eval(net)
    for parameter, _ in flags:
        parameter.requires_grad_(False)


@contextmanager
def _used(shared: _Shared, enter: Callable[[ExitStack], object]) -> Iterator[None]:
    """Inside, ``shared`` is entered; ``enter`` is called with its stack by the first user."""
    with _LOCK:
        if shared.users == 0:
            with ExitStack() as stack:
                enter(stack)
                shared.stack = stack.pop_all()
        shared.users += 1
    try:
        yield
    finally:
        with _LOCK:
            shared.users -= 1
            if shared.users == 0:
                shared.stack.close()


@contextmanager
def held(net: nn.Module) -> Iterator[None]:
    """Eval mode and frozen weights inside; the module's own state back when the last user leaves.

    Raises:
        ModelError: A part of the module is not built yet.
    """
    with _LOCK:
        shared = _MODULES.setdefault(net, _Shared())
    with _used(shared, lambda stack: _hold(net, stack)), _eager(net):
        yield


#: Kernels of attention: whether each is on, and what switches it.
_KERNELS = tuple(
    (getattr(torch.backends.cuda, f"{name}_sdp_enabled"), getattr(torch.backends.cuda, f"enable_{name}_sdp"))
    for name in ("flash", "mem_efficient", "cudnn", "math")
)


def _only_math(stack: ExitStack) -> None:
    for (enabled, enable), wanted in zip(_KERNELS, (False, False, False, True), strict=True):
        stack.callback(enable, enabled())
        enable(wanted)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention on its plain kernel inside: the fused ones have no second derivative."""
    with _used(_ATTENTION, _only_math):
        yield


#: Operations whose float32 PyTorch may compute in shorter numbers: TF32 on a GPU (its default for
#: convolutions), bfloat16 on a CPU (where asked for).
_BACKENDS: Any = torch.backends
_ROUNDED = (
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.cuda.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
    _BACKENDS.mkldnn.matmul,
)


def _no_rounding(stack: ExitStack) -> None:
    for kind in _ROUNDED:
        stack.callback(setattr, kind, "fp32_precision", kind.fp32_precision)
        kind.fp32_precision = "ieee"


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 is float32 inside: an attack gradient is a second derivative, of which TF32 leaves little."""
    with _used(_PRECISION, _no_rounding):
        yield


def _compiled(net: nn.Module) -> bool:
    """Whether torch.compile made a part of the network, or may have made a function that it calls."""
    if "torch._dynamo" in sys.modules:
        return True
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in net.modules()
    )


@contextmanager
def _eager(net: nn.Module) -> Iterator[None]:
    """Run what torch.compile made eagerly: compiled graphs cannot be differentiated twice."""
    if not _compiled(net):
        yield
        return
    with _used(_EAGER, lambda stack: stack.enter_context(torch.compiler.set_stance("force_eager"))):
        yield
