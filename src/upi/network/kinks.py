"""Kinks that the surrogate left in a network: found by looking at its derivatives, not at its names.

The surrogate replaces the activations that it knows. One that it does not know (a product with a comparison,
a scripted ReLU, a clamp with a tensor as limit) keeps its kinks, its curvature is a spike that no derivative
sees, and the attack gradient is wrong or zero without a word. So the change of the gradient along a short
line is compared with the integral of the second derivative along it: equal for a smooth function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from upi.core.errors import ModelError
from upi.core.memory import with_fewer
from upi.core.seeding import generator
from upi.network.checks import explained
from upi.network.classifier import Classifier
from upi.network.identity import content, state
from upi.network.smooth import smooth

#: Images, points of the midpoint rule, and deviations of the step in pixels of [0, 1]: that of attacks
#: first, smaller ones where the rule does not resolve how sharply a network bends. Smooth networks: at most
#: 0.003 (trained small ones), 0.05 (public CIFAR ResNets); one gate x * (x > 0) among the ReLUs of a
#: ResNet-18: 0.38, of a VGG-16: 0.76.
IMAGES, POINTS, STEPS = 2, 8, (0.1, 0.02, 0.002, 0.0002)
#: Times as many points that decide whether the rule resolves a bend, and the relative change that says so:
#: what it misses of a sharp bend shrinks with more points, a kink stays.
FINER, SETTLED = 3, 0.1
#: Share of missed curvature from which a fit is flagged, and from which it is refused.
FLAGGED, REFUSED = 0.05, 0.25

Function = Callable[[Tensor], Tensor]  # to values whose sum is differentiated


def _slope(function: Function, point: Tensor) -> Tensor:
    point = point.detach().requires_grad_()
    value = function(point).sum()
    if not value.requires_grad:
        return torch.zeros_like(point)
    (slope,) = torch.autograd.grad(value, point, allow_unused=True)
    return torch.zeros_like(point) if slope is None else slope


def _curvature(function: Function, point: Tensor, along: Tensor) -> Tensor | None:
    """The second derivative along a direction, (H v); None where the gradient is not a function."""
    point = point.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(point).sum(), point, create_graph=True, allow_unused=True)
    if slope is None or not slope.requires_grad:
        return None
    bend: Tensor | None
    (bend,) = torch.autograd.grad((slope * along).sum(), point, allow_unused=True)
    return bend


def missed(function: Function, start: Tensor, end: Tensor) -> float:
    """Share of the gradient's change from start to end that the second derivative does not account for.

    0 for smooth functions, for those that bend too sharply to tell, and where the gradient hardly changes at
    all (a linear function).
    """
    whole, largest = end - start, STEPS[0]
    for step in STEPS:
        share = _missed(function, start, start + step / largest * whole, POINTS)
        if share <= FLAGGED:
            return share
        finer = _missed(function, start, start + step / largest * whole, FINER * POINTS)
        if abs(finer - share) <= SETTLED * share:
            return finer
    return 0.0


@torch.enable_grad()
def _missed(function: Function, start: Tensor, end: Tensor, points: int) -> float:
    along = (end - start).detach()
    first, last = _slope(function, start).detach(), _slope(function, end).detach()
    change = last - first
    size = float(torch.linalg.vector_norm(change))
    if not size > 1e-5 * float(torch.linalg.vector_norm(first)):
        return 0.0
    nodes = [(k + 0.5) / points for k in range(points)]
    bends = [_curvature(function, start + t * along, along) for t in nodes]
    total = sum((bend for bend in bends if bend is not None), torch.zeros_like(along))
    return float(torch.linalg.vector_norm(total / points - change)) / size


@dataclass(frozen=True)
class Kinks:
    """Share of curvature that the surrogate's second derivative misses, and the parts that lose it."""

    share: float
    layers: tuple[str, ...] = ()
    attached: bool = True  # False where the gradient has no derivative at all

    def __str__(self) -> str:
        where = ", ".join(self.layers) or "the network's own forward pass"
        return (
            f"the surrogate leaves kinks in {where}: its second derivative misses {self.share:.0%} of how "
            "the gradient changes"
        )


_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, dict[Any, Kinks]]] = WeakKeyDictionary()


def find_kinks(network: Classifier, x: Tensor, beta: float) -> Kinks:
    """What the surrogate of sharpness ``beta`` misses, at a few images (N, C, H, W).

    Looked at once for the same weights and images: an audit fits dozens of times.
    """
    some, now = x[:IMAGES], state(network)
    if network.net not in _KNOWN or _KNOWN[network.net][0] != now:
        _KNOWN[network.net] = now, {}
    found, key = _KNOWN[network.net][1], (beta, content(some))
    if key not in found:
        found[key] = with_fewer(lambda fitting: _look(network, fitting, beta), some)
    return found[key]


def _look(network: Classifier, x: Tensor, beta: float) -> Kinks:
    noise = STEPS[0] * torch.randn(x.shape, generator=generator(0, "kinks")).to(x)
    # A classifier of its own: what may be folded is found in the first pass, and belongs to the map that is
    # fitted on, which may look inside the network.
    network = Classifier(network.net, **network.options())
    with network.frozen():
        target = network.predict(x)

        def score(fast: bool) -> Function:
            surrogate = network.surrogate(beta, fast=fast)
            return lambda point: surrogate(point).gather(1, target[:, None])

        # The quick path three times sooner; where it finds something autograd's own has the last word.
        share = missed(score(True), x, x + noise) if network.fast else REFUSED
        share = share if share <= FLAGGED else missed(score(False), x, x + noise)
        if share <= FLAGGED:
            return Kinks(share)
        attached = _curvature(score(False), x, noise) is not None
        return Kinks(share, tuple(_layers(network, x, x + noise, beta)), attached)


def _layers(network: Classifier, start: Tensor, end: Tensor, beta: float) -> Iterator[str]:
    """The smallest parts of the network that lose curvature by themselves, at most three."""
    seen: list[dict[str, Tensor]] = []
    for point in (start, end):
        seen.append(_inputs(network, point, beta))
    found: list[str] = []
    parts = sorted(network.net.named_modules(), key=lambda part: -part[0].count("."))
    for name, module in parts:
        if not name or name not in seen[0] or name not in seen[1] or len(found) == 3:
            continue
        if any(inner.startswith(f"{name}.") for inner in found):
            continue

        def run(point: Tensor, module: nn.Module = module) -> Tensor:
            with smooth(beta):
                out: Tensor = module(point)
            return out

        try:
            share = missed(run, seen[0][name], seen[1][name])
        except (RuntimeError, TypeError, ValueError, AttributeError):
            continue  # it needs more than one tensor: its parent is looked at as a whole
        if share > FLAGGED:
            found.append(name)
            yield f"{name} ({type(module).__name__})"
    if not found:  # scripted parts take no hooks
        scripted = [(name, part) for name, part in parts if isinstance(part, torch.jit.ScriptModule)]
        yield from (f"{name} ({type(part).__name__})" for name, part in scripted[:3])


def _inputs(network: Classifier, x: Tensor, beta: float) -> dict[str, Tensor]:
    """What each part is given in a pass, where that is one tensor."""
    caught: dict[str, Tensor] = {}
    handles = []
    for name, module in network.net.named_modules():

        def hear(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], name: str = name) -> None:
            if len(args) == 1 and not named and isinstance(args[0], Tensor) and args[0].is_floating_point():
                caught[name] = args[0].detach().clone()

        try:
            handles.append(module.register_forward_pre_hook(hear, with_kwargs=True))
        except RuntimeError:
            continue  # scripted modules take no hooks; their parents do
    try:
        with torch.no_grad():
            network.surrogate(beta, fast=False)(x)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def require_smooth(network: Classifier, x: Tensor, beta: float) -> Kinks:
    """The kinks that a surrogate leaves, refused where they decide about the attack gradient.

    Raises:
        ModelError: More than ``REFUSED`` of the curvature is missed; names the parts and the remedies.
    """
    try:
        kinks = find_kinks(network, x, beta)
    except RuntimeError as error:
        raise explained(error) from error
    if not kinks.attached:
        raise ModelError(
            "the gradient of the network does not change with the image as far as autograd can see: an "
            "operator in it has no second derivative (an autograd function marked once_differentiable, say), "
            "or picks values by their size (sort, top-k, a maximum over channels). Use UPIPCA(rows='stein'), "
            "which needs map values only"
        )
    if kinks.share > REFUSED:
        raise ModelError(
            f"{kinks}, so that the attack gradient would be wrong. Write the activation as one that the "
            "surrogate knows (torch.relu, clamp with numbers, nn.ReLU6, ...), give the Python module instead "
            "of a scripted one, or use UPIPCA(rows='stein'), which needs map values only"
        )
    return kinks
