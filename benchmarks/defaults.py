"""How the defaults were chosen: one option varied at a time on the demo's digits and network.

    OMP_NUM_THREADS=1 python benchmarks/defaults.py > docs/defaults.md

Each line is the mean over three fits (seeds 0 to 2) on the fit split, measured on the
select split (the test split takes no part in choices), for the simple-gradient map of the
logit in the l2 ball of radius 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

import upi
from upi.zoo.classifiers import trained_or_cached
from upi.zoo.datasets import load, split
from upi.zoo.training import Recipe

SIZES = {"train": 3000, "fit": 750, "select": 250, "test": 1000}
SEEDS = (0, 1, 2)
GRAD = {"clip": True, "prediction_price": 0.5}
SWEEPS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "UPI-Grad, surrogate sharpness beta": (
        partial(upi.UPIGrad, **GRAD),
        [{"surrogate": beta} for beta in (5.0, 10.0, 20.0, 40.0)],
    ),
    "UPI-Grad, step rule": (
        partial(upi.UPIGrad, **GRAD),
        [
            {"step_size": 2.0, "momentum": 0.0},
            {"step_size": 2.0, "momentum": 0.5},
            {"step_size": 2.0, "momentum": 0.9},
            {"step_size": 0.5, "momentum": 0.5},
            {"step_size": 0.2, "momentum": 0.9},
            {"step_size": 10.0, "momentum": 0.5},
        ],
    ),
    "UPI-Grad, smoothing sigma": (partial(upi.UPIGrad, **GRAD), [{"sigma": s} for s in (0.0, 0.007, 0.036)]),
    "UPI-Grad, steps": (partial(upi.UPIGrad, **GRAD), [{"steps": steps} for steps in (50, 100, 200, 400)]),
    "UPI-Grad, box and price": (
        upi.UPIGrad,
        [
            {"clip": False, "prediction_price": 0.0},
            {"clip": True, "prediction_price": 0.0},
            {"clip": True, "prediction_price": 0.5},
            {"clip": True, "prediction_price": 1.0},
        ],
    ),
    "UPI-PCA, components tried": (partial(upi.UPIPCA, clip=True), [{"components": k} for k in (1, 5, 10)]),
    "UPI-PCA, draws per image": (partial(upi.UPIPCA, clip=True), [{"draws": k} for k in (1, 8, 16)]),
    "UPI-PCA, smoothing sigma": (
        partial(upi.UPIPCA, clip=True),
        [{"sigma": s} for s in (0.007, 0.036, 0.071)],
    ),
    "UPI-PCA, solver": (partial(upi.UPIPCA, clip=True), [{"solver": s} for s in ("gram", "sketch", "power")]),
    "Per-image attack, step rule": (
        upi.PerImageAttack,
        [
            {"step_size": 0.5, "momentum": 0.9},
            {"step_size": 1.0, "momentum": 0.0},
            {"step_size": 1.0, "momentum": 0.5},
            {"steps": 100, "step_size": 1.0, "momentum": 0.5},
        ],
    ),
}


def main() -> None:
    parts = split(load("mnist-sample"), SIZES, seed=0)
    trained, _ = trained_or_cached("small-cnn", parts["train"], parts["test"], Recipe())
    model = upi.Classifier(trained.net)
    fit, select = parts["fit"].batches(32), parts["select"].batches(125)
    noise = upi.evaluate(model, {}, select, norm="l2", eps=2.0).rows["random"].dissimilarity.mean
    print("# Defaults, measured\n\n    OMP_NUM_THREADS=1 python benchmarks/defaults.py > docs/defaults.md\n")
    place = f"{torch.get_num_threads()} thread, torch {torch.__version__.split('+')[0]}"
    print(
        "Simple-gradient map of the logit, l2 radius 2, a network trained with the demo's recipe "
        f"({place}); fitted on {len(parts['fit'])} digits in batches of 32, measured on the "
        f"{len(parts['select'])} of the select split, mean over seeds {SEEDS} (the "
        "per-image attack: seed 0). Noise of equal norm "
        f"changes the maps by {noise:.3f}.\n"
    )
    for title, (build, choices) in SWEEPS.items():
        print(f"\n## {title}\n\n| option | map change | changed predictions |\n|---|---|---|")
        for options in choices:
            rows = []
            for seed in SEEDS if build is not upi.PerImageAttack else SEEDS[:1]:
                found = build(model, eps=2.0, seed=seed, **options).fit(fit, select=select)
                table = upi.evaluate(model, {"x": found}, select, controls=False)
                rows.append((table.rows["x"].dissimilarity.mean, table.rows["x"].prediction_changed))
            change, changed = np.mean(rows, axis=0)
            words = ", ".join(f"{key} {value}" for key, value in options.items())
            print(f"| {words} | {change:.3f} | {changed:.1%} |", flush=True)


if __name__ == "__main__":
    main()
