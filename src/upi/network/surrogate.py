"""Other ways to look at a classifier: its smooth surrogate, and a witness of what a map saw.

Both are values that hold the classifier and leave it as it is, so that the same call always gives the same
maps: ``classifier`` is the network itself, ``classifier.surrogate(beta)`` its smooth stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from upi.network.frozen import FrozenNetwork
from upi.network.smooth import check_beta, smooth


class View:
    """What a classifier offers to a map besides its logits; predictions are those of the network itself.

    Attributes:
        network: The classifier that is looked at.
    """

    def __init__(self, network: FrozenNetwork) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.network(x)

    @property
    def net(self) -> nn.Module:
        """The module inside."""
        return self.network.net

    @property
    def binary(self) -> bool:
        """As of the classifier."""
        return self.network.binary

    def place(self, x: Tensor) -> Tensor:
        """As of the classifier."""
        return self.network.place(x)

    def normalise(self, x: Tensor) -> Tensor:
        """As of the classifier."""
        return self.network.normalise(x)

    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) by the network itself."""
        return self.network.predict(x)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """As of the classifier."""
        with self.network.frozen():
            yield


class Surrogate(View):
    """The classifier with softplus(beta) in place of ReLU and smooth pooling; see ``upi.network.smooth``.

    Attacks fit on it; evaluation never does.

    Args:
        network: The classifier.
        beta: Sharpness, above zero; None leaves the activations alone.
        fast: Through ``upi.network.kernels``; False takes autograd's own derivatives.

    Raises:
        ConfigError: ``beta`` is not above zero.
    """

    def __init__(self, network: FrozenNetwork, beta: float | None, *, fast: bool) -> None:
        super().__init__(network)
        check_beta(beta)
        self.beta, self.fast = beta, fast

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        with self.network.frozen():
            folding = self.network.foldable(x) if self.fast else None
            return self.network.run(x, smooth(self.beta, folding=folding))


class Witness(View):
    """A classifier or surrogate while a map looks through it; keeps the logits of the images explained.

    A map that is a gradient at those images has computed their logits on the way: whoever needs a
    prediction as well gets it for nothing. A map that looks at other images (integrated gradients)
    leaves nothing here.

    Args:
        model: What the map looks through.
        images: Images (N, C, H, W) that are explained.
    """

    def __init__(self, model: FrozenNetwork | View, images: Tensor) -> None:
        super().__init__(model.network if isinstance(model, View) else model)
        self.model, self.images = model, images
        self._seen: tuple[Tensor, Tensor] | None = None  # what the network was given, and its logits

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K); one pass for the images explained, however often the very tensor is given."""
        if self._seen is not None and self._seen[0] is x:
            return self._seen[1]
        logits = self.model(x)
        if self._explained(x) and (logits.requires_grad or not self.images.requires_grad):
            self._seen = x, logits
        return logits

    @property
    def logits(self) -> Tensor:
        """Logits (N, K) of the images explained, differentiable where those are."""
        if self._seen is not None:
            logits = self._seen[1]
            return logits if self.images.requires_grad else logits.detach()
        return self.model(self.images)

    def _explained(self, x: Tensor) -> bool:
        """Whether ``x`` is the tensor explained or, where nobody differentiates, its data."""
        if x is self.images:
            return True
        same = not self.images.requires_grad and x.shape == self.images.shape
        return same and x.data_ptr() == self.images.data_ptr()
