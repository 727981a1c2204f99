"""``Classifier``: images in [0, 1] to logits, with the normalisation inside."""

from __future__ import annotations

import hashlib
from typing import NoReturn

import torch
from torch import Tensor, nn

from upi.core.errors import ConfigError, ModelError, UPIError
from upi.network.frozen import FrozenNetwork
from upi.network.surrogate import Surrogate


class Classifier(FrozenNetwork):
    """An image classifier as this library sees it: a fixed, differentiable function.

    ``classifier(x)`` maps images (N, C, H, W) in [0, 1] to logits (N, K). While it runs
    the network is in eval mode and its weights are frozen; afterwards the module has its
    former modes and ``requires_grad`` flags back, also after an exception. Use it from one
    thread at a time, as the module it wraps.

    Attack gradients run through ``upi.network.kernels`` where ``fast`` is true: the same function as the
    network's surrogate, batch norm folded into convolutions, up to rounding. Each fit compares
    the two on a few images first. Predictions and evaluation run the network as it is.

    Args:
        net: Any module from normalised images to logits. Parts that ``torch.compile`` made
            run eagerly, since compiled graphs cannot be differentiated twice.
        mean: Per-channel mean subtracted from the images; none by default.
        std: Per-channel standard deviation the result is divided by; none by default.
        fast: False takes autograd's own derivatives for attack gradients as well.

    Raises:
        ModelError: ``net`` is not a module, or its output is not (N, K) with K >= 2.
        ConfigError: ``mean`` or ``std`` is not one finite number per channel.
    """

    @classmethod
    def wrap(cls, model: Classifier | nn.Module) -> Classifier:
        """Return ``model`` itself, or a ``Classifier`` without normalisation around a module."""
        return model if isinstance(model, Classifier) else cls(model)

    @torch.no_grad()
    def probe(self, x: Tensor) -> Tensor:
        """Logits of a few images, with a clear error where the network cannot take them.

        Raises:
            ModelError: The network fails on images of this shape, or gives no logits.
        """
        try:
            return self(x)
        except UPIError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ModelError(
                f"the model cannot run on images of shape {tuple(x.shape[1:])}: {reason}"
            ) from error

    def surrogate(self, beta: float | None, *, fast: bool | None = None) -> Surrogate:
        """The same network with softplus(``beta``) activations and smooth pooling, as a value beside it.

        Attacks fit on the surrogate; evaluation explains the network itself.

        Args:
            beta: Sharpness, above zero; None leaves the activations alone.
            fast: Through ``upi.network.kernels``; None as the classifier says.

        Raises:
            ConfigError: ``beta`` is not above zero.
        """
        return Surrogate(self, beta, fast=self.fast if fast is None else fast)

    def smoothed(self, beta: float | None, *, fast: bool | None = None) -> NoReturn:
        """Gone since version 0.2.

        Raises:
            ConfigError: Always; says what to use.
        """
        raise ConfigError(
            "Classifier.smoothed(beta) changed what later calls meant; since version 0.2 explain "
            "Classifier.surrogate(beta), a value beside the network"
        )

    def fingerprint(self) -> str:
        """SHA-256 over architecture name, weights, buffers and normalisation, as hex."""
        digest = hashlib.sha256(type(self.net).__qualname__.encode())
        constants = {"upi.mean": self.mean, "upi.std": self.std}
        for name, value in sorted({**self.net.state_dict(), **constants}.items()):
            if isinstance(value, Tensor):
                tensor = value.detach().cpu().contiguous()
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
