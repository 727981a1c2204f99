"""A vision transformer for small images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upi.data.shape import Shape
from upi.models.nets.layers import Normalise, conv_norm

#: Width of the tokens at multiplier 1 (ViT-Tiny of Touvron et al. 2021), heads of 32, depth.
WIDTH, HEAD, DEPTH = 192, 32, 6


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.mix(x).view(n, tokens, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        out: Tensor = self.out(seen)
        return out


class Encoder(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        out: Tensor = x + self.think(x)
        return out


class ViT(nn.Module):
    """Vision transformer over 7x7 or 8x8 tokens with a convolutional stem.

    The stem (Xiao et al. 2021) halves the image until at most 8 pixels are left; without it a
    transformer learns little from tens of thousands of images.
    """

    def __init__(self, shape: Shape, width: float = 1.0) -> None:
        super().__init__()
        tokens = max(HEAD, round(WIDTH * width / HEAD) * HEAD)
        halvings = max(1, math.ceil(math.log2(shape.size / 8)))
        stem: list[nn.Module] = [Normalise()]
        channels, side = shape.channels, shape.size
        for left in reversed(range(halvings)):
            outside = max(8, tokens >> left)
            stem += [*conv_norm(channels, outside, stride=2), nn.ReLU()]
            channels, side = outside, -(-side // 2)
        self.stem = nn.Sequential(*stem, nn.Conv2d(channels, tokens, 1), nn.Flatten(2))
        self.place = nn.Parameter(0.02 * torch.randn(1, side * side, tokens))
        self.blocks = nn.Sequential(*[Encoder(tokens) for _ in range(DEPTH)], nn.LayerNorm(tokens))
        self.head = nn.Linear(tokens, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).transpose(1, 2) + self.place
        out: Tensor = self.head(self.blocks(x).mean(1))
        return out
