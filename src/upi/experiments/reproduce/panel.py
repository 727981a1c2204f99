"""The public networks: what is measured on them, in two groups that share images."""

from __future__ import annotations

from dataclasses import replace

from upi.core.errors import unknown_name
from upi.experiments.reproduce.settings import Cell, Settings, Work
from upi.models.recipes import SCALES

#: The argument of ``upi reproduce`` that stands for both groups, and their folders.
PANEL = "public-networks"
GROUPS = {"public-cifar10": "cifar10", "public-imagenet": "imagenet"}

_CIFAR = Work(n_fit=400, n_select=100, n_test=250, batch=32, steps=120, per_image_steps=25, pca_draws=2)
_CIFAR_IG = Work(
    n_fit=96, n_select=40, n_test=80, batch=16, steps=30, per_image_steps=10, pca_draws=1, fits=1
)
_PHOTOS = Work(n_fit=96, n_select=48, n_test=100, batch=16, steps=30, per_image_steps=10, pca_draws=1)
_FULL = Work(n_fit=1000, n_select=250, n_test=5000, batch=64, steps=300, per_image_steps=40, pca_draws=2)
_FULL_IG = Work(n_fit=256, n_select=60, n_test=400, batch=32, steps=80, per_image_steps=20, pca_draws=1)
_FULL_PHOTOS = Work(n_fit=250, n_select=100, n_test=350, batch=32, steps=200, per_image_steps=40, pca_draws=2)


def _cifar(preset: str, seed: int, small: bool) -> Settings:
    work, integrated = (_CIFAR, _CIFAR_IG) if small else (_FULL, _FULL_IG)
    main = Cell("gradient", "l2", "0.5", work)
    return Settings(
        "public-cifar10",
        "small" if small else "full",
        preset,
        seed,
        cells=(
            main,
            *(() if small else (Cell("gradient", "linf", "2/255", work),)),
            Cell("integrated_gradients", "l2", "0.5", integrated),
        ),
        rest=(main,),
        architectures=("cifar10-resnet32", "cifar10-resnet44", "cifar10-resnet56"),
        images="cifar10",
        public=True,
        radii=(0.5, 1.0, 2.0),
        n_curve=100 if small else 1000,
        n_transfer=250 if small else 5000,
        theory_images=0,
        studies=(
            "transfer_networks",
            "transfer_maps",
            "correlation",
            "eps_curve",
            "spectrum",
            "components",
            "subspace",
            "pictures",
        ),
    )


def _photos(preset: str, seed: int, small: bool) -> Settings:
    work = _PHOTOS if small else _FULL_PHOTOS
    main = Cell("gradient", "l2", "2.0", work)
    brief = replace(work, n_fit=64, n_select=32, n_test=60, steps=20, fits=1)
    once = Cell("gradient", "l2", "2.0", brief) if small else main
    return Settings(
        "public-imagenet",
        "small" if small else "full",
        preset,
        seed,
        cells=(main,),
        rest=(once,),
        architectures=("efficientnet-lite0", "efficientnet-lite1"),
        images="imagenet-sample",
        size=224,
        public=True,
        n_fit=work.n_fit,
        n_select=work.n_select,
        n_transfer=60 if small else 350,
        theory_images=0,
        batch=20,
        studies=("transfer_networks", "correlation", "pictures"),
    )


_MAKERS = {"public-cifar10": _cifar, "public-imagenet": _photos}


def panel_settings(name: str, scale: str = "small", preset: str = "protocol", *, seed: int = 0) -> Settings:
    """What ``upi reproduce`` does for one group of public networks.

    Args:
        name: A key of ``GROUPS``.
        scale: ``small``: two cores; ``full``: a GPU, whole test sets.
        preset, seed: As in the attacks.

    Raises:
        ConfigError: A name is unknown.
    """
    if name not in _MAKERS:
        raise unknown_name("group", name, _MAKERS)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    return _MAKERS[name](preset, seed, scale == "small")
