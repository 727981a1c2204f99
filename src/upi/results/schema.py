"""What ``metrics.json`` and ``config.json`` of a run hold; see ``upi.results.reading``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 2


class Record(BaseModel):
    """Part of a file; what later versions add is kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def plain(self) -> dict[str, Any]:
        """As plain values, what later versions added included."""
        return self.model_dump(by_alias=True)


class Mean(Record):
    """A mean over n images with its 95 % interval; null where no image counts."""

    mean: float | None
    ci95: tuple[float | None, float | None]
    n: int


class Point(Record):
    """A mean of a row at some place of a curve, with the share of changed predictions."""

    name: str
    mean: float | None
    ci95: tuple[float | None, float | None]
    changed: float


class RadiusPoint(Point):
    """At a radius."""

    eps: float


class CountPoint(Point):
    """After fitting on some number of images."""

    count: int


class Row(Record):
    """A perturbation or control of a table; ``prediction_changed`` and shares are fractions of 1."""

    name: str
    title: str
    colour: str
    kind: Literal["universal", "per-image", "control"]
    dissimilarity: Mean
    dissimilarity_unchanged: Mean
    top_k_overlap: Mean
    spearman: Mean
    ssim: Mean
    mass_center_shift: Mean
    realised_norm: Mean
    kendall: Mean | None = None
    top_100_overlap: Mean | None = None
    max_sensitivity: Mean | None = None
    unchanged: dict[str, Mean]
    prediction_changed: float
    excess_over_noise: float | None
    excess_over_matched_noise: float | None
    share_of_per_image: float | None
    share_of_one_step: float | None = None


class Spread(Record):
    """Means and changed predictions of several fits of one method."""

    means: list[float]
    min: float
    max: float
    changed: list[float]


class Table(Record):
    """One map and radius: every perturbation and control on the same images."""

    key: str
    saliency: str
    map_title: str
    dissimilarity: str
    norm: str
    eps: float
    n_test: int
    n_seen: int
    rows: list[Row]
    preset: str = "protocol"
    perturbations: dict[str, str] = {}  # row to the stem of its file
    seed_spread: dict[str, Spread] = {}
    tested_on: str | None = None


class Flag(Record):
    """A warning that stands beside the numbers; ``table`` is null where it is about the whole run."""

    table: str | None = None
    code: str
    message: str


class Model(Record):
    """The classifier."""

    arch: str
    test_accuracy: float | None = None
    fingerprint: str


class Curve(Record):
    """The eps-curve."""

    points: list[RadiusPoint]
    n: int


class Cell(Mean):
    """A cell of a transfer matrix."""

    changed: float


class Transfer(Record):
    """Perturbations (rows) on networks, maps or datasets (columns)."""

    rows: list[str]
    columns: list[str]
    n_test: dict[str, int]
    cells: dict[str, dict[str, Cell]]


class Metrics(Record):
    """``metrics.json``."""

    version: int = Field(alias="schema")
    dataset: str
    model: Model
    tables: list[Table] = Field(min_length=1)
    flags: list[Flag]
    seconds: dict[str, float]
    eps_curve: Curve | None = None
    transfer: Transfer | None = None


class Data(Record):
    """Which images."""

    name: str
    fingerprint: str


class Config(Record):
    """``config.json``: what a run was asked for, and what it ran on."""

    command: str
    argv: list[str] = []
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: str = ""
    threads: int = 0
    classes: list[str] = []
    data: Data | None = None
