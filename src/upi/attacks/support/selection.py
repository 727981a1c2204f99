"""Choosing among candidates on the select images: by the maps of the network itself.

A candidate costs one map of every select image. Where there are many of both, all are compared on
the first third of the images and only the best quarter on the rest. Guards against choosing on
the surrogate, on images with another clean map each time, and against a result that is weaker than
noise without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from upi.attacks.support.objective import MapChange, split
from upi.core.distributed import gathered, jointly, shard_size
from upi.core.exact import exact_sum
from upi.core.seeding import generator
from upi.core.types import Loader
from upi.data.batches import Batch, Share, Tally, scaled, shares, tally_of
from upi.data.images import samples
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


@dataclass(frozen=True)
class Part:
    """Images that are looked at together; their batch where they are this worker's."""

    batch: Batch | None
    count: int


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
            prepared = list(shares(network, explain, loader, correct_only=correct_only))
        tallies = gathered(
            {
                (number, batch.piece): tally_of(batch)
                for number, share in enumerate(prepared)
                for batch in share.pieces
            }
        )
        self.shape = tuple(next(samples(loader)).x.shape[1:])
        self.parts = [part for share in prepared for part in _parts_of(share, tallies)]

    @property
    def count(self) -> int:
        """Images that candidates are compared on."""
        return sum(part.count for part in self.parts)

    def scores(self, candidates: Tensor) -> Tensor:
        """Mean value (B,) of clip(x + delta) over all images for candidates (B, C, H, W)."""
        return self._mean(candidates, self.parts)

    def ranked(self, candidates: Tensor) -> Tensor:
        """As ``scores``, with NaN for candidates that the first part of the images ruled out."""
        first, rest = self._early()
        if not rest or len(candidates) <= 2 * LEAST:
            return self.scores(candidates)
        early = self._mean(candidates, first)
        kept = early.topk(max(LEAST, round(KEPT * len(candidates)))).indices
        seen = sum(part.count for part in first)
        late = self._mean(candidates[kept], rest)
        scores = torch.full_like(early, torch.nan)
        scores[kept] = (early[kept] * seen + late * (self.count - seen)) / self.count
        return scores

    def noise(self, ball: Ball, seed: int) -> float:
        """Mean value of noise on the boundary of the ball, over a few patterns."""
        shape = (1, *self.shape)
        patterns = [ball.boundary(shape, generator(seed, "select-noise", draw)) for draw in range(DRAWS)]
        return float(self.scores(torch.cat(patterns)).mean())

    def _early(self) -> tuple[list[Part], list[Part]]:
        """The parts that come first, a third of the images or more, and the others."""
        if self.count < ENOUGH:
            return self.parts, []
        seen, number = 0, 0
        while seen < FIRST * self.count:
            seen += self.parts[number].count
            number += 1
        return self.parts[:number], self.parts[number:]

    def _mean(self, candidates: Tensor, some: list[Part]) -> Tensor:
        def sums(batch: Batch) -> Tensor:
            points = (in_box(batch.x + candidate.to(batch.x)) for candidate in candidates)
            values = [self.objective.measured(self.network, batch, point) for point in points]
            return torch.stack(values, 1).double().sum(0).cpu()

        def own() -> dict[int, list[Tensor]]:
            mine = {number: part.batch for number, part in enumerate(some)}
            return {number: [sums(batch)] for number, batch in mine.items() if batch is not None}

        with self.network.frozen():
            nothing = torch.zeros(len(candidates), dtype=torch.float64)
            (total,) = exact_sum(jointly(own), len(some), [nothing])
        return total / sum(part.count for part in some)


def _parts_of(share: Share, tallies: list[Tally]) -> list[Part]:
    """The pieces of a batch; one that nobody shares is cut so that its candidates do not fill the memory."""
    mine = {batch.piece: scaled(batch, tallies) for batch in share.pieces}
    if shard_size() is None:
        return [Part(batch, len(batch)) for batch in split(mine[0], PIECE, mine[0].scale)]
    return [Part(mine.get(piece), count) for piece, count in enumerate(share.counts) if count]
