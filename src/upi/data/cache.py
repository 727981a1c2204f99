"""What is known about images already, whatever loader they come from and in whatever order.

An iterative attack looks at the same images many times; their classes and clean maps never
change. Images of a list are known by their place; those of any other iterable, which may shuffle,
by their content. An augmenting loader shows new images each time and simply finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from upi.core.types import Loader, Samples
from upi.data.content import digests
from upi.data.images import is_static

#: Memory that may be spent, in bytes: 65,000 maps of 32 x 32, 2,600 of 224 x 224.
LIMIT = 512 * 2**20
#: Bytes that rows are kept together in. Rows alone would lie between what each batch allocates and frees, and
#: keep a multiple of their own size from being given back.
SLAB = 48 * 2**20

Keys = Sequence[Hashable]


class _Slabs:
    """Copies of tensors of one form, many in a block."""

    def __init__(self, like: Tensor) -> None:
        self.form, self.size = tuple(like.shape), max(1, SLAB // max(1, like.numel() * like.element_size()))
        self.block, self.used = like.new_empty(0), 0

    def keep(self, row: Tensor) -> Tensor:
        """A copy of ``row``."""
        if self.used == len(self.block):
            self.block, self.used = row.new_empty(self.size, *self.form), 0
        place = self.block[self.used]
        self.used += 1
        return place.copy_(row)


class ImageCache:
    """Rows of tensors by image.

    Args:
        loader: Where the images come from.
        limit: Bytes kept at the most; what comes later is computed each time.
    """

    def __init__(self, loader: Loader, *, limit: int = LIMIT) -> None:
        self.by_place = is_static(loader)
        self.left = limit
        self.known: dict[tuple[str, Hashable], tuple[Tensor, ...]] = {}
        self.slabs: dict[Hashable, _Slabs] = {}

    def keys(self, sample: Samples) -> Keys:
        """One name for each image of a batch."""
        if self.by_place:
            return [(sample.index, sample.first + row) for row in range(sample.x.shape[0])]
        return digests(sample.x)

    def rows(
        self, kind: str, keys: Keys, compute: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Tensors (N, ...) of one kind, a row for each image.

        Args:
            kind: What the rows are.
            keys: Names of the images.
            compute: (positions of unknown images) to their rows, in order; one or more tensors.
        """
        missing = [place for place, key in enumerate(keys) if (kind, key) not in self.known]
        if not missing:
            return _stacked([self.known[kind, key] for key in keys])
        computed = compute(torch.tensor(missing))
        self._keep(kind, [keys[place] for place in missing], computed)
        if len(missing) == len(keys):
            return computed
        new = dict(zip(missing, zip(*computed, strict=True), strict=True))
        return _stacked([new[p] if p in new else self.known[kind, key] for p, key in enumerate(keys)])

    def _keep(self, kind: str, keys: Keys, tensors: tuple[Tensor, ...]) -> None:
        size = sum(rows[0].numel() * rows.element_size() for rows in tensors)
        for number, key in enumerate(keys):
            if self.left < size:
                return
            self.known[kind, key] = tuple(self._held(rows[number]) for rows in tensors)
            self.left -= size

    def _held(self, row: Tensor) -> Tensor:
        form = tuple(row.shape), row.dtype, row.device
        if form not in self.slabs:
            self.slabs[form] = _Slabs(row)
        return self.slabs[form].keep(row)


def _stacked(images: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(rows) for rows in zip(*images, strict=True))
