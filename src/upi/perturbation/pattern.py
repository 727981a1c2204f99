"""``Perturbation``: one fixed pattern, the ball it lives in, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import DataError
from upi.data.images import check_images
from upi.perturbation import hub
from upi.perturbation.ball import Ball
from upi.perturbation.file import check_delta, dumped, load_delta, save_delta


def in_box(x: Tensor) -> Tensor:
    """Clip images to [0, 1]: every perturbation is used through this."""
    return x.clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A universal perturbation.

    Calling it on images (N, C, H, W) in [0, 1] returns clip(x + delta) in [0, 1].

    Attributes:
        delta: (C, H, W) float32, in units of [0, 1] images.
        ball: The norm and radius it obeys.
        provenance: How it was made, as plain JSON values: method, map, dissimilarity,
            seed, model fingerprint, versions, and the solver's evidence (history,
            spectrum).

    Raises:
        ArtifactError: ``delta`` is not a finite float32 (C, H, W) tensor inside ``ball``.
    """

    delta: Tensor
    ball: Ball
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_delta(self.delta, self.ball, where="perturbation")
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __call__(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """clip(x + delta) for images (N, C, H, W); classes are ignored.

        Raises:
            DataError: ``x`` is not a batch of images in [0, 1] of the right shape.
        """
        check_images(x)
        if x.shape[1:] != self.delta.shape:
            raise DataError(
                f"this perturbation is for images of shape {tuple(self.delta.shape)}, "
                f"got {tuple(x.shape[1:])}"
            )
        return in_box(x + self.delta.to(x))

    def scaled(self, eps: float | str) -> Perturbation:
        """The same pattern at another radius: delta scaled by the ratio of the radii."""
        ball = Ball(self.ball.norm, eps)
        delta = ball.project((self.delta * (ball.eps / self.ball.eps))[None])[0]
        return Perturbation(delta, ball, {**self.provenance, "scaled_from_eps": self.ball.eps})

    def noting(self, **facts: Any) -> Perturbation:
        """The same pattern with more provenance (plain JSON values)."""
        return Perturbation(self.delta, self.ball, {**self.provenance, **facts})

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with versioned metadata, whole or not at all.

        Raises:
            RunFolderError: The file cannot be written.
        """
        return save_delta(path, self.delta, self.ball, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Perturbation:
        """Read a file written by ``save``; a pickle is never unpickled.

        Raises:
            ArtifactError: The file is damaged, foreign, or outside its own ball.
        """
        return cls(*load_delta(path))

    def push_to_hub(
        self, repo_id: str, *, name: str = hub.FILE, private: bool = False, token: str | None = None
    ) -> str:
        """Put the pattern and a card into a repository of the Hugging Face hub.

        Args:
            repo_id: ``user/name``; made where there is none.
            name: Of the file there.
            private: Of a repository that is made.
            token: Of the hub; by default the one that is logged in.

        Returns:
            Where the commit can be seen.

        Raises:
            ConfigError: There is no huggingface_hub, no such name, or no token.
            ArtifactError: The hub cannot be reached, or refuses.
        """
        keys = ("method", "saliency", "dissimilarity", "preset", "seed", "model")
        facts = {"norm": self.ball.norm, "radius": self.ball.eps, "shape": tuple(self.delta.shape)}
        card = hub.card_of(repo_id, {**facts, **{key: self.provenance.get(key) for key in keys}})
        files: dict[str, bytes | Path] = {
            name: dumped(self.delta, self.ball, self.provenance),
            hub.CARD: card.encode(),
        }
        return hub.push_files(files, repo_id, message=f"Add {name}", private=private, token=token)

    @classmethod
    def from_hub(
        cls, repo_id: str, *, name: str = hub.FILE, revision: str | None = None, token: str | None = None
    ) -> Perturbation:
        """Read a file that ``push_to_hub`` or an audit has put into a repository of the Hugging Face hub.

        Args:
            repo_id: ``user/name``.
            name: Of the file there.
            revision: Branch, tag or commit.
            token: Of the hub, for private repositories.

        Raises:
            ConfigError: There is no huggingface_hub.
            ArtifactError: It cannot be had, is damaged, foreign, or outside its own ball.
        """
        return cls.load(hub.fetch_file(repo_id, name, revision=revision, token=token))


def as_perturbation(delta: Tensor, ball: Ball, provenance: Mapping[str, Any]) -> Perturbation:
    """Wrap an attack's (1, C, H, W) result: float32 on the CPU, projected after rounding."""
    single = ball.project(delta.detach().to("cpu", torch.float32))[0]
    return Perturbation(single.contiguous(), ball, provenance)
