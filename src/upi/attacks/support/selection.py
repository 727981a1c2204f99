"""Choosing among candidates on the select images: by the maps of the network itself.

A candidate costs one map of every select image. Where there are many of both, all are compared on
the first third of the images and only the best quarter on the rest. Guards against choosing on
the surrogate, on images with another clean map each time, and against a result that is weaker than
noise without a word.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from upi.attacks.support.objective import MapChange, scale_of, split
from upi.core.averaging import mean_over
from upi.core.seeding import generator
from upi.core.types import Loader
from upi.data.batches import Batch, batches
from upi.network.classifier import Classifier
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import in_box

#: Images from which the first part of them is enough to drop most candidates.
ENOUGH = 40
#: Share of the images that all candidates are compared on, share of the candidates that go on, and
#: the least number that does.
FIRST, KEPT, LEAST = 1 / 3, 1 / 4, 6
#: Images that are compared together, so that a single large batch can be cut as well.
PIECE = 32
#: Noise patterns that the chosen candidate is compared with.
DRAWS = 3


class Selection:
    """Candidates compared on prepared images.

    Args:
        network: Candidates are judged by its own maps.
        objective: What is wanted of them: the change of the map, less a price on predictions.
        loader: Select images; classes and clean maps are computed once.
        correct_only: Leave out images that the network classifies otherwise than their label.
    """

    def __init__(
        self, network: Classifier, objective: MapChange, loader: Loader, *, correct_only: bool = False
    ) -> None:
        self.network, self.objective = network, objective
        with network.frozen():
            explain = partial(objective.clean, network)
            prepared = list(batches(network, explain, loader, correct_only=correct_only))
        self.batches = [piece for batch in prepared for piece in split(batch, PIECE, scale_of(prepared))]

    @property
    def count(self) -> int:
        """Images that candidates are compared on."""
        return sum(len(batch) for batch in self.batches)

    def scores(self, candidates: Tensor) -> Tensor:
        """Mean value (B,) of clip(x + delta) over all images for candidates (B, C, H, W)."""
        return self._mean(candidates, self.batches)

    def ranked(self, candidates: Tensor) -> Tensor:
        """As ``scores``, with NaN for candidates that the first part of the images ruled out."""
        first, rest = self._parts()
        if not rest or len(candidates) <= 2 * LEAST:
            return self.scores(candidates)
        early = self._mean(candidates, first)
        kept = early.topk(max(LEAST, round(KEPT * len(candidates)))).indices
        seen = sum(len(batch) for batch in first)
        late = self._mean(candidates[kept], rest)
        scores = torch.full_like(early, torch.nan)
        scores[kept] = (early[kept] * seen + late * (self.count - seen)) / self.count
        return scores

    def noise(self, ball: Ball, seed: int) -> float:
        """Mean value of noise on the boundary of the ball, over a few patterns."""
        shape = (1, *self.batches[0].x.shape[1:])
        patterns = [ball.boundary(shape, generator(seed, "select-noise", draw)) for draw in range(DRAWS)]
        return float(self.scores(torch.cat(patterns)).mean())

    def _parts(self) -> tuple[list[Batch], list[Batch]]:
        """The batches that come first, a third of the images or more, and the others."""
        if self.count < ENOUGH:
            return self.batches, []
        seen, number = 0, 0
        while seen < FIRST * self.count:
            seen += len(self.batches[number])
            number += 1
        return self.batches[:number], self.batches[number:]

    def _mean(self, candidates: Tensor, some: list[Batch]) -> Tensor:
        def values(batch: Batch) -> Tensor:
            points = (in_box(batch.x + candidate.to(batch.x)) for candidate in candidates)
            return torch.stack([self.objective.measured(self.network, batch, point) for point in points], 1)

        with self.network.frozen():
            return mean_over(iter(some), values).cpu()
