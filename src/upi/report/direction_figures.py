"""Figures of the directions that many images share: how many there are, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from upi.core.rows import NOISE, UPI_GRAD, UPI_PCA
from upi.report.style import colour

FORM_COLOURS = ("#b45309", "#0f766e", "#1d4ed8")


def components(study: Mapping[str, Any]) -> Figure:
    """Spatial frequency of leading vectors against the change they make, for several forms of rows."""
    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    for form, shade in zip(study["forms"], FORM_COLOURS, strict=True):
        axes.scatter(form["frequency"], form["change"], s=22, color=shade, alpha=0.65, lw=0)
        first = form["frequency"][0], form["change"][0]
        axes.scatter(*first, s=90, marker="*", color=shade, label=f"{form['title']} (star: the first)")
    grad = study["upi_grad"]
    axes.scatter(
        grad["frequency"], grad["change"], marker="D", s=46, color=colour(UPI_GRAD), label="UPI-Grad"
    )
    axes.axhline(study["noise"], color=colour(NOISE), ls="--", lw=1, label="noise, equal norm")
    axes.set(xlabel="mean spatial frequency, cycles per pixel", ylabel="change of the network's maps")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    return figure


def subspace(study: Mapping[str, Any]) -> Figure:
    """Change made by random vectors of the span of k leading vectors, and by UPI-Grad held to it."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    points = study["points"]
    sizes = sorted({p["dimensions"] for p in points if p["kind"] == "span"})
    groups = [[p["mean"] for p in points if (p["kind"], p["dimensions"]) == ("span", k)] for k in sizes]
    means = [sum(g) / len(g) for g in groups]
    axes.plot(sizes, means, "o-", ms=4, color=colour(UPI_PCA), label="random vector of the span")
    axes.fill_between(
        sizes, [min(g) for g in groups], [max(g) for g in groups], color=colour(UPI_PCA), alpha=0.15, lw=0
    )
    for kind, style, label in (
        ("grad", "D-", "UPI-Grad inside the span"),
        ("part", "s:", "UPI-Grad, projected"),
    ):
        some = sorted((p["dimensions"], p["mean"]) for p in points if p["kind"] == kind)
        axes.plot(*zip(*some, strict=True), style, ms=5, color=colour(UPI_GRAD), label=label)
    for kind, row, label in (("random", NOISE, "noise"), ("whole", UPI_GRAD, "UPI-Grad")):
        value = next(p["mean"] for p in points if p["kind"] == kind)
        axes.axhline(value, color=colour(row), ls="--", lw=1, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(k) for k in sizes])
    axes.minorticks_off()
    axes.set(
        xlabel=f"dimensions k of the span (images: {study['dimensions_of_images']})", ylabel="map change"
    )
    axes.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    figure.tight_layout()
    return figure
