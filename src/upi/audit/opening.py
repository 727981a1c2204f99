"""The network and the images of an audit, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upi.audit.settings import AuditSettings
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.data.preprocess import Preprocess
from upi.datasets.splits import Parts, load, load_parts, source_of
from upi.experiments.fitting import Splits
from upi.models.classifiers import load_classifier, preprocess_of
from upi.network.classifier import Classifier
from upi.network.outputs import place_of
from upi.results.folder import parse_json
from upi.results.place import CONFIG

#: Images of a step of an attack, and of an evaluation.
BATCH, EVALUATED = 32, 125


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        model: The classifier, on its device.
        about: What a report says of it, the fingerprint included.
        splits: Disjoint images.
        dataset: Their name.
        classes: Names of the classes.
    """

    model: Classifier
    about: Mapping[str, Any]
    splits: Splits
    dataset: str
    classes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """For config.json."""
        return {
            "data": {"name": self.dataset, **self.splits.origin},
            "model": dict(self.about),
            "classes": list(self.classes),
        }


def fitting(wanted: Mapping[str, int], asked: Mapping[str, int | None], there: int) -> dict[str, int]:
    """Sizes of parts that share ``there`` images: as asked for, or as wanted and cut to what is left.

    Raises:
        ConfigError: What was asked for does not fit, or nothing is left for a part.
    """
    fixed = {part: size for part, size in asked.items() if size is not None}
    free = {part: size for part, size in wanted.items() if part not in fixed}
    rest = there - sum(fixed.values())
    scale = min(1.0, rest / max(1, sum(free.values())))
    sizes = {**fixed, **{part: int(size * scale) for part, size in free.items()}}
    if rest < 0 or min(sizes[part] for part in wanted) < 1:
        raise ConfigError(f"{there} images are not enough for the parts {sizes}")
    return sizes


def apart_from_training(settings: AuditSettings) -> AuditSettings:
    """The settings with the split that keeps the images of 'upi train' out, where that network is audited."""
    images, network = settings.images, settings.network
    homes = [Path(network.model), *([] if network.weights is None else [network.weights.parent])]
    file = next((home / CONFIG for home in homes if (home / CONFIG).is_file()), None)
    if images.n_train is not None or file is None:
        return settings
    config = parse_json(file)
    data = config.get("data") or {}
    if config.get("command") not in ("train", "harden") or data.get("name") != images.data:
        return settings
    known = {"n_train": int(data["splits"]["train"] or 0), "split_seed": int(data["seed"])}
    return settings.model_copy(update={"images": images.model_copy(update=known)})


def _sizes(settings: AuditSettings, form: Preprocess | None) -> dict[str, int | None]:
    """Images of each part; where all are cut from the same ones, cut to what is there."""
    images, work = settings.images, settings.work
    source = source_of(images.data)
    asked = {"fit": images.n_fit, "select": images.n_select, "test": images.n_test}
    wanted = {"fit": work.n_fit, "select": work.n_select, "test": work.n_test}
    if source.official_test:  # test images are apart, and those of training are cut behind the others
        return {"train": 0, **wanted}
    train = images.n_train or 0
    there = len(load(images.data, split="train", folder=images.data_dir, size=form))
    return {"train": train, **fitting(wanted, asked, there - train)}


def parts_of(settings: AuditSettings) -> tuple[Parts, Mapping[str, Any]]:
    """The images, cut into parts, and what identifies them."""
    images = settings.images
    expected = preprocess_of(settings.network.model)
    form = Preprocess.asked(images.size, expected, varied=source_of(images.data).varied)
    sizes = _sizes(settings, form)
    parts = load_parts(images.data, sizes, seed=images.split_seed, folder=images.data_dir, size=form)
    return parts, {"fingerprint": parts.fingerprint, "splits": sizes, "seed": images.split_seed}


def open_subject(settings: AuditSettings) -> Subject:
    """Load the images and the network of an audit.

    Raises:
        ConfigError, DataError, ModelError: They cannot be found, or do not fit each other.
    """
    settings = apart_from_training(settings)
    parts, origin = parts_of(settings)
    network = settings.network
    model, about = load_classifier(
        network.model,
        mean=network.mean,
        std=network.std,
        weights=network.weights,
        pretrained=network.pretrained,
        shape=parts.shape,
        folder=settings.images.data_dir,
        output=place_of(network.output),
        label=network.label,
        multi_label=network.multi_label,
    )
    model.net.to(device_of(settings.device))
    names = about.get("labels")
    parts = parts if names is None else parts.labelled(names)
    return subject_of(model, about, parts, origin)


def subject_of(
    model: Classifier, about: Mapping[str, Any], parts: Parts, origin: Mapping[str, Any]
) -> Subject:
    """A loaded network and loaded images as an audit takes them."""
    splits = Splits(
        parts["fit"].batches(parts.together("fit", BATCH)),
        parts["select"].batches(parts.together("select")),
        parts["test"].batches(parts.together("test", EVALUATED)),
        origin,
    )
    facts = {**about, "fingerprint": model.fingerprint()}
    return Subject(model, facts, splits, parts.name, parts.classes)
