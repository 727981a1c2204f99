"""Results files, validated where they are read.

Files of version 1 are brought up to date on the way in: they do not say what their rows and maps are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from upi.core.errors import RunFolderError
from upi.core.rows import style_of
from upi.results.schema import VERSION, Record

#: Maps of version 1, by the names that its files give them.
MAPS_OF_VERSION_1 = {
    "gradient": "simple-gradient map",
    "integrated_gradients": "integrated-gradients map",
    "smoothgrad": "SmoothGrad map",
    "input_x_gradient": "input × gradient map",
    "grad_cam": "Grad-CAM map",
}


def _titled(content: Any) -> Any:
    """A file of version 1 with the titles of rows and maps that it leaves out."""
    if isinstance(content, list):
        return [_titled(item) for item in content]
    if not isinstance(content, dict):
        return content
    new = {key: _titled(value) for key, value in content.items()}
    if "dissimilarity" in new and "name" in new and "kind" in new:
        style = style_of(str(new["name"]))
        return {"title": style.title, "colour": style.colour, **new}
    if "columns" in new and "cells" in new:
        return {"titles": {c: MAPS_OF_VERSION_1[c] for c in new["columns"] if c in MAPS_OF_VERSION_1}, **new}
    if "saliency" in new and "norm" in new and "eps" in new:
        saliency = str(new["saliency"])
        return {"map_title": MAPS_OF_VERSION_1.get(saliency, saliency), **new}
    return new


R = TypeVar("R", bound=Record)


def read(kind: type[R], content: Mapping[str, Any], path: Path) -> R:
    """The content of a results file, checked.

    Raises:
        RunFolderError: It is of a newer version, or not what this version holds; names the first places.
    """
    version = content.get("schema", VERSION)  # config.json has no version; elsewhere the field is required
    if version not in (1, VERSION):
        raise RunFolderError(f"{path}: expected schema {VERSION} or 1, got {version!r}")
    try:
        return kind.model_validate({**_titled(dict(content)), "schema": VERSION} if version == 1 else content)
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors()
        ]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        raise RunFolderError(
            f"{path}: does not follow schema {version}: {'; '.join(places[:3])}{more}"
        ) from error
