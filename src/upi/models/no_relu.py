"""Softplus in place of ReLU, in modules and in function calls, and a check that none is left."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from upi.core.errors import ConfigError

#: How code computes a ReLU without a module.
RELU_CALLS = (F.relu, F.relu_, torch.relu, torch.relu_)
RELU_METHODS = ("relu", "relu_")


def with_softplus(net: nn.Module, beta: float) -> nn.Module:
    """The network with softplus in place of ReLU: modules are replaced in place, function calls in its graph.

    Returns:
        ``net`` itself; where its code calls ReLU as a function, its traced form with the same modules.

    Raises:
        ConfigError: It has no ReLU, as far as modules and a trace tell.
    """
    places = [
        (parent, name)
        for parent in net.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU)
    ]
    for parent, name in places:
        setattr(parent, name, nn.Softplus(beta))
    try:
        traced = fx.symbolic_trace(net)
    except Exception as error:  # code that depends on its input, in any way: torch has no one error for it
        if not places:
            raise ConfigError(f"no nn.ReLU modules, and the network cannot be traced: {error}") from error
        return net
    calls = [
        node
        for node in traced.graph.nodes
        if node.target in (RELU_CALLS if node.op == "call_function" else RELU_METHODS)
    ]
    if not calls and not places:
        raise ConfigError("the network has no ReLU that softplus could replace")
    for node in calls:
        with traced.graph.inserting_before(node):
            smooth_call = traced.graph.call_function(F.softplus, (node.args[0],), {"beta": beta})
        node.replace_all_uses_with(smooth_call)
        traced.graph.erase_node(node)
    if not calls:
        return net
    traced.recompile()
    return traced


class _Watch(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    """Notices ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen |= func in RELU_CALLS or getattr(func, "__name__", "") in RELU_METHODS
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def require_no_relu(net: nn.Module, x: Tensor) -> None:
    """Raise ``ConfigError`` where the network still computes a ReLU of images (N, C, H, W)."""
    with _Watch() as watch:
        net(x)
    if watch.seen:
        raise ConfigError(
            "the network computes some ReLUs as functions in code that cannot be traced: softplus would "
            "replace a part of them alone. Use nn.ReLU modules"
        )
