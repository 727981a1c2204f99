"""What an evaluation keeps while it runs: each piece with its figures, and what they depend on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from upi.attacks import Attack
from upi.core.distributed import shard_size
from upi.core.keeping import Keeper
from upi.core.naming import name_of
from upi.core.steps import Step
from upi.core.types import Perturber
from upi.core.version import versions
from upi.evaluation.flags import Flag
from upi.evaluation.measure import Pass, Piece
from upi.network.identity import content
from upi.perturbation.pattern import Perturbation

#: Tensors of a piece that may be missing.
OPTIONAL = ("targets", "numbers", "labels", "classes", "last")


def content_of(prints: Sequence[bytes], label: Tensor | None) -> str:
    """Which images these are, and what their labels say."""
    found = hashlib.sha256(b"".join(prints))
    found.update(b"" if label is None else content(label))
    return found.hexdigest()


def packed(piece: Piece, images: str) -> Step:
    """A piece as it is kept; ``images`` says of which images it is."""
    tensors = {name: getattr(piece, name) for name in OPTIONAL if getattr(piece, name) is not None}
    columns = {row: list(column) for row, column in piece.columns.items()}
    for place, (row, keys) in enumerate(columns.items()):
        tensors |= {f"{place}.{number}": piece.columns[row][key] for number, key in enumerate(keys)}
    facts = {
        "content": images,
        "columns": [[row, keys] for row, keys in columns.items()],
        "flags": {code: flag.message for code, flag in piece.flags.items()},
        "moved": piece.moved,
        "left_out": dict(piece.left_out),
    }
    return Step(tensors, facts)


def unpacked(number: int, step: Step) -> Piece:
    """The piece of that number."""
    facts = step.facts
    columns = {
        row: {key: step.tensors[f"{place}.{at}"] for at, key in enumerate(keys)}
        for place, (row, keys) in enumerate(facts["columns"])
    }
    return Piece(
        number,
        columns,
        flags={code: Flag(code, message) for code, message in facts["flags"].items()},
        moved=dict(facts["moved"]),
        left_out=Counter(facts["left_out"]),
        **{name: step.tensors.get(name) for name in OPTIONAL},
    )


def keeper_of(
    keep: Path | None, run: Pass, rows: Mapping[str, Perturber], wanted: Collection[str]
) -> Keeper | None:
    """What keeps the pieces of an evaluation in a file; None where none is named."""
    if keep is None:
        return None
    job = {
        "job": "evaluation",
        "model": run.model.fingerprint(),
        "saliency": name_of(run.saliency),
        "dissimilarity": name_of(run.change),
        "norm": run.ball.norm,
        "eps": run.ball.eps,
        "seed": run.seed,
        "draws": run.draws,
        "controls": sorted(wanted),
        "rows": {name: _identity(each) for name, each in rows.items()},
        "shard_size": shard_size(),
        "versions": versions(),
    }
    return Keeper(keep, job)


def _identity(perturber: Perturber) -> Any:
    """What a row depends on: the pattern, an attack's options, or the name of anything else."""
    if isinstance(perturber, Perturbation):
        return hashlib.sha256(content(perturber.delta)).hexdigest()
    if isinstance(perturber, Attack):
        return perturber.record()
    return name_of(perturber)
