"""Image classifiers of transformers, from the hub or a folder, as their image processor prepares pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from upi.core.errors import ConfigError, ModelError, first_line
from upi.data.preprocess import INTERPOLATIONS, Preprocess
from upi.models.registry import SOURCES, ModelSource, Request
from upi.models.weights import fill
from upi.network.classifier import Classifier

PREFIX = "hf/"
#: What transformers calls the task of a network with a yes or no for every class.
MULTI_LABEL = "multi_label_classification"
#: Pillow's numbers of interpolations, as processors write them.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"hf/NAME networks need the package: pip install 'upi-xai[transformers]' ({error})"
        ) from error
    return transformers


def _fetched(name: str, what: str, make: Any) -> Any:
    try:
        return make()
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = first_line(error)
        raise ModelError(
            f"hf/{name}: {what} cannot be had: {reason}. On a machine without access give the folder that "
            "save_pretrained wrote, hf/FOLDER"
        ) from error


def _processor(name: str) -> dict[str, Any]:
    """The image processor's configuration, as its file has it."""
    file = Path(name) / "preprocessor_config.json"
    if Path(name).is_dir():
        if not file.is_file():
            raise ModelError(
                f"hf/{name}: no preprocessor_config.json, which says how pictures are prepared; save the "
                "image processor beside the network (processor.save_pretrained)"
            )
        return dict(json.loads(file.read_text()))
    make = lambda: _transformers().AutoImageProcessor.from_pretrained(name)  # noqa: E731
    return dict(_fetched(name, "the image processor", make).to_dict())


def _sides(size: Any, default: int | None = None) -> tuple[int, int] | int | None:
    """(height, width), or the short side alone, of a processor's size."""
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        if "height" in size:
            return int(size["height"]), int(size["width"])
        return default
    return (int(size), int(size)) if isinstance(size, (int, float)) else default


def preprocess_from(config: Mapping[str, Any], name: str = "hf") -> Preprocess:
    """What an image processor of transformers does to a picture, without its normalisation.

    Raises:
        ModelError: It says no size.
    """
    size, cut = _sides(config.get("size")), _sides(config.get("crop_size"))
    if size is None:
        raise ModelError(f"{name}: its image processor says no size; say one", options=("size",))
    kind = RESAMPLING.get(int(config.get("resample") or 2), "bilinear")
    assert kind in INTERPOLATIONS
    channels = len(config.get("image_mean") or (0, 0, 0))
    share = config.get("crop_pct")
    if isinstance(size, int) and share is not None:  # ConvNeXt: a share of the short side up to 384 pixels
        resize: int | tuple[int, int] = int(size / share) if size < 384 else (size, size)
        return Preprocess(size, size, resize, kind, channels)
    if config.get("do_center_crop") and cut is not None:
        height, width = (cut, cut) if isinstance(cut, int) else cut
        return Preprocess(height, width, size if config.get("do_resize", True) else None, kind, channels)
    if isinstance(size, int):
        return Preprocess(size, size, size, kind, channels)
    return Preprocess(*size, resize=size, interpolation=kind, channels=channels)


def _constants(config: Mapping[str, Any]) -> dict[str, Any]:
    """mean and std for images in [0, 1]."""
    if not config.get("do_normalize", True):
        factor = (
            float(config.get("rescale_factor", 1 / 255)) * 255 if config.get("do_rescale", True) else 255.0
        )
        return {} if factor == 1 else {"std": 1 / factor}
    factor = float(config.get("rescale_factor", 1 / 255)) * 255 if config.get("do_rescale", True) else 255.0
    mean, std = (tuple(config.get(key) or (0.5,) * 3) for key in ("image_mean", "image_std"))
    return {"mean": tuple(m / factor for m in mean), "std": tuple(s / factor for s in std)}


def from_hf(
    name: str, *, weights: Path | None = None, label: int | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier of transformers with its normalisation, and what a report says of it.

    Args:
        name: Repository on the hub, or a folder that ``save_pretrained`` wrote with network and processor.
        weights: State dict to be loaded over the published weights.
        label: Of a multi-label network, the class that is explained.

    Raises:
        ModelError: The package, the network or its processor cannot be had.
        ArtifactError: The weights are of another network.
    """
    library = _transformers()
    make = lambda: library.AutoModelForImageClassification.from_pretrained(name)  # noqa: E731
    net: nn.Module = _fetched(name, "the network", make).eval()
    if weights is not None:
        fill(net, weights, f"hf/{name}")
    config: Any = net.config
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    multi = config.problem_type == MULTI_LABEL
    model = Classifier(net, **_constants(_processor(name)), multi_label=multi, label=label)
    about = {
        "arch": f"hf/{name}",
        "title": f"{type(net).__name__} ({Path(name).name})",
        "parameters": sum(p.numel() for p in net.parameters()),
        "labels": names,
        "multi_label": multi,
    }
    return model, about


class HFSource(ModelSource):
    """``hf/NAME_OR_FOLDER``."""

    form = "hf/NAME_OR_FOLDER"

    def accepts(self, spec: str) -> bool:
        return spec.startswith(PREFIX)

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        name = request.spec.removeprefix(PREFIX)
        if not name:
            raise ConfigError("hf/: say which network, hf/NAME or hf/FOLDER")
        return from_hf(name, weights=request.weights, label=request.label)

    def preprocess(self, spec: str) -> Preprocess | None:
        name = spec.removeprefix(PREFIX)
        return preprocess_from(_processor(name), spec)


SOURCES.add("hf", "transformers' image classifiers", order=6)(HFSource())
