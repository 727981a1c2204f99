"""Small pictures of every test image and its two maps, for a page to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from upi import saliency as maps
from upi.core.storage import write_atomic
from upi.core.tensors import canonical
from upi.core.types import SaliencyMap
from upi.data.images import samples
from upi.experiments.fitting import Batches
from upi.network.classifier import Classifier
from upi.perturbation.pattern import Perturbation

#: Longest side of the pictures, in pixels.
SIDE = 56


@dataclass(frozen=True)
class Gallery:
    """Pictures of n images, bytes, at most ``SIDE`` pixels wide and high."""

    images: Tensor  # (n, C, h, w) uint8, clean
    clean: Tensor  # (n, h, w) uint8, the map
    perturbed: Tensor  # (n, h, w) uint8, the map of the perturbed image, on the same scale
    pattern: Tensor  # (C, h, w) float32, what was added

    def save(self, path: Path) -> Path:
        """Write safetensors."""
        tensors = {
            "images": self.images,
            "clean": self.clean,
            "perturbed": self.perturbed,
            "pattern": self.pattern,
        }
        return write_atomic(path, canonical(save({k: v.contiguous() for k, v in tensors.items()})))


def small(images: Tensor, side: int = SIDE) -> Tensor:
    """Images (N, C, H, W) brought to at most ``side`` pixels by the mean over areas."""
    scale = side / max(images.shape[2:])
    if scale >= 1:
        return images
    size = [max(1, round(length * scale)) for length in images.shape[2:]]
    return F.interpolate(images, size, mode="area")


def _as_bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def _pair(clean: Tensor, perturbed: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, H, W) of each image as bytes on one scale: 1 is the 99.5th percentile of the clean one."""
    clean, perturbed = (small(each.abs()[:, None])[:, 0] for each in (clean, perturbed))
    top = torch.quantile(clean.flatten(1).float(), 0.995, dim=1).clamp_min(1e-30)[:, None, None]
    return _as_bytes(clean / top), _as_bytes(perturbed / top)


def gallery(
    model: Classifier, pattern: Perturbation, images: Batches, kept: NDArray[Any], *, saliency: SaliencyMap
) -> Gallery:
    """Pictures of the test images that count.

    Args:
        model: The classifier.
        pattern: Added to every image.
        images: The test images, in the order of the evaluation.
        kept: (n,) numbers of those that count, ascending.
        saliency: The map.
    """
    counted = torch.zeros(int(kept.max()) + 1 if len(kept) else 0, dtype=torch.bool)
    counted[torch.as_tensor(kept)] = True
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    seen = 0
    with model.frozen():
        for sample in samples(images):
            here = counted[seen : seen + len(sample.x)].nonzero()[:, 0]
            seen += len(sample.x)
            if not len(here):
                continue
            x = model.place(sample.x[here])
            target = model.predict(x)
            both = [maps.explain(saliency, model, point, target) for point in (x, model.place(pattern(x)))]
            parts.append((_as_bytes(small(x.float())), *_pair(*both)))
    pictures, clean, perturbed = (torch.cat(each) for each in zip(*parts, strict=True))
    return Gallery(pictures, clean, perturbed, small(pattern.delta[None])[0])
