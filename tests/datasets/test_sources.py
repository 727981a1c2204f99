"""Named datasets: local parquet files of the hub's layout, and what is said when they are missing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image as Pictures

from datasets import ClassLabel, Features, Image
from upi.core.errors import ConfigError, DataError
from upi.data.preprocess import Preprocess
from upi.datasets.hub import HubDataset
from upi.datasets.registry import DATASETS
from upi.datasets.splits import load, load_parts

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the datasets are not in {SHARED}")


def write_parquet(
    path: Path,
    shape: tuple[int, int, int],
    labels: Sequence[int],
    *,
    column: str = "image",
    classes: int = 10,
) -> None:
    """Random images as PNG, in the layout of the hub's copies."""
    rng, rows = np.random.default_rng(len(labels)), []
    for _ in labels:
        pixels = rng.integers(0, 256, (*shape[1:], shape[0]), dtype=np.uint8)
        buffer = io.BytesIO()
        Pictures.fromarray(pixels[:, :, 0] if shape[0] == 1 else pixels).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({column: Image(), "label": ClassLabel(names=[str(k) for k in range(classes)])})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(rows, kind), "label": pa.array(list(labels), pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_parquet(
        tmp_path / "mnist" / "train-00000-of-00001.parquet", (1, 28, 28), [k % 10 for k in range(40)]
    )
    write_parquet(tmp_path / "mnist" / "test.parquet", (1, 28, 28), [k % 10 for k in range(20)])
    return tmp_path


def test_local_copies_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = load("mnist", folder=folder), load("mnist", split="test", folder=folder)
    assert train.images.shape == (40, 1, 28, 28)
    assert len(test) == 20
    assert train.classes == tuple("0123456789")
    monkeypatch.setenv("UPI_DATA", str(folder))
    assert load("mnist").fingerprint() == train.fingerprint()


def test_the_hubs_column_img_is_known(tmp_path: Path) -> None:
    write_parquet(tmp_path / "cifar10" / "train.parquet", (3, 32, 32), range(10), column="img")
    assert load("cifar10", folder=tmp_path).images.shape == (10, 3, 32, 32)


def test_grey_images_among_coloured_ones_become_coloured(tmp_path: Path) -> None:
    write_parquet(tmp_path / "cifar10" / "train.parquet", (1, 32, 32), range(10))
    images = load("cifar10", folder=tmp_path).images
    assert images.shape == (10, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 1])


def test_a_validation_split_serves_as_test(tmp_path: Path) -> None:
    write_parquet(tmp_path / "tiny-imagenet" / "val.parquet", (3, 64, 64), range(5), classes=200)
    assert len(load("tiny-imagenet", split="test", folder=tmp_path)) == 5


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(**options: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("datasets.load_dataset", no_network)
    with pytest.raises(DataError, match=r"cifar10/train\*\.parquet.*as data directory, or in UPI_DATA"):
        load("cifar10", folder=tmp_path)


def test_wrong_content_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "mnist" / "train.parquet", (1, 20, 20), range(10))
    with pytest.raises(DataError, match=r"expected an image of shape \(1, 28, 28\), got \(1, 20, 20\)"):
        load("mnist", folder=tmp_path)
    write_parquet(tmp_path / "mnist" / "test.parquet", (1, 28, 28), range(3), classes=3)
    with pytest.raises(DataError, match="expected 10 classes for mnist, got 3"):
        load("mnist", split="test", folder=tmp_path)


def test_parts_come_from_the_official_splits(folder: Path) -> None:
    parts = load_parts("mnist", {"fit": 8, "select": 4, "train": None, "test": 15}, seed=0, folder=folder)
    assert {name: len(parts[name]) for name in parts.parts} == {
        "test": 15,
        "fit": 8,
        "select": 4,
        "train": 28,
    }
    test = load("mnist", split="test", folder=folder)
    assert all(
        any(torch.equal(image, other) for other in test.images[:]) for image in parts["test"].images[:]
    )
    rows = torch.cat([parts[name].images[:] for name in ("fit", "select", "train")]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 40
    more = load_parts("mnist", {"fit": 8, "select": 4, "train": 10, "test": 15}, seed=0, folder=folder)
    assert torch.equal(more["fit"].images[:], parts["fit"].images[:])
    with pytest.raises(ConfigError, match="mnist has 40"):
        load_parts("mnist", {"fit": 30, "select": 20, "train": None, "test": 5}, seed=0, folder=folder)


def test_only_the_test_split_is_read_where_nothing_else_is_asked_for(folder: Path) -> None:
    (folder / "mnist" / "train-00000-of-00001.parquet").unlink()
    parts = load_parts("mnist", {"fit": 0, "select": 0, "train": 0, "test": 20}, seed=0, folder=folder)
    assert len(parts["test"]) == 20


@needs_shared
@pytest.mark.parametrize(
    ("name", "count"), [("mnist", 10_000), ("cifar10", 10_000), ("tiny-imagenet", 10_000)]
)
def test_the_real_test_splits(name: str, count: int) -> None:
    data = load(name, split="test", folder=SHARED)
    source = DATASETS[name]
    assert isinstance(source, HubDataset)
    assert tuple(data.images.shape[1:]) == source.shape
    assert len(data) == count
    assert len(data.classes) == source.classes
    assert int(torch.bincount(data.labels).min()) >= (50 if name == "tiny-imagenet" else 800)


def photographs(path: Path, sizes: Sequence[tuple[int, int]], *, mode: str = "RGB") -> None:
    """Photographs of given (width, height): a bright square in the middle of a dark picture."""
    rows = []
    for width, height in sizes:
        picture = Pictures.new(mode, (width, height))
        side = min(width, height) // 2
        picture.paste(
            255 if mode == "L" else (255, 255, 255),
            ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2),
        )
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=[str(k) for k in range(1000)])})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(range(len(rows)), pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), path)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photographs_of_all_sizes_are_cut_to_one(tmp_path: Path, mode: str) -> None:
    photographs(tmp_path / "imagenet-sample" / "val.parquet", [(90, 60), (60, 100), (70, 70)], mode=mode)
    data = load("imagenet-sample", folder=tmp_path, size=Preprocess.imagenet(28))
    assert data.images.shape == (3, 3, 28, 28)
    # the square keeps half of the short side: 16 of 32, in the middle of the 28 that are cut out
    assert data.images[:, :, 8:20, 8:20].min() > 0.95
    assert data.images[:, :, :4].max() < 0.05
    assert data.images[:, :, :, -4:].max() < 0.05


def test_photographs_need_a_size_and_give_every_part(tmp_path: Path) -> None:
    photographs(tmp_path / "imagenet-sample" / "val.parquet", [(40, 30)] * 10)
    sizes = {"train": 0, "fit": 4, "select": 2, "test": None}
    with pytest.raises(ConfigError, match="photographs of all sizes: name a network"):
        load_parts("imagenet-sample", sizes, seed=0, folder=tmp_path)
    parts = load_parts("imagenet-sample", sizes, seed=0, folder=tmp_path, size=Preprocess.imagenet(16))
    assert [len(parts[part]) for part in ("train", "fit", "select", "test")] == [0, 4, 2, 4]
    labels = torch.cat([parts[part].labels for part in ("fit", "select", "test")])
    assert sorted(labels.tolist()) == list(range(10))


def test_a_folder_of_photographs_is_cut_as_well(tmp_path: Path) -> None:
    photographs(tmp_path / "mine" / "all.parquet", [(40, 30), (64, 64)])
    with pytest.raises(DataError, match="several sizes, 30 x 40 in row 0 and 64 x 64 in row 1: say to which"):
        load(str(tmp_path / "mine"))
    assert load(str(tmp_path / "mine"), size=Preprocess.imagenet(20)).images.shape == (2, 3, 20, 20)


def test_missing_photographs_say_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"put parquet files .* into imagenet-sample/val\*.parquet"):
        load("imagenet-sample", folder=tmp_path, size=Preprocess.imagenet(224))
