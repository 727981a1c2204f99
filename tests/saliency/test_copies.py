"""Maps of very many passes: graphs that are made again instead of kept give the same derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import convolutional, images
from upi.attacks.support.curvature import CurvatureOperator
from upi.attacks.support.gradients import attack_gradient
from upi.attacks.support.objective import MapChange, explained_batch
from upi.attacks.support.rows import ExplainedImages
from upi.dissimilarity import DISSIMILARITIES
from upi.network.classifier import Classifier
from upi.saliency import IntegratedGradients, SmoothGrad, copies
from upi.saliency.vargrad import VarGrad

COPIES = 40
MAPS = {
    "integrated": IntegratedGradients(steps=COPIES, score="softmax"),
    "smoothgrad": SmoothGrad(samples=COPIES),
    "unit": SmoothGrad(samples=COPIES, unit=True, normalize="none"),
    "vargrad": VarGrad(samples=COPIES),
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if images were so large that 8 go through the network together."""
    monkeypatch.setattr(copies, "TOGETHER", 8)


def gradient(name: str, seen: list[int], *, trained: bool = False) -> Tensor:
    """The attack gradient of one image in float64; ``seen`` gets the images of each pass."""
    net = convolutional(nn.Softplus).double()
    net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    model, x = Classifier(net), images(1).double()
    objective = MapChange(MAPS[name], DISSIMILARITIES["relative_l2"])
    surrogate = model.surrogate(None, fast=False)
    if trained:
        batch = explained_batch(objective, surrogate, x, model.predict(x))
        seen.clear()
        return attack_gradient(surrogate, objective, batch, x + 0.05).gradient
    with model.frozen():
        batch = explained_batch(objective, surrogate, x, model.predict(x))
        seen.clear()
        return attack_gradient(surrogate, objective, batch, x + 0.05).gradient


@pytest.mark.parametrize("name", MAPS)
def test_a_graph_made_again_gives_the_same_gradient(
    name: str, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, kept = list[int](), list[int]()
    found = gradient(name, again)
    monkeypatch.setattr(copies, "KEPT", 1000)
    torch.testing.assert_close(found, gradient(name, kept), rtol=1e-10, atol=1e-12)
    assert kept == [8] * 5
    assert again == [8] * 10
    assert float(found.abs().max()) > 0


def test_graphs_of_weights_that_are_trained_are_kept(few: None) -> None:
    """What is made again would leave them without a gradient."""
    seen = list[int]()
    gradient("integrated", seen, trained=True)
    assert seen == [8] * 5


@pytest.mark.parametrize("name", MAPS)
def test_the_curvature_of_such_a_map(name: str, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It differentiates the gradient once more: the graph that was made again has one itself."""
    model = Classifier(convolutional(nn.Softplus).double())
    objective = MapChange(MAPS[name], DISSIMILARITIES["relative_l2"])
    given = ExplainedImages(model.surrogate(None, fast=False), objective, [images(1).double()])
    block = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with model.frozen():
        found = CurvatureOperator(given).matmat(block)
        monkeypatch.setattr(copies, "KEPT", 1000)
        torch.testing.assert_close(found, CurvatureOperator(given).matmat(block), rtol=1e-9, atol=1e-12)
