"""A network held still: eval mode, frozen weights, normalisation inside.

Guards against train-mode batch norm (which ties samples together), gradients for
weights nobody asked for (twice the work), and leaving the user's module changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from upi.core.errors import ConfigError, DataError, ModelError
from upi.core.memory import in_halves
from upi.core.placing import placed
from upi.network.checkpointing import without_checkpoints
from upi.network.hold import full_precision, held
from upi.network.kernels import Folding, find_foldable
from upi.network.outputs import Where, is_binary, logits_of


def _first_tensor(net: nn.Module) -> Tensor | None:
    tensors = (t for group in (net.parameters(), net.buffers()) for t in group if t.is_floating_point())
    return next(tensors, None)


def unwrapped(net: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(net, "_orig_mod", None)
        if inner is None and type(net).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = net.module
        if inner is None:
            return net
        net = inner


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
        output: Where = None,
        multi_label: bool = False,
        label: int | None = None,
        tf32: bool = False,
    ) -> None:
        net = unwrapped(net)
        if not isinstance(net, nn.Module):
            raise ModelError(f"expected a torch.nn.Module from images to logits, got {type(net).__name__}")
        self.net = net
        self.mean = _constant(mean, 0.0, "mean")
        self.std = _constant(std, 1.0, "std")
        self.fast = fast
        self.output = output
        self.tf32 = tf32
        self.multi_label, self.label = multi_label, label
        if label is not None and not multi_label:
            raise ConfigError(
                "label names the explained class of a multi-label network: set multi_label=True; other "
                "networks are explained for the class that they predict"
            )
        self.binary = label is not None  # whether the logits are [0, z]; of one logit known after a pass
        self._users = 0
        self._folding: Folding | None = None  # known while frozen
        self._lock = RLock()

    def options(self) -> dict[str, Any]:
        """What another network of this kind is made with: the constructor's words besides the module."""
        return {
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "fast": self.fast,
            "output": self.output,
            "multi_label": self.multi_label,
            "label": self.label,
            "tf32": self.tf32,
        }

    def place(self, x: Tensor) -> Tensor:
        """Move images to the network's device and floating-point type."""
        like = _first_tensor(self.net)
        x = x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x
        return x if like is None else x.to(device=like.device, dtype=like.dtype)

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std, channel by channel."""
        for name, constant in (("mean", self.mean), ("std", self.std)):
            if constant.shape[0] not in (1, x.shape[1]):
                raise DataError(f"{name} has {constant.shape[0]} channels, the images have {x.shape[1]}")
        return (x - placed(self.mean, x)) / placed(self.std, x)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.run(x, nullcontext())

    def run(self, x: Tensor, context: AbstractContextManager[None]) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), the network's forward pass inside ``context``.

        Raises:
            ModelError: There are none, or they do not depend on the images as far as autograd can see.
        """
        with self.frozen(), context:
            found = self.net(self.normalise(x))
            logits = logits_of(found, self.output, x.shape[0])
            if self.label is None:
                self.binary = is_binary(found, logits)
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise ModelError(
                "the network gives no gradient with respect to the images: its forward pass runs under "
                "no_grad, detaches them, or leaves torch (NumPy, another runtime). Give the part of it that "
                "is differentiable"
            )
        return logits if self.label is None else self._binary(logits)

    def _binary(self, logits: Tensor) -> Tensor:
        """Logits (N, 2) of "without the label" and "with it"."""
        assert self.label is not None
        if not -logits.shape[1] <= self.label < logits.shape[1]:
            raise ModelError(f"label {self.label} asked for, the model has {logits.shape[1]} labels")
        own = logits[:, self.label, None]
        return torch.cat([torch.zeros_like(own), own], 1)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) of images (N, C, H, W); in halves where memory does not suffice for all at once."""
        parts = in_halves(lambda some: self(x[some]).argmax(1), len(x), owner=self.net, kind="predictions")
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def agrees(self, label: Tensor, predicted: Tensor) -> Tensor:
        """(N,) whether predicted classes (N,) are right.

        Args:
            label: Classes (N,), or rows (N, K) that are 1 for every class that an image has.
            predicted: Classes (N,); 0 and 1 where the network is asked for one label alone.

        Raises:
            DataError: Rows of another width than the network has classes.
        """
        label = label.to(predicted.device)
        if self.label is not None:
            has = label[:, self.label].bool() if label.ndim == 2 else label == self.label
            return has == predicted.bool()
        if label.ndim == 1:
            return predicted == label
        if int(predicted.max()) >= label.shape[1]:
            raise DataError(f"labels of {label.shape[1]} classes, the model predicts {int(predicted.max())}")
        return label.gather(1, predicted[:, None]).squeeze(1).bool()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Eval mode and frozen weights inside; the module's own state back afterwards.

        Nested uses, and uses from several threads at once, share one state: only the first one touches
        the module and only the last one puts it back.
        """
        with self._lock:
            self._users += 1
        try:
            with ExitStack() as stack:
                if torch.is_inference_mode_enabled():
                    stack.enter_context(torch.inference_mode(False))
                stack.enter_context(held(self.net))
                if not self.tf32:
                    stack.enter_context(full_precision())
                stack.enter_context(without_checkpoints())
                for device in ("cpu", "cuda"):  # a surrounding autocast is the caller's, not the network's
                    if torch.is_autocast_enabled(device):
                        stack.enter_context(torch.autocast(device, enabled=False))
                yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._folding = None

    def foldable(self, x: Tensor) -> Folding:
        """What can be folded, found on the first image that is seen while frozen."""
        with self._lock:
            if self._folding is None:
                self._folding = find_foldable(lambda: self.net(self.normalise(x[:1].detach())))
            return self._folding
