"""Rows that a solver goes over again and again: in memory while they fit, then in a file mapped into it.

The file has no name once it is open, so that it ends with its process, however that ends.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upi.core.errors import ConfigError

#: Share of the free disk space that rows may take.
SHARE = 0.9


class RowStore:
    """Rows (b, d) as they come, as one matrix in the end.

    Attributes:
        count: Rows so far.
        size: Their bytes.

    Args:
        limit: Bytes that are kept in memory; what goes beyond goes, with all that came before, to a file in
            the folder for temporary files (``TMPDIR``).
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.size = limit, 0, 0
        self._held: list[Tensor] = []
        self._file: FileIO | None = None
        self._like: Tensor | None = None

    @property
    def spilled(self) -> bool:
        """Whether the rows are in a file."""
        return self._file is not None

    def add(self, rows: Tensor) -> None:
        """Take in rows.

        Raises:
            ConfigError: The disk has no room for them.
        """
        self._like = rows[:0]
        self.count += len(rows)
        self.size += rows.numel() * rows.element_size()
        if self._file is None and self.size <= self.limit:
            self._held.append(rows)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="upi-rows-", buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)  # the mapping outlives it
        held, self._held = [*self._held, rows], []
        try:
            for each in filter(len, held):
                _written(self._file, each.contiguous().view(torch.uint8).flatten().numpy().data)
        except OSError as error:
            raise no_room(self.count, rows.shape[1], self.size) from error

    def matrix(self) -> Tensor:
        """All rows (n, d)."""
        if self._file is None:
            return torch.cat(self._held)
        assert self._like is not None
        shape = self.count, self._like.shape[1]
        return torch.from_numpy(np.memmap(self._file, self._like.numpy().dtype, "r+", shape=shape))


def _written(file: FileIO, content: memoryview) -> None:
    """Write all of it."""
    while len(content):
        content = content[file.write(content) :]


def require_disk(count: int, dim: int, size: int) -> None:
    """Refuse rows that the disk has no room for, before they are computed.

    Raises:
        ConfigError: As said.
    """
    if size > SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        raise no_room(count, dim, size)


def no_room(count: int, dim: int, size: int) -> ConfigError:
    """The error of rows that neither memory nor disk can hold."""
    return ConfigError(
        f"the exact solver would store {count} rows of {dim} numbers, {size / 2**30:.3g} GiB, more than "
        f"there is room for in {Path(tempfile.gettempdir())}; use solver='sketch'"
    )
