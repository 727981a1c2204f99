"""Training a classifier: deterministic by seed, one-cycle schedule, random shifts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.types import Progress
from upi.zoo.datasets import Dataset


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per update.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin 2019), AdamW.
        weight_decay: Decoupled weight decay.
        shift: Largest random shift in pixels, per image and axis.
        seed: Fixes initial weights, order and shifts.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    shift: int = 2
    seed: int = 0


def shifted(images: Tensor, reach: int, rng: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) moved by up to ``reach`` pixels per axis, zeros moving in."""
    n, _, height, width = images.shape
    padded = F.pad(images, (reach, reach, reach, reach))
    moves = torch.randint(0, 2 * reach + 1, (2, n), generator=rng)
    rows = moves[0][:, None] + torch.arange(height)
    columns = moves[1][:, None] + torch.arange(width)
    picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def train(net: nn.Module, data: Dataset, recipe: Recipe, *, progress: Progress | None = None) -> nn.Module:
    """Train ``net`` on the CPU in place and return it in eval mode.

    Args:
        net: Takes images in [0, 1] as they are.
        data: Training images.
        recipe: Options.
        progress: Called with (updates done, updates).
    """
    rng = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    total = recipe.epochs * -(-len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=total, anneal_strategy="cos"
    )
    done = 0
    net.train()
    for _ in range(recipe.epochs):
        for index in torch.split(torch.randperm(len(data), generator=rng), recipe.batch_size):
            images = shifted(data.images[index], recipe.shift, rng)
            loss = F.cross_entropy(net(images), data.labels[index])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimiser.step()
            schedule.step()
            done += 1
            if progress is not None:
                progress(done, total)
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, data: Dataset) -> float:
    """Share of ``data`` classified correctly, in [0, 1]."""
    net.eval()
    right = [(net(images).argmax(1) == labels).sum() for images, labels in data.batches(500)]
    return float(torch.stack(right).sum()) / len(data)
