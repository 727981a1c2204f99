"""The per-image perturbation that the paper compares with: one gradient step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from upi import saliency as maps
from upi.attacks.base import Attack
from upi.attacks.registry import declare
from upi.attacks.support.gradients import gradients, require_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.errors import ConfigError
from upi.core.rows import ONE_STEP, ROWS
from upi.core.seeding import generator
from upi.core.types import Loader, Progress, SaliencyMap
from upi.data.images import check_images
from upi.perturbation.pattern import in_box

#: l2 length of the noise that the step starts from, in units of [0, 1] images.
START = 0.1 / 255


def distance(clean: Tensor, perturbed: Tensor) -> Tensor:
    """||I - I'||_2 (N,) of maps (N, H, W), not divided by anything."""
    found: Tensor = torch.linalg.vector_norm((perturbed - clean).flatten(1), dim=1)
    return found


@declare(ROWS[ONE_STEP], order=6)
@dataclass(frozen=True)
class OneStepAttack(Attack):
    """x_i' = x_i + eps (z_i + g_i) / ||z_i + g_i||, g_i = grad ||I(x_i) - I(x_i + z_i)||_2, one step.

    The form in the authors' public scripts (Ehsani Oskouie and Farnia 2023): from noise z_i of l2
    length 0.1 / 255 one raw gradient on the softmax output of the network itself, whatever map is
    measured. A weak control: ``PerImageAttack`` says what an attacker who sees the image can do.
    In the l-inf ball the signs are taken.

    Attributes:
        sign: 1 or -1; the scripts, and ``upi.evaluate``, report the better of both over all images.
        clip: Clip to [0, 1]; None does so except in the paper preset, where the scripts do not.

    Raises:
        ConfigError: An option is unknown or outside its range.
    """

    sign: int = 1
    clip: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sign not in (1, -1):
            raise ConfigError(f"sign must be 1 or -1, got {self.sign!r}")

    @property
    def in_box(self) -> bool:
        """Whether the perturbed images are clipped to [0, 1]."""
        return self.protocol.clip if self.clip is None else self.clip

    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> OneStepAttack:
        """Nothing is fitted ahead of the images: returns the attack itself."""
        return self

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Perturbed images for images (N, C, H, W) in [0, 1] and explained classes (N,).

        Raises:
            DataError: ``x`` is not a batch of images in [0, 1].
            ZeroGradientError: The attack gradient is exactly zero.
            NonFiniteError: The step gave NaN or infinity.
        """
        check_images(x)
        network, objective = self.classifier, MapChange(self._softmax_map(), distance)
        kinked = network.surrogate(None, fast=False)  # one step of a network with kinks: as published
        with network.frozen():
            placed = network.place(x)
            batch = explained_batch(objective, kinked, placed, target.to(placed.device))
            noise = torch.randn(x.shape, generator=generator(self.seed, "one-step")).to(placed)
            start = START * noise / torch.linalg.vector_norm(noise.flatten(1), dim=1)[:, None, None, None]
            here = gradients(kinked, objective, batch, placed + start, where="one step")
        require_gradient(here.gradient, where="one step")
        moved = placed + self.sign * self.ball.extreme(start + here.gradient)
        return (in_box(moved) if self.in_box else moved).to(x)

    def _softmax_map(self) -> SaliencyMap:
        """The map of the softmax output, where the map has a score to choose."""
        named = maps.resolve(self.saliency, paper=True)
        return replace(named, score="softmax") if hasattr(named, "score") else named  # type: ignore[type-var]
