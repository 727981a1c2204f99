"""Networks of transformers from a folder: preprocessing, names of classes, tasks, every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import upi
from upi.cli.app import app
from upi.core.errors import ConfigError, ModelError
from upi.data.preprocess import Preprocess
from upi.datasets.pictures import Form
from upi.models.classifiers import load_classifier, preprocess_of
from upi.models.hf import preprocess_from

transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is missing")
pytestmark = pytest.mark.slow

NAMES = ["cat", "dog", "owl"]


def saved(path: Path, *, labels: int = 3, kind: str = "vit", **config: Any) -> Path:
    """A tiny untrained network with its processor, as save_pretrained writes them."""
    torch.manual_seed(0)
    common = {
        "id2label": dict(enumerate(NAMES[:labels] if labels <= 3 else map(str, range(labels)))),
        **config,
    }
    if kind == "vit":
        settings = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
            patch_size=8, **common,
        )  # fmt: skip
        net = transformers.ViTForImageClassification(settings)
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        settings = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **common
        )
        net = transformers.ResNetForImageClassification(settings)
        processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875)
    net.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def pictures(root: Path, names: list[str], each: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for k in range(each):
            size = (40 + 3 * k, 50, 3)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(root / name / f"{k}.jpg")
    return root


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_logits_are_those_of_transformers_own_pipeline(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "net", kind=kind)
    model, about = load_classifier(f"hf/{path}")
    assert about["labels"] == NAMES
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (47, 60, 3), dtype=np.uint8))
    form = preprocess_of(f"hf/{path}")
    own = torch.tensor(Form(size=form, colour=True).pixels(picture, "x"))[None].float() / 255
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    net = transformers.AutoModelForImageClassification.from_pretrained(path).eval()
    with torch.no_grad():
        theirs = net(**processor(picture, return_tensors="pt")).logits
        torch.testing.assert_close(model(own), theirs, atol=5e-3, rtol=5e-2)  # resizing rounds differently


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ({"size": 224}, Preprocess(224, 224, (224, 224), "bilinear", 3)),
        ({"size": {"height": 48, "width": 96}, "resample": 3}, Preprocess(48, 96, (48, 96), "bicubic", 3)),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            Preprocess(224, 224, 256, "bilinear", 3),
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
            Preprocess(224, 224, 256, "bicubic", 3),
        ),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3},
            Preprocess(384, 384, (384, 384), "bicubic", 3),
        ),
        (
            {"size": {"height": 28, "width": 28}, "image_mean": [0.5]},
            Preprocess(28, 28, (28, 28), "bilinear", 1),
        ),
    ],
)
def test_what_processors_say(config: dict[str, Any], form: Preprocess) -> None:
    assert preprocess_from(config) == form


def run(*arguments: str | Path) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_every_command_takes_them(tmp_path: Path) -> None:
    path, data = saved(tmp_path / "net"), pictures(tmp_path / "data", ["owl", "cat", "dog"])
    shared: list[str | Path] = ["--model", f"hf/{path}", "--data", data, "--n-train", "0", "--n-fit", "12"]
    shared += ["--n-select", "6", "--n-test", "18", "--batch-size", "6"]
    found = ["--perturbation", tmp_path / "fit"]
    run("fit", *shared, "--out", tmp_path / "fit", "--steps", "2", "--method", "upi-grad", "--eps", "1.0")
    run("evaluate", *shared, *found, "--out", tmp_path / "eval", "--per-image-steps", "2")
    config = json.loads((tmp_path / "eval" / "config.json").read_text())
    assert config["classes"] == NAMES  # the network's order, not that of the folders
    run("transfer", *shared, *found, "--out", tmp_path / "transfer")


def test_images_get_the_networks_own_numbers_for_their_classes(tmp_path: Path) -> None:
    from upi.datasets.splits import load_parts

    data = pictures(tmp_path / "data", ["Owl", "Cat"], each=4)
    parts = load_parts(
        str(data), {"train": 0, "fit": 0, "select": 0, "test": 8}, seed=0, size=Preprocess(32, 32, (32, 32))
    )
    assert parts.classes == ("Cat", "Owl")
    named = parts.labelled(NAMES)
    assert sorted(named["test"].labels.tolist()) == [0] * 4 + [2] * 4
    with pytest.raises(ConfigError, match="the network tells 3 classes apart"):
        parts.labelled(["a", "b", "c"])


def test_tasks(tmp_path: Path) -> None:
    binary, _ = load_classifier(f"hf/{saved(tmp_path / 'one', labels=1)}")
    x = torch.rand(2, 3, 32, 32)
    assert binary(x).shape == (2, 2)
    assert bool((binary(x)[:, 0] == 0).all())
    several, about = load_classifier(
        f"hf/{saved(tmp_path / 'many', problem_type='multi_label_classification')}", label=1
    )
    assert about["multi_label"]
    assert several(x).shape == (2, 2)


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="give the folder that save_pretrained wrote"):
        load_classifier("hf/nobody/nothing-at-all")
    path = saved(tmp_path / "net")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="says how pictures are prepared"):
        load_classifier(f"hf/{path}")
    with pytest.raises(ConfigError, match="say which network"):
        load_classifier("hf/")


def test_attention_networks_have_the_attack_gradient_of_differences(tmp_path: Path) -> None:
    model, _ = load_classifier(f"hf/{saved(tmp_path / 'net')}")
    perturbation = upi.UPIGrad(model, eps=1.0, steps=3).fit([torch.rand(6, 3, 32, 32)])
    assert float(perturbation.delta.norm()) == pytest.approx(1.0, rel=1e-4)
