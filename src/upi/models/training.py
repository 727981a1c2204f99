"""Training a classifier: deterministic by seed, one-cycle schedule, shifts and flips, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ConfigError
from upi.core.seeding import generator
from upi.core.types import Progress
from upi.datasets.dataset import Dataset
from upi.models.checkpoint import load_checkpoint, save_checkpoint

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per update.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin 2019), AdamW.
        weight_decay: Decoupled weight decay.
        shift: Largest random shift in pixels, per image and axis.
        flip: Mirror half of the images left to right; not for digits.
        label_smoothing: Share of the target spread over all classes (Szegedy et al. 2016).
        precision: ``float32``, or ``bfloat16`` for autocast where the device has such instructions
            (twice as fast there; see ``usable_precision``); the saved weights are float32 in any case.
        channels_last: Memory layout during training; faster for convolutions on most machines.
        seed: Fixes initial weights, order, shifts and flips.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    shift: int = 2
    flip: bool = False
    label_smoothing: float = 0.0
    precision: str = "float32"
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if min(self.epochs, self.batch_size) < 1:
            raise ConfigError("epochs and batch_size must be at least 1")


def usable_precision(precision: str, device: torch.device | str) -> str:
    """``precision``, or ``float32`` instead of ``bfloat16`` on a processor that only emulates it.

    There bfloat16 is slower, not faster: a step of quarter-width VGG-16 takes 10 times as long on a
    processor without AVX-512.
    """
    emulated = torch.device(device).type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "float32" if emulated and precision == "bfloat16" else precision


def shifted(images: Tensor, reach: int, rng: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) moved by up to ``reach`` pixels per axis, zeros moving in."""
    n, _, height, width = images.shape
    padded = F.pad(images, (reach, reach, reach, reach))
    moves = torch.randint(0, 2 * reach + 1, (2, n), generator=rng)
    rows = moves[0][:, None] + torch.arange(height)
    columns = moves[1][:, None] + torch.arange(width)
    picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def augmented(images: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Shifted and, where the recipe says so, mirrored images (N, C, H, W)."""
    images = shifted(images, recipe.shift, rng)
    if not recipe.flip:
        return images
    mirror = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


@dataclass
class Loop:
    """A training run between two epochs: everything that a checkpoint holds."""

    net: nn.Module
    recipe: Recipe
    steps: int  # updates per epoch
    device: torch.device
    epoch: int = 0

    def __post_init__(self) -> None:
        form = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.net.to(device=self.device, memory_format=form)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            self.recipe.learning_rate,
            total_steps=self.recipe.epochs * self.steps,
            anneal_strategy="cos",
        )

    def run_epoch(self, data: Dataset, each: Callable[[], None]) -> None:
        """One pass; order and augmentation depend on (seed, epoch) only."""
        rng = generator(self.recipe.seed, "training", self.epoch)
        self.net.train()
        for index in torch.split(torch.randperm(len(data), generator=rng), self.recipe.batch_size):
            images = augmented(data.images[index], self.recipe, rng).to(self.device)
            if self.recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            self._update(images, data.labels[index].to(self.device))
            each()
        self.epoch += 1

    def _update(self, images: Tensor, labels: Tensor) -> None:
        kind = PRECISIONS[usable_precision(self.recipe.precision, self.device)]
        with torch.autocast(self.device.type, kind, enabled=kind != torch.float32):
            logits = self.net(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        self.optimiser.step()
        self.schedule.step()

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        save_checkpoint(path, repr(self.recipe), self.epoch, self.net, self.optimiser, self.schedule)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe.

        Raises:
            ArtifactError: The checkpoint is damaged or of another run.
        """
        self.epoch = load_checkpoint(path, repr(self.recipe), self.net, self.optimiser, self.schedule)


def train(
    net: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train ``net`` in place and return it on the CPU in eval mode.

    Args:
        net: Takes images in [0, 1] as they are.
        data: Training images.
        recipe: Options.
        device: Where to train.
        checkpoint: Written after every epoch; training goes on from it where it exists, and
            gives what an uninterrupted run gives. Removed at the end.
        progress: Called with (updates done, updates).

    Raises:
        ArtifactError: The checkpoint is damaged or of another recipe.
    """
    loop = Loop(net, recipe, -(-len(data) // recipe.batch_size), torch.device(device))
    if checkpoint is not None:
        loop.restore(checkpoint)
    total = recipe.epochs * loop.steps
    done = loop.epoch * loop.steps

    def count() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    while loop.epoch < recipe.epochs:
        loop.run_epoch(data, count)
        if checkpoint is not None and loop.epoch < recipe.epochs:
            loop.save(checkpoint)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return net.to(device="cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def accuracy(net: nn.Module, data: Dataset) -> float:
    """Share of ``data`` classified correctly, in [0, 1]."""
    net.eval()
    like = next(net.parameters())
    right = [(net(images.to(like)).argmax(1).cpu() == labels).sum() for images, labels in data.batches(500)]
    return float(torch.stack(right).sum()) / len(data)
