"""Training: deterministic, resumable, in several precisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from upi.core.errors import ArtifactError, ConfigError
from upi.data.shape import Shape
from upi.datasets.dataset import Dataset
from upi.models.classifiers import new_net, train_new, trained_or_cached
from upi.models.recipes import ARCHITECTURES, plan
from upi.models.trained import Trained, load_trained
from upi.models.training import Recipe, augmented, train, usable_precision

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=1e-2, shift=1, flip=True, label_smoothing=0.1)


def blobs(count: int = 64, seed: int = 0) -> Dataset:
    """Two classes: bright above or bright below."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=rng)
    images = 0.2 * torch.rand(count, 1, 8, 8, generator=rng)
    for image, label in zip(images, labels, strict=True):
        image[0, 4 * int(label) : 4 * int(label) + 4] += 0.6
    return Dataset("blobs", images, labels, ("up", "down"))


def _state(recipe: Recipe, **options: object) -> dict[str, Tensor]:
    net = new_net("small-cnn", Shape(1, 8, 2), width=0.25, seed=0)
    return train(net, blobs(), recipe, **options).state_dict()  # type: ignore[arg-type]


def test_training_learns_and_repeats() -> None:
    first = train_new("small-cnn", blobs(), blobs(200, 1), RECIPE, width=0.25)
    again = train_new("small-cnn", blobs(), blobs(200, 1), RECIPE, width=0.25)
    assert first.about["test_accuracy"] > 0.95
    for key, value in first.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[key])
    other = train_new("small-cnn", blobs(), blobs(200, 1), replace(RECIPE, seed=1), width=0.25)
    assert not torch.equal(first.net.state_dict()["head.weight"], other.net.state_dict()["head.weight"])


@pytest.mark.parametrize("stop_at", [5, 9])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path, stop_at: int) -> None:
    path = tmp_path / "run.checkpoint"

    def stop(done: int, total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _state(RECIPE, checkpoint=path, progress=stop)
    assert path.exists()
    seen: list[int] = []
    resumed = _state(RECIPE, checkpoint=path, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4 * (stop_at // 4) + 1
    whole = _state(RECIPE)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not path.exists()


def test_a_resumed_training_ends_at_the_same_file(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    def made(**more: Any) -> Trained:
        return train_new("small-cnn", blobs(), blobs(200, 1), RECIPE, width=0.25, **more)

    made().save(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        made(checkpoint=tmp_path / "state", progress=stop)
    resumed = made(checkpoint=tmp_path / "state")
    resumed.save(tmp_path / "resumed")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
    assert resumed.about["seconds"] >= 0


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _state(RECIPE, checkpoint=path, progress=stop)
    with pytest.raises(ArtifactError, match="another recipe"):
        _state(replace(RECIPE, seed=7), checkpoint=path)
    path.write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="not a training checkpoint"):
        _state(RECIPE, checkpoint=path)


def test_precision_and_layout_change_little() -> None:
    plain = _state(RECIPE)
    for recipe in (replace(RECIPE, precision="bfloat16"), replace(RECIPE, channels_last=True)):
        found = _state(recipe)
        assert all(value.dtype == torch.float32 for value in found.values())
        assert all(value.is_contiguous() for value in found.values())
        gap = (found["head.weight"] - plain["head.weight"]).norm() / plain["head.weight"].norm()
        assert float(gap) < 0.3


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert usable_precision("bfloat16", "cpu") == expected
    assert usable_precision("float32", "cpu") == "float32"
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda m, a, out: seen.append(out.dtype))
    try:
        _state(replace(RECIPE, precision="bfloat16"))
    finally:
        hook.remove()
    assert (torch.bfloat16 in seen) is supported


def test_bad_recipes() -> None:
    with pytest.raises(ConfigError, match="precision"):
        Recipe(precision="float8")
    with pytest.raises(ConfigError, match="at least 1"):
        Recipe(epochs=0)


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(400, 1, 4, 4)
    out = augmented(images, replace(RECIPE, shift=0), torch.Generator().manual_seed(0))
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert bool((mirrored | kept).all())
    assert 150 < int(mirrored.sum()) < 250


def test_the_cache_tells_widths_and_data_apart() -> None:
    recipe = replace(RECIPE, epochs=1)
    first, cached = trained_or_cached("small-cnn", blobs(), blobs(50, 1), recipe, width=0.25)
    assert not cached
    assert trained_or_cached("small-cnn", blobs(), blobs(50, 1), recipe, width=0.25)[1]
    wider, cached = trained_or_cached("small-cnn", blobs(), blobs(50, 1), recipe, width=0.5)
    assert not cached
    assert wider.about["parameters"] > first.about["parameters"]
    assert not trained_or_cached("small-cnn", blobs(64, 5), blobs(50, 1), recipe, width=0.25)[1]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "tiny-imagenet"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_there_is_a_recipe_for_every_pair(dataset: str, arch: str) -> None:
    small, full = plan(dataset, arch), plan(dataset, arch, "full")
    assert small.width < full.width == 1.0
    assert small.recipe.epochs < full.recipe.epochs
    assert small.recipe.flip == (dataset != "mnist")
    with pytest.raises(ConfigError, match="scale"):
        plan(dataset, arch, "huge")


@pytest.mark.parametrize("lie", [{"size": 10**5}, {"width": 1e5}, {"channels": 10**9}, {"classes": 10**10}])
def test_a_file_that_names_a_huge_network_takes_no_memory_for_it(
    lie: dict[str, float], tmp_path: Path
) -> None:
    net = new_net("small-cnn", Shape(1, 12, 4), width=0.25)
    about = {"arch": "small-cnn", "width": 0.25, "channels": 1, "size": 12, "classes": 4, **lie}
    Trained(net, "small-cnn", about).save(tmp_path / "net")
    with pytest.raises(ArtifactError, match="not of the network that it names"):
        load_trained(tmp_path / "net")
