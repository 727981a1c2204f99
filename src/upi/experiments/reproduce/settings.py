"""What is measured for each dataset, at the two scales."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from upi.attacks.protocol import PAPER, PROTOCOLS, resolve
from upi.core.errors import unknown_name
from upi.experiments.fitting import Spec
from upi.models.recipes import ARCHITECTURES, SCALES


@dataclass(frozen=True)
class Work:
    """How much goes into one cell of Table 1.

    Attributes:
        n_fit, n_select, n_test: Images for fitting, selection, report.
        batch: Images per step of UPI-Grad.
        steps, per_image_steps: Updates of the universal attacks and of the per-image attack.
        pca_draws: Draws of Z per image of UPI-PCA.
        fits: Fits of each universal attack with different seeds.
    """

    n_fit: int
    n_select: int
    n_test: int
    batch: int
    steps: int
    per_image_steps: int
    pca_draws: int
    fits: int = 3


@dataclass(frozen=True)
class Cell:
    """One map, norm and radius."""

    saliency: str
    norm: str
    eps: str
    work: Work

    @property
    def key(self) -> str:
        """Name in files."""
        return f"{self.saliency}-{self.norm}-{self.eps.replace('/', 'of')}"

    def spec(self, preset: str, seed: int) -> Spec:
        """The study of this cell."""
        return Spec(
            key=self.key,
            saliency=self.saliency,
            norm=self.norm,
            eps=self.eps,
            preset=preset,
            seed=seed,
            steps=self.work.steps,
            per_image_steps=self.work.per_image_steps,
            pca_draws=1 if resolve(preset) is PAPER else self.work.pca_draws,
            fits=self.work.fits,
        )


#: What a reproduction has beside Table 1.
STUDIES = (
    "transfer_networks",
    "transfer_maps",
    "correlation",
    "eps_curve",
    "fitting_images",
    "spectrum",
    "subspace",
    "pictures",
)


@dataclass(frozen=True)
class Settings:
    """One reproduction.

    Attributes:
        dataset, scale, preset, seed: As given by the user.
        cells: Table 1; the first is the main one, which every other table and figure is about.
        rest: The cells that networks other than the lead get: the main one among them.
        brief: Networks that get the main cell only, because they are slow.
        images: Dataset whose images are used, where it is not ``dataset``.
        size: Side that photographs of all sizes are cut to.
        public: The networks are public ones (``upi.models.public``); nothing is trained.
        batch: Images per batch where nothing is differentiated twice through many of them.
        studies: Comparisons, figures and tables beside Table 1, in order.
        architectures: Networks; the first leads.
        n_fit, n_select: Images set aside from the training split.
        maps: Maps that transfer is measured between.
        radii: Multiples of the main radius on the eps-curve.
        n_curve, n_transfer: Test images of the eps-curve and of the transfer tables.
        fit_counts: Numbers of fitting images whose effect is measured.
        power_steps: Updates after which the stochastic power method is looked at.
        other: Dataset that perturbations are exchanged with, resized to this one's images.
    """

    dataset: str
    scale: str
    preset: str
    seed: int
    cells: tuple[Cell, ...]
    rest: tuple[Cell, ...]
    architectures: tuple[str, ...] = ARCHITECTURES
    n_fit: int = 1000
    n_select: int = 250
    maps: tuple[str, ...] = ("gradient", "integrated_gradients", "smoothgrad", "grad_cam")
    radii: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    n_curve: int = 100
    n_transfer: int = 200
    fit_counts: tuple[int, ...] = (8, 32, 128, 512)
    power_steps: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    theory_images: int = 8
    other: str | None = None
    brief: tuple[str, ...] = ()
    images: str | None = None
    size: int | None = None
    public: bool = False
    batch: int = 100
    studies: tuple[str, ...] = STUDIES

    @property
    def source(self) -> str:
        """Dataset whose images are used."""
        return self.images or self.dataset

    @property
    def main(self) -> Cell:
        """The cell that the figures are about."""
        return self.cells[0]

    def cells_of(self, arch: str) -> tuple[Cell, ...]:
        """The cells of Table 1 for a network."""
        if arch == self.lead:
            return self.cells
        return self.cells[:1] if arch in self.brief else self.rest

    @property
    def lead(self) -> str:
        """The network that the figures are about."""
        return self.architectures[0]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "cells": [{"key": cell.key, **asdict(cell)} for cell in self.cells]}


#: Main l2 radius, other l2 radius and l-inf radius; at the other one UPI-Grad leaves more than nine
#: of ten predictions of the lead network alone.
RADII = {
    "mnist": ("2.0", "1.0", "0.1"),
    "cifar10": ("1.0", "0.5", "8/255"),
    "tiny-imagenet": ("1.0", "0.5", "4/255"),
}
DATASETS = tuple(RADII)
_OTHER = {"cifar10": "tiny-imagenet"}

_SMALL = Work(n_fit=400, n_select=100, n_test=250, batch=32, steps=120, per_image_steps=25, pca_draws=2)
_SMALL_GRID = Work(n_fit=400, n_select=60, n_test=200, batch=32, steps=60, per_image_steps=20, pca_draws=2)
_SMALL_IG = Work(n_fit=128, n_select=40, n_test=100, batch=16, steps=40, per_image_steps=12, pca_draws=1)
_FULL = Work(n_fit=1000, n_select=250, n_test=2000, batch=64, steps=300, per_image_steps=40, pca_draws=2)
_FULL_GRID = Work(n_fit=1000, n_select=100, n_test=1000, batch=64, steps=150, per_image_steps=30, pca_draws=2)
_FULL_IG = Work(n_fit=256, n_select=60, n_test=400, batch=32, steps=80, per_image_steps=20, pca_draws=1)


#: Datasets whose images are so large that each cell gets less work.
_THIN: dict[str, tuple[str, ...]] = {"small": ("tiny-imagenet",), "full": ()}


def _thinned(work: Work) -> Work:
    """About half of the work; more test images, because few of them are classified correctly."""
    return replace(
        work,
        n_test=round(2.4 * work.n_test),
        steps=round(0.6 * work.steps),
        per_image_steps=round(0.7 * work.per_image_steps),
        pca_draws=max(1, work.pca_draws // 2),
    )


def settings(dataset: str, scale: str = "small", preset: str = "protocol", *, seed: int = 0) -> Settings:
    """What ``upi reproduce`` does.

    Raises:
        ConfigError: A name is unknown.
    """
    for kind, name, known in (
        ("dataset", dataset, DATASETS),
        ("scale", scale, SCALES),
        ("preset", preset, PROTOCOLS),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    main, lower, cube = RADII[dataset]
    works = (_SMALL, _SMALL_GRID, _SMALL_IG) if scale == "small" else (_FULL, _FULL_GRID, _FULL_IG)
    work, lighter, integrated = (_thinned(w) for w in works) if dataset in _THIN[scale] else works
    cells = (
        Cell("gradient", "l2", main, work),
        Cell("gradient", "l2", lower, lighter),
        Cell("gradient", "linf", cube, lighter),
        Cell("integrated_gradients", "l2", main, integrated),
        Cell("integrated_gradients", "linf", cube, integrated),
    )
    rest = (cells[0], cells[2], cells[3]) if dataset == "mnist" else (cells[0], cells[3])
    found = Settings(
        dataset,
        scale,
        preset,
        seed,
        cells,
        rest,
        other=_OTHER.get(dataset),
        brief=() if scale == "full" or dataset == "mnist" else ("mobilenet_v2",),
    )
    if dataset in _THIN[scale]:
        found = replace(found, cells=cells[:4], n_curve=200, n_transfer=500, theory_images=4)
    if scale == "full":
        found = replace(
            found, n_curve=500, n_transfer=2000, fit_counts=(8, 32, 125, 500, 1000), theory_images=64
        )
    return found
