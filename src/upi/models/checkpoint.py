"""The state of a training between two epochs in a file: written whole or not at all, read as data alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from upi.core.errors import ArtifactError
from upi.core.storage import write_atomic


class Stateful(Protocol):
    """An optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state over."""


def save_checkpoint(
    path: Path, recipe: str, epoch: int, net: nn.Module, optimiser: Stateful, schedule: Stateful
) -> None:
    """Write a checkpoint.

    Args:
        path: The file.
        recipe: What the training is; only the same one goes on from here.
        epoch: Passes that are done.
        net, optimiser, schedule: As they are now.
    """
    state: dict[str, Any] = {
        "recipe": recipe,
        "epoch": epoch,
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path, recipe: str, net: nn.Module, optimiser: Stateful, schedule: Stateful) -> int:
    """Go on from a checkpoint of the same training; returns the passes done, 0 where there is none.

    Raises:
        ArtifactError: The checkpoint is damaged or of another run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return 0
    except Exception as error:  # the reader raises many kinds for damaged files
        raise ArtifactError(f"{path}: not a training checkpoint ({error})") from error
    try:
        if state["recipe"] != recipe:
            raise ArtifactError(f"{path}: a checkpoint of another recipe: {state['recipe']}")
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        return int(state["epoch"])
    except (RuntimeError, KeyError, TypeError, IndexError) as error:
        raise ArtifactError(f"{path}: a checkpoint of another network ({error})") from error
