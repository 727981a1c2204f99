"""Attention rollout, differentiable in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from upi.core.errors import ConfigError, ModelError
from upi.core.types import Network
from upi.saliency.features import Layout, listening
from upi.saliency.reduce import normalise_maps
from upi.saliency.registry import MAPS


class _Attention(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    """Keeps the attention probabilities (N, T, T) of each block, the mean over heads, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def _scaled(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Tensor:
        """The kernel's own output; its probabilities are what it makes of the unit vectors as values."""
        unit = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device)
        unit = unit.expand(*value.shape[:-2], *unit.shape)
        self._keep(F.scaled_dot_product_attention(query, key, unit, *args, **named))
        return F.scaled_dot_product_attention(query, key, value, *args, **named)

    def _keep(self, probabilities: Tensor) -> None:
        square = probabilities.ndim == 4 and probabilities.shape[-1] == probabilities.shape[-2]
        if square and probabilities.shape[-1] > 1:
            self.found.append(probabilities.mean(1))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return self._scaled(*args, **named)
        if func is F.multi_head_attention_forward:
            named |= {"need_weights": True, "average_attn_weights": False}
            out, weights = func(*args, **named)
            assert weights is not None
            self._keep(weights)
            return out, weights.mean(1)
        found = func(*args, **named)
        if func in (F.softmax, torch.softmax, Tensor.softmax):
            self._keep(found)
        return found


@MAPS.add("attention_rollout", "attention-rollout map", order=8, needs="attention")
@dataclass(frozen=True)
class AttentionRollout:
    """Attention rollout (Abnar and Zuidema 2020): how much attention reaches each patch through all blocks.

    The product over blocks of ``residual * 1 + (1 - residual) * A``, A the attention probabilities, mean
    over heads; of it the row of the class token, or the mean of all rows where there is none. It is the same
    for every class.

    Attributes:
        residual: Weight of the skip connection in each block, in [0, 1).
        normalize: ``l1``, ``l2`` or ``none``.

    Raises:
        ConfigError: ``residual`` is outside its range.
        ModelError: (When called) the network has no attention between all patches of an image.
    """

    residual: float = 0.5
    normalize: str = "l1"

    def __post_init__(self) -> None:
        if not 0 <= self.residual < 1:
            raise ConfigError(f"residual must be in [0, 1), got {self.residual}")

    def __call__(self, model: Network, x: Tensor, target: Tensor) -> Tensor:
        """Maps (N, H, W) of images (N, C, H, W)."""
        net = getattr(model, "net", model)
        if not isinstance(net, nn.Module):
            raise ModelError(f"attention rollout needs a torch.nn.Module, got {type(net).__name__}")
        with listening(net, None, (x.shape[2], x.shape[3])) as heard, _Attention() as attention:
            model(x)
        tokens = [layout for _, layout in heard.found if layout.kind == "tokens"]
        blocks = [found for found in attention.found if len(found) == len(x)]
        if not tokens or not blocks or len({block.shape for block in blocks}) != 1:
            raise ModelError(
                "attention rollout needs attention between all patches of an image in every block; this "
                f"network shows {len(blocks)} such blocks and {len(tokens)} layers of tokens (windows and "
                "pooled stages have none). Take the simple gradient, or Grad-CAM"
            )
        maps = self._maps(blocks, tokens[-1], x)
        return maps if x.requires_grad and torch.is_grad_enabled() else maps.detach()

    def _maps(self, blocks: list[Tensor], layout: Layout, x: Tensor) -> Tensor:
        count = blocks[0].shape[-1]
        skip = torch.eye(count, dtype=x.dtype, device=x.device)
        rolled = skip.expand(len(x), count, count)
        for block in blocks:
            rolled = (self.residual * skip + (1 - self.residual) * block) @ rolled
        prefix = count - layout.grid[0] * layout.grid[1]
        rows = rolled[:, 0] if prefix > 0 else rolled.mean(1)
        coarse = rows[:, prefix:].reshape(len(x), 1, *layout.grid)
        fine = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return normalise_maps(fine, self.normalize)
