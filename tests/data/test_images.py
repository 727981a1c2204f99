"""The public door: malformed images are refused with the offending sample named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.conftest import images
from upi.core.errors import DataError
from upi.core.types import Loader
from upi.data.content import digests
from upi.data.images import replayable, samples


def _with(position: int, value: float) -> Tensor:
    x = images(3)
    x[position, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "the loader yields no images"),
        ([images(2) * 255], r"expected values in \[0, 1\], got \[\d+"),
        ([_with(2, float("nan"))], "batch 0: sample 2 has NaN"),
        ([images(2), _with(1, float("inf"))], "batch 1: sample 1 has NaN or infinite"),
        ([_with(1, 1.5)], "first in sample 1"),
        ([images(2)[0]], r"expected shape \(N, C, H, W\), got \(1, 8, 8\)"),
        ([(images(2) * 255).to(torch.int16)], "divide 8-bit images by 255"),
        ([images(2), images(2, shape=(3, 8, 8))], r"shape \(3, 8, 8\) after images of shape \(1, 8, 8\)"),
        ([(images(2), torch.zeros(3, dtype=torch.long))], r"expected 2 integer labels of shape \(2,\)"),
        ([(images(2), torch.zeros(2))], "integer labels"),
        ([{"image": 1}], "expected a torch.Tensor"),
        ([{"picture": images(1)}], "under one of pixel_values"),
        ([(images(1), {"boxes": 1})], "wrap the loader"),
        ([7], "expected images or"),
        ([[torch.zeros(1, 8, 8), torch.zeros(1, 9, 8)]], "expected shape"),
        ([("a", "b")], "expected a torch.Tensor"),
        (7, "expected an iterable"),
    ],
)
def test_malformed_loaders_are_refused(loader: Loader, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(samples(loader))


def test_labels_are_optional() -> None:
    with_labels, without = samples([(images(2), torch.tensor([0, 1])), images(3)])
    assert with_labels.label is not None
    assert without.label is None
    assert without.index == 1


def test_one_shot_iterators_can_be_replayed_and_read_lazily() -> None:
    pulled = []

    def stream() -> Iterator[Tensor]:
        for number in range(1000):
            pulled.append(number)
            yield images(1, seed=number)

    loader = replayable(stream())
    first = [sample.x for sample, _ in zip(samples(loader), range(3), strict=False)]
    again = [sample.x for sample, _ in zip(samples(loader), range(3), strict=False)]
    assert len(pulled) <= 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_digests_do_not_depend_on_the_stored_precision() -> None:
    x = torch.rand(3, 1, 4, 4)
    assert digests(x.double()) == digests(x)
    assert digests(x) != digests(x.flip(-1))
