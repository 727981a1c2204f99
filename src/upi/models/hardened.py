"""Hardened forms of networks that ``upi train`` did not make: weights, and how to open what they belong to.

The file holds a state dict and the words that opened the network it came from. That network is opened again
and filled, so hardened networks from code or a hub need the code or the hub's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from upi.core.errors import ArtifactError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical
from upi.data.preprocess import Preprocess
from upi.models.harden import with_softplus
from upi.models.registry import SOURCES, ModelSource, Request, source_of
from upi.models.weights import fill, inner
from upi.network.classifier import Classifier

FORMAT = "upi-hardened"
FILE = "hardened.safetensors"
#: Words of a request that say which network it is.
WORDS = ("spec", "mean", "std", "output")


@dataclass(frozen=True)
class Hardened:
    """A hardened network.

    Attributes:
        net: What ``about`` is of.
        request: How the network that it came from was opened.
        about: What a report says; ``softplus`` is there where activations were replaced.
    """

    net: nn.Module
    request: Request
    about: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write weights and description as safetensors."""
        words = {word: getattr(self.request, word) for word in WORDS}
        if Path(self.request.spec).exists():
            words["spec"] = str(Path(self.request.spec).resolve())
        metadata = {
            "format": FORMAT,
            "version": "1",
            "from": json.dumps(words),
            "about": json.dumps(self.about),
        }
        weights = {key: value.contiguous() for key, value in inner(self.net).state_dict().items()}
        write_atomic(path, canonical(save(weights, metadata)))


def _description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Words that open the first network, and what a report says.

    Raises:
        ArtifactError: The file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}")
        words, about = json.loads(metadata["from"]), json.loads(metadata["about"])
        return {word: words[word] for word in WORDS}, dict(about)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not a file of a hardened network ({error})") from error


class HardenedSource(ModelSource):
    """Run folders of ``upi harden`` on networks that ``upi train`` did not make, and their files."""

    form = "a run folder of 'upi harden'"

    def _file(self, spec: str) -> Path:
        return Path(spec) / FILE if Path(spec).is_dir() else Path(spec)

    def accepts(self, spec: str) -> bool:
        file = self._file(spec)
        return file.name == FILE and file.is_file()

    def preprocess(self, spec: str) -> Preprocess | None:
        first = _description(self._file(spec))[0]["spec"]
        return source_of(first).preprocess(first)

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        path = self._file(request.spec)
        words, about = _description(path)
        source = source_of(words["spec"])
        model, _ = source.load(replace(request, **words, weights=path if source.filled else None))
        net = model.net
        if about.get("softplus") is not None:
            net = with_softplus(net, float(about["softplus"]))
        fill(net, path, words["spec"])
        return Classifier(net.eval(), **model.options()), about


SOURCES.add("hardened", "hardened by upi", order=0)(HardenedSource())
