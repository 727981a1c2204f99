"""Images that are read when they are looked at, so that memory does not grow with their number.

Two kinds that look alike: 8-bit arrays in memory, where they are few enough, and encoded pictures that are
decoded, in worker processes if asked for, each time they are read.
"""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upi.core.errors import DataError

#: Bytes of 8-bit images that are kept in memory; more are decoded anew in every pass.
IN_MEMORY = 256 * 2**20
#: Images whose pixels are hashed together.
CHUNK = 1024


def workers_of(count: int | None) -> int:
    """Worker processes that decode: as asked for, else half of the processors and at most four.

    None where processes cannot be forked safely: what reads pictures cannot be sent to others.
    """
    if sys.platform != "linux":
        return 0
    return min(4, (os.cpu_count() or 1) // 2) if count is None else count


class Images(ABC):
    """N images of one shape; indexing reads them as float32 in [0, 1].

    Attributes:
        shape: (N, C, H, W).
    """

    shape: torch.Size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Float images (n, C, H, W) at some places, or one (C, H, W); indexed as tensors are."""
        if isinstance(index, tuple):
            found: Tensor = self[index[0]][(slice(None), *index[1:])]
            return found
        places = torch.arange(len(self))[index]
        found = self.read(places.reshape(-1)).float() / 255
        return found[0] if places.ndim == 0 else found

    @abstractmethod
    def read(self, places: Tensor) -> Tensor:
        """uint8 images (n, C, H, W) at places (n,)."""

    @abstractmethod
    def take(self, places: Tensor) -> Images:
        """The images at places (n,), nothing being read."""

    @abstractmethod
    def update(self, digest: Any) -> None:
        """Add what identifies the images to a hash."""

    @property
    def slow(self) -> bool:
        """Whether reading costs so much that worker processes are worth it."""
        return False


class Memory(Images):
    """uint8 images in memory, shared by all parts that are cut from them."""

    def __init__(self, pixels: Tensor, places: Tensor | None = None) -> None:
        self.pixels = pixels
        self.places = torch.arange(len(pixels)) if places is None else places
        self.shape = torch.Size((len(self.places), *pixels.shape[1:]))

    def read(self, places: Tensor) -> Tensor:
        return self.pixels[self.places[places]]

    def take(self, places: Tensor) -> Memory:
        return Memory(self.pixels, self.places[places])

    def update(self, digest: Any) -> None:
        digest.update(str(tuple(self.shape)).encode())
        for some in torch.split(torch.arange(len(self)), CHUNK):
            digest.update(self[some].numpy().tobytes())


class Encoded(Images):
    """Encoded pictures, decoded when they are read.

    Args:
        source: (place) to the bytes or the path of a picture.
        decode: (bytes or path, place) to uint8 (C, H, W).
        places: Which of them, in order.
        shape: (C, H, W).
    """

    def __init__(
        self,
        source: Callable[[int], Any],
        decode: Callable[[Any, int], np.ndarray[Any, Any]],
        places: Tensor,
        shape: tuple[int, ...],
    ) -> None:
        self.source, self.decode, self.places = source, decode, places
        self.shape = torch.Size((len(places), *shape))

    def read(self, places: Tensor) -> Tensor:
        found = [self.decode(self.source(int(p)), int(p)) for p in self.places[places]]
        return (
            torch.from_numpy(np.stack(found)) if found else torch.zeros(0, *self.shape[1:], dtype=torch.uint8)
        )

    def take(self, places: Tensor) -> Encoded:
        return Encoded(self.source, self.decode, self.places[places], tuple(self.shape[1:]))

    def update(self, digest: Any) -> None:
        digest.update(str(tuple(self.shape)).encode())
        for place in self.places.tolist():
            content = self.source(place)
            if not isinstance(content, bytes):
                content = Path(content).read_bytes()
            digest.update(hashlib.blake2b(content, digest_size=16).digest())

    @property
    def slow(self) -> bool:
        return True


@dataclass(frozen=True)
class Batches(Sequence[tuple[Tensor, Tensor]]):
    """Consecutive (images, labels) of at most ``size`` samples, read anew in every pass.

    Attributes:
        images: Where they come from.
        labels: (N,) int64.
        size: Samples of a batch.
        workers: Processes that decode ahead; None chooses.
        static: Every pass gives the same images, so that work per image can be kept.
    """

    images: Images
    labels: Tensor
    size: int
    workers: int | None = None
    static: bool = True

    @property
    def dataset(self) -> Images:
        """Where they come from, under the name that torch's loaders have for it."""
        return self.images

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        first = (number % len(self)) * self.size
        some = torch.arange(first, min(first + self.size, len(self.images)))
        return self.images[some], self.labels[some]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        workers = workers_of(self.workers) if self.images.slow else 0
        if not workers or len(self) < 2:
            yield from (self[number] for number in range(len(self)))
            return
        loader = torch.utils.data.DataLoader(
            _Map(self), batch_size=None, num_workers=min(workers, len(self)), multiprocessing_context="fork"
        )
        try:
            yield from ((images, labels) for images, labels in loader)
        except RuntimeError as error:
            cause = error.__cause__ or error
            raise DataError(
                f"a picture could not be decoded: {str(cause).strip().splitlines()[-1]}"
            ) from error


class _Map(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Batches by number, as torch's loader wants them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.batches[number]
        return found
