"""Which network it is: a fingerprint of what it holds and of what it computes.

Weights alone do not tell networks apart: another activation, another constant in the code, another way to
read the output leave them as they are. So the logits of two fixed images count as well, computed in float64
on the processor, where they are the same on every machine to far more digits than are kept. Parameters,
buffers (also those that are not saved) and the normalisation count by name and content.

torch.compile, DataParallel and a Sequential around nothing else are looked through; any other module around
a network makes another network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from upi.core.errors import UPIError
from upi.core.seeding import generator
from upi.network.frozen import FrozenNetwork, unwrapped

#: Sides of the images that are tried, in this order; the first that the network takes is used.
SIDES = (
    32,
    28,
    64,
    8,
    16,
    224,
    96,
    112,
    128,
    160,
    192,
    240,
    256,
    288,
    299,
    300,
    320,
    336,
    380,
    384,
    448,
    512,
)
#: Logits are rounded to this share of the largest one.
DIGITS = 6
#: What a network that cannot take an image of some size, or float64, may raise.
REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    KeyError,
    AssertionError,
    UPIError,
)

_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def _inner(net: nn.Module) -> nn.Module:
    """The network without the wrappers that are looked through."""
    net = unwrapped(net)
    while isinstance(net, nn.Sequential) and len(net) == 1:
        net = unwrapped(net[0])
    return net


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    held = {**net.state_dict(), **dict(net.named_buffers())}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def content(value: Tensor) -> bytes:
    """The bytes of its numbers."""
    plain = value.detach().cpu()
    plain = (plain.int_repr() if plain.is_quantized else plain).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _leaves(net: nn.Module) -> Iterator[str]:
    """Kinds of the modules without parts, in order."""
    for module in net.modules():
        if not any(True for _ in module.children()):
            yield type(module).__qualname__


def _channels(network: FrozenNetwork) -> tuple[int, ...]:
    first = next((m for m in network.net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None:
        return (first.in_channels,)
    return (len(network.mean),) if len(network.mean) > 1 else (3, 1)


@torch.no_grad()
def probed(network: FrozenNetwork) -> Tensor | None:
    """Logits (2, K) of two fixed images in float64 on the CPU; None where the network takes none."""
    try:
        net = deepcopy(network.net).to(device="cpu", dtype=torch.float64)
    except REFUSALS:
        return None
    copy = FrozenNetwork(net, **network.options())
    for channels in _channels(network):
        for side in SIDES:
            shape = (2, channels, side, side)
            images = torch.rand(shape, generator=generator(0, "fingerprint"), dtype=torch.float64)
            try:
                logits = copy(images)
            except REFUSALS:
                continue
            return logits if bool(torch.isfinite(logits).all()) else None
    return None


def state(network: FrozenNetwork) -> Any:
    """What changes whenever the fingerprint may: cheap to compare, of no meaning beyond this process."""
    held = tuple((name, id(value), value._version) for name, value in _tensors(_inner(network.net)).items())
    return held, str(network.mean), str(network.std), repr(network.output), network.multi_label, network.label


def fingerprint(network: FrozenNetwork) -> str:
    """SHA-256, as hex, over weights, buffers, normalisation, and the logits of two fixed images."""
    net = _inner(network.net)
    now = state(network)
    known = _KNOWN.get(net)
    if known is not None and known[0] == now:
        return known[1]
    digest = hashlib.sha256()
    for name, value in sorted({**_tensors(net), "upi.mean": network.mean, "upi.std": network.std}.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(content(value))
    digest.update("\n".join(_leaves(net)).encode())
    logits = probed(network)
    if logits is not None:
        rounded = (logits / logits.abs().max().clamp_min(1e-300)).mul(10**DIGITS).round().long()
        digest.update(rounded.numpy().tobytes())
    _KNOWN[net] = now, digest.hexdigest()
    return digest.hexdigest()
