"""VarGrad against its definition and its limiting case."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import upi
from tests.conftest import convolutional, images
from upi.core.errors import ConfigError
from upi.saliency.score import input_gradient
from upi.saliency.smoothgrad import noise_images
from upi.saliency.vargrad import VarGrad


def test_it_is_the_variance_over_the_copies_one_by_one() -> None:
    model = upi.Classifier(convolutional(nn.Softplus).double())
    x, target = images(3).double(), torch.tensor([0, 1, 2])
    saliency = VarGrad(samples=5, noise=0.2, normalize="none")
    noise = noise_images(0, 5, x.shape[1:]).double()
    slopes = torch.stack([input_gradient(model, x + 0.2 * z, target, "logit") for z in noise])
    expected = (slopes - slopes.mean(0)).square().mean(0).sum(1)
    torch.testing.assert_close(saliency(model, x, target), expected, rtol=1e-9, atol=0)


def test_a_linear_network_has_none() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    maps = VarGrad(normalize="none")(upi.Classifier(net), images(2).double(), torch.tensor([0, 1]))
    assert float(maps.abs().max()) < 1e-20


@pytest.mark.parametrize("options", [{"samples": 1}, {"noise": 0.0}, {"noise": float("nan")}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="samples >= 2 and noise above 0"):
        VarGrad(**options)  # type: ignore[arg-type]
