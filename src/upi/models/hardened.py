"""Hardened forms of networks that ``upi train`` did not make: weights, and how to open what they belong to.

The file holds a state dict and the words that opened the network it came from. That network is opened again
and filled, so hardened networks from a hub need the hub or its folder. A file never starts code: where the
network came from code, whoever opens it names that code, and the file as its weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from upi.core.errors import ArtifactError, ConfigError
from upi.core.storage import write_atomic
from upi.core.tensors import canonical
from upi.data.preprocess import Preprocess
from upi.models.no_relu import with_softplus
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
        words, about = {word: words[word] for word in WORDS}, dict(about)
        beta = about.get("softplus")
        if not (isinstance(words["spec"], str) and isinstance(about.get("arch"), str)):
            raise ArtifactError(f"{path}: does not say which network it came from")
        if not (beta is None or (isinstance(beta, (int, float)) and 0 < beta < float("inf"))):
            raise ArtifactError(f"{path}: its softplus needs a sharpness above 0, got {beta!r}")
        return words, about
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not a file of a hardened network ({error})") from error


class HardenedSource(ModelSource):
    """Run folders of ``upi harden`` on networks that ``upi train`` did not make, and their files."""

    form = "a run folder of 'upi harden'"

    def file(self, spec: str) -> Path:
        """The file that a user's word means."""
        return Path(spec) / FILE if Path(spec).is_dir() else Path(spec)

    def accepts(self, spec: str) -> bool:
        file = self.file(spec)
        return file.name == FILE and file.is_file()

    def preprocess(self, spec: str) -> Preprocess | None:
        first = _description(self.file(spec))[0]["spec"]
        return source_of(first).preprocess(first)

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        path = self.file(request.spec)
        words, about = _description(path)
        source = source_of(words["spec"])
        if source.runs_code:
            raise ConfigError(
                f"{path}: hardened from the code {words['spec']!r}, which a file may not start: name that as "
                "the model and this file as its weights",
                options=("model", "weights"),
            )
        if isinstance(source, HardenedSource):
            raise ArtifactError(f"{path}: comes from another hardened network; expected the first one")
        model, _ = source.load(replace(request, **words, weights=path if source.filled else None))
        return Classifier(opened(model.net, path, words["spec"]), **model.options()), about


def opened(net: nn.Module, path: Path, name: str) -> nn.Module:
    """A network with weights from a file, hardened ones or a plain state dict, in eval mode.

    Args:
        net: Of the architecture that ``name`` means.
        path: The file.
        name: For messages.

    Raises:
        ArtifactError: The file is damaged, or of another network.
    """
    if is_hardened(path):
        beta = _description(path)[1].get("softplus")
        net = net if beta is None else with_softplus(net, float(beta))
    fill(net, path, name)
    return net.eval()


def described(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the network of hardened weights was opened, and what a report says; empty of a plain state dict."""
    return _description(path) if is_hardened(path) else ({}, {})


def is_hardened(path: Path) -> bool:
    """Whether a file is one of these."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):
        return False


def first_words(spec: str, request: Request) -> Request:
    """How the network behind a hardened one was opened; ``request`` where ``spec`` is not hardened."""
    source = source_of(spec)
    if not isinstance(source, HardenedSource):
        return request
    return Request(**_description(source.file(spec))[0])


SOURCES.add("hardened", "hardened by upi", order=0)(HardenedSource())
