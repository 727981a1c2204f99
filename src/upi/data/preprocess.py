"""How pictures of all sizes become the images that a network was made for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from upi.core.errors import ConfigError

#: Names of interpolations, as Pillow, torchvision and timm call them.
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
#: Leave images as they are.
NATIVE = "native"


@dataclass(frozen=True)
class Preprocess:
    """Resize, then cut out the centre. Values stay in [0, 1]; normalisation belongs to the network.

    Attributes:
        height, width: Of the images that come out, in pixels.
        resize: The short side is brought to this many pixels (the long one in proportion), or the whole
            picture to (height, width) where these are two; None leaves it as it is.
        interpolation: One of ``INTERPOLATIONS``.
        channels: 3 for colour, 1 for grey; None as most of the pictures are.

    Raises:
        ConfigError: The size is not positive, larger than what is resized to, or the interpolation unknown.
    """

    height: int
    width: int
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bicubic"
    channels: int | None = None

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ConfigError(f"images need at least one pixel, got {self.height} x {self.width}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ConfigError(f"unknown interpolation {self.interpolation!r}; known: {known}")
        if isinstance(self.resize, int) and self.resize < 1:
            raise ConfigError(f"the short side must be at least 1 pixel, got {self.resize}")

    @classmethod
    def imagenet(cls, size: int) -> Preprocess:
        """ImageNet's usual evaluation: the centre seven eighths of the short side, bicubic."""
        return cls(size, size, int(size / 0.875), channels=3)

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """``224`` as ``imagenet``; ``224x320`` resizes the whole picture to that height and width.

        Raises:
            ConfigError: It is neither.
        """
        parts = text.lower().split("x")
        if not 1 <= len(parts) <= 2 or not all(part.strip().isdecimal() for part in parts):
            raise ConfigError(f"a size is one number of pixels or HEIGHTxWIDTH, got {text!r}")
        sides = [int(part) for part in parts]
        if len(sides) == 1:
            return cls.imagenet(sides[0])
        return cls(sides[0], sides[1], (sides[0], sides[1]))

    @classmethod
    def asked(cls, size: str | None, expected: Preprocess | None, *, varied: bool) -> Preprocess | None:
        """How images are prepared; None leaves them as they are.

        Args:
            size: What the user asked for: as ``parse``, ``NATIVE``, or None.
            expected: What the network's configuration says.
            varied: The images are pictures of all sizes, which take the network's size by default.

        Raises:
            ConfigError: ``size`` is none of these.
        """
        if size is None:
            return expected if varied else None
        if size == NATIVE:
            return None
        form = cls.parse(size)
        channels = expected.channels if form.channels is None and expected is not None else form.channels
        return replace(form, channels=channels)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size is resized to, before the cut."""
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        short = min(height, width)
        return tuple(  # type: ignore[return-value]
            self.resize if side == short else int(self.resize * side / short) for side in (height, width)
        )
