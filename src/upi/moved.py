"""Module names of version 0.1: they lead to the new ones, with a warning that says which."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Module of version 0.1 to where its content is now; packages first.
MOVED = {
    "upi.kernels": "upi.network.kernels",
    "upi.zoo.nets": "upi.models.nets",
    "upi.reproduce": "upi.experiments.reproduce",
    "upi.errors": "upi.core.errors",
    "upi.types": "upi.core.types",
    "upi.seeding": "upi.core.seeding",
    "upi.distributed": "upi.core.distributed",
    "upi.averaging": "upi.core.averaging",
    "upi.storage": "upi.core.storage",
    "upi.balls": "upi.perturbation.ball",
    "upi.artifact": "upi.perturbation.file",
    "upi.subspace": "upi.perturbation.subspace",
    "upi.loading": "upi.data.images",
    "upi.classifier": "upi.network.classifier",
    "upi.surrogate": "upi.network.smooth",
    "upi.objective": "upi.attacks.support.objective",
    "upi.curvature": "upi.attacks.support.rows",
    "upi.study": "upi.experiments.study",
    "upi.runs": "upi.results.folder",
    "upi.zoo.datasets": "upi.datasets.splits",
    "upi.zoo.sources": "upi.datasets.registry",
    "upi.zoo.classifiers": "upi.models.classifiers",
    "upi.zoo.training": "upi.models.training",
    "upi.zoo.recipes": "upi.models.recipes",
    "upi.zoo.public": "upi.models.public",
    "upi.zoo": "upi.models",
}


def now(name: str) -> str | None:
    """Where a module of version 0.1 is now; None where the name was never one."""
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return None


class _Moved(MetaPathFinder, Loader):
    """Asked first: by the new package's path, parts of an old one would be loaded a second time."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if now(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = str(now(spec.name))
        warnings.warn(f"{spec.name} is {new} since version 0.2", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has written the old name into it


def install() -> None:
    """Let the old names lead to the new modules."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
