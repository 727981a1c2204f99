"""The least that gradients can do: one universal step along their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from upi.attacks.base import Attack, check_price
from upi.attacks.registry import declare
from upi.attacks.support.gradients import boxed_gradients, require_gradient
from upi.attacks.support.objective import MapChange
from upi.core.averaging import mean_over
from upi.core.rows import RowStyle
from upi.core.seeding import generator
from upi.core.types import Loader, Progress
from upi.data.batches import Batch, Share, shares
from upi.data.images import count_of, replayable
from upi.perturbation.pattern import Perturbation, as_perturbation


@declare(
    RowStyle("mean-gradient", "one universal step", "#0369a1"),
    order=4,
    options=("prediction_price", "clip"),
)
@dataclass(frozen=True)
class MeanGradient(Attack):
    """delta = P(start + eps s(mean_i grad D(I(x_i), I(x_i + start)))): one step from a random start.

    What UPI-Grad would be with a single step over all images; one pass over the data. A universal attack that
    does no better than this one has not used what it was given.

    Attributes:
        prediction_price: As in ``UPIGrad``.
        surrogate: Softplus sharpness beta, None for the network itself, or ``"auto"``.
        clip: Look at clip(x + start) instead of x + start.

    Raises:
        ConfigError: An option is outside its range.
    """

    prediction_price: float = 0.0
    surrogate: float | str | None = "auto"
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_price(self.prediction_price)
        _ = self.beta(self.surrogate)

    def fit(
        self, loader: Loader, *, select: Loader | None = None, progress: Progress | None = None
    ) -> Perturbation:
        """Find the perturbation on the images of ``loader``; ``select`` is not used.

        Raises:
            DataError, ModelError: The images or the model break the contract.
            ZeroGradientError, NonFiniteError: As in ``UPIGrad.fit``.
        """
        loader = replayable(loader)
        objective = MapChange(self.map, self.change, self.prediction_price)
        with self.fitting(loader, self.beta(self.surrogate), objective) as (surrogate, first):
            start = surrogate.place(
                self.ball.sample((1, *first.shape[1:]), generator(self.seed, "mean-gradient"))
            )
            prepared = shares(
                self.classifier,
                partial(objective.clean, surrogate),
                loader,
                correct_only=self.protocol.correct_only,
            )

            def told() -> Iterator[Share]:
                for share in prepared:
                    yield share
                    if progress is not None:
                        progress(share.index + 1, count_of(loader))

            def rows(batch: Batch) -> Tensor:
                point, where = batch.x + start, f"batch {batch.index}"
                return boxed_gradients(
                    surrogate, objective, batch, point, clip=self.clip, where=where
                ).gradient

            mean = mean_over(told(), rows, start[0])[None].to(start)
        require_gradient(mean, where="mean gradient")
        delta = self.ball.project(start + self.ball.extreme(mean))
        return as_perturbation(self.ball.outward(delta), self.ball, self.record(loader))
