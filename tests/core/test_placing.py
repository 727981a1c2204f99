"""Constants are moved once, and never a tracer's or an inference tensor."""

from __future__ import annotations

import gc

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from upi.core import placing
from upi.core.placing import placed


def test_a_constant_is_moved_once_and_forgotten_with_it() -> None:
    gc.collect()
    before = len(placing._PLACED)
    constant, like = torch.arange(3, dtype=torch.float64), torch.zeros(2)
    assert placed(constant, constant) is constant
    with torch.inference_mode():
        found = placed(constant, like)
    assert found.dtype == torch.float32
    assert not found.is_inference()
    assert placed(constant, torch.zeros(5)) is found
    assert placed(torch.arange(3, dtype=torch.float64), like) is not found
    assert placed(constant, like.half()).dtype == torch.float16
    assert placed(constant, like.to("meta")).device.type == "meta"
    assert placed(constant, like) is found
    del constant
    gc.collect()
    assert len(placing._PLACED) == before


def test_what_a_tracer_made_is_not_kept() -> None:
    constant = torch.arange(3, dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        placed(constant, torch.zeros(2))
    assert type(placed(constant, torch.zeros(2))) is torch.Tensor
