"""Transfer tables agree with single evaluations, and pictures with the perturbations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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


@pytest.mark.parametrize("at", [0, 1])
def test_a_matrix_that_was_cut_short_goes_on(at: int, loader: Batches, tmp_path: Path) -> None:
    """Cut after the first batch of the network with that number: finished networks are not measured again."""

    class Stop(BaseException):
        pass

    class Stops(nn.Module):
        """A network that counts its images, and stops everything after some."""

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.images, self.most = net, 0, 10**9

        def forward(self, x: Tensor) -> Tensor:
            self.images += len(x)
            if self.images > self.most:
                raise Stop
            found: Tensor = self.net(x)
            return found

    nets = {f"net {seed}": Stops(convolutional(nn.ReLU, seed=seed)) for seed in (0, 1)}
    pattern = upi.UPIGrad(nets["net 0"], eps=1.0, steps=2).fit(loader)
    unlabelled = [x for x, _ in loader[:3]]
    stopped = list(nets.values())[at]
    for net in nets.values():
        net.images = 0
    whole = transfer_models(nets, {"a": pattern}, unlabelled)
    spent = [net.images for net in nets.values()]
    for net in nets.values():
        net.images = 0
    stopped.most = spent[at] * 2 // 3
    with pytest.raises(Stop):
        transfer_models(nets, {"a": pattern}, unlabelled, keep=tmp_path / "state")
    assert len(list(tmp_path.iterdir())) == at + 1
    stopped.most = 10**9
    for net in nets.values():
        net.images = 0
    again = transfer_models(nets, {"a": pattern}, unlabelled, keep=tmp_path / "state")
    done = [net.images for net in nets.values()]
    assert done[at] < spent[at]
    assert at == 0 or done[0] < 0.5 * spent[0]
    assert not list(tmp_path.iterdir())
    assert {name: str(table.rows) for name, table in again.items()} == {
        name: str(table.rows) for name, table in whole.items()
    }
