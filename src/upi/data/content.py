"""Images by their content: which have been seen before, and which a perturbation was fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from upi.core.types import Loader
from upi.data.images import samples

#: Images of a fit that are looked at, and how many of their digests are kept: the smallest, so that any
#: image of the fit whose digest is small enough is among them (Broder 1997).
LOOKED_AT, KEPT = 2000, 256


def digests(x: Tensor) -> list[bytes]:
    """BLAKE2b of each image's pixels in float32, whatever they were stored in: 16 bytes each."""
    flat = x.detach().cpu().float().contiguous().flatten(1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]


def sketch(loader: Loader) -> dict[str, Any]:
    """What is remembered of the images of a fit: how many different ones were looked at, some digests."""
    found: set[bytes] = set()
    looked = 0
    for sample in samples(loader):
        found.update(digests(sample.x))
        looked += len(sample.x)
        if looked >= LOOKED_AT:
            break
    return {"images": len(found), "digests": [digest.hex() for digest in islice(sorted(found), KEPT)]}


def shared(found: Collection[bytes], kept: Mapping[str, Any]) -> float:
    """Estimated share of different images that were among those of a fit; 0 where none is known.

    Args:
        found: Digests of the images.
        kept: What ``sketch`` gave.
    """
    known = {bytes.fromhex(text) for text in kept.get("digests", ())}
    if not known or not found:
        return 0.0
    whole = len(known) >= int(kept.get("images", 0))
    comparable = found if whole else [digest for digest in found if digest <= max(known)]
    return sum(digest in known for digest in comparable) / max(1, len(comparable))


def repeated(found: Iterable[bytes], before: set[bytes]) -> Tensor:
    """(N,) whether each image came before; ``before`` is extended."""
    flags = []
    for digest in found:
        flags.append(digest in before)
        before.add(digest)
    return torch.tensor(flags, dtype=torch.bool)
