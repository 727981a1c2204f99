"""Planted quadratics: every attack must find an optimum that is known beforehand.

The map is A x and D the squared l2 distance, so the change of every image is ||A delta||^2
and the best perturbation of the l2 ball is the top right singular vector of A.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import Batches, images
from upi.attacks.base import Attack
from upi.perturbation.pattern import Perturbation

pytestmark = pytest.mark.slow

SIDE, EPS = 6, 0.5


class Planted:
    """The map A x, with a spectrum that falls from 1.4 over 1 to 0.1."""

    def __init__(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        left, _, right = torch.linalg.svd(torch.randn(SIDE**2, SIDE**2, generator=rng))
        values = torch.linspace(1.0, 0.1, SIDE**2)
        values[0] = 1.4
        self.matrix, self.best = left * values @ right, EPS**2 * 1.4**2

    def __call__(self, model: object, x: Tensor, target: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).view(-1, SIDE, SIDE)

    def share(self, perturbation: Perturbation) -> float:
        """Change by the perturbation as a share of the optimum."""
        return float((self.matrix @ perturbation.delta.flatten()).square().sum()) / self.best


def _loader(seed: int) -> Batches:
    x = images(256, seed=seed, shape=(1, SIDE, SIDE))
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in torch.split(x, 32)]


ATTACKS: dict[str, Callable[..., Attack]] = {
    "upi-grad": upi.UPIGrad,
    "gram": partial(upi.UPIPCA, solver="gram"),
    "sketch": partial(upi.UPIPCA, solver="sketch", rank=16),
    "power": partial(upi.UPIPCA, solver="power"),
    "curvature": partial(upi.UPIPCA, rows="curvature"),
    "curvature, sketch": partial(upi.UPIPCA, rows="curvature", solver="sketch", rank=16),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_reach_the_planted_optimum_for_every_seed(name: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 3))
    shares = []
    for seed in range(20):
        planted = Planted(seed)
        attack = ATTACKS[name](
            net, saliency=planted, dissimilarity="squared_l2", norm="l2", eps=EPS, seed=seed
        )
        found = attack.fit(_loader(seed))
        assert isinstance(found, Perturbation)
        shares.append(planted.share(found))
    assert min(shares) >= 0.99


def test_the_per_image_attack_reaches_it_for_every_image() -> None:
    net, planted = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 3)), Planted(0)
    x = images(8, shape=(1, SIDE, SIDE))
    attack = upi.PerImageAttack(net, saliency=planted, dissimilarity="squared_l2", eps=EPS, steps=100)
    moved = attack(x, torch.zeros(8, dtype=torch.long)) - x
    shares = (moved.flatten(1) @ planted.matrix.T).square().sum(1) / planted.best
    assert shares.min() >= 0.99


def test_a_linear_objective_in_the_linf_ball_has_its_best_corner() -> None:
    """The map change <w, delta> is largest at eps * sign(w)."""
    weights = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 3))
    attack = upi.UPIGrad(
        net,
        saliency=lambda model, x, target: x[:, 0] * weights,
        dissimilarity=lambda clean, perturbed: (perturbed - clean).sum((1, 2)),
        norm="linf",
        eps="8/255",
    )
    found = attack.fit(_loader(0))
    torch.testing.assert_close(found.delta, 8 / 255 * weights.sign())


def test_the_sign_is_chosen_on_the_select_images() -> None:
    """Rows know the direction +-w only; which sign moves maps is seen on select images."""
    weights = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 3))

    def towards(sign: float) -> Perturbation:
        attack = upi.UPIPCA(
            net,
            saliency=lambda model, x, target: x[:, 0] * weights,
            dissimilarity=lambda clean, moved: (moved - clean).sum((1, 2)) * clean.sum((1, 2)).sign() * sign,
            eps=EPS,
            components=1,
        )
        return attack.fit(_loader(0), select=_loader(1))

    up, down = towards(1.0), towards(-1.0)
    torch.testing.assert_close(up.delta, -down.delta)
    assert up.provenance["selected_on"] == "select"
    assert max(up.provenance["select_scores"]) > 0 > min(up.provenance["select_scores"])
