"""Architectures of the zoo with weights from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import images
from upi.core.errors import ArtifactError, ConfigError
from upi.data.shape import Shape
from upi.models.architectures import build
from upi.models.classifiers import load_classifier

SHAPE = Shape(1, 28, 10)


def test_weights_of_one_s_own_are_the_network(tmp_path: Path) -> None:
    net = build("small-cnn", SHAPE).eval()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    model, about = load_classifier(
        "zoo/small-cnn", weights=tmp_path / "mine.safetensors", shape=SHAPE, mean=[0.5], std=[0.25]
    )
    x = images(3, shape=(1, 28, 28))
    with torch.no_grad():
        torch.testing.assert_close(model(x), net((x - 0.5) / 0.25))
    assert about == {"arch": "small-cnn"}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_file(build("vgg16", SHAPE, width=0.1).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="weights of another network than zoo/small-cnn"):
        load_classifier("zoo/small-cnn", weights=tmp_path / "other.safetensors", shape=SHAPE)
    with pytest.raises(ConfigError, match="unknown; known: zoo/small-cnn, zoo/vgg16"):
        load_classifier("zoo/gpt", shape=SHAPE)
    with pytest.raises(ConfigError, match="give a file of weights"):
        load_classifier("zoo/vgg16", shape=SHAPE)
