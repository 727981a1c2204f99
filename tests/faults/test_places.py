"""Places that are not what they should be: a file, an unwritable folder, one that goes away meanwhile."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import upi
from tests.cli.test_command_line import SLICE, run
from upi.core import keeping
from upi.core.errors import RunFolderError

pytestmark = pytest.mark.slow
COMMANDS = {
    "fit": ["fit", "--model", "{net}", *SLICE, "--steps", "2"],
    "train": ["train", *SLICE, "--epochs", "1"],
    "audit": ["audit", "--quick", "--model", "{net}"],
    "reproduce": ["reproduce", "mnist", "--arch", "small-cnn"],
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPI_CACHE", str(folder / "cache"))
        run("train", *SLICE, "--epochs", "1", "--out", folder / "net")
    return folder / "net"


def asked(name: str, net: Path, out: Path) -> list[str | Path]:
    return [*(word.format(net=net) for word in COMMANDS[name]), "--out", out]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_where_the_folder_should_be_is_refused_and_stays(name: str, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    assert "error" in run(*asked(name, net, out), code=2)
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_above_the_folder(name: str, net: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = run(*asked(name, net, tmp_path / "file" / "out"), code=2)
    assert "cannot create a run folder" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written(name: str, net: Path) -> None:
    """/proc takes no folders, whoever asks."""
    said = run(*asked(name, net, Path("/proc/upi/out")), code=2)
    assert "cannot create a run folder" in said


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


IMAGES = [torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(3)]


def test_a_folder_that_goes_away_while_a_fit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state has its folder again with the next write, and the fit ends as it would have."""
    monkeypatch.setattr(keeping, "LEAST", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 1e9)
    place = tmp_path / "place"
    attack = upi.UPIGrad(small(), eps=1.0, steps=8)

    def take_away(done: int, _: int) -> None:
        if done == 3:
            shutil.rmtree(place)

    found = attack.fit(IMAGES, keep=place / "state", progress=take_away)
    assert torch.equal(found.delta, attack.fit(IMAGES).delta)


def test_a_file_that_takes_the_place_of_the_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LEAST", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 1e9)
    place = tmp_path / "place"

    def replace(done: int, _: int) -> None:
        if done == 3:
            shutil.rmtree(place)
            place.write_text("mine")

    with pytest.raises(RunFolderError, match="cannot write"):
        upi.UPIGrad(small(), eps=1.0, steps=8).fit(IMAGES, keep=place / "state", progress=replace)
    assert place.read_text() == "mine"


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day runs backwards and forwards by days; state and result are as they would be."""
    attack, days = upi.UPIGrad(small(), eps=1.0, steps=8), iter(range(10**6))
    alone = attack.fit(IMAGES)
    monkeypatch.setattr(time, "time", lambda: (-1) ** next(days) * 86400.0 * next(days))
    found = attack.fit(IMAGES, keep=tmp_path / "state")
    assert torch.equal(found.delta, alone.delta)
    assert not (tmp_path / "state").exists()


class Broken:
    """A loader that fails in its third batch, or brings NaN there."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from IMAGES[:2]
        if self.kind == "raises":
            raise OSError("the disk is gone")
        yield IMAGES[2] * torch.nan

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [("raises", OSError, "disk is gone"), ("nan", upi.core.errors.DataError, "NaN")],
)
@pytest.mark.parametrize("fits", [upi.UPIGrad, upi.UPIPCA])
def test_a_loader_that_breaks(
    fits: type[upi.UPIGrad | upi.UPIPCA], kind: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    """Its own error comes through, and what was finished goes on with a loader that works."""
    state = tmp_path / "state"
    with pytest.raises(error, match=said):
        fits(small(), eps=1.0, steps=9).fit(Broken(kind), keep=state)
    assert not state.exists() or kind == "raises"
