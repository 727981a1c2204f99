"""``upi train`` on named datasets and ``upi transfer`` between networks and maps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from tests.cli.test_command_line import run
from tests.datasets.test_sources import write_parquet
from upi.core.errors import ArtifactError
from upi.models import classifiers
from upi.results.folder import RunFolder

pytestmark = pytest.mark.slow

PARTS = ["--n-fit", "16", "--n-select", "8"]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """A small MNIST of random images."""
    for split, count in (("train", 90), ("test", 40)):
        write_parquet(
            tmp_path / "data" / "mnist" / f"{split}.parquet", (1, 28, 28), [k % 10 for k in range(count)]
        )
    return ["--data", "mnist", "--data-dir", str(tmp_path / "data")]


def no_network(**options: object) -> None:
    raise ConnectionError("no route to the hub")


def trained(tmp_path: Path, data: list[str], name: str, *more: str) -> Path:
    out = tmp_path / name
    run("train", *data, *PARTS, "--arch", "small-cnn", "--epochs", "2", *more, "--out", out)
    return out


def test_training_on_a_named_dataset_uses_its_official_test_split(tmp_path: Path, data: list[str]) -> None:
    out = tmp_path / "vgg"
    said = run("train", *data, *PARTS, "--width", "0.1", "--epochs", "1", "--out", out)
    assert "on 40 images" in said
    about = json.loads((out / "config.json").read_text())["model"]
    assert (about["arch"], about["width"], about["n_train"], about["n_test"]) == ("vgg16", 0.1, 66, 40)
    assert about["recipe"]["channels_last"]
    assert classifiers.load_trained(out / "model.safetensors").about["classes"] == 10


def test_perturbations_on_other_networks_and_maps(tmp_path: Path, data: list[str]) -> None:
    first, second = trained(tmp_path, data, "one"), trained(tmp_path, data, "two", "--seed", "1")
    fitted = tmp_path / "fit"
    run(
        "fit",
        *data,
        *PARTS,
        "--n-test",
        "40",
        "--model",
        first,
        "--steps",
        "3",
        "--method",
        "upi-grad",
        "--out",
        fitted,
    )
    common = [*data, *PARTS, "--n-test", "40", "--perturbation", str(fitted)]
    out = tmp_path / "transfer"
    said = run("transfer", *common, "--model", str(first), "--model", str(second), "--out", out)
    assert "upi-grad" in said
    metrics = RunFolder(out).metrics().plain()
    assert metrics["transfer"]["columns"] == ["one", "two"]
    assert metrics["transfer"]["rows"] == ["upi-grad", "random"]
    assert [table["tested_on"] for table in metrics["tables"]] == ["one", "two"]
    page = (out / "report.html").read_text()
    assert "Transfer" in page
    assert "Simple-gradient map of two" in page
    maps = tmp_path / "maps"
    run(
        "transfer",
        *common,
        "--model",
        first,
        "--saliency",
        "gradient",
        "--saliency",
        "grad_cam",
        "--out",
        maps,
    )
    assert RunFolder(maps).metrics().plain()["transfer"]["columns"] == ["gradient", "grad_cam"]
    library = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    save_file(library.state_dict(), tmp_path / "timm.safetensors")
    foreign = ["--model", "timm/test_resnet", "--model", first, "--out", tmp_path / "foreign"]
    run("transfer", *common, *foreign, "--weights", tmp_path / "timm.safetensors")
    assert RunFolder(tmp_path / "foreign").metrics().plain()["transfer"]["columns"] == [
        "timm/test_resnet",
        "one",
    ]
    files = ["--force", *["--weights", tmp_path / "timm.safetensors"] * 2]
    assert "2 files of weights for 1 networks that take one" in run(
        "transfer", *common, *foreign, *files, code=2
    )
    said = run(
        "transfer", *common, "--model", first, "--model", second, "--saliency", "gradient",
        "--saliency", "smoothgrad", "--out", tmp_path / "x", code=2,
    )  # fmt: skip
    assert "several networks or several maps" in said


def test_a_missing_dataset_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", no_network)
    said = run("train", "--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "x", code=2)
    assert "put parquet files" in said
    assert not (tmp_path / "x").exists()


def test_classifiers_saved_before_widths_existed_still_load(tmp_path: Path, data: list[str]) -> None:
    found = classifiers.load_trained(trained(tmp_path, data, "old") / "model.safetensors")
    del found.about["width"]
    found.save(tmp_path / "old.safetensors")
    again = classifiers.load_trained(tmp_path / "old.safetensors")
    assert again.net.state_dict().keys() == found.net.state_dict().keys()
    (tmp_path / "old.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError):
        classifiers.load_trained(tmp_path / "old.safetensors")
