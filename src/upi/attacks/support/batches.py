"""From a loader to prepared batches: predicted, filtered, explained, each image only once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from upi.attacks.support.objective import Objective
from upi.core.errors import DataError
from upi.core.types import Batch, Loader, Samples
from upi.data.cache import Recall
from upi.data.images import count_of, samples
from upi.network.classifier import Classifier


def _correct(sample: Samples, target: Tensor) -> Tensor:
    if sample.label is None:
        raise DataError(f"batch {sample.index}: labels are needed to keep correctly classified images")
    return target == sample.label.to(target.device)


def prepare(
    model: Classifier,
    objective: Objective,
    sample: Samples,
    recall: Recall,
    *,
    correct_only: bool = False,
) -> Batch | None:
    """Predict, optionally keep correctly classified samples, and explain the clean images.

    The explained class is the prediction of the network itself, the clean map that of the
    surrogate where one is active. Images whose clean map is zero everywhere are left out: a
    relative change of nothing is not defined. None if no sample is left.
    """
    x, keys = model.place(sample.x), recall.keys(sample)
    target = recall.rows("class", keys, lambda places: model.predict(x[places.to(x.device)]))
    if correct_only:
        keep = _correct(sample, target)
        keys = [key for key, good in zip(keys, keep.tolist(), strict=True) if good]
        x, target = x[keep], target[keep]
    if x.shape[0] == 0:
        return None
    batch = objective.batch(
        model, x, target, sample.index, remember=lambda *what: recall.rows(what[0], keys, what[1])
    )
    alive = batch.clean.flatten(1).ne(0).any(1) | (batch.clean[0].numel() == 0)
    return batch.take(alive) if alive.any() else None


def batches(
    model: Classifier,
    objective: Objective,
    loader: Loader,
    *,
    correct_only: bool = False,
    recall: Recall | None = None,
) -> Iterator[Batch]:
    """One pass over the loader as prepared batches.

    Args:
        model, objective: What explains the images, and what is wanted of them.
        loader: Iterable of images or (images, labels).
        correct_only: Leave out images that the network classifies otherwise than their label.
        recall: Remembers classes and maps from pass to pass; by default nothing is kept.

    Raises:
        DataError: No image, or none that is classified correctly where that is asked for.
    """
    recall = Recall(loader, limit=0) if recall is None else recall
    seen, found = 0, False
    for sample in samples(loader):
        seen += sample.x.shape[0]
        batch = prepare(model, objective, sample, recall, correct_only=correct_only)
        if batch is not None:
            found = True
            yield batch
    if not found:
        reason = "is classified correctly and " if correct_only else ""
        raise DataError(f"none of the {seen} images {reason}has a map that is not zero: nothing to explain")


def endless_batches(
    model: Classifier,
    objective: Objective,
    loader: Loader,
    *,
    correct_only: bool = False,
    steps: int | None = None,
) -> Iterator[Batch]:
    """Prepared batches without end; each image is classified and explained only once.

    Nothing is remembered where ``steps`` batches, all that will be asked for, are less than a pass.
    """
    once = steps is not None and steps <= count_of(loader)
    recall = Recall(loader, limit=0) if once else Recall(loader)
    while True:
        yield from batches(model, objective, loader, correct_only=correct_only, recall=recall)
