"""Fashion-MNIST from a local copy."""

from __future__ import annotations

from pathlib import Path

from tests.datasets.test_sources import write_parquet
from upi.datasets.splits import load, load_parts


def test_a_local_copy_has_its_official_splits(tmp_path: Path) -> None:
    labels = [k % 10 for k in range(20)]
    for split, some in (("train", slice(0, 14)), ("test", slice(14, 20))):
        write_parquet(tmp_path / "fashion-mnist" / f"{split}.parquet", (1, 28, 28), labels[some])
    data = load("fashion-mnist", split="test", folder=tmp_path)
    assert tuple(data.images.shape) == (6, 1, 28, 28)
    assert data.labels.tolist() == [4, 5, 6, 7, 8, 9]
    parts = load_parts(
        "fashion-mnist", {"fit": 5, "select": 4, "train": None, "test": None}, seed=0, folder=tmp_path
    )
    assert [len(parts[name]) for name in ("train", "fit", "select", "test")] == [5, 5, 4, 6]
