"""One look for every figure: colours by row, so that a method is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from upi.core.rows import RowStyle, style_of

OVERLAY_COLOURS = "plasma"
MAP_COLOURS = "magma"


#: Rows that the results on the page bring with them.
_NONE: Mapping[str, RowStyle] = MappingProxyType({})
_BROUGHT: ContextVar[Mapping[str, RowStyle]] = ContextVar("rows", default=_NONE)


def rows_of_tables(tables: Iterable[Mapping[str, Any]]) -> dict[str, RowStyle]:
    """How the rows of tables are shown, as their files say."""
    rows = (row for table in tables for row in table.get("rows", ()))
    return {row["name"]: RowStyle(*(row[key] for key in ("name", "title", "colour", "kind"))) for row in rows}


def shown(row: str) -> RowStyle:
    """How a row is shown: as its file says, else as the library knows it."""
    return _BROUGHT.get().get(row) or style_of(row)


def colour(row: str) -> str:
    """Colour of a row."""
    return shown(row).colour


def name(row: str) -> str:
    """Name of a row for people."""
    return shown(row).title


@contextmanager
def look(rows: Mapping[str, RowStyle] = _NONE) -> Iterator[None]:
    """Matplotlib settings of the report, without touching the user's own, and the rows on its page."""
    matplotlib.use("Agg", force=False)
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e7eb",
        "axes.axisbelow": True,
        "figure.dpi": 150,
        "savefig.bbox": "tight",
        "savefig.facecolor": "white",
        "legend.frameon": False,
        "text.parse_math": False,  # a dollar in the name of a class or a file is a dollar
    }
    token = _BROUGHT.set(rows)
    try:
        with plt.rc_context(settings):
            yield
            plt.close("all")
    finally:
        _BROUGHT.reset(token)
