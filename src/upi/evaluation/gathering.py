"""One pass over the test images, piece by piece, and what all workers found put together.

Guards against figures that depend on how many workers there were: pieces are cut by the places of their
images, and put together in that order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from upi.core.distributed import gathered, jointly, leads, require_same_images, rounds, shard_size, team
from upi.core.errors import DataError
from upi.core.steps import Steps
from upi.core.types import Loader, Perturber, Progress, Samples
from upi.data.content import digests, repeated
from upi.data.images import count_of, cut, samples
from upi.evaluation.flags import Flag, model_flags, order_flags
from upi.evaluation.kept import content_of, packed, unpacked
from upi.evaluation.measure import NOT_FINITE, REPEATED, ZERO, Kept, Pass, Piece, eligible, measure_piece

#: What a flag says of images that do not count.
LEFT_OUT = {
    REPEATED: "{count} of {seen} images came before with the same pixels: each counts once.",
    ZERO: "{count} of {seen} images have a clean map that is zero everywhere; they are left out.",
    NOT_FINITE: "{count} of {seen} images have a clean map with NaN or infinity; they are left out.",
}


@dataclass(frozen=True)
class Gathered:
    """What one pass found.

    Attributes:
        columns: Figures of the eligible images, by row.
        targets, numbers, labels: (n,) explained class, place in the pass and label of the eligible images.
        flags: By code.
        seen: Images that came.
        left_out: Images that do not count, by reason.
        known: Digests of the images.
    """

    columns: dict[str, dict[str, Tensor]]
    targets: Tensor
    numbers: Tensor
    labels: Tensor
    flags: dict[str, Flag]
    seen: int
    left_out: Mapping[str, int]
    known: set[bytes]


@dataclass(frozen=True)
class _Part:
    """Images that go to one worker."""

    sample: Samples
    number: int
    before: int  # images that came before
    again: Tensor  # (N,) whether each came before
    content: str  # which images they are, with what labels


@dataclass
class _Read:
    """The test images in parts, and what is known of all of them."""

    run: Pass
    loader: Loader
    flags: dict[str, Flag]
    known: set[bytes]
    seen: int = 0

    def __iter__(self) -> Iterator[_Part]:
        number = 0
        for sample in samples(self.loader):
            if self.seen == 0:
                self._look(sample)
            prints = digests(sample.x)
            again = repeated(prints, self.known)
            for part in cut(sample, shard_size()):
                here = slice(part.first, part.first + len(part.x))
                content = content_of(prints[here], part.label)
                yield _Part(part, number, self.seen + part.first, again[here], content)
                number += 1
            self.seen += sample.x.shape[0]

    def _look(self, sample: Samples) -> None:
        require_same_images(sample.x, f"batch {sample.index}")
        model = self.run.model
        self.flags.update({flag.code: flag for flag in model_flags(model, model.place(sample.x[:16]))})
        self.run.same = "non-deterministic-model" not in self.flags


def gather(
    run: Pass,
    rows: Mapping[str, Perturber],
    loader: Loader,
    controls: Collection[str],
    progress: Progress | None,
    steps: Steps,
) -> Gathered:
    """Measure every row and control on the images of ``loader``; what ``steps`` knows is taken from there.

    Raises:
        DataError: No image is eligible.
    """
    flags, known, pieces = dict[str, Flag](), set[bytes](), dict[int, Piece]()
    total, previous = count_of(loader), None
    read = _Read(run, loader, flags, known)
    with run.model.frozen():
        for parts in rounds(read):
            finished = _known(steps, parts)
            if finished is not None:
                previous = next((each.last for each in reversed(finished) if each.last is not None), previous)
                pieces |= {each.number: each for each in finished if leads()}
                continue
            mine = parts[team().rank] if team().rank < len(parts) else None
            piece, kept = jointly(partial(_look, run, mine))
            lasts = gathered({team().rank: None if piece is None else piece.last})
            earlier = [previous, *lasts[: team().rank]]
            before = next((last for last in reversed(earlier) if last is not None), None)
            previous = next((last for last in reversed([previous, *lasts]) if last is not None), None)
            if piece is not None:
                pieces[piece.number] = piece
            jointly(partial(_measure, run, piece, kept, rows, controls, before))
            if steps.keeps:
                _keep(steps, parts, gathered({} if piece is None else {piece.number: piece}))
            if progress is not None:
                progress(parts[-1].sample.index + 1, total)
    return _whole(gathered(pieces), flags, read)


def _known(steps: Steps, parts: list[_Part]) -> list[Piece] | None:
    """The pieces of a round, where all of them were measured before."""
    found = [steps.done.get(f"piece {part.number}") for part in parts]
    same = [
        None if step is None or step.facts.get("content") != part.content else unpacked(part.number, step)
        for step, part in zip(found, parts, strict=True)
    ]
    known = [piece for piece in same if piece is not None]
    return known if len(known) == len(parts) else None


def _keep(steps: Steps, parts: list[_Part], measured: list[Piece]) -> None:
    for part, piece in zip(parts, measured, strict=True):
        steps.take(f"piece {part.number}", packed(piece, part.content))


def _look(run: Pass, part: _Part | None) -> tuple[Piece | None, Kept | None]:
    if part is None:
        return None, None
    piece = Piece(part.number)
    return piece, eligible(run, piece, part.sample, part.before, part.again)


def _measure(
    run: Pass,
    piece: Piece | None,
    kept: Kept | None,
    rows: Mapping[str, Perturber],
    controls: Collection[str],
    previous: Tensor | None,
) -> None:
    if piece is not None and kept is not None:
        measure_piece(run, piece, kept, rows, controls, previous)


def _whole(pieces: list[Piece], flags: dict[str, Flag], read: _Read) -> Gathered:
    """All pieces in their order as one."""
    left_out, seen = Counter[str](), read.seen
    for piece in pieces:
        left_out.update(piece.left_out)
        flags |= {code: flag for code, flag in piece.flags.items() if code not in flags}
    for code, message in LEFT_OUT.items():
        if left_out[code]:
            flags.setdefault(code, Flag(code, message.format(count=left_out[code], seen=seen)))
    classes = [piece.classes for piece in pieces if piece.classes is not None]
    if classes:
        given, predicted = torch.cat(classes, 1).numpy()
        flags.update({flag.code: flag for flag in order_flags(given, predicted)})
    kept = [piece for piece in pieces if piece.targets is not None]
    if not kept:
        raise _nothing(seen, flags)
    moved = {name for piece in pieces for name, could in piece.moved.items() if could}
    stuck = {name for piece in pieces for name in piece.moved} - moved
    columns = {
        name: {key: torch.cat([piece.columns[name][key] for piece in kept]) for key in kept[0].columns[name]}
        for name in kept[0].columns
        if name not in stuck
    }
    targets, numbers, labels = (
        torch.cat([getattr(piece, name) for piece in kept]) for name in ("targets", "numbers", "labels")
    )
    return Gathered(columns, targets, numbers, labels, flags, seen, left_out, read.known)


def _nothing(seen: int, flags: Mapping[str, Flag]) -> DataError:
    order = flags.get("labels-look-permuted")
    if order is not None:
        return DataError(f"none of the {seen} images is classified correctly. {order.message}")
    zero = " and has a map that is finite and not zero" if {ZERO, NOT_FINITE} & set(flags) else ""
    return DataError(f"none of the {seen} images is classified correctly{zero}: nothing to evaluate")
