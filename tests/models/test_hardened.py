"""Hardened forms of networks from elsewhere come back from their file, and softplus reaches every ReLU."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.test_harden import toy
from upi.core.errors import ArtifactError, ConfigError
from upi.data.shape import Shape
from upi.models.classifiers import load_classifier
from upi.models.harden import Hardening, Trainable, harden
from upi.models.hardened import FILE, Hardened, first_words
from upi.models.nets import NETS
from upi.models.no_relu import require_no_relu, with_softplus
from upi.models.registry import Request
from upi.models.trained import Trained
from upi.network.classifier import Classifier

CODE = """
import torch
import torch.nn.functional as F
from torch import nn

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.linear = nn.Conv2d(1, 6, 3), nn.Linear(600, 4)
    def forward(self, x):
        return {"scores": self.linear(F.relu(self.conv(x)).relu().flatten(1))}
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    (tmp_path / "functional.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("functional", None)
    return load_classifier("functional:Functional", mean=[0.4], std=[0.3], output="scores")[0]


WORDS = Request("functional:Functional", mean=[0.4], std=[0.3], output="scores")


@pytest.mark.parametrize("defence", ["plain", "softplus"])
def test_a_network_from_code_comes_back_from_its_file(
    defence: str, model: Classifier, tmp_path: Path
) -> None:
    how = Hardening(defence, epochs=1, shift=0)
    after = harden(Trainable(model), toy(40, 1), how)
    assert isinstance(after, Trainable)
    about = {"arch": "mine", "softplus": how.beta} if defence == "softplus" else {"arch": "mine"}
    file = tmp_path / "run" / FILE
    Hardened(after.net, WORDS, about).save(file)
    again, said = load_classifier(WORDS.spec, weights=file)  # normalisation and output are the file's
    assert said == {**about, "arch": "mine"}
    assert again.fingerprint() == after.classifier().fingerprint()
    x = toy(5, 2).images[:]
    torch.testing.assert_close(again(x), after(x))


def test_a_file_starts_no_code(model: Classifier, tmp_path: Path) -> None:
    Hardened(model.net, WORDS, {"arch": "mine"}).save(tmp_path / FILE)
    sys.modules.pop("functional")
    with pytest.raises(ConfigError, match="which a file may not start"):
        load_classifier(str(tmp_path / FILE))
    assert "functional" not in sys.modules


def trained_file(place: Path) -> Path:
    """A file of ``upi train``, as a network from elsewhere that needs no code."""
    net = NETS["small-cnn"](Shape(1, 12, 4), 0.25).eval()
    about = {"arch": "small-cnn", "width": 0.25, "channels": 1, "size": 12, "classes": 4}
    Trained(net, "small-cnn", about).save(place)
    return place


@pytest.mark.parametrize("defence", ["plain", "softplus"])
def test_a_network_of_another_source_comes_back_from_its_run_folder(defence: str, tmp_path: Path) -> None:
    words = Request(str(trained_file(tmp_path / "net.safetensors")))
    model, _ = load_classifier(words.spec)
    how = Hardening(defence, epochs=1, shift=0)
    after = harden(Trainable(model), toy(40, 1), how)
    assert isinstance(after, Trainable)
    about = {"arch": "small-cnn", "softplus": how.beta if defence == "softplus" else None}
    Hardened(after.net, words, about).save(tmp_path / "run" / FILE)
    for spec in (tmp_path / "run", tmp_path / "run" / FILE):
        again, said = load_classifier(str(spec))
        assert said == about
        assert again.fingerprint() == after.classifier().fingerprint()
    assert first_words(str(tmp_path / "run"), Request("other")).spec == words.spec


def test_a_file_that_comes_from_itself_is_refused(tmp_path: Path) -> None:
    net = NETS["small-cnn"](Shape(1, 12, 4), 0.25)
    Hardened(net, Request(str(tmp_path / FILE)), {"arch": "x"}).save(tmp_path / FILE)
    Hardened(net, Request(str(tmp_path / FILE)), {"arch": "x"}).save(tmp_path / FILE)
    with pytest.raises(ArtifactError, match="expected the first one"):
        load_classifier(str(tmp_path / FILE))


@pytest.mark.parametrize(
    "about", [{}, {"arch": 3}, {"arch": "x", "softplus": "5"}, {"arch": "x", "softplus": -1}]
)
def test_facts_that_say_nothing_are_refused(about: dict[str, Any], tmp_path: Path) -> None:
    net = NETS["small-cnn"](Shape(1, 12, 4), 0.25)
    Hardened(net, Request(str(trained_file(tmp_path / "net.safetensors"))), about).save(tmp_path / FILE)
    with pytest.raises(ArtifactError, match=r"does not say which|sharpness above 0"):
        load_classifier(str(tmp_path / FILE))


def test_hardening_works_on_the_normalised_network(model: Classifier) -> None:
    x = toy(5, 2).images[:]
    torch.testing.assert_close(Trainable(model)(x), model(x))
    first = deepcopy(model.net.state_dict())
    harden(Trainable(model), toy(40, 1), Hardening("plain", epochs=1, shift=0))
    assert all(not torch.equal(value, first[key]) for key, value in model.net.state_dict().items())


def test_softplus_replaces_functions_as_well_as_modules(model: Classifier) -> None:
    x = torch.rand(3, 1, 12, 12)
    soft = with_softplus(deepcopy(model.net), 5.0)
    hidden = F.softplus(F.softplus(model.net.conv(x), beta=5.0), beta=5.0)
    torch.testing.assert_close(soft(x)["scores"], model.net.linear(hidden.flatten(1)))
    require_no_relu(soft, x)
    assert list(soft.state_dict()) == list(model.net.state_dict())


def test_cifar_resnets_become_smooth_and_keep_their_weights_names() -> None:
    net = NETS["cifar-resnet20"](Shape(3, 32, 10), 0.25).eval()
    soft = with_softplus(deepcopy(net), 10.0)
    x = torch.rand(2, 3, 32, 32)
    require_no_relu(soft, x)
    assert set(soft.state_dict()) == set(net.state_dict())
    sharp = with_softplus(deepcopy(net), 1e4)
    torch.testing.assert_close(sharp(x), net(x), rtol=1e-3, atol=1e-3)


def test_relus_that_cannot_be_reached_are_refused_not_left() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.linear = nn.ReLU(), nn.Linear(144, 4)

        def forward(self, x: Tensor) -> Tensor:
            out = x if float(x.sum()) > 1e9 else F.relu(x)
            return self.linear(self.relu(out).flatten(1))

    with pytest.raises(ConfigError, match="cannot be traced"):
        harden(Branches(), toy(10, 1), Hardening("softplus", epochs=1, shift=0))


def test_networks_without_relu_have_nothing_to_replace() -> None:
    with pytest.raises(ConfigError, match="no ReLU"):
        with_softplus(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 10.0)


def test_several_labels_an_image_are_refused(model: Classifier) -> None:
    with pytest.raises(ConfigError, match="one label"):
        Trainable(Classifier(model.net, multi_label=True))


def test_a_damaged_file_is_refused(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / FILE
    Hardened(model.net, WORDS, {"arch": "mine"}).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="hardened"):
        load_classifier(str(path))
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="hardened"):
        load_classifier(str(path))
