"""A job as a row of steps whose results are kept: what was done is not done again, by any number of workers.

Between two steps nothing but their results may be remembered, so that a job which takes some of them from
its file ends at the bytes of one that was left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from upi.core.distributed import from_lead, leads
from upi.core.errors import ArtifactError
from upi.core.keeping import Keeper, State, interrupted

Tensors = Mapping[str, Tensor]
#: Files of jobs that are done, while others of theirs are not.
_TOGETHER: ContextVar[list[Keeper] | None] = ContextVar("upi_together", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Inside, the files of jobs that are done stay until the whole block is done."""
    waiting: list[Keeper] = []
    token = _TOGETHER.set(waiting)
    try:
        yield
    finally:
        _TOGETHER.reset(token)
    for keeper in waiting:
        keeper.drop()


@dataclass(frozen=True)
class Step:
    """What one step gave: tensors by name, and plain JSON values."""

    tensors: Tensors
    facts: Mapping[str, Any]


class Steps:
    """The steps of one job, in one file while it runs.

    As a context: the file is written when the job is interrupted, and dropped when it is done.

    Args:
        keeper: The file; None keeps nothing.

    Raises:
        ArtifactError: What is kept is damaged, or of another job.
    """

    def __init__(self, keeper: Keeper | None) -> None:
        kept = from_lead(lambda: None if keeper is None else keeper.load(None))
        self.keeper = keeper if leads() else None
        self.keeps = keeper is not None
        self.done: dict[str, Step] = {}
        if keeper is not None and kept is not None:
            self.done = _unpacked(kept, keeper)

    def step(self, name: str, make: Callable[[], Step]) -> Step:
        """The result of a step: known, or made now and kept.

        Args:
            name: Unique in the job.
            make: Makes it, on all workers together; all get the same.
        """
        if name not in self.done:
            self.take(name, make())
        return self.done[name]

    def take(self, name: str, step: Step) -> None:
        """Keep the result of a step."""
        self.done[name] = step
        if self.keeper is not None:
            self.keeper.offer(lambda: _packed(self.done))

    def tensor(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The result of a step that is one tensor."""
        return self.step(name, lambda: Step({"it": make()}, {})).tensors["it"]

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.keeper is None:
            return
        if kind is None:
            self._finish(self.keeper)
        elif self.done and interrupted(kind):
            self.keeper.write(*_packed(self.done))

    def _finish(self, keeper: Keeper) -> None:
        waiting = _TOGETHER.get()
        if waiting is None:
            keeper.drop()
        else:
            keeper.write(*_packed(self.done))
            waiting.append(keeper)


def _packed(done: Mapping[str, Step]) -> State:
    tensors = {f"{name}/{key}": value for name, step in done.items() for key, value in step.tensors.items()}
    return tensors, {name: dict(step.facts) for name, step in done.items()}


def _unpacked(kept: State, keeper: Keeper) -> dict[str, Step]:
    tensors, facts = kept
    found: dict[str, Step] = {}
    try:
        for name, words in facts.items():
            own = {key[len(name) + 1 :]: each for key, each in tensors.items() if key.startswith(f"{name}/")}
            found[name] = Step(own, dict(words))
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{keeper.path}: damaged: {type(error).__name__}: {error}") from error
    return found
