"""Defences by fine-tuning: the same network, trained on so that its explanations hold still.

Batch norm keeps its statistics and dropout stays off, so that the penalties differentiate the network that
will be explained. Each defence is a loss; the plain one is the control that says what fine-tuning alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError, unknown_name
from upi.core.seeding import generator
from upi.core.types import Progress
from upi.datasets.dataset import Dataset
from upi.models.checkpoint import load_checkpoint, save_checkpoint
from upi.models.no_relu import require_no_relu, with_softplus
from upi.models.training import Recipe, augmented
from upi.network.classifier import Classifier
from upi.network.outputs import logits_of
from upi.network.smooth import SURROGATE_BETA, smooth


@dataclass(frozen=True)
class Hardening:
    """How a network is hardened.

    Attributes:
        defence: A name of ``DEFENCES``.
        strength: Weight of the penalty; None takes the defence's own.
        eps: l2 radius of the perturbations that the network learns to bear, in units of [0, 1] images.
        epochs, batch_size, learning_rate, shift, flip, seed: As in ``upi.models.training.Recipe``; the
            learning rate falls along a cosine.
        beta: Sharpness of the softplus functions of ``softplus``.

    Raises:
        ConfigError: A name is unknown or a number out of its range.
    """

    defence: str
    strength: float | None = None
    eps: float = 1.0
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-4
    shift: int = 2
    flip: bool = False
    seed: int = 0
    beta: float = 10.0

    def __post_init__(self) -> None:
        if self.defence not in DEFENCES:
            raise unknown_name("defence", self.defence, DEFENCES)
        if min(self.epochs, self.batch_size) < 1 or not self.eps > 0 or not self.beta > 0:
            raise ConfigError("epochs and batch_size must be at least 1, eps and beta above 0")
        if self.strength is not None and not self.strength >= 0:
            raise ConfigError(f"strength must be at least 0, got {self.strength}")

    @property
    def weight(self) -> float:
        """Weight of the penalty."""
        return DEFENCES[self.defence].strength if self.strength is None else self.strength


Loss = Callable[[nn.Module, Tensor, Tensor, Hardening, torch.Generator], Tensor]


@dataclass(frozen=True)
class Defence:
    """A defence: its loss, the weight that it takes by default, and what it does in a sentence."""

    loss: Loss
    strength: float
    title: str


def _plain(net: nn.Module, x: Tensor, y: Tensor, how: Hardening, rng: torch.Generator) -> Tensor:
    return F.cross_entropy(net(x), y)


def _unit(direction: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp_min(1e-12)
    return direction / length[:, None, None, None]


def _random(x: Tensor, rng: torch.Generator) -> Tensor:
    noise: Tensor = torch.randn(x.shape, generator=rng).to(x)
    return _unit(noise)


def _adversarial(net: nn.Module, x: Tensor, y: Tensor, how: Hardening, rng: torch.Generator) -> Tensor:
    """Cross entropy at the end of three projected steps of ascent (Madry et al. 2018), half and half."""
    delta = how.eps * torch.rand(len(x), 1, 1, 1, generator=rng).to(x) * _random(x, rng)
    for _ in range(3):
        point = (x + delta).clamp(0, 1).detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(net(point), y), point)
        delta = delta + 0.5 * how.eps * _unit(slope)
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1)[:, None, None, None]
        delta = delta * (how.eps / length.clamp_min(1e-12)).clamp_max(1)
    moved = F.cross_entropy(net((x + delta).clamp(0, 1).detach()), y)
    loss: Tensor = (_plain(net, x, y, how, rng) + how.weight * moved) / (1 + how.weight)
    return loss


def _slopes(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the label's logit with respect to images, with a graph to the weights; and the logits."""
    x = x.detach().requires_grad_()
    logits = net(x)
    (slope,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), x, create_graph=True)
    return slope, logits


def _curvature(net: nn.Module, x: Tensor, y: Tensor, how: Hardening, rng: torch.Generator) -> Tensor:
    """Penalty on ||H v||^2, random unit v, by differences over the radius (Moosavi-Dezfooli et al. 2019)."""
    here, logits = _slopes(net, x, y)
    there, _ = _slopes(net, x + how.eps * _random(x, rng), y)
    bend = (there - here).flatten(1).square().sum(1) / how.eps**2
    return F.cross_entropy(logits, y) + how.weight * bend.mean()


def _explanation(net: nn.Module, x: Tensor, y: Tensor, how: Hardening, rng: torch.Generator) -> Tensor:
    """Penalty on the relative change of the gradient after one step that raises it (Chen et al. 2019).

    The step is along the gradient of that change at a random start inside the ball, on the softplus form of
    the network: the network's own gradient is constant between the kinks of its ReLUs.
    """
    start = (x + 0.5 * how.eps * _random(x, rng)).detach().requires_grad_()
    with smooth(SURROGATE_BETA):
        clean, _ = _slopes(net, x, y)
        total = net(start).gather(1, y[:, None]).sum()
        (slope,) = torch.autograd.grad(total, start, create_graph=True)
    change = (slope - clean.detach()).flatten(1).square().sum(1)
    (push,) = torch.autograd.grad(change.sum(), start)
    here, logits = _slopes(net, x, y)
    there, _ = _slopes(net, x + how.eps * _unit(push), y)
    size = here.flatten(1).square().sum(1).detach().clamp_min(1e-12)
    moved = (there - here).flatten(1).square().sum(1) / size
    return F.cross_entropy(logits, y) + how.weight * moved.mean()


DEFENCES: Mapping[str, Defence] = {
    "plain": Defence(_plain, 0.0, "fine-tuning alone, the control of the others"),
    "weight-decay": Defence(_plain, 1.0, "weight decay of the given strength"),
    "softplus": Defence(_plain, 0.0, "softplus in place of ReLU, then fine-tuning"),
    "curvature": Defence(_curvature, 0.03, "a penalty on how the gradient changes along random directions"),
    "adversarial": Defence(_adversarial, 1.0, "training on adversarial images"),
    "explanation": Defence(_explanation, 0.3, "a penalty on the change of the saliency map under attack"),
}


class Trainable(nn.Module):
    """A classifier's network from images (N, C, H, W) in [0, 1] to logits (N, K), with gradients for weights.

    Raises:
        ConfigError: The classifier has several labels an image, or one label of them.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        if model.multi_label:
            raise ConfigError("defences are for networks of one label an image")
        self.net, self.mean, self.std, self.output = model.net, model.mean, model.std, model.output
        self.options = model.options()

    def forward(self, x: Tensor) -> Tensor:
        shown = (x - self.mean.to(x)) / self.std.to(x)
        return logits_of(self.net(shown), self.output, x.shape[0])

    def classifier(self) -> Classifier:
        """The network as it is now."""
        return Classifier(self.net, **self.options)


def harden(
    net: nn.Module,
    data: Dataset,
    how: Hardening,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Fine-tune ``net`` in place and return it, or its traced form, on the CPU in eval mode.

    Args:
        net: From images in [0, 1] to logits.
        data: Training images.
        how: Options.
        device: Where to train.
        progress: Called with (updates done, updates).
        checkpoint: Written after every epoch; fine-tuning goes on from it where it exists, and gives what an
            uninterrupted run gives. Removed at the end.

    Raises:
        ArtifactError: The checkpoint is damaged or of another run.
    """
    if how.defence == "softplus":
        if isinstance(net, Trainable):
            net.net = with_softplus(net.net, how.beta)
        else:
            net = with_softplus(net, how.beta)
    net.to(device).eval().requires_grad_(True)
    if how.defence == "softplus":
        require_no_relu(net, data.images[:2].to(device))
    steps = how.epochs * -(-len(data) // how.batch_size)
    decay = how.weight if how.defence == "weight-decay" else 0.0
    optimiser = torch.optim.AdamW(net.parameters(), lr=how.learning_rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    recipe, first, words = Recipe(shift=how.shift, flip=how.flip), 0, ""
    if checkpoint is not None:
        begun = net.classifier() if isinstance(net, Trainable) else Classifier(net)
        words = f"{how}, network {begun.fingerprint()}, images {data.fingerprint()}"
        first = load_checkpoint(checkpoint, words, net, optimiser, schedule)
    done = first * (steps // how.epochs)
    for epoch in range(first, how.epochs):
        rng = generator(how.seed, "harden", epoch)
        for index in torch.split(torch.randperm(len(data), generator=rng), how.batch_size):
            images = augmented(data.images[index], recipe, rng).to(device)
            loss = DEFENCES[how.defence].loss(net, images, data.labels[index].to(device), how, rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimiser.step()
            schedule.step()
            done += 1
            if progress is not None:
                progress(done, steps)
        if checkpoint is not None and epoch + 1 < how.epochs:
            save_checkpoint(checkpoint, words, epoch + 1, net, optimiser, schedule)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return net.to("cpu").eval()
