"""Perturbation files: what was saved comes back, and hostile files are refused unrun."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import upi
from tests.conftest import images
from upi.core.errors import ArtifactError, DataError, RunFolderError
from upi.core.storage import write_atomic
from upi.perturbation.ball import Ball
from upi.perturbation.file import FORMAT
from upi.perturbation.pattern import Perturbation

BALL = Ball("l2", 0.5)


def _perturbation() -> Perturbation:
    delta = BALL.boundary((1, 3, 8, 8), torch.Generator().manual_seed(0))[0]
    return Perturbation(delta, BALL, {"method": "test", "spectrum": [1.0, 0.5], "seed": 3})


def _bytes(
    delta: Tensor | None = None, extra: dict[str, Tensor] | None = None, **changes: str | None
) -> bytes:
    """A perturbation file with some of its metadata changed (None removes an entry)."""
    metadata: dict[str, str | None] = {
        "format": FORMAT,
        "version": "1",
        "norm": "l2",
        "eps": "0.5",
        "data_range": "[0, 1]",
        "shape": "[3, 8, 8]",
        "provenance": "{}",
        **changes,
    }
    tensors = {"delta": _perturbation().delta if delta is None else delta, **(extra or {})}
    return save(tensors, {key: value for key, value in metadata.items() if value is not None})


def test_round_trip(tmp_path: Path) -> None:
    first = _perturbation()
    path = first.save(tmp_path / "sub" / "delta.safetensors")
    second = Perturbation.load(path)
    assert torch.equal(second.delta, first.delta)
    assert second.ball == first.ball
    assert dict(second.provenance) == dict(first.provenance)
    assert [file.name for file in path.parent.iterdir()] == ["delta.safetensors"]


def test_same_perturbation_same_bytes(tmp_path: Path) -> None:
    one, two = _perturbation().save(tmp_path / "a"), _perturbation().save(tmp_path / "b")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("length", [256 + 8, 514, 640, 0x8002 & 0xFFF])
def test_headers_of_any_length_load(tmp_path: Path, length: int) -> None:
    """The first bytes of a good file are its header's length and may look like a pickle's."""
    filler = _bytes(provenance=json.dumps({"x": ""}))
    size = int.from_bytes(filler[:8], "little")
    for wanted in (0x0280, 0x0480, size + length - length % 8):
        if wanted <= size:
            continue
        path = tmp_path / "delta.safetensors"
        path.write_bytes(_bytes(provenance=json.dumps({"x": "a" * (wanted - size)})))
        assert Perturbation.load(path).delta.shape == (3, 8, 8)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trap-was-run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "truncated, or not a safetensors file"),
        (lambda: b"\x00" * 64, "not a safetensors file"),
        (lambda: _bytes()[:-1], "truncated"),
        (lambda: _bytes()[:40], "truncated"),
        (lambda: pickle.dumps(_Trap()), "looks like a pickle .* never unpickled"),
        (lambda: _torch_save(_Trap()), "looks like a pickle or torch.save file"),
        (lambda: (2**62).to_bytes(8, "little") + b"{}", "not a safetensors file"),
        (lambda: save({"delta": torch.zeros(3, 8, 8)}), "expected format 'upi-perturbation', got None"),
        (lambda: _bytes(version="2"), "expected version '1', got '2'"),
        (lambda: _bytes(data_range="[0, 255]"), "expected data_range"),
        (lambda: _bytes(norm="l7"), "damaged metadata: unknown norm 'l7'"),
        (lambda: _bytes(eps="nan"), "damaged metadata: eps must be"),
        (lambda: _bytes(eps=None), "damaged metadata: 'eps'"),
        (
            lambda: _bytes(shape="[1, 8, 8]"),
            r"the metadata say shape \[1, 8, 8\], the tensor has \[3, 8, 8\]",
        ),
        (lambda: _bytes(shape="oops"), "damaged metadata"),
        (lambda: _bytes(provenance="[1]"), "provenance"),
        (lambda: _bytes(provenance="[" * 100_000), "damaged metadata"),
        (lambda: _bytes(torch.zeros(64)), r"shape \(C, H, W\), got torch.float32 \(64,\)"),
        (lambda: _bytes(torch.zeros(3, 8, 8).double()), "expected a float32 perturbation"),
        (lambda: _bytes(torch.full((3, 8, 8), float("nan"))), "NaN or infinite"),
        (lambda: _bytes(torch.ones(3, 8, 8)), "outside its own ball of radius 0.5"),
        (lambda: _bytes(extra={"more": torch.zeros(1)}), "expected one tensor named 'delta'"),
    ],
)
def test_hostile_files_are_refused(
    content: Callable[[], bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "delta.safetensors"
    path.write_bytes(content())
    with pytest.raises(ArtifactError, match=message):
        Perturbation.load(path)
    assert not (tmp_path / "trap-was-run").exists()


def _torch_save(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = _bytes()
    path = tmp_path / "delta.safetensors"
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            Perturbation.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(ArtifactError, match=str(path)):
            Perturbation.load(path)


def test_a_bad_perturbation_cannot_be_made() -> None:
    for delta, message in (
        (torch.ones(3, 8, 8), "outside its own ball"),
        (torch.full((3, 8, 8), float("inf")), "NaN or infinite"),
        (torch.zeros(8, 8), r"shape \(C, H, W\)"),
    ):
        with pytest.raises(ArtifactError, match=message):
            Perturbation(delta, BALL)


def test_perturbing_clips_to_the_box_and_checks_the_images() -> None:
    perturbation = _perturbation()
    x = images(4, shape=(3, 8, 8)).round()
    moved = perturbation(x)
    torch.testing.assert_close(moved, (x + perturbation.delta).clamp(0, 1))
    with pytest.raises(DataError, match=r"images of shape \(3, 8, 8\), got \(1, 8, 8\)"):
        perturbation(images(1))
    with pytest.raises(DataError, match=r"expected values in \[0, 1\]"):
        perturbation(255 * x)


def test_scaling_keeps_the_direction() -> None:
    half = _perturbation().scaled(0.25)
    torch.testing.assert_close(half.delta, _perturbation().delta / 2)
    assert half.ball == Ball("l2", 0.25)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_atomic(tmp_path / "file", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left on device; nothing was changed"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        _perturbation().save(tmp_path / "file" / "delta.safetensors")


def test_interrupting_a_write_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _perturbation().save(tmp_path / "delta.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_public_name_is_the_same_class() -> None:
    assert upi.Perturbation is Perturbation


@pytest.mark.parametrize("size", [0x0280, 0x0480])
def test_a_truncated_file_is_not_taken_for_a_pickle_by_its_first_bytes(tmp_path: Path, size: int) -> None:
    """The first bytes of a safetensors file are the size of its header, which may look like anything."""
    path = tmp_path / "cut.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b'{"delta":')
    with pytest.raises(ArtifactError, match="truncated"):
        Perturbation.load(path)
