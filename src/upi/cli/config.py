"""Options from a file, below those on the command line; validated by pydantic.

``--config FILE`` takes TOML or JSON with the options of that command, or the config.json of
an earlier run, which repeats it.
"""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field

from upi.core.version import versions
from upi.datasets.splits import Parts, load_parts, source_of


class DataOptions(BaseModel):
    """Which images, and how they are split."""

    model_config = ConfigDict(extra="forbid")

    data: str = "mnist-sample"
    data_dir: Path | None = None
    n_train: int | None = Field(None, ge=0)
    n_fit: int = Field(750, ge=0)
    n_select: int = Field(250, ge=0)
    n_test: int | None = Field(1000, ge=0)
    split_seed: int = 0
    batch_size: int = Field(32, ge=1)

    @classmethod
    def given(cls, context: typer.Context, **instead: Any) -> DataOptions:
        """The data options among a command's own, with some replaced."""
        found = {key: value for key, value in context.params.items() if key in cls.model_fields}
        return cls(**{**found, **instead})

    def _shared(self) -> bool:
        """Whether all parts are cut from the same images."""
        return not source_of(self.data).official_test

    def sizes(self) -> dict[str, int | None]:
        """Size of each part; without --n-train all images that are left, or 3,000 where the test
        images come from the same ones."""
        train = self.n_train
        if train is None and self._shared():
            train = 0 if source_of(self.data).standard else 3000
        return {"train": train, "fit": self.n_fit, "select": self.n_select, "test": self.n_test}

    def load(self, size: int | None = None) -> Parts:
        """The images, cut into parts; photographs of all sizes at ``size`` x ``size`` pixels."""
        return load_parts(self.data, self.sizes(), seed=self.split_seed, folder=self.data_dir, size=size)

    def origin(self, fingerprint: str) -> dict[str, Any]:
        """Which data were split how: equal for runs whose splits are the same images."""
        return {"fingerprint": fingerprint, "splits": self.sizes(), "seed": self.split_seed}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise typer.BadParameter(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from error
    options = content.get("options", content) if isinstance(content, dict) else None
    if not isinstance(options, dict):
        raise typer.BadParameter(f"{path}: expected a table of options")
    return options


def _use_file(context: typer.Context, parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    if value is None:
        return None
    known = {p.name for p in context.command.params if p.name} - {"config", "help"}
    options = {key.replace("-", "_"): entry for key, entry in _read(value).items()}
    unknown = sorted(set(options) - known)
    if unknown:
        raise typer.BadParameter(
            f"{value}: unknown option {', '.join(unknown)} for 'upi {context.info_name}'; "
            f"known: {', '.join(sorted(known))}"
        )
    context.default_map = {**(context.default_map or {}), **options}
    return value


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_use_file,
        is_eager=True,
        help="TOML or JSON file with options, or config.json of a run to repeat. Options given here win.",
    ),
]


def chosen_options(context: typer.Context) -> dict[str, Any]:
    """The command's options as plain JSON values, without those about the run folder."""
    skipped = {"config", "out", "force"}
    options = {key: value for key, value in context.params.items() if key not in skipped}
    return {key: _plain(value) for key, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def environment() -> dict[str, Any]:
    """Versions and machine that a run depends on."""
    import numpy
    import scipy
    import torch

    extra = {"numpy": numpy.__version__, "scipy": scipy.__version__}
    machine = {"machine": platform.machine(), "threads": torch.get_num_threads()}
    return {"versions": {**versions(), **extra}, **machine}


def config_record(context: typer.Context, **facts: Any) -> dict[str, Any]:
    """The content of config.json."""
    command = ["upi", *sys.argv[1:]] if Path(sys.argv[0]).name == "upi" else ["upi", str(context.info_name)]
    return {
        "command": context.info_name,
        "argv": command,
        "options": chosen_options(context),
        **environment(),
        **facts,
    }
