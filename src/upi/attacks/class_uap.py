"""ClassUAP: the universal perturbation against predictions, as a control."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from upi.attacks.base import SharedAscent
from upi.attacks.registry import declare
from upi.attacks.support.objective import PredictionChange
from upi.attacks.support.universal import KeptClimb, MinibatchObjective, raise_shared
from upi.core.rows import CLASS_UAP, ROWS
from upi.core.types import Loader, Progress
from upi.data.batches import EndlessBatches
from upi.data.images import replayable
from upi.perturbation.pattern import Perturbation, as_perturbation


@declare(ROWS[CLASS_UAP], order=3, options=("steps", "compile"))
@dataclass(frozen=True)
class ClassUAP(SharedAscent):
    """Maximise the clipped cross-entropy of the clean predictions over ||delta|| <= eps.

    A classification UAP (Moosavi-Dezfooli et al. 2017) by projected ascent with clipped loss
    (Shafahi et al. 2020). It shows how far maps move when predictions are attacked instead.

    Attributes:
        steps, step_size, momentum: As in ``UPIGrad``.
        ceiling: Cross-entropy in nats above which a sample stops counting.
    """

    steps: int = 100
    ceiling: float = 9.0

    def fit(
        self,
        loader: Loader,
        *,
        select: Loader | None = None,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Perturbation:
        """Find the perturbation on the images of ``loader``; ``select`` is not used.

        Args:
            loader, progress, keep: As in ``UPIGrad.fit``.

        Raises:
            ArtifactError, DataError, ModelError: The images or the model break the contract.
            ZeroGradientError, NonFiniteError: As in ``UPIGrad.fit``.
        """
        loader = replayable(loader)
        objective = PredictionChange(self.ceiling)
        with self.fitting(loader, None, objective) as (network, first):
            explain = partial(objective.clean, network)
            memory = KeptClimb(self.keeper(keep, loader))
            stream = EndlessBatches(
                self.classifier,
                explain,
                loader,
                correct_only=self.protocol.correct_only,
                steps=self.steps,
                skip=memory.skip,
            )
            mean = MinibatchObjective(
                network, objective, stream, 0.0, self.seed, function=self.gradient_function()
            )
            result = raise_shared(
                mean, self.ball, self.rule, tuple(first.shape[1:]), progress=progress, memory=memory
            )
        return as_perturbation(result.delta, self.ball, self.record(loader, history=list(result.history)))
