"""What ``results.json`` of a reproduction holds; see ``upi.results.reading``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from upi.results.schema import CountPoint, Curve, Record, Table, Transfer


class Correlation(Record):
    """Correlation of every pair of perturbations, and the band of unrelated patterns."""

    names: list[str]
    cosine: list[list[float]]
    peak: list[list[float]]
    band: list[list[float]]
    peak_band: list[list[float]]


class StudyCurve(Curve):
    """The eps-curve of a reproduction."""

    norm: str


class FittingImages(Record):
    """Strength against the number of fitting images."""

    points: list[CountPoint]


class Power(Record):
    """How close some steps of the power method come to the exact vector."""

    steps: int
    cosine: float
    rayleigh: float


class Sketch(Record):
    """The same for one pass of the sketch."""

    cosine: float
    rank: int


class Spectrum(Record):
    """Singular values of G, and what the solvers make of them."""

    batches: int
    values: list[float]
    power: list[Power]
    sketch: Sketch


class Components(Record):
    """Leading vectors of several forms of the rows."""

    forms: list[dict[str, Any]]
    noise: float
    upi_grad: dict[str, float]


class SubspacePoint(Record):
    """A pattern inside a span of leading directions, or beside it."""

    kind: Literal["span", "grad", "part", "whole", "random"]
    dimensions: int
    mean: float


class Subspace(Record):
    """How many dimensions the weakness has."""

    points: list[SubspacePoint]
    dimensions_of_images: int


class Pictures(Record):
    """Images before and after."""

    classes: list[str]


class Theory(Record):
    """The formal statements, measured."""

    problems: list[dict[str, Any]]


#: Comparisons beside Table 1, by their key in results.json.
STUDIES: dict[str, type[Record]] = {
    "transfer_networks": Transfer,
    "transfer_maps": Transfer,
    "transfer_datasets": Transfer,
    "correlation": Correlation,
    "eps_curve": StudyCurve,
    "fitting_images": FittingImages,
    "spectrum": Spectrum,
    "components": Components,
    "subspace": Subspace,
    "pictures": Pictures,
    "theory": Theory,
}


class Asked(Record):
    """A cell of Table 1 as it was asked for."""

    key: str
    saliency: str
    map_title: str
    norm: str
    eps: str


class Settings(Record):
    """What a reproduction measures; the first cell is the main one."""

    cells: list[Asked] = Field(min_length=1)


class Classifier(Record):
    """A network of a reproduction, or why there is none."""

    arch: str
    error: str | None
    title: str = ""
    parameters: int = 0
    test_accuracy: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """A network that works says how large and how good it is."""
        if isinstance(content, dict) and content.get("error") is None:
            missing = {"parameters", "test_accuracy"} - set(content)
            if missing:
                raise ValueError(f"a network without {', '.join(sorted(missing))}")
        return content


class FailedCell(Record):
    """A cell of Table 1 that could not be measured."""

    arch: str
    cell: str
    error: str


class MeasuredCell(Table):
    """A cell of Table 1."""

    arch: str
    cell: str
    error: None


class Hardware(Record):
    """What the wall times were measured on."""

    processor: str
    threads: int
    device: str


class Reproduction(Record):
    """``results.json``."""

    version: int = Field(alias="schema")
    command: list[str]
    dataset: str
    scale: str
    preset: str
    seed: int
    settings: Settings
    versions: dict[str, str]
    hardware: Hardware
    n_test_split: int
    classifiers: list[Classifier]
    table1: list[MeasuredCell | FailedCell]
    seconds: dict[str, float]
    failures: list[dict[str, Any]] = Field(default=[])
    images: str = ""

    @model_validator(mode="before")
    @classmethod
    def _studies(cls, content: Any) -> Any:
        """Comparisons that worked hold what their figures need."""
        for key, kind in STUDIES.items():
            study = content.get(key) if isinstance(content, dict) else None
            if study is not None and study.get("error") is None:
                kind.model_validate(study)
        return content
