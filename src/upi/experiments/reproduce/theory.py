"""The formal statements, measured: how tight the two-sided bound is, and what curvature is.

For h_i(s) = E_Z[D(I(x_i), I(x_i + s delta + Z))] along one direction, with slope g_i at 0 and
|h_i'(s) - g_i| <= tau_i |s|, docs/theory.md shows for every price lambda > tau_i

    g_i^2 / (2 (lambda + tau_i))  <=  gain_i  <=  g_i^2 / (2 (lambda - tau_i)),

where gain_i = max_s {h_i(s) - lambda s^2 / 2} - h_i(0).
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor, nn

from upi.attacks import UPIPCA
from upi.attacks.support.gradients import gradients
from upi.attacks.support.objective import Explained, MapChange, explained_batch
from upi.core.seeding import generator
from upi.core.types import Progress
from upi.data.batches import Batch
from upi.experiments.reproduce.lab import Lab
from upi.experiments.stages import Outcome
from upi.network.classifier import Classifier

#: Prices, as multiples of each image's curvature.
PRICES = (1.25, 2.0, 4.0, 8.0, 32.0)
#: Points s in [-1, 1] at which value and slope are measured, closer together around 0, where
#: curvature is largest; their number is odd, so that 0 is one of them.
POINTS = 41
GRID = np.sign(np.linspace(-1, 1, POINTS)) * np.linspace(-1, 1, POINTS) ** 2
DRAWS = 8
#: Share of the perturbation that the statements are measured along: they are about first order,
#: and at the whole radius the function changes faster than the grid can follow.
SHARE = 0.1


def along(
    model: Explained, objective: MapChange, batch: Batch, delta: Tensor, sigma: float, *, seed: int
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Values and slopes (POINTS, N) of h_i(s) on the grid, and the largest gradient norm met.

    Z takes the same ``DRAWS`` values at every s, so that h_i is one fixed function.
    """
    noise = [
        sigma * torch.randn(batch.x.shape, generator=generator(seed, "theory", draw), dtype=torch.float64)
        for draw in range(DRAWS)
    ]
    values, slopes, steepest = [], [], 0.0
    for s in GRID.tolist():
        here = [gradients(model, objective, batch, batch.x + s * delta + z, where="theory") for z in noise]
        values.append(torch.stack([h.values for h in here]).mean(0))
        slopes.append(torch.stack([(h.gradient * delta).flatten(1).sum(1) for h in here]).mean(0))
        steepest = max(steepest, max(float(h.gradient.flatten(1).norm(dim=1).max()) for h in here))
    return torch.stack(values).numpy(), torch.stack(slopes).numpy(), steepest


def check(values: NDArray[Any], slopes: NDArray[Any]) -> dict[str, Any]:
    """Measured gain over its first-order form at each price, with the curvature of each image.

    Returns:
        ``points``: (tau / lambda, gain divided by g^2 / (2 lambda)) pairs; ``curvature``: tau_i;
        ``inside``: share of points between the two bounds.
    """
    middle = POINTS // 2
    off = np.delete(np.arange(POINTS), middle)
    points, curvature = [], []
    fine = np.linspace(-1, 1, 2001)
    for value, slope in zip(values.T, slopes.T, strict=True):
        g = slope[middle]
        tau = float(np.max(np.abs(slope[off] - g) / np.abs(GRID[off])))
        curvature.append(tau)
        curve = CubicHermiteSpline(GRID, value - value[middle], slope)
        for multiple in PRICES:
            price = max(multiple * tau, tau + abs(g))  # so that the best s stays inside [-1, 1]
            reach = abs(g) / (price - tau) * fine  # where the best s must lie
            gain = np.max(curve(reach) - price * reach**2 / 2)
            if g != 0:
                points.append((tau / price, float(gain / (g**2 / (2 * price)))))
    inside = [1 / (1 + t) - 1e-3 <= ratio <= 1 / (1 - t) + 1e-3 for t, ratio in points]
    return {
        "points": [[round(t, 5), round(ratio, 5)] for t, ratio in points],
        "curvature": curvature,
        "inside": float(np.mean(inside)),
    }


def _statements(
    model: Explained, objective: MapChange, batch: Batch, delta: Tensor, sigma: float, seed: int
) -> dict[str, Any]:
    """The check along ``delta``, and what Stein's lemma says about the curvature."""
    values, slopes, steepest = along(model, objective, batch, delta, sigma, seed=seed)
    found = check(values, slopes)
    size = float(delta.norm())
    sharp = steepest * size**2 * math.sqrt(2 / math.pi) / sigma
    return {
        **found,
        "images": len(batch),
        "sigma": sigma,
        "eps": size,
        "largest_curvature": max(found["curvature"]),
        "stein_sharp": sharp,
        "stein_paper": steepest * size**2 * math.sqrt(delta.numel()) / sigma,
    }


def toy(seed: int) -> dict[str, Any]:
    """The statements on a small network that is smooth by itself, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.Softplus(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(72, 4),
        ).double()
    model = Classifier(net)
    attack = UPIPCA(model, norm="l2", eps=1.0, seed=seed, surrogate=None, draws=4)
    x = 0.2 + 0.6 * torch.rand(64, 1, 8, 8, generator=generator(seed, "toy"), dtype=torch.float64)
    return _on(attack, model, x, seed)


def _on(attack: UPIPCA, model: Classifier, x: Tensor, seed: int) -> dict[str, Any]:
    """Fit UPI-PCA on the images and measure the statements along a tenth of what it finds."""
    delta = SHARE * attack.fit([x.to(model.place(x).dtype)]).delta.double()[None]
    objective = MapChange(attack.map, attack.change)
    with model.frozen():
        surrogate = model.surrogate(attack.beta(attack.surrogate))
        batch = explained_batch(objective, surrogate, x, model.predict(x))
        return _statements(surrogate, objective, batch, delta, attack.deviation(x[0].numel()), seed)


def _double(model: Classifier) -> Classifier:
    """The same network in float64 on the CPU."""
    return Classifier(deepcopy(model.net).cpu().double())


def statements(lab: Lab) -> Outcome:
    """The toy, the lead network, and the next one, as their softplus surrogates."""
    settings = lab.settings
    spec = settings.main.spec("protocol", settings.seed)
    trained = {arch: outcome.result["fingerprint"] for arch, outcome in lab.trained.items() if outcome.result}
    inputs = {
        "models": trained,
        "spec": asdict(spec),
        "images": settings.theory_images,
        "points": [POINTS, DRAWS, SHARE],
        "data": lab.origin,
    }

    def make(progress: Progress) -> dict[str, Any]:
        chosen = lab.ready()[:2]
        problems: list[dict[str, Any]] = [{"arch": None, **toy(settings.seed)}]
        for arch in chosen:
            progress(len(problems), 1 + len(chosen))
            model = _double(lab.model(arch))
            attack = UPIPCA(model, **spec.shared(spec.seed), draws=1)
            x = lab.parts["select"].first(settings.theory_images).images[:].double()
            problems.append({"arch": arch, **_on(attack, model, x, settings.seed)})
        return {"problems": problems}

    return lab.stages.run("theory", inputs, make)
