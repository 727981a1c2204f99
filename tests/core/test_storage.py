"""Folders that several processes share: written to by one while another takes them away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from upi.core.errors import RunFolderError
from upi.core.keeping import Keeper
from upi.core.storage import remove_if_empty, write_atomic
from upi.models.checkpoint import load_checkpoint


def test_a_folder_that_others_take_away(tmp_path: Path) -> None:
    """Each keeps a file there and tidies up behind itself, as the fits of a cell do."""
    shared = tmp_path / "cells" / "states"

    def keep(number: int) -> int:
        for turn in range(200):
            path = write_atomic(shared / f"{number}.state", str(turn))
            assert path.read_text() == str(turn)
            path.unlink()
            remove_if_empty(shared)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(keep, range(4))) == [0, 1, 2, 3]
    assert not shared.exists()


def test_only_empty_folders_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    remove_if_empty(tmp_path / "full")
    remove_if_empty(tmp_path / "never there")
    assert (tmp_path / "full/file").read_text() == "kept"
    with pytest.raises(NotADirectoryError):
        remove_if_empty(tmp_path / "full/file")


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    """It is not waited for: what will never be a folder is refused as before."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunFolderError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", "new")
    assert (tmp_path / "file").read_text() == "kept"


def test_states_that_are_not_there(tmp_path: Path) -> None:
    """What is gone by the time it is read counts as never kept: no one looks first and reads afterwards."""
    assert Keeper(tmp_path / "a.state", {"job": 1}).load(set()) is None
    net = nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    assert load_checkpoint(tmp_path / "a.checkpoint", "recipe", net, optimiser, optimiser) == 0
