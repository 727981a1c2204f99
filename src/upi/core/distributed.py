"""Several workers on one job: who does what, what they tell each other, and how all of them end.

Perturbations are tiny, so images are shared out and the perturbation is replicated. A batch is cut into
pieces of a fixed size by the places of its images; worker r of n takes the pieces r, r + n, ..., and what
comes of a piece does not depend on whose it is. One worker without a launcher does nothing of this, at no
cost.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from upi.core.errors import ConfigError, DataError, UPIError, WorkerError

T = TypeVar("T")
K = TypeVar("K", int, tuple[int, int])

#: Images of a piece where several workers share a batch and nothing else is asked for.
SHARD = 8
#: Seconds that a worker which failed waits for the others to do so too.
PATIENCE = 20

_SHARD_SIZE: ContextVar[int | None] = ContextVar("upi_shard_size", default=None)


@dataclass(frozen=True)
class Team:
    """The workers of a job.

    Attributes:
        rank: Number of this worker, from 0; worker 0 leads: it alone prints and writes.
        size: Workers.
    """

    rank: int
    size: int


#: Whether this process shares its work; a program that uses ``torch.distributed`` otherwise does not.
_JOINED = [False]


def join(joined: bool) -> None:
    """Share the work with the other processes of the group, or no longer (``upi.core.launch.workers``)."""
    _JOINED[0] = joined


def team() -> Team:
    """The workers of this job: one, unless this process has joined others (``upi.core.launch.workers``)."""
    return Team(dist.get_rank(), dist.get_world_size()) if _JOINED[0] else Team(0, 1)


def leads() -> bool:
    """Whether this worker prints and writes."""
    return team().rank == 0


@contextmanager
def sharding(size: int | None) -> Iterator[None]:
    """Inside, batches are cut into pieces of ``size`` images; None: 8 under a launcher, else not at all.

    Raises:
        ConfigError: The size is below 1.
    """
    if size is not None and size < 1:
        raise ConfigError(f"a piece of a batch has at least 1 image, got {size}", options=("shard_size",))
    token = _SHARD_SIZE.set(size)
    try:
        yield
    finally:
        _SHARD_SIZE.reset(token)


def shard_size() -> int | None:
    """Images of a piece of a batch; None where batches stay whole."""
    asked = _SHARD_SIZE.get()
    return SHARD if asked is None and _JOINED[0] else asked


def own(pieces: int) -> range:
    """Numbers of the pieces that this worker takes."""
    here = team()
    return range(here.rank, pieces, here.size)


def rounds(items: Iterable[T]) -> Iterator[list[T]]:
    """As many items at a time as there are workers, one for each; the last time maybe fewer."""
    held: list[T] = []
    for item in items:
        held.append(item)
        if len(held) == team().size:
            yield held
            held = []
    if held:
        yield held


@contextmanager
def talk() -> Iterator[None]:
    """One word with the others; a sentence where one of them is gone."""
    try:
        yield
    except RuntimeError as error:  # what every backend raises for a lost connection
        raise WorkerError("another worker has ended before the work was done") from error


def least(value: int) -> int:
    """The least of the workers' numbers."""
    held = torch.tensor(value)
    with talk():
        dist.all_reduce(held, dist.ReduceOp.MIN)
    return int(held)


def jointly(compute: Callable[[], T]) -> T:
    """What each worker computes for itself; where that fails for one, all of them raise its error.

    Raises:
        WorkerError: The error cannot be told to the others, or one of them has ended.
        Exception: That of the first worker that failed.
    """
    here = team()
    if here.size == 1:
        return compute()
    result: T | None = None
    problem: Exception | None = None
    try:
        result = compute()
    except Exception as error:  # it is raised again, here and on every other worker
        problem = error
    first = least(here.size if problem is None else here.rank)
    if first < here.size:
        told = _from(first, None if problem is None else _portable(problem))
        found = pickle.loads(told)
        found.joint = True
        raise found from problem
    return cast(T, result)


def _portable(error: Exception) -> bytes:
    """An error as bytes; where it cannot be carried, its name and words."""
    try:
        told = pickle.dumps(error)
        pickle.loads(told)
    except Exception:  # whatever an error of someone else's code holds
        return pickle.dumps(WorkerError(f"{type(error).__name__}: {error}"))
    return told


def is_joint(error: BaseException) -> bool:
    """Whether all workers have raised this error together."""
    return bool(getattr(error, "joint", False))


def _from(source: int, value: Any) -> Any:
    """A value of one worker, known to all."""
    held = [value]
    with talk():
        dist.broadcast_object_list(held, src=source)
    return held[0]


def from_lead(make: Callable[[], T]) -> T:
    """What the leading worker makes, known to all; the others make nothing.

    Raises:
        Exception: The leading worker's, on every worker.
    """
    here = team()
    if here.size == 1:
        return make()
    value = jointly(lambda: make() if here.rank == 0 else None)
    return cast(T, _from(0, value))


def gathered(parts: Mapping[K, T]) -> list[T]:
    """Every worker's values in the order of their numbers, known to all."""
    if team().size == 1:
        return [parts[number] for number in sorted(parts)]
    held: list[Mapping[K, T] | None] = [None] * team().size
    with talk():
        dist.all_gather_object(held, dict(parts))
    return _ordered(held)


def collected(parts: Mapping[int, T]) -> list[T] | None:
    """Every worker's values in the order of their numbers, known to the leading one; None elsewhere."""
    here = team()
    if here.size == 1:
        return [parts[number] for number in sorted(parts)]
    held: list[Mapping[int, T] | None] | None = [None] * here.size if here.rank == 0 else None
    with talk():
        dist.gather_object(dict(parts), held)
    return None if held is None else _ordered(held)


def _ordered(held: Sequence[Mapping[K, T] | None]) -> list[T]:
    whole = {number: value for each in held if each is not None for number, value in each.items()}
    return [whole[number] for number in sorted(whole)]


def _both(first: Any, other: Any) -> str:
    return f"{other}, not {first}"


def require_same(what: str, value: Any, tell: Callable[[Any, Any], str] = _both) -> None:
    """Refuse workers that are at work on different things.

    Args:
        what: Name of the value.
        value: Of this worker.
        tell: (value of worker 0, that of another) to words about how they differ.

    Raises:
        ConfigError: A worker has another value than the leading one.
    """
    if team().size == 1:
        return
    seen = gathered({team().rank: value})
    for rank, other in enumerate(seen):
        if other != seen[0]:
            raise _joint(
                ConfigError(f"worker {rank} has another {what} than worker 0: {tell(seen[0], other)}")
            )


def require_same_images(x: Tensor, where: str) -> None:
    """Refuse workers whose loaders gave different images.

    Raises:
        DataError: A shuffling loader is not seeded alike on all workers.
    """
    if team().size == 1:
        return
    sums = gathered({team().rank: (tuple(x.shape), float(x.double().sum()))})
    if any(each != sums[0] for each in sums):
        raise _joint(
            DataError(
                f"{where}: the workers were given different images; a loader that shuffles needs a generator "
                "of the same seed on every worker"
            )
        )


_STORE: list[Any] = []
_FAILED = [0]


def keep_store(store: Any) -> None:
    """Where workers leave words for each other beside their sums; None forgets it."""
    _STORE[:] = [] if store is None else [store]


def all_failed(error: BaseException, patience: float = PATIENCE) -> bool:
    """Whether all workers came to an error at this place, so that they may go on together.

    What went wrong in a worker's own share is known to all at once (``jointly``). Where each does the same,
    all fail alike; a worker that fails alone finds that the others do not come, and has to end.

    Args:
        error: What this worker came to.
        patience: Seconds to wait for the others.
    """
    here = team()
    if here.size == 1 or is_joint(error):
        return True
    if not _STORE:
        return False
    _FAILED[0] += 1
    store, name = _STORE[0], f"failed/{_FAILED[0]}"
    store.set(f"{name}/{here.rank}", type(error).__name__)
    try:
        store.wait([f"{name}/{rank}" for rank in range(here.size)], timedelta(seconds=patience))
    except RuntimeError:  # they are at work elsewhere
        return False
    return True


def _joint(error: UPIError) -> UPIError:
    error.joint = True
    return error
