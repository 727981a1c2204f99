"""The images of an audit: which part is which, whatever a network was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.datasets.test_sources import write_parquet
from upi.audit.opening import parts_of
from upi.audit.settings import AuditSettings


def asked(folder: Path, **images: Any) -> AuditSettings:
    given = {"data": "fashion-mnist", "data_dir": folder, "n_fit": 6, "n_select": 4, "n_test": 5, **images}
    return AuditSettings.model_validate({"network": {"model": "none"}, "images": given})


def test_where_test_images_are_apart_those_of_training_change_nothing(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("test", 8)):
        write_parquet(
            tmp_path / "fashion-mnist" / f"{split}.parquet", (1, 28, 28), [k % 10 for k in range(count)]
        )
    first, origin = parts_of(asked(tmp_path))
    other, same = parts_of(asked(tmp_path, n_train=12))
    assert origin == same  # so that a network as it was and its hardened form are compared on the same images
    for part in ("fit", "select", "test"):
        assert torch.equal(first[part].images[:], other[part].images[:])
