"""What every map promises, one row a map: a new file in ``upi.saliency`` is tested by being there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import MapChange, explained_batch
from upi.core.types import SaliencyMap
from upi.saliency import MAPS, explain, resolve, title_of

COLOUR = (3, 8, 8)
FORMS = [(name, paper) for name in MAPS for paper in (False, True)]
TARGET = torch.tensor([0, 1, 2, 3])


class Attentive(nn.Module):
    """A transformer in small, for maps of attention: patches of 2 x 2, class token, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True) for _ in range(2)]
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(4 * x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


def _model(name: str) -> upi.Classifier:
    attentive = MAPS.entry(name).facts.get("needs") == "attention"
    return upi.Classifier((Attentive() if attentive else convolutional(nn.Softplus, channels=3)).double())


def _looking_at(model: upi.Classifier, saliency: SaliencyMap) -> tuple[Tensor, Tensor]:
    """Images with classes whose maps are not zero, which Grad-CAM's may be."""
    x = images(32, shape=COLOUR).double()
    target = torch.arange(32) % 4
    shown = saliency(model, x, target).flatten(1).ne(0).all(1)
    assert int(shown.sum()) >= 4
    return x[shown][:4], target[shown][:4]


@pytest.mark.parametrize(("name", "paper"), FORMS)
def test_maps_have_the_contract_s_shape_and_treat_images_one_by_one(name: str, paper: bool) -> None:
    saliency, model = resolve(name, paper=paper), _model(name)
    x = images(4, shape=COLOUR).double()
    maps = saliency(model, x, TARGET)
    assert maps.shape == (4, 8, 8)
    assert maps.dtype == x.dtype
    assert not maps.requires_grad
    alone = torch.cat([saliency(model, x[i : i + 1], TARGET[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(maps, alone)
    assert torch.equal(maps, saliency(model, x, TARGET))
    torch.testing.assert_close(explain(saliency, model, x, TARGET), maps)


@pytest.mark.parametrize(("name", "paper"), FORMS)
def test_maps_depend_on_the_class_and_on_the_image(name: str, paper: bool) -> None:
    saliency, model = resolve(name, paper=paper), _model(name)
    x, target = _looking_at(model, saliency)
    maps = saliency(model, x, target)
    classless = MAPS.entry(name).facts.get("needs") == "attention"  # the same for every class
    assert torch.allclose(maps, saliency(model, x, (target + 1) % 4)) is classless
    assert not torch.allclose(maps, saliency(model, x.flip(3), target))


@pytest.mark.parametrize(("name", "paper"), FORMS)
def test_the_attack_gradient_is_the_derivative_of_the_map_change(name: str, paper: bool) -> None:
    """Against a fourth-order central difference in float64, along the gradient itself."""
    saliency, model = resolve(name, paper=paper), _model(name)
    x, target = _looking_at(model, saliency)
    objective = MapChange(saliency, upi.dissimilarity.relative_l2)
    batch = explained_batch(objective, model, x, target)
    point = x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double()
    gradient = gradients(model, objective, batch, point, where="test").gradient
    direction = gradient / gradient.norm()

    def value(shift: float) -> float:
        return float(objective.values(model, batch, (point + shift * direction).detach()).sum())

    h = 1e-4
    numeric = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_maps_say_how_many_passes_they_take(name: str) -> None:
    saliency, model = resolve(name), _model(name)
    seen: list[int] = []
    model.net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    saliency(model, images(2, shape=COLOUR).double(), TARGET[:2])
    assert sum(seen) == 2 * getattr(saliency, "passes", 1)


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_a_name_for_people_and_options_that_can_be_kept(name: str) -> None:
    saliency: Any = resolve(name)
    assert title_of(name).endswith("map")
    assert repr(saliency) == repr(resolve(name))
    assert saliency == resolve(name)
