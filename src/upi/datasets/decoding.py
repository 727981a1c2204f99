"""Tables of Hugging Face ``datasets`` as images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from upi.core.errors import DataError
from upi.datasets.dataset import Dataset
from upi.datasets.pictures import Form


def _rows(table: Any, where: str) -> Iterator[Any]:
    try:
        yield from table
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: an image cannot be decoded: {error}") from error


def open_table(kind: Mapping[str, Any], where: str) -> Any:
    """``datasets.load_dataset`` with this library's error."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    try:
        return load_dataset(**kind)
    except Exception as error:  # the library raises many kinds for damaged or missing files
        raise DataError(f"{where}: cannot be read as images with labels: {error}") from error


def _columns(table: Any, where: str) -> tuple[str, str]:
    for image, label in (("image", "label"), ("img", "label")):
        if {image, label} <= set(table.column_names):
            return image, label
    raise DataError(f"{where}: expected the columns 'image' and 'label', got {table.column_names}")


def decoded(
    table: Any,
    name: str,
    where: str,
    *,
    form: Form,
    classes: int | None = None,
) -> Dataset:
    """Every image and label of a table.

    Args:
        table: With the columns image and label.
        name: Of the dataset.
        where: Place, for messages.
        form: What the images must look like; the first image decides what it leaves open.
        classes: Number of labels there must be.

    Raises:
        DataError: The content is not images with labels of one size.
    """
    from datasets import ClassLabel

    image, label = _columns(table, where)
    pixels: np.ndarray[Any, Any] | None = None
    for number, row in enumerate(_rows(table, where)):
        array = form.pixels(row[image], f"{where}, row {number}")
        if pixels is None:
            pixels = np.empty((len(table), *array.shape), np.uint8)
            form = replace(form, shape=array.shape, colour=form.colour or array.shape[0] == 3)
        pixels[number] = array
    if pixels is None:
        raise DataError(f"{where}: no images")
    feature = table.features[label]
    labels = torch.tensor(table[label][:], dtype=torch.long)
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else ()
    names = names or tuple(str(k) for k in range(int(labels.max()) + 1))
    if classes is not None and len(names) != classes:
        raise DataError(f"{where}: expected {classes} classes for {name}, got {len(names)}")
    if int(labels.min()) < 0 or int(labels.max()) >= len(names):
        raise DataError(
            f"{where}: labels from {int(labels.min())} to {int(labels.max())}, {len(names)} classes"
        )
    return Dataset(name, torch.from_numpy(pixels).float() / 255, labels, names)
