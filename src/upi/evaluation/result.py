"""Frozen results: rows, tables, and the figures of each sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upi.core.rows import style_of
from upi.evaluation.flags import Flag
from upi.evaluation.intervals import Interval
from upi.saliency import title_of

#: Metrics of a row, in the order of tables.
METRICS = (
    "dissimilarity",
    "top_k_overlap",
    "spearman",
    "ssim",
    "mass_center_shift",
    "realised_norm",
    "kendall",
    "top_100_overlap",
    "max_sensitivity",
)

Column = dict[str, NDArray[Any]]  # metric to (n,) values


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Row:
    """One perturbation or control on the test images; ``row["name"]`` works as ``row.name``."""

    name: str
    kind: str  # "universal", "per-image" or "control"
    dissimilarity: Interval
    dissimilarity_unchanged: Interval  # among samples whose prediction stayed
    top_k_overlap: Interval  # share of the top 5 % of pixels kept
    spearman: Interval
    ssim: Interval
    mass_center_shift: Interval  # pixels
    realised_norm: Interval  # of clip(x + delta) - x
    kendall: Interval
    top_100_overlap: Interval
    max_sensitivity: Interval  # relative l2 change, the largest over draws
    prediction_changed: float  # share in [0, 1]
    unchanged: Mapping[str, Interval]  # every metric among unchanged predictions
    excess_over_noise: float  # mean minus that of the row "random"; NaN without it
    excess_over_matched_noise: float  # likewise for noise of the same realised norm
    share_of_per_image: float  # excess over noise as a share of the per-image attack's
    share_of_one_step: float  # likewise of the paper's one-step attack's

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the row of metrics.json."""
        style = style_of(self.name)
        plain: dict[str, Any] = {
            "name": self.name,
            "title": style.title,
            "colour": style.colour,
            "kind": self.kind,
        }
        for metric in (*METRICS, "dissimilarity_unchanged"):
            plain[metric] = self[metric].to_dict()
        plain["unchanged"] = {metric: value.to_dict() for metric, value in self.unchanged.items()}
        plain["prediction_changed"] = self.prediction_changed
        for scale in (
            "excess_over_noise",
            "excess_over_matched_noise",
            "share_of_per_image",
            "share_of_one_step",
        ):
            plain[scale] = _number(self[scale])
        return plain


@dataclass(frozen=True)
class Evaluation:
    """A table: one map and radius, every perturbation and control, on the same images."""

    saliency: str
    dissimilarity: str
    norm: str
    eps: float
    n_test: int  # eligible images: correctly classified, with a map that is not zero
    n_seen: int  # images in the loader
    rows: Mapping[str, Row]
    flags: tuple[Flag, ...]
    per_sample: Mapping[str, Column]  # row name to metric to (n_test,)
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the table of metrics.json."""
        return {
            "saliency": self.saliency,
            "map_title": title_of(self.saliency),
            "dissimilarity": self.dissimilarity,
            "norm": self.norm,
            "eps": self.eps,
            "n_test": self.n_test,
            "n_seen": self.n_seen,
            "rows": [row.to_dict() for row in self.rows.values()],
        }


def mean_of(columns: Mapping[str, Column], name: str) -> float:
    """Mean dissimilarity of a row, NaN where the row is absent."""
    return float(np.nanmean(columns[name]["dissimilarity"])) if name in columns else float("nan")
