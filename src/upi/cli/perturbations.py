"""Perturbations that the user names: files, and folders of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from upi.cli.expand import OptionGroup
from upi.core.errors import ConfigError
from upi.core.rows import in_subspace
from upi.evaluation import CONTROLS
from upi.perturbation.ball import Ball
from upi.perturbation.pattern import Perturbation
from upi.perturbation.subspace import Subspace
from upi.results.folder import RunFolder


class PerturbationOptions(OptionGroup):
    """What is measured."""

    panel: ClassVar[str] = "Perturbation"

    perturbation: Annotated[
        list[Path],
        typer.Option(help="A .safetensors file or a run folder of 'upi fit'; repeat for several."),
    ]

    def load(self) -> dict[str, Perturbation]:
        """Perturbations by name.

        Raises:
            ConfigError: There are none, or a name cannot be kept.
        """
        items: dict[str, Perturbation] = {}
        for path in self.perturbation:
            some = RunFolder(path).perturbations() if path.is_dir() else {path.stem: Perturbation.load(path)}
            if not some:
                raise ConfigError(f"{path}: no perturbations in this folder")
            for name, item in some.items():
                if name in CONTROLS:
                    raise ConfigError(f"{path}: {name!r} names a control; rename the file")
                if name in items:
                    raise ConfigError(f"{path}: two perturbations are called {name!r}; rename a file")
                items[name] = item
        return items

    def in_spans(self, ball: Ball, seed: int) -> dict[str, Perturbation]:
        """Noise drawn inside the subspaces of run folders, as further controls; l2 ball only."""
        folders = [path for path in self.perturbation if path.is_dir()]
        files = [file for path in folders for file in sorted((path / "subspaces").glob("*.safetensors"))]
        spans = [Subspace.load(file) for file in files] if ball.norm == "l2" else []
        return {in_subspace(len(span)): span.random(ball.eps, seed=seed) for span in spans}


def common(perturbations: dict[str, Perturbation], key: str, given: str | None) -> str:
    """A choice that the perturbations were fitted for, unless it is given."""
    if given is not None:
        return given
    values = {str(p.provenance.get(key)) for p in perturbations.values() if p.provenance.get(key)}
    if len(values) != 1:
        raise ConfigError(
            f"say --{key}: the perturbations were fitted for {sorted(values) or 'nothing known'}"
        )
    return values.pop()
