"""From a loader to prepared batches: predicted, filtered, explained, each image only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from upi.core.errors import DataError
from upi.core.types import Loader, Samples
from upi.data.cache import ImageCache, Keys
from upi.data.eligibility import correctly_classified, explained
from upi.data.images import count_of, samples
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


def batches(
    network: FrozenNetwork,
    explain: Explain,
    loader: Loader,
    *,
    correct_only: bool = False,
    cache: ImageCache | None = None,
) -> Iterator[Batch]:
    """One pass over the loader as prepared batches.

    Args:
        network: What predicts the explained classes.
        explain: What is wanted of clean images, such as ``partial(objective.clean, surrogate)``.
        loader: Iterable of images or (images, labels).
        correct_only: Leave out images that the network classifies otherwise than their label.
        cache: Keeps classes and clean sides from pass to pass; by default nothing is kept.

    Raises:
        DataError: No image, or none that is classified correctly where that is asked for.
    """
    cache = ImageCache(loader, limit=0) if cache is None else cache
    seen, some = 0, False
    for sample in samples(loader):
        seen += sample.x.shape[0]
        batch = prepare(network, explain, sample, cache, correct_only=correct_only)
        if batch is not None:
            some = True
            yield batch
    _require_some(some, seen, correct_only)


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

    def __iter__(self) -> Iterator[Batch]:
        while True:
            seen, some = 0, False
            for sample in samples(self.loader):
                self.taken += 1
                seen += sample.x.shape[0]
                if self.taken <= self.skip:
                    some = True  # they were looked at before
                    continue
                batch = prepare(
                    self.network, self.explain, sample, self.cache, correct_only=self.correct_only
                )
                if batch is not None:
                    some = True
                    yield batch
            _require_some(some, seen, self.correct_only)
