"""Rows of tables: what each is called, which colour it has in every figure, and what kind it is.

The names of controls stand here and nowhere else. An attack of another file brings its own row
(``upi.attacks.registry``), which results files carry, so that a report can show rows it has never heard of.
"""

from __future__ import annotations

from dataclasses import dataclass

UNIVERSAL, PER_IMAGE_KIND, CONTROL = "universal", "per-image", "control"
UPI_PCA, UPI_GRAD, CLASS_UAP = "upi-pca", "upi-grad", "class-uap"
NOISE, MATCHED_NOISE, TINY_NOISE, OTHER_IMAGE = "random", "random-matched", "tiny-noise", "other-image"
PER_IMAGE, ONE_STEP = "per-image", "per-image-one-step"
#: Colour of rows that nobody has given one.
BLACK = "#111827"
#: Begins the names of rows of noise drawn inside a subspace.
IN_SUBSPACE = "random-in-"


@dataclass(frozen=True)
class RowStyle:
    """One row of a table.

    Attributes:
        name: For machines, as in files.
        title: For people.
        colour: In figures.
        kind: ``universal``, ``per-image`` or ``control``.
    """

    name: str
    title: str
    colour: str = BLACK
    kind: str = UNIVERSAL


ROWS = {
    row.name: row
    for row in (
        RowStyle(UPI_PCA, "UPI-PCA", "#0f766e"),
        RowStyle(UPI_GRAD, "UPI-Grad", "#c2410c"),
        RowStyle(CLASS_UAP, "class UAP", "#7c3aed", CONTROL),
        RowStyle(PER_IMAGE, "per-image attack", "#1d4ed8", PER_IMAGE_KIND),
        RowStyle(ONE_STEP, "per-image, one step (paper)", "#60a5fa", PER_IMAGE_KIND),
        RowStyle(NOISE, "noise, equal norm", "#6b7280", CONTROL),
        RowStyle(MATCHED_NOISE, "noise, equal realised norm", "#9ca3af", CONTROL),
        RowStyle(TINY_NOISE, "tiny noise (1 % of eps)", "#d1d5db", CONTROL),
        RowStyle(OTHER_IMAGE, "another image's map", "#a16207", CONTROL),
    )
}


def in_subspace(directions: int) -> str:
    """Name of the row of noise drawn inside a subspace."""
    return f"{IN_SUBSPACE}{directions}-directions"


def style_of(name: str) -> RowStyle:
    """How a row is shown; rows that nobody has declared go by their own name, in black."""
    if name.startswith(IN_SUBSPACE):
        return RowStyle(name, f"noise in {name.removeprefix(IN_SUBSPACE).replace('-', ' ')}", kind=CONTROL)
    return ROWS.get(name, RowStyle(name, name))
