"""Rows that are kept by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from upi.core.types import Samples
from upi.data import cache as caching
from upi.data.cache import ImageCache
from upi.data.images import samples


def batches() -> list[Tensor]:
    return list(torch.split(torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(0)), 5))


def rows_of(cache: ImageCache, sample: Samples) -> tuple[Tensor, ...]:
    def compute(places: Tensor) -> tuple[Tensor, ...]:
        some = sample.x[places]
        return some.flatten(1) * 2, some.sum((1, 2, 3)).long()

    return cache.rows("x", cache.keys(sample), compute)


@pytest.mark.parametrize("slab", [1, 40, 2**20])
def test_rows_come_back_as_they_were_from_blocks_of_any_size(
    slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "SLAB", slab)
    cache = ImageCache(batches())
    first = [rows_of(cache, sample) for sample in samples(batches())]
    assert len(cache.known) == 12
    for (maps, sums), sample in zip(first, samples(batches()), strict=True):
        again = cache.rows("x", cache.keys(sample), lambda places: pytest.fail("known already"))
        assert torch.equal(again[0], maps)
        assert torch.equal(again[1], sums)
        assert again[1].dtype == torch.int64


def test_rows_of_many_batches_share_a_block() -> None:
    cache = ImageCache(batches())
    for sample in samples(batches()):
        rows_of(cache, sample)
    maps = {rows[0].untyped_storage().data_ptr() for rows in cache.known.values()}
    sums = {rows[1].untyped_storage().data_ptr() for rows in cache.known.values()}
    assert (len(maps), len(sums)) == (1, 1)
