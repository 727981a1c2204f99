"""From a loader to prepared batches: predicted, filtered, explained, each image only once.

A batch may be cut into pieces that several workers share; each prepares its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from upi.core.distributed import gathered, jointly, own, require_same_images, shard_size, team
from upi.core.errors import DataError, FallbackWarning
from upi.core.types import Loader, Samples
from upi.data.cache import ImageCache, Keys
from upi.data.eligibility import correctly_classified, explained
from upi.data.images import count_of, cut, samples
from upi.network.frozen import FrozenNetwork


@dataclass(frozen=True)
class CleanSide:
    """What an objective needs of clean images, a row for each."""

    maps: Tensor  # (N, H, W), or (N, 0, 0) where an objective needs none
    margin: Tensor | None = None  # (N,) lead of the target's logit, where an objective needs it


#: (images (N, C, H, W), classes (N,)) to what is needed of them.
Explain = Callable[[Tensor, Tensor], CleanSide]


@dataclass(frozen=True)
class Batch:
    """Images with the class that is explained and the map of the clean image."""

    x: Tensor  # (N, C, H, W) in [0, 1]
    target: Tensor  # (N,) int64, the clean prediction
    clean: Tensor  # (N, H, W) map at x, or (N, 0, 0) where an objective needs none
    index: int  # number of the batch in its loader, from 0
    margin: Tensor | None = None  # (N,) lead of the target's logit at x, where an objective needs it
    scale: Tensor | None = None  # () mean margin of the whole batch, where this is a part of one
    piece: int = 0  # number of the piece of the batch that this is

    @classmethod
    def of(cls, x: Tensor, target: Tensor, clean: CleanSide, index: int) -> Batch:
        """Images, classes and what is known of the clean images."""
        return cls(x, target, clean.maps, index, clean.margin)

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, keep: Tensor) -> Batch:
        """The samples where ``keep`` (N,) is true."""
        if bool(keep.all()):
            return self
        margin = None if self.margin is None else self.margin[keep]
        return replace(self, x=self.x[keep], target=self.target[keep], clean=self.clean[keep], margin=margin)


def _some(rows: Tensor, places: Tensor) -> Tensor:
    """Rows at some places; the rows themselves where these are all."""
    return rows if len(places) == len(rows) else rows[places.to(rows.device)]


def _clean(cache: ImageCache, keys: Keys, explain: Explain, x: Tensor, target: Tensor) -> CleanSide:
    """The clean side of a batch, computed for the images that are not known yet."""

    def compute(places: Tensor) -> tuple[Tensor, ...]:
        new = explain(_some(x, places), _some(target, places))
        return (new.maps,) if new.margin is None else (new.maps, new.margin)

    return CleanSide(*cache.rows("clean", keys, compute))


def prepare(
    network: FrozenNetwork,
    explain: Explain,
    sample: Samples,
    cache: ImageCache,
    *,
    correct_only: bool = False,
) -> Batch | None:
    """Predict, optionally keep correctly classified samples, and explain the clean images.

    The explained class is the prediction of the network itself, whatever ``explain`` looks through.
    Images whose clean map is zero everywhere are left out. None if no sample is left.
    """
    x, keys = network.place(sample.x), cache.keys(sample)
    (target,) = cache.rows("class", keys, lambda places: (network.predict(_some(x, places)),))
    if correct_only:
        keep = correctly_classified(network, sample, target)
        if keep is None:
            raise DataError(f"batch {sample.index}: labels are needed to keep correctly classified images")
        keys = [key for key, good in zip(keys, keep.tolist(), strict=True) if good]
        x, target = x[keep], target[keep]
    if x.shape[0] == 0:
        return None
    batch = Batch.of(x, target, _clean(cache, keys, explain, x, target), sample.index)
    counted = explained(batch.clean)
    return batch.take(counted) if counted.any() else None


@dataclass(frozen=True)
class Share:
    """What a worker has of one batch: all of it where nothing is cut, else its own pieces.

    Attributes:
        pieces: This worker's pieces that have images which count.
        counts: Images that count, of every piece of every worker.
        index: Number of the batch in its loader.
        first: Images that came before it in this pass, those left out included.
        size: Images of a piece before any is left out; of a whole batch all of them.
    """

    pieces: tuple[Batch, ...]
    counts: tuple[int, ...]
    index: int
    first: int
    size: int

    @property
    def cut(self) -> int:
        """Pieces of the batch."""
        return len(self.counts)

    @property
    def whole(self) -> Batch:
        """The batch, of one that is not cut."""
        (batch,) = self.pieces
        return batch

    @property
    def count(self) -> int:
        """Images of the batch that count, over all workers."""
        return sum(self.counts)


def mean_margin(margin: Tensor) -> Tensor:
    """Mean margin; where the surrogate classifies every image otherwise, the mean of its size."""
    mean = margin.clamp_min(0).mean()
    return torch.where(mean > 0, mean, margin.abs().mean().clamp_min(1e-6))


#: Of a piece: images that count, sum of their positive margins, sum of the sizes of their margins.
Tally = tuple[int, float, float]


def tally_of(batch: Batch | None) -> Tally:
    """What the others need to know of a piece."""
    if batch is None:
        return 0, 0.0, 0.0
    if batch.margin is None:
        return len(batch), 0.0, 0.0
    margin = batch.margin.double()
    return len(batch), float(margin.clamp_min(0).sum()), float(margin.abs().sum())


def scale_of(tallies: Sequence[Tally]) -> float:
    """``mean_margin`` over all pieces of all workers, from what is known of each."""
    count = sum(tally[0] for tally in tallies)
    mean = math.fsum(tally[1] for tally in tallies) / max(1, count)
    return mean if mean > 0 else max(1e-6, math.fsum(tally[2] for tally in tallies) / max(1, count))


def scaled(batch: Batch, tallies: Sequence[Tally]) -> Batch:
    """A piece whose prices are measured in the mean margin of all of them."""
    return batch if batch.margin is None else replace(batch, scale=batch.margin.new_tensor(scale_of(tallies)))


def _share(sample: Samples, first: int, make: Callable[[Samples], Batch | None]) -> Share:
    """This worker's pieces of a batch, prepared."""
    size = shard_size()
    parts = cut(sample, size)
    _say_idle(len(parts), len(parts[0].x))
    mine = jointly(lambda: {number: make(parts[number]) for number in own(len(parts))})
    tallies = gathered({number: tally_of(batch) for number, batch in mine.items()})
    kept = [replace(batch, piece=number) for number, batch in mine.items() if batch is not None]
    if len(parts) > 1:
        kept = [scaled(batch, tallies) for batch in kept]
    counts = tuple(tally[0] for tally in tallies)
    return Share(tuple(kept), counts, sample.index, first, len(parts[0].x))


def _say_idle(pieces: int, size: int) -> None:
    """Warn where there are more workers than pieces of a batch."""
    here = team()
    if here.rank == 0 and here.size > pieces:
        warnings.warn(
            f"a batch has {pieces} pieces of {size} images, so {here.size - pieces} of {here.size} workers "
            "have nothing to do in it; smaller pieces or larger batches give them work",
            FallbackWarning,
            stacklevel=2,
        )


def _pass(
    loader: Loader, make: Callable[[Samples], Batch | None], correct_only: bool, skip: Callable[[], bool]
) -> Iterator[Share]:
    """Shares of one pass that have images which count; those that ``skip`` says are not looked at."""
    seen, some = 0, False
    for sample in samples(loader):
        if seen == 0:
            require_same_images(sample.x, f"batch {sample.index}")
        before, seen = seen, seen + sample.x.shape[0]
        if skip():
            some = True  # they were looked at before
            continue
        share = _share(sample, before, make)
        if share.count:
            some = True
            yield share
    _require_some(some, seen, correct_only)


def shares(
    network: FrozenNetwork,
    explain: Explain,
    loader: Loader,
    *,
    correct_only: bool = False,
    cache: ImageCache | None = None,
) -> Iterator[Share]:
    """One pass over the loader as prepared batches, as far as they are this worker's.

    Args:
        network: What predicts the explained classes.
        explain: What is wanted of clean images, such as ``partial(objective.clean, surrogate)``.
        loader: Iterable of images or (images, labels).
        correct_only: Leave out images that the network classifies otherwise than their label.
        cache: Keeps classes and clean sides from pass to pass; by default nothing is kept.

    Raises:
        DataError: No image, or none that is classified correctly where that is asked for.
    """
    held = ImageCache(loader, limit=0) if cache is None else cache

    def make(sample: Samples) -> Batch | None:
        return prepare(network, explain, sample, held, correct_only=correct_only)

    yield from _pass(loader, make, correct_only, lambda: False)


def _require_some(some: bool, seen: int, correct_only: bool) -> None:
    if not some:
        reason = "is classified correctly and " if correct_only else ""
        raise DataError(f"none of the {seen} images {reason}has a map that is not zero: nothing to explain")


class EndlessBatches:
    """Prepared batches without end; each image is classified and explained only once.

    Nothing is kept where ``steps`` batches, all that will be asked for, are less than a pass.

    Attributes:
        taken: Batches read from the loader so far, those that gave none included.

    Args:
        network, explain, loader, correct_only: As for ``batches``.
        steps: Batches that will be asked for.
        skip: Batches of the loader to read past first: ``taken`` of a run that was cut short.

    Raises:
        DataError: (On iteration) no image, or none that counts.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        explain: Explain,
        loader: Loader,
        *,
        correct_only: bool = False,
        steps: int | None = None,
        skip: int = 0,
    ) -> None:
        self.network, self.explain, self.loader = network, explain, loader
        self.correct_only, self.skip, self.taken = correct_only, skip, 0
        once = steps is not None and steps <= count_of(loader)
        self.cache = ImageCache(loader, limit=0) if once else ImageCache(loader)

    def __iter__(self) -> Iterator[Share]:
        while True:
            yield from _pass(self.loader, self._make, self.correct_only, self._known)

    def _known(self) -> bool:
        self.taken += 1
        return self.taken <= self.skip

    def _make(self, sample: Samples) -> Batch | None:
        return prepare(self.network, self.explain, sample, self.cache, correct_only=self.correct_only)
