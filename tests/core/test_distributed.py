"""However many workers share a job, the same bytes come out; one that is lost ends the others with a word."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.core.work import SIZE, work
from upi.core.distributed import SHARD, Team, shard_size, sharding
from upi.core.errors import ConfigError, FallbackWarning
from upi.core.exact import exact_sum
from upi.core.launch import asked_for, workers
from upi.core.types import Samples
from upi.data import batches
from upi.data.images import cut

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process without a launcher writes, with batches in the same pieces."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with sharding(SIZE):
            work(folder)
    finally:
        torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_workers_writes_the_same_bytes(size: int, alone: Path, tmp_path: Path) -> None:
    """Every attack, solver and kind of rows, and an evaluation; batches have three pieces or two."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.core.work"]
    workers = [
        subprocess.Popen([*command, str(rank), str(size), str(tmp_path)], cwd=ROOT) for rank in range(size)
    ]
    assert [worker.wait() for worker in workers] == [0] * size
    expected = sorted(alone.iterdir())
    assert len(expected) == 13
    for file in expected:
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_process_group_of_the_users_own_shares_nothing_unless_asked_to(tmp_path: Path) -> None:
    """A training program in which one process alone fits and saves something is not held up."""
    meet = f"file://{tmp_path / 'meet'}"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=0, world_size=1)
    try:
        assert shard_size() is None
        with workers() as here:
            assert (here.rank, here.size) == (0, 1)
            assert shard_size() == SHARD
        assert shard_size() is None
    finally:
        torch.distributed.destroy_process_group()


def test_sums_do_not_depend_on_their_order_and_are_right() -> None:
    rng = torch.Generator().manual_seed(0)
    parts = [torch.randn(1000, generator=rng) * 10.0**power for power in (-6, 0, 3, 0, -2)]
    like = [torch.zeros(1000)]

    def total(order: list[int]) -> torch.Tensor:
        return exact_sum({place: [parts[number]] for place, number in enumerate(order)}, 5, like)[0]

    first = total([0, 1, 2, 3, 4])
    assert torch.equal(first, total([4, 2, 0, 1, 3]))
    torch.testing.assert_close(first, torch.stack(parts).double().sum(0).float(), rtol=1e-7, atol=0)


def test_a_sum_over_what_is_not_finite_is_not_a_number_there_alone() -> None:
    parts = {0: [torch.tensor([1.0, torch.inf, 3.0])], 1: [torch.tensor([1.0, 2.0, 4.0])]}
    (found,) = exact_sum(parts, 2, [torch.zeros(3)])
    assert found[[0, 2]].tolist() == [2.0, 7.0]
    assert bool(found[1].isnan())


def test_batches_are_cut_by_the_places_of_their_images() -> None:
    x = torch.arange(5.0)[:, None, None, None]
    whole = Samples(x, torch.arange(5), 3)
    assert cut(whole, None) == [whole]
    pieces = cut(whole, 2)
    assert [len(piece.x) for piece in pieces] == [2, 2, 1]
    assert [piece.first for piece in pieces] == [0, 2, 4]
    assert torch.equal(torch.cat([piece.x for piece in pieces]), x)
    assert {piece.index for piece in pieces} == {3}


def test_more_workers_than_pieces_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "team", lambda: Team(0, 4))
    with pytest.warns(FallbackWarning, match="3 pieces of 2 images, so 1 of 4 workers"):
        batches._say_idle(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches._say_idle(4, 2)


def test_the_size_of_pieces_is_whole_batches_unless_asked_for() -> None:
    assert shard_size() is None
    with sharding(SHARD):
        assert shard_size() == SHARD
    assert shard_size() is None
    with pytest.raises(ConfigError, match="at least 1 image"), sharding(0):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 and WORLD_SIZE=2"),
        ({"WORLD_SIZE": "x", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "WORLD_SIZE=x"),
    ],
)
def test_variables_of_a_launcher_without_one_are_one_sentence(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked_for(given)


def test_without_a_launcher_there_is_one_worker() -> None:
    assert asked_for({}) is None
    found = asked_for({"WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
    assert found is not None
    assert (found.rank, found.size) == (1, 3)
