"""Transfer tables agree with single evaluations, and pictures with the perturbations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.core.errors import ConfigError
from upi.evaluation import compare, matrix, transfer_maps, transfer_models

pytestmark = pytest.mark.slow


def test_every_perturbation_on_every_network(loader: Batches) -> None:
    nets = {"a": convolutional(nn.ReLU, seed=0), "b": convolutional(nn.ReLU, seed=1)}
    found = {name: upi.UPIGrad(net, eps=1.0, steps=5).fit(loader) for name, net in nets.items()}
    unlabelled = [x for x, _ in loader]
    tables = transfer_models(nets, found, unlabelled)
    plain = matrix(tables)
    assert plain["columns"] == ["a", "b"]
    assert plain["rows"] == ["a", "b", "random"]
    single = upi.evaluate(nets["b"], {"a": found["a"]}, unlabelled, controls=False)
    assert plain["cells"]["a"]["b"]["mean"] == pytest.approx(single.rows["a"].dissimilarity.mean)
    assert plain["cells"]["a"]["b"]["changed"] == single.rows["a"].prediction_changed


def test_every_perturbation_on_every_map(relu_net: nn.Module, loader: Batches) -> None:
    found = upi.UPIGrad(relu_net, eps=1.0, steps=5).fit(loader)
    names = ("gradient", "smoothgrad", "grad_cam")
    tables = transfer_maps(relu_net, {name: name for name in names}, {"p": found}, loader)
    for name in names:
        single = upi.evaluate(relu_net, {"p": found}, loader, saliency=name, controls=("random",))
        assert tables[name].rows["p"].dissimilarity.mean == single.rows["p"].dissimilarity.mean
        assert set(tables[name].rows) == {"p", "random"}


def test_controls_can_be_chosen_by_name(relu_net: nn.Module, loader: Batches) -> None:
    found = upi.RandomPerturbation(relu_net, eps=1.0).fit(loader)
    table = upi.evaluate(relu_net, {"p": found}, loader, controls=("tiny-noise", "other-image"))
    assert set(table.rows) == {"p", "tiny-noise", "other-image"}
    with pytest.raises(ConfigError, match="unknown control 'loud-noise'"):
        upi.evaluate(relu_net, {"p": found}, loader, controls=("loud-noise",))


def test_the_same_images_under_every_perturbation(relu_net: nn.Module, loader: Batches) -> None:
    rows = {
        "upi-grad": upi.UPIGrad(relu_net, eps=1.0, steps=5).fit(loader),
        "per-image": upi.PerImageAttack(relu_net, eps=1.0, steps=5),
    }
    table = upi.evaluate(relu_net, rows, loader, controls=False)
    shown = compare(relu_net, rows, loader, [3, 20])
    assert [(s.rule, s.row) for s in shown] == [
        ("image 1", "upi-grad"),
        ("image 1", "per-image"),
        ("image 2", "upi-grad"),
        ("image 2", "per-image"),
    ]
    column = table.per_sample["upi-grad"]
    assert shown[0].value == pytest.approx(float(column["dissimilarity"][3]), rel=1e-4)
    assert shown[2].sample == int(column["sample"][20])
    assert torch.equal(shown[0].x, shown[1].x)


def test_a_price_keeps_predictions_of_the_per_image_attack(relu_net: nn.Module) -> None:
    x = images(48)
    with torch.no_grad():
        relu_net[6].bias -= relu_net(x).mean(0)  # type: ignore[index,operator]
    free = upi.evaluate(relu_net, {"a": upi.PerImageAttack(relu_net, eps=1.5, steps=20)}, [x], controls=False)
    paid = upi.evaluate(
        relu_net,
        {"a": upi.PerImageAttack(relu_net, eps=1.5, steps=20, prediction_price=5.0)},
        [x],
        controls=False,
    )
    assert paid.rows["a"].prediction_changed < free.rows["a"].prediction_changed
    with pytest.raises(ConfigError, match="prediction_price"):
        upi.PerImageAttack(relu_net, eps=1.0, prediction_price=-1.0)
