"""All stages in order, and their results as one JSON object."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from upi.core.version import versions
from upi.experiments.reproduce import directions, studies, transfers
from upi.experiments.reproduce.lab import Lab
from upi.experiments.reproduce.settings import Cell
from upi.experiments.reproduce.table1 import measure
from upi.experiments.reproduce.theory import statements
from upi.experiments.stages import Outcome
from upi.results.schema import VERSION
from upi.saliency import title_of

COMPARISONS: dict[str, Callable[[Lab, list[Outcome]], Outcome]] = {
    "transfer_networks": transfers.between_models,
    "transfer_maps": transfers.between_maps,
    "transfer_datasets": transfers.between_datasets,
    "correlation": studies.correlation,
    "eps_curve": studies.curve,
    "fitting_images": studies.fitting_images,
    "spectrum": studies.spectrum,
    "components": directions.components,
    "subspace": directions.subspace,
    "pictures": studies.pictures,
}


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def hardware(device: torch.device) -> dict[str, Any]:
    """What the wall times were measured on."""
    machine: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def _plain(outcome: Outcome) -> dict[str, Any]:
    """A stage's result with its name, time and error."""
    result = {key: value for key, value in (outcome.result or {}).items() if key != "files"}
    return {"stage": outcome.name, "error": outcome.error, "seconds": outcome.seconds, **result}


def _asked(cell: Cell) -> dict[str, Any]:
    """A cell of Table 1, with its map's name for people."""
    return {"key": cell.key, "map_title": title_of(cell.saliency), **asdict(cell)}


def run(lab: Lab) -> dict[str, Any]:
    """Run every stage that is not done yet; returns results.json's content.

    A network's stages run together and all of them before the comparisons, so that a run that
    is cut short leaves whole rows.
    """
    settings = lab.settings
    table1: list[Outcome] = []
    for arch in settings.architectures:
        lab.train(arch)
        table1 += [measure(lab, arch, cell) for cell in settings.cells_of(arch)]
    asked = [*settings.studies, *(("transfer_datasets",) if settings.other is not None else ())]
    comparisons = {key: _plain(COMPARISONS[key](lab, table1)) for key in asked}
    if settings.theory_images:
        comparisons["theory"] = _plain(statements(lab))
    outcomes = lab.stages.outcomes
    return {
        "schema": VERSION,
        "dataset": settings.dataset,
        "images": settings.source,
        "scale": settings.scale,
        "preset": settings.preset,
        "seed": settings.seed,
        "settings": {**settings.to_dict(), "cells": [_asked(cell) for cell in settings.cells]},
        "versions": versions(),
        "hardware": hardware(lab.device),
        "n_test_split": len(lab.parts["test"]),
        "classifiers": [{"arch": arch, **_plain(outcome)} for arch, outcome in lab.trained.items()],
        "table1": [{"arch": o.name.split("/")[1], "cell": o.name.split("/")[2], **_plain(o)} for o in table1],
        **comparisons,
        "seconds": {outcome.name: outcome.seconds for outcome in outcomes},
        "failures": [{"stage": o.name, "error": o.error} for o in lab.stages.failures()],
    }
