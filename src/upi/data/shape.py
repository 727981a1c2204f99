"""What a network must know of the images that it is built for."""

from __future__ import annotations

from dataclasses import dataclass

from upi.core.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """Images (channels, height, width) and the number of classes.

    Attributes:
        channels: Of an image.
        size: Height in pixels, and width where ``columns`` is None.
        classes: Outputs.
        columns: Width in pixels where it is another than the height.
    """

    channels: int
    size: int
    classes: int
    columns: int | None = None

    def square(self) -> Shape:
        """Itself, for networks that take square images.

        Raises:
            ConfigError: The images are not square.
        """
        if self.columns is not None:
            raise ConfigError(
                f"this network takes square images, got {self.size} x {self.columns}; give them one size"
            )
        return self
