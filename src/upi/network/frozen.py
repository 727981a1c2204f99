"""A network held still: eval mode, frozen weights, normalisation inside.

Guards against train-mode batch norm (which ties samples together), gradients for
weights nobody asked for (twice the work), and leaving the user's module changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from upi.core.errors import ConfigError, DataError, ModelError
from upi.network.kernels import Folding, find_foldable


def _first_tensor(net: nn.Module) -> Tensor | None:
    tensors = (t for group in (net.parameters(), net.buffers()) for t in group if t.is_floating_point())
    return next(tensors, None)


def _eager(net: nn.Module) -> AbstractContextManager[object]:
    """Run compiled parts of ``net`` eagerly: compiled graphs cannot be differentiated twice."""
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in net.modules()
    )
    stance: AbstractContextManager[object] = (
        torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    )
    return stance


def _constant(values: Sequence[float] | float | None, default: float, name: str) -> Tensor:
    given = default if values is None else values
    try:
        tensor = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name} must hold one number per channel, got {given!r}") from error
    tensor = tensor[None] if tensor.ndim == 0 else tensor
    if tensor.ndim != 1 or not torch.isfinite(tensor).all() or (name == "std" and (tensor <= 0).any()):
        raise ConfigError(f"{name} must hold one finite{' positive' * (name == 'std')} number per channel")
    return tensor[:, None, None]


class FrozenNetwork:
    """What ``Classifier`` is built on; see there.

    Attributes:
        net: The module.
        mean, std: Normalisation, (C, 1, 1).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        fast: bool = True,
    ) -> None:
        net = getattr(net, "_orig_mod", net)
        if not isinstance(net, nn.Module):
            raise ModelError(f"expected a torch.nn.Module from images to logits, got {type(net).__name__}")
        self.net = net
        self.mean = _constant(mean, 0.0, "mean")
        self.std = _constant(std, 1.0, "std")
        self.fast = fast
        self._depth = 0
        self._folding: Folding | None = None  # known while frozen

    def place(self, x: Tensor) -> Tensor:
        """Move images to the network's device and floating-point type."""
        like = _first_tensor(self.net)
        return x if like is None else x.to(device=like.device, dtype=like.dtype)

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std, channel by channel."""
        for name, constant in (("mean", self.mean), ("std", self.std)):
            if constant.shape[0] not in (1, x.shape[1]):
                raise DataError(f"{name} has {constant.shape[0]} channels, the images have {x.shape[1]}")
        return (x - self.mean.to(x)) / self.std.to(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.run(x, nullcontext())

    def run(self, x: Tensor, context: AbstractContextManager[None]) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), the network's forward pass inside ``context``.

        Raises:
            ModelError: They are not (N, K) with K >= 2.
        """
        with self.frozen(), context:
            logits = self.net(self.normalise(x))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != x.shape[0]:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"expected logits of shape (N, K) = ({x.shape[0]}, K), the model returned {got}")
        if logits.shape[1] < 2:
            raise ModelError(f"expected at least 2 classes, the model returned {tuple(logits.shape)}")
        return logits

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) of images (N, C, H, W)."""
        return self(x).argmax(1)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Eval mode and frozen weights inside; the module's own state back afterwards.

        Nested uses cost nothing: only the outermost one touches the module.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        modes = [(module, module.training) for module in self.net.modules() if hasattr(module, "training")]
        flags = [(parameter, parameter.requires_grad) for parameter in self.net.parameters()]
        self._depth = 1
        try:
            if any(training for _, training in modes):
                self.net.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            with _eager(self.net):
                yield
        finally:
            self._depth, self._folding = 0, None
            for module, training in modes:
                if module.training != training:
                    module.training = training
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def foldable(self, x: Tensor) -> Folding:
        """What can be folded, found on the first image that is seen while frozen."""
        if self._folding is None:
            self._folding = find_foldable(lambda: self.net(self.normalise(x[:1].detach())))
        return self._folding
