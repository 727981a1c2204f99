"""Maps of captum, zennit, pytorch-grad-cam and Quantus: what their libraries give; fitted where right."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import convolutional, images
from upi.adapters.base import AsModule
from upi.adapters.captum import Captum
from upi.adapters.grad_cam import CAM
from upi.adapters.quantus import Quantus, perturb_func
from upi.adapters.zennit import Zennit
from upi.core.errors import ConfigError, FallbackWarning, ModelError, ZeroGradientError

attr = pytest.importorskip("captum.attr", reason="the extra 'captum' is missing")
composites = pytest.importorskip("zennit.composites", reason="the extra 'zennit' is missing")
cams = pytest.importorskip("pytorch_grad_cam", reason="the extra 'grad-cam' is missing")
quantus = pytest.importorskip("quantus", reason="the extra 'quantus' is missing")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(f"ignore::{FallbackWarning.__module__}.{FallbackWarning.__name__}"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore::UserWarning:captum"),
    pytest.mark.filterwarnings("ignore::UserWarning:quantus"),
]

X = images(6)
MAPS: dict[str, Any] = {
    "captum Saliency": Captum("Saliency"),
    "captum InputXGradient": Captum("InputXGradient"),
    "captum IntegratedGradients": Captum("IntegratedGradients", attribute={"n_steps": 8}),
    "captum NoiseTunnel": Captum(
        "Saliency", tunnel={"nt_type": "smoothgrad", "nt_samples": 4, "stdevs": 0.1}
    ),
    "captum GuidedBackprop": Captum("GuidedBackprop"),
    "captum Deconvolution": Captum("Deconvolution"),
    "captum DeepLift": Captum("DeepLift"),
    "captum GradientShap": Captum("GradientShap", attribute={"baselines": torch.zeros(1, 1, 8, 8)}),
    "captum LayerGradCam": Captum("LayerGradCam", layer="3"),
    "captum Occlusion": Captum(
        "Occlusion", attribute={"sliding_window_shapes": (1, 4, 4), "strides": (1, 4, 4)}
    ),
    "zennit EpsilonPlus": Zennit("EpsilonPlus"),
    "zennit GuidedBackprop": Zennit("GuidedBackprop"),
    "zennit SmoothGrad": Zennit(None, attributor="SmoothGrad", words={"n_iter": 4}),
    "pytorch-grad-cam GradCAM": CAM("GradCAM", layers=("3",)),
    "quantus Saliency": Quantus(words={"method": "Gradient", "xai_lib": "captum"}),
}
FITTED = ("captum Saliency", "captum InputXGradient", "captum IntegratedGradients")


@pytest.fixture
def net() -> nn.Module:
    return convolutional(nn.ReLU).eval()


@pytest.mark.parametrize("name", MAPS)
def test_they_are_evaluated(name: str, net: nn.Module) -> None:
    labels = upi.Classifier(net).predict(X)
    options = {"saliency": MAPS[name], "norm": "l2", "eps": 0.5, "controls": ("random",)}
    table = upi.evaluate(net, {}, [(X, labels)], **options)
    assert table.n_test == 6
    least = -1 if name == "captum Deconvolution" else 0  # of a ReLU network it does not depend on the image
    assert least < table.rows["random"].dissimilarity.mean < 2
    assert net.training is False


@pytest.mark.parametrize("name", MAPS)
def test_they_are_fitted_or_refused_with_the_way_out(name: str, net: nn.Module) -> None:
    attack = upi.UPIGrad(net, saliency=MAPS[name], eps=0.5, steps=3)
    if name in FITTED:
        assert float(attack.fit([X]).delta.norm()) == pytest.approx(0.5, rel=1e-4)
        return
    if name == "captum Deconvolution":  # constant on ReLU networks
        with pytest.raises(ZeroGradientError):
            attack.fit([X])
        return
    with pytest.raises(ModelError, match=r"(not differentiable as it claims|cannot be).*saliency='gradient'"):
        attack.fit([X])


def test_what_captum_alone_would_give_is_refused(net: nn.Module) -> None:
    def raw(model: Any, x: Tensor, target: Tensor) -> Tensor:
        found: Tensor = attr.IntegratedGradients(model).attribute(x, target=target, n_steps=8)
        return found.abs().sum(1)

    with pytest.raises(ModelError, match="where differences give"):
        upi.UPIGrad(net, saliency=raw, eps=0.5, steps=3).fit([X])


def test_captums_maps_are_captums(net: nn.Module) -> None:
    model, target = upi.Classifier(net), upi.Classifier(net).predict(X)
    for method in ("Saliency", "InputXGradient", "IntegratedGradients", "GuidedBackprop", "DeepLift"):
        own = upi.saliency.explain(Captum(method), model, X, target)
        theirs = getattr(attr, method)(deepcopy(net)).attribute(X.clone().requires_grad_(), target=target)
        maps = theirs.detach().abs().sum(1)
        torch.testing.assert_close(own, maps / maps.sum((1, 2), keepdim=True), rtol=1e-4, atol=1e-6)


def test_captums_saliency_is_the_simple_gradient_also_when_fitted(net: nn.Module) -> None:
    own, theirs = (
        upi.UPIGrad(net, saliency=each, eps=0.5, steps=5).fit([X])
        for each in ("gradient", Captum("Saliency"))
    )
    torch.testing.assert_close(theirs.delta, own.delta, rtol=1e-3, atol=1e-4)


def test_zennits_relevance_is_zennits(net: nn.Module) -> None:
    from zennit.attribution import Gradient

    model, target = upi.Classifier(net), upi.Classifier(net).predict(X)
    own = upi.saliency.explain(Zennit("EpsilonPlus"), model, X, target)
    with Gradient(deepcopy(net), composites.EpsilonPlus()) as attributor:
        _, relevance = attributor(X.clone().requires_grad_(), torch.eye(4)[target])
    maps = relevance.abs().sum(1)
    torch.testing.assert_close(own, maps / maps.sum((1, 2), keepdim=True), rtol=1e-4, atol=1e-6)


def test_grad_cams_maps_are_its_own(net: nn.Module) -> None:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, target = upi.Classifier(net), upi.Classifier(net).predict(X)
    own = upi.saliency.explain(CAM("GradCAM", layers=("3",)), model, X, target)
    other = deepcopy(net)
    with cams.GradCAM(other, [other[3]]) as cam:
        theirs = torch.as_tensor(cam(X.clone(), [ClassifierOutputTarget(int(c)) for c in target]))
    torch.testing.assert_close(own, theirs / theirs.sum((1, 2), keepdim=True), rtol=1e-3, atol=1e-5)


def test_a_perturbation_in_quantus_max_sensitivity(net: nn.Module) -> None:
    model = upi.Classifier(net)
    perturbation = upi.UPIGrad(model, eps=0.5, steps=5).fit([X])
    target = model.predict(X)
    metric = quantus.MaxSensitivity(
        nr_samples=1,
        perturb_func=perturb_func(perturbation),
        abs=True,
        normalise=False,
        disable_warnings=True,
    )

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        x, classes = torch.as_tensor(inputs).float(), torch.as_tensor(targets)
        return upi.saliency.explain(upi.saliency.Gradient(), upi.Classifier(net), x, classes)[:, None].numpy()

    scores = metric(model=AsModule(model), x_batch=X.numpy(), y_batch=target.numpy(), explain_func=explain)
    gradient = upi.saliency.Gradient()
    clean = upi.saliency.explain(gradient, model, X, target)
    moved = upi.saliency.explain(gradient, model, perturbation(X, target), target)
    expected = (moved - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)
    np.testing.assert_allclose(np.asarray(scores, dtype=float), expected.numpy(), rtol=1e-3)


def test_names_that_do_not_exist_are_refused(net: nn.Module) -> None:
    model, target = upi.Classifier(net), torch.zeros(6, dtype=torch.long)
    maps = (Captum("Salience"), Captum("LayerGradCam", layer="9"), Zennit("Nothing"), CAM("X", layers=("3",)))
    for wrong in maps:
        with pytest.raises(ConfigError, match="has no"):
            wrong(model, X, target)


def test_batch_norms_train_mode_is_never_reached(net: nn.Module) -> None:
    module = AsModule(upi.Classifier(net))
    assert module.train().training is False
    assert not net.training
