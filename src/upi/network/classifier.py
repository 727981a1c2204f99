"""``Classifier``: images in [0, 1] to logits, with the normalisation inside."""

from __future__ import annotations

from copy import deepcopy
from typing import NoReturn

import torch
from torch import Tensor, nn

from upi.core.errors import ConfigError, MemoryLimitError, ModelError, UPIError, first_line
from upi.core.memory import is_out_of_memory
from upi.network.frozen import FrozenNetwork
from upi.network.identity import REFUSALS, fingerprint, state
from upi.network.surrogate import Surrogate


class Classifier(FrozenNetwork):
    """An image classifier as this library sees it: a fixed, differentiable function.

    ``classifier(x)`` maps images (N, C, H, W) in [0, 1] to logits (N, K). While it runs
    the network is in eval mode and its weights are frozen; afterwards the module has its
    former modes and ``requires_grad`` flags back, also after an exception. Several threads may use it,
    and the module it wraps, at once: the last one that leaves puts the module's state back.

    Attack gradients run through ``upi.network.kernels`` where ``fast`` is true: the same function as the
    network's surrogate, batch norm folded into convolutions, up to rounding. Each fit compares
    the two on a few images first. Predictions and evaluation run the network as it is.

    Args:
        net: Any module from normalised images to logits. Parts that ``torch.compile`` made
            run eagerly, since compiled graphs cannot be differentiated twice.
        mean: Per-channel mean subtracted from the images; none by default.
        std: Per-channel standard deviation the result is divided by; none by default.
        fast: False takes autograd's own derivatives for attack gradients as well.
        output: Where the logits are in what the network returns: a name, a place, or a function of it. By
            default they are the output itself, or found there by name (``upi.network.outputs.NAMES``). One
            logit an image stands for a binary network, classes 0 and 1 with logits [0, z].
        multi_label: Every class has its own yes or no (sigmoid). The explained class is the one with the
            highest logit, right where it is among an image's labels (rows (N, K) of zeros and ones).
        label: Explain this class of a multi-label network instead: the classifier is then the binary one of
            this label, with logits [0, z], and an image counts where the label is predicted rightly.
        tf32: Leave PyTorch's precision of float32 as it is set; by default convolutions and matrix products
            are computed in float32 while the classifier runs, not in TF32 (PyTorch's default for
            convolutions on a GPU), which turned ResNet-50's attack gradient by 75 % (docs/performance.md).

    Raises:
        ModelError: ``net`` is not a module, or its output holds no logits.
        ConfigError: ``mean`` or ``std`` is not one finite number per channel.
    """

    _float32: tuple[object, Classifier] | None = None

    @classmethod
    def wrap(cls, model: Classifier | nn.Module) -> Classifier:
        """Return ``model`` itself, or a ``Classifier`` without normalisation around a module."""
        return model if isinstance(model, Classifier) else cls(model)

    @torch.no_grad()
    def probe(self, x: Tensor) -> Tensor:
        """Logits of a few images, with a clear error where the network cannot take them.

        Raises:
            ModelError: The network fails on images of this shape, or gives no logits.
            MemoryLimitError: They do not fit in memory.
        """
        try:
            return self(x)
        except UPIError:
            raise
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise MemoryLimitError(f"{len(x)} images do not fit in memory: {error}") from error
            reason = first_line(error)[:200]
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

    def in_float32(self) -> Classifier:
        """This classifier, or a copy of it in float32 where it computes in shorter numbers.

        Half and bfloat16 gradients are too coarse for a small radius: a direction fitted with them has little
        in common with the right one.
        """
        like = next((p for p in self.net.parameters() if p.is_floating_point()), None)
        if like is None or like.dtype not in (torch.float16, torch.bfloat16):
            return self
        now = state(self)
        if self._float32 is None or self._float32[0] != now:
            net = deepcopy(self.net).float()
            self._float32 = now, Classifier(net, **self.options())
        return self._float32[1]

    def fingerprint(self) -> str:
        """SHA-256 over what the network holds and what it computes, as hex: see ``upi.network.identity``."""
        return fingerprint(self)
