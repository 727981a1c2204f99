"""Inputs that once gave wrong numbers or raw errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upi
from tests.conftest import Batches, convolutional, images
from upi.core.errors import ArtifactError, ConfigError, DataError, UPIError
from upi.evaluation import examples
from upi.evaluation.controls import noise
from upi.linalg import MatrixRows, gram, krylov
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation

pytestmark = pytest.mark.slow


def _pattern(net: nn.Module, loader: Any, **options: Any) -> Perturbation:
    return upi.UPIGrad(net, eps=1.0, steps=5, **options).fit(loader)


def test_figures_of_noise_are_averaged_over_draws() -> None:
    """Also of an image whose prediction only some draws change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 3))
    model, x, ball = upi.Classifier(net), images(200), Ball("l2", 2.0)
    target = model.predict(x)
    shares, kept = [], []
    for draw in range(5):
        moved = (x + noise(x, ball, 0, draw)).clamp(0, 1)
        changed = model.predict(moved) != target
        clean, after = (upi.saliency.Gradient()(model, images_, target) for images_ in (x, moved))
        value = upi.dissimilarity.relative_l2(clean, after).double()
        shares.append(float(changed.double().mean()))
        kept.append(value.masked_fill(changed, torch.nan))
    assert len(set(shares)) > 1
    row = upi.evaluate(net, {}, [x], norm="l2", eps=2.0, draws=5).rows["random"]
    assert row.prediction_changed == pytest.approx(np.mean(shares))
    expected = torch.stack(kept).nanmean(0).nanmean()
    assert row.dissimilarity_unchanged.mean == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_block_lanczos_stops_at_the_operator_s_rank(rows: int) -> None:
    matrix = torch.randn(rows, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact, found = gram(MatrixRows(matrix)), krylov(MatrixRows(matrix))
    assert float(found.values[0]) == pytest.approx(float(exact.values[0]), rel=1e-6)
    assert abs(float(found.vectors[0] @ exact.vectors[0])) > 1 - 1e-6
    assert found.converged


def test_perturbers_cannot_disturb_other_rows_or_break_the_box(relu_net: nn.Module, loader: Batches) -> None:
    pattern = _pattern(relu_net, loader)
    alone = upi.evaluate(relu_net, {"p": pattern}, loader, controls=False)
    both = upi.evaluate(relu_net, {"half": lambda x, t: x.mul_(0.5), "p": pattern}, loader, controls=False)
    assert both.rows["p"].dissimilarity.mean == alone.rows["p"].dissimilarity.mean
    assert both.rows["half"].realised_norm.mean > 1
    far = upi.evaluate(relu_net, {"far": lambda x, t: 1 - x}, loader, controls=False, eps=0.1)
    assert "over-budget" in {flag.code for flag in far.flags}
    wrong: list[Any] = [
        lambda x, t: x + 100,
        lambda x, t: x * float("nan"),
        lambda x, t: None,
        lambda x, t: x[:, :, :4],
    ]
    for bad in wrong:
        with pytest.raises(DataError, match="'bad'"):
            upi.evaluate(relu_net, {"bad": bad}, loader, eps=1.0)


def test_rows_named_like_controls(relu_net: nn.Module, loader: Batches) -> None:
    pattern = _pattern(relu_net, loader)
    mine = upi.RandomPerturbation(relu_net, eps=1.0, seed=9).fit(loader)
    table = upi.evaluate(relu_net, {"p": pattern, "random": mine, "tiny-noise": mine}, loader)
    assert len(table.per_sample["random"]["dissimilarity"]) == table.n_test
    assert table.rows["random"].dissimilarity.mean == table.rows["tiny-noise"].dissimilarity.mean
    with pytest.raises(ConfigError, match="upper control; give the universal perturbation another name"):
        upi.evaluate(relu_net, {"per-image": pattern}, loader)
    with pytest.raises(ConfigError, match="expected a mapping"):
        upi.evaluate(relu_net, [pattern], loader)


def test_a_batch_without_gradient_counts_as_unmoved() -> None:
    class Partly(nn.Module):
        """Linear for dark images, curved for bright ones."""

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            curved = torch.stack([flat.pow(3).sum(1), flat.pow(2).sum(1)], 1)
            return torch.where(x.mean((1, 2, 3))[:, None] > 0.5, curved, flat[:, :2])

    loader = [
        torch.full((4, 1, 4, 4), 0.8) * images(4, shape=(1, 4, 4)).sqrt() ** 0.1,
        0.1 * images(4, shape=(1, 4, 4)),
    ]
    table = upi.evaluate(Partly(), {}, loader, norm="l2", eps=0.1)
    assert "zero-gradient" in {flag.code for flag in table.flags}
    assert table.per_sample["per-image"]["dissimilarity"].shape == (8,)
    assert (table.per_sample["per-image"]["realised_norm"][4:] == 0).all()


@pytest.mark.parametrize("saliency", ["input_x_gradient", "integrated_gradients"])
def test_black_images_do_not_stop_a_fit(saliency: str, relu_net: nn.Module) -> None:
    loader = [torch.cat([images(8), torch.zeros(1, 1, 8, 8)])]
    for attack in (
        upi.UPIGrad(relu_net, saliency=saliency, eps=1.0, steps=3),
        upi.UPIPCA(relu_net, saliency=saliency, eps=1.0),
        upi.UPIPCA(relu_net, saliency=saliency, eps=1.0, rows="curvature", solver="sketch", rank=8),
    ):
        assert attack.fit(loader).delta.abs().max() > 0
        with pytest.raises(DataError, match="has a map that is not zero"):
            attack.fit([torch.zeros(2, 1, 8, 8)])


def test_examples_notice_a_shuffling_loader(relu_net: nn.Module) -> None:
    x = torch.cat([images(20), images(20, seed=3)[:, :, :, :] * 0.01])
    model = upi.Classifier(convolutional(nn.ReLU, seed=5))
    target = model.predict(x)
    assert int(target.min()) != int(target.max())
    pattern = _pattern(model.net, [x])
    table = upi.evaluate(model, {"p": pattern}, [(x, target)], controls=False)
    order = target.argsort(descending=bool(target[0] == target.min()))
    with pytest.raises(ConfigError, match="the loader shuffles"):
        examples(model, {"p": pattern}, [(x[order], target[order])], table.per_sample)


def test_an_empty_first_batch_hides_no_flag(relu_net: nn.Module, loader: Batches) -> None:
    soft = nn.Sequential(relu_net, nn.Softmax(1))
    x, label = loader[0]
    table = upi.evaluate(soft, {}, [(x[:0], label[:0]), *loader], controls=False, eps=1.0, norm="l2")
    assert "softmax-output" in {flag.code for flag in table.flags}


class Exotic(nn.Module):
    """Clamps of integers, named arguments, in-place clips and thresholds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(144, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.clamp(input=self.conv(x), min=0)
        out = F.threshold(out - 0.01, 0.0, 0.0).clip(min=0)
        out.clamp_(min=0)
        index = torch.arange(5).clamp(0, 3).clamp(min=1)
        return self.head(out.flatten(1)) + 0 * index.sum()


def test_more_spellings_of_relu(loader: Batches) -> None:
    assert _pattern(Exotic(), [x for x, _ in loader]).delta.abs().max() > 0


@pytest.mark.parametrize("kind", ["outer", "inner", "in place"])
def test_compiled_modules_run_eagerly(kind: str, loader: Batches) -> None:
    net = convolutional(nn.ReLU)
    expected = _pattern(convolutional(nn.ReLU), loader).delta
    compiled: Any = net
    if kind == "in place":
        net.compile(backend="eager")
    else:
        compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(
        _pattern(nn.Sequential(compiled) if kind == "inner" else compiled, loader).delta, expected
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_scripted_modules_can_be_explained_and_attacked(loader: Batches) -> None:
    scripted = torch.jit.script(convolutional(nn.GELU))
    pattern = _pattern(scripted, loader, surrogate=None)
    x = [x for x, _ in loader]
    assert upi.evaluate(scripted, {"p": pattern}, x).rows["p"].dissimilarity.mean > 0
    assert scripted.training


def test_options_may_be_numpy_or_torch_numbers(relu_net: nn.Module, loader: Batches, tmp_path: Any) -> None:
    for sigma in (np.float32(0.1), torch.tensor(0.1)):
        for cls in (upi.UPIGrad, upi.UPIPCA):
            attack: Any = cls(relu_net, eps=np.float64(1.0), sigma=sigma)
            assert attack.fit(loader).save(tmp_path / "delta").exists()
    with pytest.raises(ArtifactError, match="plain JSON values"):
        Perturbation(torch.zeros(1, 2, 2), Ball("l2", 1), {"x": object()}).save(tmp_path / "other")


def test_perturbations_can_be_copied_and_pickled(relu_net: nn.Module, loader: Batches) -> None:
    pattern = _pattern(relu_net, loader)
    for other in (copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert torch.equal(other.delta, pattern.delta)


@pytest.mark.parametrize("rows", ["gradient", "stein", "curvature"])
def test_a_custom_map_may_simply_call_autograd(rows: str, relu_net: nn.Module, loader: Batches) -> None:
    def plain(model: Any, x: Tensor, target: Tensor) -> Tensor:
        score = model(x).gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
        maps = gradient.abs().sum(1)
        return maps / maps.sum((1, 2), keepdim=True)

    pattern = upi.UPIPCA(relu_net, saliency=plain, eps=1.0, rows=rows, draws=4).fit(loader)
    expected = upi.UPIPCA(relu_net, eps=1.0, rows=rows, draws=4).fit(loader)
    assert abs(float(F.cosine_similarity(pattern.delta.flatten(), expected.delta.flatten(), dim=0))) > 0.999
    one = upi.evaluate(relu_net, {"p": pattern}, loader, saliency=plain)
    two = upi.evaluate(relu_net, {"p": pattern}, loader)
    assert one.rows["p"].dissimilarity.mean == pytest.approx(two.rows["p"].dissimilarity.mean, rel=1e-5)


@pytest.mark.parametrize(
    "eps", ["1e400", "1e99999999", "9" * 400, 10**400, "1/2/3", "inf/1", [1], "x" * 9999]
)
def test_monstrous_radii_are_refused_at_once(eps: Any) -> None:
    with pytest.raises(ConfigError, match="eps must be") as caught:
        Ball("l2", eps)
    assert len(str(caught.value)) < 200


def test_hostile_provenance_and_paths_stay_in_the_error_family(relu_net: nn.Module, loader: Batches) -> None:
    pattern = Perturbation(torch.zeros(1, 8, 8), Ball("l2", 1.0), {"method": ["a"]})
    assert upi.evaluate(relu_net, {"p": pattern}, loader, controls=False).rows["p"].kind == "universal"
    with pytest.raises(UPIError):
        Perturbation.load("a\0b")
    with pytest.raises(UPIError):
        pattern.save("a\0b")


def test_small_slips_get_clear_words(relu_net: nn.Module) -> None:
    x = images(2)
    assert upi.Classifier(relu_net, mean=0.5, std=0.5)(x).shape == (2, 4)
    with pytest.raises(ConfigError, match="mean must hold one number per channel"):
        upi.Classifier(relu_net, mean="abc")
    with pytest.raises(ConfigError, match="sigma must be finite"):
        upi.UPIGrad(relu_net, eps=1.0, sigma="a")
    with pytest.raises(ConfigError, match="unknown saliency map"):
        upi.UPIGrad(relu_net, eps=1.0, saliency=["gradient"])
    with pytest.raises(DataError, match="expected 2 integer labels"):
        upi.UPIGrad(relu_net, eps=1.0).fit([(x, ["cat", "dog"])])


def test_same_seed_same_bytes_also_with_custom_callables(
    relu_net: nn.Module, loader: Batches, tmp_path: Any
) -> None:
    class Mine:
        def __call__(self, model: Any, x: Tensor, target: Tensor) -> Tensor:
            return upi.saliency.Gradient()(model, x, target)

    files = []
    for number in range(2):
        attack = upi.UPIGrad(relu_net, saliency=Mine(), eps=1.0, steps=3)
        files.append(attack.fit(loader).save(tmp_path / f"{number}").read_bytes())
    assert files[0] == files[1]
    assert b"0x" not in files[0][:4000]
