"""Raising one shared perturbation over a stream of minibatches: UPI-Grad and ClassUAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from upi.attacks.support.ascent import Ascended, Ascent, Climb, Rule, ascend
from upi.attacks.support.gradients import GradientFunction, attack_gradient, boxed_gradients, require_gradient
from upi.attacks.support.objective import Objective
from upi.core.averaging import summed
from upi.core.distributed import from_lead, leads
from upi.core.errors import ArtifactError
from upi.core.keeping import Keeper, State, interrupted
from upi.core.seeding import generator, normal_like
from upi.core.types import Progress
from upi.data.batches import Batch, EndlessBatches, Share
from upi.network.surrogate import Surrogate
from upi.perturbation.ball import Ball


@dataclass(frozen=True)
class MinibatchObjective:
    """Mean objective and gradient over the next minibatch at x + delta + Z."""

    surrogate: Surrogate
    objective: Objective
    stream: EndlessBatches
    sigma: float
    seed: int
    clip: bool = False
    function: GradientFunction = attack_gradient

    @cached_property
    def _shares(self) -> Iterator[Share]:
        return iter(self.stream)

    def __call__(self, delta: Tensor, step: int) -> Ascent:
        share = next(self._shares)
        nothing = [torch.zeros_like(delta[0]).flatten(), delta.new_zeros(1), delta.new_zeros(1)]
        total, value, some = summed(share, lambda batch: self._part(batch, delta, step), nothing)
        if step == 0:
            require_gradient(some, where=f"step {step}")
        return Ascent(float(value / share.count), (total / share.count).view_as(delta))

    def _part(self, batch: Batch, delta: Tensor, step: int) -> list[Tensor]:
        """Sums over a piece: of gradients, of values, and of whether any gradient is not zero."""
        rng = generator(self.seed, "smoothing", step, batch.piece)
        point = batch.x + delta + self.sigma * normal_like(batch.x, rng)
        here = boxed_gradients(
            self.surrogate,
            self.objective,
            batch,
            point,
            clip=self.clip,
            where=f"step {step}",
            function=self.function,
        )
        rows = here.gradient
        some = (rows != 0).any()[None].to(rows) if step == 0 else rows.new_zeros(1)
        return [rows.sum(0).flatten(), here.values.sum()[None].to(rows), some]


class KeptClimb:
    """The state of a shared ascent in a file: written now and then, and when the ascent is interrupted.

    Attributes:
        begun: Where an earlier run was cut short, None for the start.
        skip: Batches that it had read from the loader.
        taken: Says how many are read by now.

    Args:
        keeper: The file; None keeps nothing.
    """

    def __init__(self, keeper: Keeper | None) -> None:
        self.skip = 0
        self.begun: Climb | None = None
        self.taken: Callable[[], int] = lambda: 0
        self._last: tuple[Climb, int, int] | None = None  # the climb, its steps, batches read
        kept = from_lead(lambda: None if keeper is None else keeper.load({"delta", "momentum"}))
        self.keeper = keeper if leads() else None
        if keeper is not None and kept is not None:
            tensors, facts = kept
            try:
                history, self.skip = [float(value) for value in facts["history"]], int(facts["taken"])
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(f"{keeper.path}: damaged: {type(error).__name__}: {error}") from error
            self.begun = Climb(tensors["delta"], tensors["momentum"], history)

    def after(self, climb: Climb) -> None:
        """Remember a step; write it if it is time."""
        if self.keeper is None:
            return
        self._last = (climb, len(climb.history), self.taken())
        self.keeper.offer(self._state)

    def _state(self) -> State:
        """The last step that was done; the history is cut there, for it may have grown since."""
        assert self._last is not None
        climb, steps, taken = self._last
        facts = {"history": list(climb.history[:steps]), "taken": taken}
        return {"delta": climb.delta, "momentum": climb.momentum}, facts

    def __enter__(self) -> KeptClimb:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.keeper is None:
            return
        if kind is None:
            self.keeper.drop()
        elif self._last is not None and interrupted(kind):
            self.keeper.write(*self._state())


def raise_shared(
    batches: MinibatchObjective,
    ball: Ball,
    rule: Rule,
    shape: tuple[int, ...],
    *,
    progress: Progress | None,
    inside: Callable[[Tensor], Tensor] | None = None,
    memory: KeptClimb | None = None,
) -> Ascended:
    """Ascend from a uniform point of the ball, or of its part ``inside``; ``shape`` is (C, H, W)."""
    start = batches.surrogate.place(ball.sample((1, *shape), generator(batches.seed, "start")))
    with memory or KeptClimb(None) as kept:
        kept.taken = lambda: batches.stream.taken
        return ascend(batches, start, ball, rule, progress, inside, memory=kept)
