"""Readers of foreign files under damaged ones: the short form of ``make fuzz``."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, tried
from upi.core.errors import UPIError

pytestmark = pytest.mark.slow
CORPUS = Path(__file__).parent / "corpus"
TRIES = 60


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One change: bytes flipped, cut, doubled, or a number put in the place of another."""
    data = bytearray(content)
    place = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        del data[place : place + rng.randrange(1, 9)]
    elif kind == 3:
        data[place:place] = data[place : place + rng.randrange(1, 40)]
    else:
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        for i in rng.sample(digits, min(3, len(digits))):
            data[i : i + 1] = rng.choice([b"-1", b"1e99", b"null", b"NaN", b'"x"', b"[]", b"99999999999"])
    return bytes(data)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    for number, content in enumerate(TARGETS[name].seeds(tmp_path / "made")):
        found = tried(TARGETS[name], tmp_path / str(number), content)
        assert not isinstance(found, UPIError), found


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    rng, refused = random.Random(0), 0
    seeds = TARGETS[name].seeds(tmp_path / "made")
    for _ in range(TRIES):
        content = rng.choice(seeds)
        for _ in range(rng.randrange(1, 4)):
            content = damaged(content, rng) or b"x"
        refused += isinstance(tried(TARGETS[name], tmp_path / "place", content), UPIError)
    assert refused > TRIES // 4


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_was_found_once_stays_refused(path: Path, tmp_path: Path) -> None:
    tried(TARGETS[path.parent.name], tmp_path, path.read_bytes())
