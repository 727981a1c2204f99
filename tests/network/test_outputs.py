"""What networks return: logits found by name, binary and multi-label networks, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upi
from tests.conftest import images
from upi.core.errors import ConfigError, DataError, ModelError

Pair = namedtuple("Pair", ["logits", "aux"])


class Answer(nn.Module):
    """A linear network whose logits come wrapped."""

    def __init__(self, wrap: Any, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(64, classes)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.head(x.flatten(1)))


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda z: z, None),
        (lambda z: {"logits": z, "loss": None}, None),
        (lambda z: {"aux": -z, "out": z}, None),
        (lambda z: Pair(z, -z), None),
        (lambda z: (z, -z), 0),
        (lambda z: [-z, z], 1),
        (lambda z: {"mine": z}, "mine"),
        (lambda z: Pair(-z, z), "aux"),
        (lambda z: z[:, :, None, None], lambda out: out.mean((2, 3))),
    ],
)
def test_logits_are_found(wrap: Any, where: Any) -> None:
    net, x = Answer(wrap), images(4)
    torch.testing.assert_close(upi.Classifier(net, output=where)(x), net.head(x.flatten(1)))


def test_a_name_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(ModelError, match=r"no 'probs': it returned dict with \{'logits': \(4, 3\)\}"):
        upi.Classifier(Answer(lambda z: {"logits": z}), output="probs")(images(4))


@pytest.mark.parametrize("squeeze", [False, True])
def test_one_logit_is_a_binary_network(squeeze: bool) -> None:
    net, x = Answer(lambda z: z[:, 0] if squeeze else z, classes=1), images(5)
    model = upi.Classifier(net)
    z = net.head(x.flatten(1))
    torch.testing.assert_close(model(x), torch.cat([torch.zeros_like(z), z], 1))
    torch.testing.assert_close(model.predict(x), (z[:, 0] > 0).long())


def test_a_multi_label_network_is_right_where_its_highest_label_is_among_the_images() -> None:
    x = images(6)
    model = upi.Classifier(Answer(lambda z: z), multi_label=True)
    highest = model.predict(x)
    rows = torch.zeros(6, 3, dtype=torch.long)
    rows[:3].scatter_(1, highest[:3, None], 1)
    table = upi.evaluate(model, {}, [(x, rows)], norm="l2", eps=0.5, controls=("random",))
    assert table.n_test == 3
    assert table.per_sample["random"]["target"].tolist() == highest[:3].tolist()


def test_one_label_of_a_multi_label_network_is_a_binary_network() -> None:
    x, net = images(6), Answer(lambda z: z)
    model = upi.Classifier(net, multi_label=True, label=1)
    z = net.head(x.flatten(1))[:, 1:2]
    torch.testing.assert_close(model(x), torch.cat([torch.zeros_like(z), z], 1))
    has = torch.tensor([[0, 1, 0]] * 3 + [[1, 0, 1]] * 3)
    right = model.agrees(has, model.predict(x))
    assert right.tolist() == ((z[:, 0] > 0) == has[:, 1].bool()).tolist()


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="set multi_label=True"):
        upi.Classifier(Answer(lambda z: z), label=1)
    with pytest.raises(ModelError, match="label 7 asked for, the model has 3"):
        upi.Classifier(Answer(lambda z: z), multi_label=True, label=7)(images(2))
    model = upi.Classifier(Answer(lambda z: z), multi_label=True)
    with pytest.raises(DataError, match="labels of 1 classes"):
        model.agrees(torch.ones(2, 1, dtype=torch.long), torch.tensor([0, 2]))


def test_one_hot_labels_mean_the_class() -> None:
    x = images(6)
    model = upi.Classifier(Answer(lambda z: z))
    found = [
        upi.evaluate(model, {}, [(x, label)], norm="l2", eps=0.5, controls=("random",)).n_test
        for label in (torch.arange(6) % 3, torch.eye(3, dtype=torch.long)[torch.arange(6) % 3])
    ]
    assert found[0] == found[1]
    assert 0 < found[0] < 6


@pytest.mark.parametrize("saliency", ["gradient", "integrated_gradients", "input_x_gradient"])
def test_maps_of_a_binary_network_are_those_of_its_logit_for_both_classes(saliency: str) -> None:
    net, x = Answer(lambda z: z, classes=1), images(8)
    model = upi.Classifier(net)
    chosen = upi.saliency.resolve(saliency)
    yes, no = (upi.saliency.explain(chosen, model, x, torch.full((8,), c)) for c in (1, 0))
    assert bool((yes.flatten(1).sum(1) > 0).all())
    torch.testing.assert_close(yes, no)
    options = {"saliency": saliency, "norm": "l2", "eps": 0.5, "controls": ("random",)}
    table = upi.evaluate(model, {}, [(x, model.predict(x))], **options)
    assert table.n_test == 8
