"""Tables of Hugging Face ``datasets`` as images, read at once or when they are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from upi.core.errors import DataError
from upi.datasets.dataset import Dataset
from upi.datasets.lazy import IN_MEMORY, Encoded, Images, Memory
from upi.datasets.pictures import Form, is_grey, opened

#: Pictures whose headers are read to learn what a folder holds; of more, so many in equal steps.
SURVEYED = 5000

#: Names of the columns, by preference.
COLUMNS = (("image", "label"), ("img", "label"), ("image", "labels"), ("pixel_values", "labels"))

Source = Callable[[int], Any]


def open_table(kind: Mapping[str, Any], where: str) -> Any:
    """``datasets.load_dataset`` with this library's error."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    try:
        return load_dataset(**kind)
    except Exception as error:  # the library raises many kinds for damaged or missing files
        raise DataError(f"{where}: cannot be read as images with labels: {error}") from error


def _columns(table: Any, where: str) -> tuple[str, str]:
    for image, label in (
        ("image", "label"),
        ("img", "label"),
        ("image", "labels"),
        ("pixel_values", "labels"),
    ):
        if {image, label} <= set(table.column_names):
            return image, label
    raise DataError(f"{where}: expected the columns 'image' and 'label', got {table.column_names}")


def _source(table: Any, column: str, where: str) -> Source:
    """(row) to the bytes or the path of its picture, nothing being decoded."""
    from datasets import Image

    encoded = table.select_columns([column])
    if isinstance(table.features[column], Image):
        encoded = encoded.cast_column(column, Image(decode=False))

    def read(place: int) -> Any:
        entry = encoded[place][column]
        if isinstance(entry, Mapping):
            entry = entry.get("bytes") or entry.get("path")
        if not isinstance(entry, (bytes, str)):
            raise DataError(f"{where}, row {place}: expected an encoded picture, got {type(entry).__name__}")
        return entry

    return read


def _surveyed(source: Source, count: int, form: Form, where: str) -> Form:
    """The form with what the pictures' headers decide: colour, and one size where none is asked for."""
    if form.shape is not None or (form.size is not None and form.size.channels is not None):
        colour = form.colour or (form.size is not None and form.size.channels == 3)
        return replace(form, colour=colour)
    places = range(0, count, max(1, -(-count // SURVEYED)))
    modes: Counter[bool] = Counter()
    sizes: dict[tuple[int, int], int] = {}
    for place in places:
        picture = opened(source(place), f"{where}, row {place}")
        modes[is_grey(picture.mode)] += 1
        sizes.setdefault(picture.size, place)
    if form.size is None and len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise DataError(
            f"{where}: pictures of several sizes, {first[1]} x {first[0]} in row {one} and {second[1]} x "
            f"{second[0]} in row {other}: say to which size they are brought, or name a network that says it",
            options=("size",),
        )
    return replace(form, colour=modes[False] > 0)


def _images(source: Source, count: int, form: Form, where: str) -> Images:
    first = form.pixels(source(0), f"{where}, row 0")
    fixed = replace(form, shape=first.shape)

    def decode(content: Any, place: int) -> np.ndarray[Any, Any]:
        return fixed.pixels(content, f"{where}, row {place}")

    if count * first.size > IN_MEMORY:
        return Encoded(source, decode, torch.arange(count), first.shape)
    pixels = np.empty((count, *first.shape), np.uint8)
    for place in range(count):
        pixels[place] = decode(source(place), place)
    return Memory(torch.from_numpy(pixels))


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
        form: What the images must look like; the pictures' headers decide what it leaves open.
        classes: Number of labels there must be.

    Raises:
        DataError: The content is not images with labels, or of several sizes where none is asked for.
    """
    from datasets import ClassLabel

    image, label = _columns(table, where)
    if not len(table):
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
    source = _source(table, image, where)
    images = _images(source, len(table), _surveyed(source, len(table), form, where), where)
    return Dataset(name, images, labels, names)
