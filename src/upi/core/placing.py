"""Constants where tensors are: moved to their device and type once.

Guards against copies from the CPU inside a step: each one stalls a GPU, and none may be in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_PLACED = WeakTensorKeyDictionary()


def placed(constant: Tensor, like: Tensor) -> Tensor:
    """``constant.to(like)``, remembered as long as the constant lives; it must never change."""
    if constant.device == like.device and constant.dtype == like.dtype:
        return constant
    if constant not in _PLACED:
        _PLACED[constant] = {}
    copies: dict[tuple[torch.device, torch.dtype], Tensor] = _PLACED[constant]
    key = (like.device, like.dtype)
    if key not in copies:
        with torch.inference_mode(False):
            copy = constant.to(like)
        if type(copy) is not Tensor:  # one of a tracer
            return copy
        copies[key] = copy
    return copies[key]
