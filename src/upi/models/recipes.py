"""How each network is trained on each dataset, at the two scales.

``small`` is meant for two cores: quarter-width networks, a few epochs, bfloat16. ``full`` is
meant for a GPU: published widths and long schedules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from upi.core.errors import unknown_name
from upi.models.nets import NETS
from upi.models.training import Recipe

SCALES = ("small", "full")
#: The network that leads every comparison, as in the paper, comes first.
ARCHITECTURES = ("vgg16", "resnet18", "mobilenet_v2", "vit")


@dataclass(frozen=True)
class Plan:
    """Width of the network, its recipe, and how many training images are used (None: all)."""

    width: float
    recipe: Recipe
    n_train: int | None = None


_BASE = {
    "mnist": Recipe(epochs=3, batch_size=128, learning_rate=3e-3, shift=2, channels_last=True),
    "cifar10": Recipe(
        epochs=20,
        batch_size=128,
        learning_rate=4e-3,
        shift=4,
        flip=True,
        label_smoothing=0.1,
        channels_last=True,
    ),
    "tiny-imagenet": Recipe(
        epochs=20,
        batch_size=64,
        learning_rate=3e-3,
        shift=6,
        flip=True,
        label_smoothing=0.1,
        channels_last=True,
    ),
}
#: (width, epochs) at scale small.
_SMALL = {
    "mnist": {"vgg16": (0.25, 3), "resnet18": (0.25, 3), "mobilenet_v2": (0.25, 2), "vit": (0.34, 3)},
    "cifar10": {"vgg16": (0.25, 20), "resnet18": (0.25, 18), "mobilenet_v2": (0.25, 3), "vit": (0.34, 4)},
    "tiny-imagenet": {
        "vgg16": (0.25, 18),
        "resnet18": (0.5, 16),
        "mobilenet_v2": (0.25, 3),
        "vit": (0.34, 3),
    },
}
_SMALL_TRAIN = {"mnist": 20_000, "cifar10": None, "tiny-imagenet": None}
_FULL_EPOCHS = {"mnist": 10, "cifar10": 30, "tiny-imagenet": 30}


def augmentation(dataset: str) -> tuple[int, bool]:
    """Largest shift in pixels, and whether images are mirrored, as the recipes of a dataset say."""
    recipe = _BASE.get(dataset, Recipe())
    return recipe.shift, recipe.flip


def plan(dataset: str, arch: str, scale: str = "small", *, seed: int = 0) -> Plan:
    """The recipe for a network; for other datasets and networks the library's plain one.

    Raises:
        ConfigError: The scale is unknown.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    if dataset not in _BASE or arch == "small-cnn":
        return Plan(1.0, Recipe(seed=seed))
    base = replace(_BASE[dataset], seed=seed)
    if arch == "vit":
        base = replace(base, learning_rate=1e-3, channels_last=False)
    precise = arch == "mobilenet_v2" and scale == "small"  # depthwise convolutions: bfloat16 is slower
    base = replace(base, precision="float32" if precise else "bfloat16")
    if scale == "full" or arch not in NETS:
        return Plan(1.0, replace(base, epochs=_FULL_EPOCHS[dataset]))
    width, epochs = _SMALL[dataset][arch]
    return Plan(width, replace(base, epochs=epochs), _SMALL_TRAIN[dataset])
