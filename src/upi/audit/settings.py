"""What an audit is asked for: the one model behind ``audit.toml``, its JSON schema and the command line.

Everything has a default except the network, so that a file of two lines is an audit.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from upi.attacks.protocol import PROTOCOLS
from upi.attacks.registry import fitted
from upi.core.naming import nearest
from upi.core.rows import ROWS, UPI_GRAD, UPI_PCA
from upi.dissimilarity import DISSIMILARITIES
from upi.evaluation.result import METRICS
from upi.saliency import MAPS

#: What a threshold may be about, beside the metrics of a table.
SCALES = (
    "prediction_changed",
    "excess_over_noise",
    "excess_over_matched_noise",
    "ceiling",
)
#: The universal row that changes maps most on the select images.
STRONGEST = "strongest"
#: Rows that thresholds may name.
KNOWN_ROWS = (STRONGEST, *ROWS)


def _among(known: tuple[str, ...], kind: str) -> AfterValidator:
    """A name that must be known; the message has the nearest one."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"unknown {kind} {value!r}{nearest(value, known)}")
        return value

    return AfterValidator(check)


def _each_once(values: list[Any]) -> list[Any]:
    """A list without repetitions: the same work twice is a slip of the pen."""
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return values


def _radius(value: float | str) -> float:
    """A radius in units of [0, 1] images; ``"8/255"`` is read."""
    try:
        radius = float(Fraction(value)) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"a radius is a number or a fraction such as '8/255', got {value!r}") from error
    if not 0 < radius < float("inf"):
        raise ValueError(f"a radius is above 0, got {value!r}")
    return radius


Radius = Annotated[float | str, AfterValidator(_radius)]
MapName = Annotated[str, _among(tuple(MAPS), "saliency map")]
Norm = Literal["l2", "linf"]
Once = AfterValidator(_each_once)


class Part(BaseModel):
    """A table of ``audit.toml``: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSettings(Part):
    """The classifier under test."""

    model: str = Field(
        description="As for every command: a run folder, hf/NAME, timm/NAME, module.py:make, ..."
    )
    weights: Path | None = Field(None, description="A state dict for networks that take one.")
    pretrained: bool = Field(False, description="Fetch ImageNet weights for torchvision/NAME or timm/NAME.")
    mean: list[float] | None = Field(None, description="Per-channel mean that the network expects.")
    std: list[float] | None = Field(None, description="Per-channel deviation that the network expects.")
    output: str | None = Field(None, description="Where the logits are in what the network returns.")
    multi_label: bool = Field(False, description="Every class has a yes or no of its own.")
    label: int | None = Field(None, description="Of a multi-label network, explain this class.")


class ImageSettings(Part):
    """The images, and how they are cut into disjoint parts."""

    data: str = Field("mnist-sample", description="A known dataset, or a folder of images or parquet files.")
    data_dir: Path | None = Field(None, description="Folder with local copies of named datasets.")
    size: str | None = Field(None, description="224, 224x320 or native; by default as the network says.")
    n_fit: PositiveInt | None = Field(None, description="Images to find perturbations on.")
    n_select: PositiveInt | None = Field(None, description="Images to choose radius, sign and method on.")
    n_test: PositiveInt | None = Field(None, description="Images to report on, used for nothing else.")
    n_train: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Images the network was trained on; the others are cut behind them."
    )
    split_seed: int = Field(0, description="Fixes which image is in which part.")


class ExplanationSettings(Part):
    """The explanations under test."""

    maps: Annotated[list[MapName], Once] = Field(["gradient"], min_length=1, description="Saliency maps.")
    dissimilarity: Annotated[str, _among(tuple(DISSIMILARITIES), "dissimilarity")] = Field(
        "relative_l2", description="What counts as the change of a map."
    )
    preset: Annotated[str, _among(tuple(PROTOCOLS), "preset")] = Field(
        "protocol", description="protocol, or paper: as published."
    )


class PerturbationSettings(Part):
    """The perturbations that are tried."""

    norms: Annotated[list[Norm], Once] = Field(["l2"], min_length=1, description="Norms of the perturbation.")
    radii: Literal["auto"] | Annotated[list[Radius], Once] = Field(
        "auto",
        description="Largest norms, for images in [0, 1]; auto: the largest at which at most "
        "max_changed of the predictions change, and parts of it.",
    )
    max_changed: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Share of predictions that may change at the proposed radius."
    )
    methods: Annotated[list[Annotated[str, _among(tuple(fitted()), "method")]], Once] | None = Field(
        None, min_length=1, description="Universal attacks; by default as the effort says."
    )
    fits: PositiveInt | None = Field(None, description="Fits of each, at as many seeds.")
    prediction_price: Annotated[float, Field(ge=0)] = Field(
        0.5, description="Price that attacks pay for changing a prediction."
    )

    @model_validator(mode="after")
    def _radii_of_one_norm(self) -> PerturbationSettings:
        if self.radii == []:
            raise ValueError("radii is empty; write 'auto' or at least one number")
        if self.radii != "auto" and len(self.norms) > 1:
            raise ValueError("radii are of one norm: name one in norms, or write radii = 'auto'")
        return self


class Threshold(Part):
    """A line that a figure must not cross."""

    metric: Annotated[str, _among((*METRICS, *SCALES), "metric")] = Field(
        description="A figure of the report's tables."
    )
    at_least: float | None = Field(None, description="Passes from this value on.")
    at_most: float | None = Field(None, description="Passes up to this value.")
    row: Annotated[str, _among(KNOWN_ROWS, "row")] = Field(
        STRONGEST,
        description="Whose figure: strongest is the universal perturbation that did best on select.",
    )
    among: Literal["unchanged", "all"] = Field(
        "unchanged", description="Images whose prediction stays, or all of them."
    )
    map: MapName | None = Field(None, description="One of the maps; all of them by default.")
    norm: Norm | None = Field(None, description="One of the norms; all of them by default.")
    radius: Radius | None = Field(None, description="One of the radii; all of them by default.")

    @model_validator(mode="after")
    def _one_side(self) -> Threshold:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a threshold has either at_least or at_most")
        return self

    @property
    def limit(self) -> float:
        """Where the line is."""
        return float(self.at_least if self.at_least is not None else self.at_most)  # type: ignore[arg-type]

    @property
    def side(self) -> str:
        """``at_least`` or ``at_most``."""
        return "at_least" if self.at_least is not None else "at_most"


#: What an audit demands where its file names no thresholds.
DEFAULT_THRESHOLDS = (
    Threshold(metric="excess_over_noise", at_most=0.1),
    Threshold(metric="top_k_overlap", at_least=0.6),
)


class Effort(BaseModel):
    """How much work an audit does where nothing else is said."""

    n_fit: int
    n_select: int
    n_test: int
    methods: tuple[str, ...]
    fits: int
    steps: int
    per_image_steps: int
    parts: tuple[float, ...]  # of the proposed radius
    minimum: int = 30  # eligible images below which nothing is concluded


EFFORTS = {
    "quick": Effort(
        n_fit=250,
        n_select=100,
        n_test=250,
        methods=(UPI_GRAD,),
        fits=1,
        steps=60,
        per_image_steps=8,
        parts=(1,),
    ),
    "standard": Effort(
        n_fit=750,
        n_select=250,
        n_test=500,
        methods=(UPI_PCA, UPI_GRAD),
        fits=1,
        steps=150,
        per_image_steps=12,
        parts=(0.5, 1),
    ),
    "thorough": Effort(
        n_fit=1500,
        n_select=500,
        n_test=1000,
        methods=(UPI_PCA, UPI_GRAD),
        fits=3,
        steps=200,
        per_image_steps=20,
        parts=(0.25, 0.5, 1, 1.5),
    ),
}


class AuditSettings(Part):
    """An audit."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="audit.toml of upi", populate_by_name=True)

    version: Literal[1] = Field(1, alias="schema", description="Version of this file's form.")
    effort: Literal["quick", "standard", "thorough"] = Field("standard", description="How much work is done.")
    seed: int = Field(0, description="Fixes everything random.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    shard_size: PositiveInt | None = Field(
        None, description="Images of a piece of a batch that workers share. Default: 8 under torchrun."
    )
    network: NetworkSettings
    images: ImageSettings = ImageSettings()
    explanations: ExplanationSettings = ExplanationSettings()
    perturbations: PerturbationSettings = PerturbationSettings()
    threshold: list[Threshold] = Field(
        list(DEFAULT_THRESHOLDS), description="What must hold; exit code 1 where it does not."
    )

    @model_validator(mode="after")
    def _thresholds_of_what_is_measured(self) -> AuditSettings:
        """Every threshold is about something that will be measured."""
        methods = list(self.perturbations.methods or EFFORTS[self.effort].methods)
        radii = self.perturbations.radii
        for number, line in enumerate(self.threshold, 1):
            asked: tuple[tuple[str, Any, list[Any]], ...] = (
                ("maps", line.map, list(self.explanations.maps)),
                ("norms", line.norm, list(self.perturbations.norms)),
                ("radii", line.radius, [line.radius] if radii == "auto" else list(radii)),
                ("methods", line.row if line.row in fitted() else None, methods),
            )
            for names, value, known in asked:
                if value is not None and value not in known:
                    raise ValueError(
                        f"threshold {number} is about {value!r}, which is not among {names} = {known}"
                    )
        return self

    @property
    def work(self) -> Effort:
        """The effort, with what the file says instead."""
        asked = {
            "n_fit": self.images.n_fit,
            "n_select": self.images.n_select,
            "n_test": self.images.n_test,
            "methods": self.perturbations.methods,
            "fits": self.perturbations.fits,
        }
        known = {key: value for key, value in asked.items() if value is not None}
        return EFFORTS[self.effort].model_copy(update=known)

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)
