"""UPI-Grad: projected stochastic gradient ascent on the smoothed dissimilarity of maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from upi.attacks.base import SharedAscent, check_price, check_sigma, default_sigma
from upi.attacks.registry import declare
from upi.attacks.support.gradients import gradients, require_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.attacks.support.universal import KeptClimb, MinibatchObjective, raise_shared
from upi.core.errors import ConfigError
from upi.core.rows import ROWS, UPI_GRAD
from upi.core.seeding import generator
from upi.core.types import Loader, Progress
from upi.data.batches import EndlessBatches
from upi.data.images import replayable
from upi.network.surrogate import Surrogate
from upi.perturbation.pattern import Perturbation, as_perturbation
from upi.perturbation.subspace import Subspace


@declare(ROWS[UPI_GRAD], order=2, options=("steps", "prediction_price", "clip", "compile"))
@dataclass(frozen=True)
class UPIGrad(SharedAscent):
    """Maximise (1/n) sum_i E_Z[D(I(x_i), I(x_i + delta + Z))] over ||delta|| <= eps.

    Ehsani Oskouie and Farnia (ICASSP 2023). Each step draws a minibatch and its noise
    Z ~ N(0, sigma^2 I), differentiates D through the map (a Hessian-vector product of the
    network), steps and projects. On piecewise-linear networks the fit runs on the softplus
    surrogate; evaluate on the network itself.

    Attributes:
        steps: Minibatch updates.
        step_size, momentum: As in ``upi.attacks.support.ascent.Rule``: the first step as a multiple of
            eps, which decays to 0 along a cosine, and the accumulation of gradients.
        sigma: Smoothing deviation in units of [0, 1] images; None makes the noise's l2 norm
            a tenth of the ball's l2 radius. 0 turns smoothing off.
        prediction_price: Price on moving towards another prediction, at least 0; 0 ignores it.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``.
        clip: Fit on clip(x + delta + Z) instead of x + delta + Z.
        subspace: Look inside this span only (l2 ball), as of ``UPIPCA(...).subspace(loader, k)``; says
            how much of the strength lives there.

    Raises:
        ConfigError: An option is outside its range, or a subspace comes with the l-inf ball.
    """

    sigma: float | None = None
    prediction_price: float = 0.0
    surrogate: float | str | None = "auto"
    clip: bool = False
    subspace: Subspace | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma, least=0.0)
        check_price(self.prediction_price)
        _ = self.beta(self.surrogate)
        if self.subspace is not None and self.norm != "l2":
            raise ConfigError("a subspace needs norm='l2': the l-inf projection leaves it")

    def fit(
        self,
        loader: Loader,
        *,
        select: Loader | None = None,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Perturbation:
        """Find the perturbation on the images of ``loader``.

        Args:
            loader: Iterable of (images, labels) or of images, in [0, 1]; repeated as needed.
            select: Not used; accepted so that attacks can be exchanged.
            progress: Called with (steps done, steps).
            keep: File where the state is kept while the fit runs (at most 2 % of its time). Where one
                is left of the same fit, cut short, it goes on from there, to the same bytes as long as the
                loader gives the same batches.

        Returns:
            The perturbation, with the objective's history in its provenance.

        Raises:
            ArtifactError: What is kept is damaged, or of another fit.
            DataError, ModelError: The images or the model break the contract.
            ZeroGradientError: The attack gradient is exactly zero.
            NonFiniteError: A step gave NaN or infinity.
        """
        loader = replayable(loader)
        objective = MapChange(self.map, self.change, self.prediction_price)
        with self.fitting(loader, self.beta(self.surrogate), objective) as (surrogate, first):
            dim = first[0].numel()
            sigma = default_sigma(self.ball, dim, 0.1) if self.sigma is None else float(self.sigma)
            memory = KeptClimb(self.keeper(keep, loader))
            stream = EndlessBatches(
                self.classifier,
                partial(objective.clean, surrogate),
                loader,
                correct_only=self.protocol.correct_only,
                steps=self.steps,
                skip=memory.skip,
            )
            if self.prediction_price:
                self._probe(surrogate, first)
            mean = MinibatchObjective(
                surrogate, objective, stream, sigma, self.seed, self.clip, self.gradient_function()
            )
            result = raise_shared(
                mean,
                self.ball,
                self.rule,
                tuple(first.shape[1:]),
                progress=progress,
                inside=None if self.subspace is None else self.subspace.project,
                memory=memory,
            )
        return as_perturbation(
            result.delta, self.ball, self.record(loader, sigma=sigma, history=list(result.history))
        )

    def _probe(self, surrogate: Surrogate, x: Tensor) -> None:
        """Refuse a map without attack gradient, which the price's own gradient would hide."""
        objective = MapChange(self.map, self.change)
        batch = explained_batch(objective, surrogate, x, self.classifier.predict(x))
        shift = self.ball.sample((1, *x.shape[1:]), generator(self.seed, "start"))
        here = gradients(surrogate, objective, batch, x + surrogate.place(shift), where="probe")
        require_gradient(here.gradient, where="probe")
