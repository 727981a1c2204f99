"""Pictures of every kind, decoded and prepared as networks expect them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from upi.core.errors import ConfigError, DataError
from upi.data.preprocess import Preprocess
from upi.datasets.lazy import Batches, Encoded, Memory
from upi.datasets.pictures import Form
from upi.datasets.splits import load

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)).resize(
    (180, 120), Image.Resampling.BICUBIC
)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = Form().pixels(encoded(Image.fromarray(values)), "here")
    np.testing.assert_array_equal(found[0], np.rint(values / 257).astype(np.uint8))


def test_modes_become_what_people_see() -> None:
    rgb = np.asarray(PHOTO)
    assert np.array_equal(Form(colour=True).pixels(encoded(PHOTO), "x"), rgb.transpose(2, 0, 1))
    cmyk = Form(colour=True).pixels(encoded(PHOTO.convert("CMYK"), "TIFF"), "x")
    assert np.abs(cmyk.astype(int) - rgb.transpose(2, 0, 1)).max() <= 1
    alpha = PHOTO.copy()
    alpha.putalpha(128)
    assert np.array_equal(Form(colour=True).pixels(encoded(alpha), "x"), rgb.transpose(2, 0, 1))
    grey = Form(colour=True).pixels(encoded(PHOTO.convert("L")), "x")
    assert np.array_equal(grey[0], grey[1])
    palette = Form(colour=True).pixels(encoded(PHOTO.convert("P")), "x")
    assert np.array_equal(palette, np.asarray(PHOTO.convert("P").convert("RGB")).transpose(2, 0, 1))
    assert Form().pixels(encoded(PHOTO.convert("1")), "x").shape == (1, 120, 180)


def test_exif_rotation_is_undone() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter to the right when it is shown
    found = Form(colour=True).pixels(encoded(PHOTO, "PNG", exif=exif), "x")
    assert np.array_equal(found, np.asarray(PHOTO.rotate(-90, expand=True)).transpose(2, 0, 1))


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(DataError, match="row 3: not a picture that can be decoded"):
        Form().pixels(b"not a picture", "row 3")
    with pytest.raises(DataError, match="floating-point pixels"):
        Form().pixels(Image.fromarray(np.full((4, 4), 7.0, np.float32)), "x")
    with pytest.raises(DataError, match="cannot be cut to 300 x 300"):
        Form(size=Preprocess(300, 300)).pixels(PHOTO, "x")


@pytest.mark.parametrize(("text", "shape"), [("64", (3, 64, 64)), ("48x80", (3, 48, 80))])
def test_sizes_of_the_command_line(text: str, shape: tuple[int, ...]) -> None:
    assert Form(size=Preprocess.parse(text), colour=True).pixels(PHOTO, "x").shape == shape


@pytest.mark.parametrize("text", ["", "0", "a", "12x", "3x4x5", "-3"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        Preprocess.parse(text)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "efficientnet_b1", "inception_v3"])
def test_as_torchvision_prepares_them(name: str) -> None:
    from torchvision import models

    from upi.models.classifiers import preprocess_of

    form = preprocess_of(f"torchvision/{name}")
    own = Form(size=form, colour=True).pixels(PHOTO, "x")
    given = models.get_model_weights(name).DEFAULT.transforms()
    theirs = given(PHOTO) * torch.tensor(given.std)[:, None, None] + torch.tensor(given.mean)[:, None, None]
    assert np.abs(own - 255 * theirs.numpy()).max() < 1.01


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k_ft_in1k", "efficientnet_lite0.ra_in1k",
             "convnext_tiny.fb_in1k", "beit_base_patch16_384.in22k_ft_in22k_in1k"],
)  # fmt: skip
def test_as_timm_prepares_them(name: str) -> None:
    from importlib import import_module

    from upi.models.classifiers import preprocess_of

    timm: Any = import_module("timm")
    form = preprocess_of(f"timm/{name}")
    assert form is not None
    own = Form(size=form, colour=True).pixels(PHOTO, "x")
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = timm.data.create_transform(**config)(PHOTO)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    assert np.abs(own - 255 * (theirs * std + mean).numpy()).max() < 1.01


def folder_of(root: Path, names: list[str], each: int = 3) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for k in range(each):
            value = np.full((10 + k, 12, 3), 10 * number + k, np.uint8)
            Image.fromarray(value).save(root / name / f"{k}.png")
    return root


def test_class_folders_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    data = load(str(folder_of(tmp_path / "a", [str(k) for k in range(12)])), size=Preprocess(8, 8, 8))
    assert data.classes == tuple(str(k) for k in range(12))
    assert data.labels.tolist() == [k for k in range(12) for _ in range(3)]
    assert [round(255 * float(image.mean())) for image in data.images[::3]] == [10 * k for k in range(12)]
    named = load(str(folder_of(tmp_path / "b", ["b10", "b2", "a"])), size=Preprocess(8, 8, 8))
    assert named.classes == ("a", "b10", "b2")


def test_a_grey_picture_does_not_decide_for_the_coloured_ones(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    Image.new("L", (8, 8), 100).save(tmp_path / "c" / "0.png")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "c" / "1.png")
    assert load(str(tmp_path)).images.shape == (2, 3, 8, 8)


def _encoded(count: int) -> Encoded:
    kept = [encoded(Image.new("RGB", (6, 5), (k, 2 * k, 3 * k))) for k in range(count)]
    form = Form(colour=True)
    return Encoded(
        lambda k: kept[k], lambda content, k: form.pixels(content, str(k)), torch.arange(count), (3, 5, 6)
    )


def test_encoded_and_stored_images_are_the_same() -> None:
    lazy = _encoded(20)
    stored = Memory(lazy.read(torch.arange(20)))
    places = torch.tensor([7, 0, 19])
    assert torch.equal(lazy[places], stored[places])
    assert torch.equal(lazy.take(places)[:], stored.take(places)[:])
    assert torch.equal(lazy[3:6, :, 1], stored[3:6, :, 1])
    assert torch.equal(lazy[4], stored[4])
    assert lazy[4].shape == (3, 5, 6)
    assert torch.equal(lazy.take(places).take(torch.tensor([1]))[0], stored[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_workers(workers: int) -> None:
    images, labels = _encoded(11), torch.arange(11)
    batches = Batches(images, labels, 4, workers)
    for _ in range(2):
        found = list(batches)
        assert [len(x) for x, _ in found] == [4, 4, 3]
        assert torch.equal(torch.cat([x for x, _ in found]), images[:])
        assert torch.equal(torch.cat([y for _, y in found]), labels)
    assert torch.equal(batches[-1][0], images[8:])
    with pytest.raises(IndexError):
        batches[3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_decoded_in_the_middle_is_named(workers: int) -> None:
    images = _encoded(8)
    broken = Encoded(lambda k: b"?" if k == 5 else images.source(k), images.decode, images.places, (3, 5, 6))
    form = Form(colour=True)
    broken.decode = lambda content, k: form.pixels(content, f"row {k}")
    with pytest.raises(DataError, match="row 5: not a picture"):
        list(Batches(broken, torch.arange(8), 2, workers))


def png(width: int, height: int) -> bytes:
    """A grey picture whose header says a size, with the pixels of one line."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("side", "words"),
    [(60_000, "not a picture that can be decoded.*bomb"), (9000, "9000 x 9000 pixels, more than 67 million")],
)
def test_decompression_bombs_are_refused(side: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png(side, side))
    with pytest.raises(DataError, match=words):
        _ = load(str(tmp_path)).images[:1]


def test_pictures_that_grow_without_bound_when_resized_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png(60_000, 1))
    with pytest.raises(DataError, match="1 x 60000 pixels would be resized to 256 x"):
        _ = load(str(tmp_path), size=Preprocess.imagenet(224)).images[:1]
