"""``upi demo``: from nothing to an audit of real digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upi.audit.settings import AuditSettings
from upi.cli.audit_display import AuditDisplay
from upi.cli.auditing import run_audit
from upi.cli.expand import Defaults
from upi.cli.groups import AuditRunOptions
from upi.cli.record import write_record
from upi.cli.registry import command
from upi.core.rows import UPI_GRAD, UPI_PCA
from upi.datasets.splits import load_parts
from upi.models.classifiers import FILE, trained_or_cached
from upi.models.training import Recipe

DATA = "mnist-sample"
#: Where the classifier lies in the run folder.
CLASSIFIER = "classifier"
MAPS = ("gradient", "integrated_gradients")


@command("demo", order=1)
def demo(
    run: Annotated[AuditRunOptions, Defaults(out=Path("runs/demo"))],
    eps: Annotated[
        float | None,
        typer.Option(
            help="l2 norm of the perturbation; pixels are in [0, 1]. Default: the largest at which at most "
            "5 % of predictions change."
        ),
    ] = None,
    n_train: Annotated[int, typer.Option(min=1, help="Digits to train on.")] = 3000,
    n_fit: Annotated[int, typer.Option(min=1, help="Digits to find the perturbation on.")] = 200,
    n_select: Annotated[int, typer.Option(min=1, help="Digits to choose radius and sign on.")] = 100,
    n_test: Annotated[int, typer.Option(min=1, help="Digits to report on.")] = 150,
    epochs: Annotated[int, typer.Option(min=1, help="Training epochs.")] = 20,
) -> None:
    """Train a small digit classifier, and audit its explanations.

    Real data (5,000 MNIST digits), two kinds of maps, both attacks, every control, a verdict and a
    page, in about a minute and a half on two cores. The classifier is cached for the next run. This is
    'upi audit --quick' on the classifier in the run folder, with exit code 0 whatever the verdict.
    """
    place = run.out / CLASSIFIER
    settings = AuditSettings.model_validate(
        {
            "effort": "quick",
            "seed": run.seed,
            "network": {"model": str(place)},
            "images": {
                "data": DATA,
                "n_train": n_train,
                "n_fit": n_fit,
                "n_select": n_select,
                "n_test": n_test,
                "split_seed": run.seed,
            },
            "explanations": {"maps": list(MAPS)},
            "perturbations": {"methods": [UPI_PCA, UPI_GRAD], "radii": "auto" if eps is None else [eps]},
        }
    )

    def train(display: AuditDisplay) -> None:
        progress = display("train the digit classifier")
        sizes = {"train": n_train, "fit": n_fit, "select": n_select, "test": None}
        parts = load_parts(DATA, sizes, seed=run.seed)  # accuracy is of all digits that are left
        recipe = Recipe(epochs=epochs, seed=run.seed)
        trained, _ = trained_or_cached("small-cnn", parts["train"], parts["test"], recipe, progress=progress)
        write_record(run.out, audit=settings.plain())
        trained.save(place / FILE)

    run_audit(settings, run.out, force=run.force, first=train)
