"""What every attack shares: the constructor's first words, names resolved, a record kept."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from upi import dissimilarity as dissimilarities, saliency as maps
from upi.attacks.protocol import Protocol, resolve
from upi.attacks.support.ascent import Rule, StepRule
from upi.attacks.support.compiled import AUTO, MODES, CompiledGradient
from upi.attacks.support.gradient_check import fast_derivatives_agree, require_right_gradient
from upi.attacks.support.gradients import GradientFunction, attack_gradient
from upi.attacks.support.objective import MapChange, Objective
from upi.core.distributed import shard_size
from upi.core.errors import ConfigError, CurvatureWarning, unknown_name
from upi.core.keeping import Keeper
from upi.core.naming import name_of
from upi.core.types import Dissimilarity, Loader, Perturber, Progress, SaliencyMap
from upi.core.version import versions
from upi.data.content import sketch
from upi.data.images import samples
from upi.network.checks import require_deterministic, require_independent
from upi.network.classifier import Classifier
from upi.network.kinks import FLAGGED, require_smooth
from upi.network.surrogate import Surrogate
from upi.perturbation.ball import Ball
from upi.perturbation.subspace import Subspace
from upi.saliency.checks import PROBE, require_stable


def _plain(value: Any) -> int | float | str | None:
    """An option as a JSON value: numbers of NumPy and torch become Python's, callables names."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (np.number, Tensor)):
        return float(value)
    if isinstance(value, Subspace):
        return f"{len(value)} directions"
    return value.name if isinstance(value, Protocol) else name_of(value)


@dataclass(frozen=True)
class Attack(ABC):
    """Base of the attacks: hyperparameters in the constructor, data in ``fit``.

    Attributes:
        model: A ``Classifier``, or any module from [0, 1] images to logits.
        saliency: Name of a map, a configured map, or a callable ``(model, x, target) ->
            (N, H, W)`` that is differentiable in x.
        dissimilarity: Name, or a callable ``(clean, perturbed) -> (N,)``.
        norm: ``"l2"`` or ``"linf"``.
        eps: Radius in units of [0, 1] images; ``"8/255"`` is accepted.
        seed: Fixes everything random.
        preset: ``"protocol"``, or ``"paper"``: maps of the softmax output, integrated
            gradients with 10 steps and without the input factor, only correctly
            classified images, no surrogate; or a ``Protocol`` of your own.

    Raises:
        ConfigError: An option is unknown or outside its range.
    """

    model: Classifier | nn.Module
    _: KW_ONLY
    saliency: str | SaliencyMap = "gradient"
    dissimilarity: str | Dissimilarity = "relative_l2"
    norm: str = "l2"
    eps: float | str
    seed: int = 0
    preset: str | Protocol = "protocol"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", Classifier.wrap(self.model))
        _ = self.protocol, self.ball, self.map, self.change

    @property
    def classifier(self) -> Classifier:
        """The network that is fitted on: in float32 where its own numbers are shorter."""
        return Classifier.wrap(self.model).in_float32()

    @property
    def ball(self) -> Ball:
        return Ball(self.norm, self.eps)

    @property
    def protocol(self) -> Protocol:
        return resolve(self.preset)

    @property
    def map(self) -> SaliencyMap:
        return maps.resolve(self.saliency, paper=self.protocol.paper_maps)

    @property
    def change(self) -> Dissimilarity:
        return dissimilarities.resolve(self.dissimilarity)

    @abstractmethod
    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> Perturber:
        """Find the perturbation on the images of ``loader``; ``select`` is held-out data."""

    def beta(self, surrogate: float | str | None) -> float | None:
        """The softplus sharpness an option stands for: ``"auto"`` depends on the preset."""
        if isinstance(surrogate, str):
            if surrogate != "auto":
                raise ConfigError(f"surrogate must be a number, None or 'auto', got {surrogate!r}")
            return self.protocol.surrogate
        return surrogate

    @contextmanager
    def fitting(
        self, loader: Loader, beta: float | None, objective: Objective | None
    ) -> Iterator[tuple[Surrogate, Tensor]]:
        """The surrogate to fit on, of the frozen network, and the first images, both checked.

        Without an objective nothing will be differentiated twice.
        """
        network = self.classifier
        with network.frozen():
            first = network.place(next(samples(loader)).x)
            require_deterministic(network, first[:8])
            require_independent(network, first[:8])
            require_stable(self.map, network, first, network.predict(first[:PROBE]))
            if objective is not None:
                self._check(objective, first, beta)
            own = getattr(self.map, "plain", False)  # such a map brings derivatives of its own
            fast = (
                objective is not None and not own and fast_derivatives_agree(network, objective, first, beta)
            )
            yield network.surrogate(beta, fast=fast), first

    def _check(self, objective: Objective, first: Tensor, beta: float | None) -> None:
        """Refuse what would give a wrong attack gradient without a word."""
        if isinstance(objective, MapChange):
            require_right_gradient(self.classifier, objective, first, beta)
        if beta is not None:
            kinks = require_smooth(self.classifier, first, beta)
            if kinks.share > FLAGGED:
                warnings.warn(
                    f"{kinks}; the perturbation may be weaker for it", CurvatureWarning, stacklevel=4
                )

    def keeper(self, keep: Path | None, loader: Loader, **others: Any) -> Keeper | None:
        """What keeps the state of a fit on ``loader`` in a file; None where none is named.

        Args:
            keep: The file.
            loader: Images.
            others: What the fit depends on besides its options, the network and the images.
        """
        if keep is None:
            return None
        return Keeper(Path(keep), {**self.record(loader), "norm": self.norm, "eps": self.ball.eps, **others})

    def record(self, loader: Loader | None = None, **evidence: Any) -> dict[str, Any]:
        """Provenance: options, the model's fingerprint, versions, evidence, and the images by content."""
        skipped = ("model", "norm", "eps", "_")
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}
        plain = {key: _plain(value) for key, value in options.items()}
        return {
            "method": type(self).__name__,
            **plain,
            "map": name_of(self.map),
            "model": Classifier.wrap(self.model).fingerprint(),
            "versions": versions(),
            **({} if shard_size() is None else {"shard_size": shard_size()}),
            **({} if loader is None else {"fitted_on": sketch(loader)}),
            **evidence,
        }


@dataclass(frozen=True)
class IterativeAttack(Attack):
    """Base of the attacks that run the ascent loop of ``upi.attacks.support.ascent``.

    Attributes:
        steps: Updates, at least 1.
        compile: The whole step, with both derivatives, as one graph for the first batch's shape. ``"auto"``
            (default) captures it as a CUDA graph on a GPU, in the time of three steps, if that can be done;
            ``"cuda-graph"`` says so where it cannot; True, or a mode of ``torch.compile``, compiles it, which
            takes about a minute once (docs/performance.md); False takes it as it is.
    """

    steps: int = 200
    compile: bool | str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.rule, self.gradient_function()

    @property
    @abstractmethod
    def rule(self) -> StepRule:
        """The step rule of the ascent."""

    def gradient_function(self, stage: int = 0) -> GradientFunction:
        """How one batch's gradients are computed: plain, or as a graph, anew where the network changed.

        Args:
            stage: Of an attack that looks through several surrogates, which are graphs of their own.
        """
        if self.compile is False:
            return attack_gradient
        mode = "default" if self.compile is True else self.compile
        if mode not in MODES:
            raise unknown_name("compile mode", str(mode), MODES)
        return self._compiled.setdefault(stage, CompiledGradient(mode)).again()

    @cached_property
    def _compiled(self) -> dict[int, CompiledGradient]:
        return {}


@dataclass(frozen=True)
class SharedAscent(IterativeAttack):
    """Base of the attacks that raise one perturbation over all images; their fits can be cut short.

    Attributes:
        step_size: First step as a multiple of eps; decays to 0 along a cosine.
        momentum: Normalised gradient accumulation, in [0, 1).
    """

    step_size: float = 2.0
    momentum: float = 0.5

    @property
    def rule(self) -> Rule:
        """The step rule of the ascent."""
        return Rule(self.steps, self.step_size, self.momentum)


def default_sigma(ball: Ball, dim: int, share: float) -> float:
    """Deviation of smoothing noise whose l2 norm is ``share`` of the ball's l2 radius."""
    radius = ball.eps if ball.norm == "l2" else ball.eps * dim**0.5
    return float(share * radius / dim**0.5)


def check_sigma(sigma: float | None, *, least: float) -> None:
    """Raise ``ConfigError`` unless sigma is None or a finite number of at least ``least``."""
    try:
        good = sigma is None or least <= float(sigma) < float("inf")
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ConfigError(f"sigma must be finite and at least {least:g}, got {sigma!r}")


def check_price(price: float) -> None:
    """Raise ``ConfigError`` unless the price on changed predictions is at least 0."""
    if not price >= 0:
        raise ConfigError(f"prediction_price must be at least 0, got {price!r}")
