"""Defences lower what they say they lower, keep what is right, and come back from their file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.core.errors import ArtifactError, ConfigError
from upi.core.seeding import generator
from upi.data.shape import Shape
from upi.datasets.dataset import Dataset
from upi.models.architectures import build
from upi.models.harden import DEFENCES, Hardening, harden
from upi.models.no_relu import with_softplus
from upi.models.trained import Trained, load_trained
from upi.models.training import Recipe, accuracy, train

pytestmark = pytest.mark.slow


def toy(n: int, seed: int) -> Dataset:
    """Four patterns under noise."""
    rng = torch.Generator().manual_seed(0)
    patterns = torch.rand(4, 1, 12, 12, generator=rng)
    rng.manual_seed(seed)
    labels = torch.randint(4, (n,), generator=rng)
    images = (0.6 * patterns[labels] + 0.4 * torch.rand(n, 1, 12, 12, generator=rng)).clamp(0, 1)
    return Dataset("toy", images, labels, tuple("abcd"))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    return train(made, toy(200, 1), Recipe(epochs=6, shift=0))


def hardened(net: nn.Module, defence: str, **options: float) -> nn.Module:
    how = Hardening(defence, epochs=6, shift=0, eps=0.5, **options)  # type: ignore[arg-type]
    return harden(deepcopy(net), toy(200, 1), how)


def slope(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).gather(1, y[:, None]).sum(), x)[0]


def moved(net: nn.Module, relative: bool) -> float:
    """Change of the gradient of held-out images along random directions."""
    data = toy(100, 2)
    x, y = data.images[:], data.labels
    step = torch.randn(x.shape, generator=generator(0, "test"))
    step = 0.5 * step / step.flatten(1).norm(dim=1)[:, None, None, None]
    here, there = slope(net, x, y), slope(net, x + step, y)
    change = (there - here).flatten(1).norm(dim=1)
    return float((change / here.flatten(1).norm(dim=1) if relative else change).mean())


def test_curvature_and_explanation_lower_what_they_punish(net: nn.Module) -> None:
    plain = hardened(net, "plain")
    assert moved(hardened(net, "curvature", strength=10.0), False) < 0.8 * moved(plain, False)
    assert moved(hardened(net, "explanation", strength=10.0), True) < 0.9 * moved(plain, True)


def test_adversarial_training_bears_the_attack_better(net: nn.Module) -> None:
    data = toy(200, 2)
    x, y = data.images[:], data.labels

    def under_attack(model: nn.Module) -> float:
        point = x.clone().requires_grad_()
        (push,) = torch.autograd.grad(F.cross_entropy(model(point), y, reduction="sum"), point)
        step = 1.5 * push / push.flatten(1).norm(dim=1)[:, None, None, None]
        return float(F.cross_entropy(model((x + step).clamp(0, 1)), y).detach())

    assert under_attack(hardened(net, "adversarial")) < under_attack(hardened(net, "plain"))


def test_weight_decay_makes_weights_smaller(net: nn.Module) -> None:

    def size(model: nn.Module) -> float:
        return sum(float(p.detach().square().sum()) for p in model.parameters())

    assert size(hardened(net, "weight-decay", strength=20.0)) < 0.95 * size(hardened(net, "plain"))


@pytest.mark.parametrize("defence", DEFENCES)
def test_every_defence_keeps_the_network_right_and_is_fixed_by_its_seed(net: nn.Module, defence: str) -> None:
    one, two = hardened(net, defence), hardened(net, defence)
    assert accuracy(one, toy(200, 3)) > 0.9
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_softplus_network_comes_back_from_its_file(tmp_path: Path) -> None:
    about = {"arch": "small-cnn", "width": 0.5, "channels": 1, "size": 28, "classes": 10, "softplus": 10.0}
    torch.manual_seed(0)
    made = with_softplus(build("small-cnn", Shape(1, 28, 10), width=0.5), 10.0).eval()
    Trained(made, "small-cnn", about).save(tmp_path / "model.safetensors")
    back = load_trained(tmp_path / "model.safetensors").net
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(back(x), made(x))
    assert not any(isinstance(module, nn.ReLU) for module in back.modules())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown defence 'hope'"):
        Hardening("hope")
    with pytest.raises(ConfigError, match="strength"):
        Hardening("curvature", strength=-1)
    with pytest.raises(ConfigError, match="eps"):
        Hardening("curvature", eps=0)
    with pytest.raises(ConfigError, match="no ReLU"):
        with_softplus(nn.Sequential(nn.Tanh()), 1.0)


class _Stop(BaseException):
    """As a signal would come."""


@pytest.mark.parametrize("defence", ["plain", "explanation", "softplus"])
def test_fine_tuning_that_was_cut_short_ends_at_the_same_weights(
    defence: str, net: nn.Module, tmp_path: Path
) -> None:
    how, state = Hardening(defence, epochs=3, learning_rate=1e-3), tmp_path / "state"
    whole = harden(deepcopy(net), toy(200, 1), how).state_dict()
    steps = -(-len(toy(200, 1)) // how.batch_size)

    def stop(done: int, _: int) -> None:
        if done == 2 * steps:
            raise _Stop

    with pytest.raises(_Stop):
        harden(deepcopy(net), toy(200, 1), how, checkpoint=state, progress=stop)
    seen: list[int] = []
    again = harden(
        deepcopy(net), toy(200, 1), how, checkpoint=state, progress=lambda done, _: seen.append(done)
    )
    assert seen == list(range(steps + 1, 3 * steps + 1))  # the first epoch is not done again
    assert not state.exists()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.items())


def test_the_checkpoint_of_another_defence_is_refused(net: nn.Module, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def stop(done: int, total: int) -> None:
        if done == total // 2 + 1:
            raise _Stop

    with pytest.raises(_Stop):
        harden(deepcopy(net), toy(200, 1), Hardening("plain", epochs=2), checkpoint=state, progress=stop)
    with pytest.raises(ArtifactError, match="another recipe"):
        harden(deepcopy(net), toy(200, 1), Hardening("plain", epochs=2, seed=1), checkpoint=state)
    other = deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    with pytest.raises(ArtifactError, match="another recipe"):
        harden(other, toy(200, 1), Hardening("plain", epochs=2), checkpoint=state)
    with pytest.raises(ArtifactError, match="another recipe"):
        harden(deepcopy(net), toy(200, 2), Hardening("plain", epochs=2), checkpoint=state)
