"""Cross-correlation: against its definition, and its band against unrelated patterns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from upi import Ball, Perturbation
from upi.core.errors import DataError
from upi.evaluation import correlate
from upi.evaluation.correlation import cosines, peak_correlations, random_phases


def patterns(count: int, *, seed: int, channels: int = 2, size: int = 12) -> Tensor:
    """Smooth random patterns."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed)).double()
    spectrum = torch.fft.fft2(noise)
    frequency = torch.fft.fftfreq(size).abs()
    weight = 1 / (0.05 + frequency[:, None] ** 2 + frequency[None] ** 2)
    return torch.fft.ifft2(spectrum * weight).real


def as_perturbations(deltas: Tensor) -> dict[str, Perturbation]:
    unit = deltas / deltas.flatten(1).norm(dim=1)[:, None, None, None]
    return {f"p{i}": Perturbation(0.99 * d.float(), Ball("l2", 1.0)) for i, d in enumerate(unit)}


def test_a_shifted_and_negated_pattern_is_recognised() -> None:
    first = patterns(1, seed=0)
    both = torch.cat([first, -first.roll((3, 5), (2, 3))])
    assert float(peak_correlations(both)[0, 1]) == pytest.approx(1.0)
    assert float(cosines(both)[0, 1]) < 0.9


def test_peaks_against_the_definition() -> None:
    deltas = patterns(3, seed=1)
    flat = deltas / deltas.flatten(1).norm(dim=1)[:, None, None, None]
    found = peak_correlations(deltas)
    for i in range(3):
        for j in range(3):
            values = [
                float((flat[i] * flat[j].roll((a, b), (1, 2))).sum()) for a in range(12) for b in range(12)
            ]
            assert float(found[i, j]) == pytest.approx(max(abs(v) for v in values))


def test_random_phases_keep_the_spectrum_and_the_relation_of_channels() -> None:
    deltas = patterns(2, seed=2)
    turned = random_phases(deltas, torch.Generator().manual_seed(0))
    before, after = torch.fft.fft2(deltas), torch.fft.fft2(turned)
    torch.testing.assert_close(before.abs(), after.abs())
    torch.testing.assert_close(before[:, 0] * before[:, 1].conj(), after[:, 0] * after[:, 1].conj())
    assert abs(float(cosines(torch.cat([deltas[:1], turned[:1]]))[0, 1])) < 0.9


def test_unrelated_smooth_patterns_stay_in_the_band() -> None:
    """White noise's band, 1.96 / sqrt(d) = 0.12 here, would call a quarter of them related."""
    found = correlate(as_perturbations(patterns(24, seed=3)), draws=60)
    upper = torch.triu(torch.ones(24, 24, dtype=torch.bool), 1)
    for values, band in ((found.cosine, found.band), (found.peak, found.peak_band)):
        share = float((values.abs() > band)[upper].float().mean())
        assert share < 0.12
    assert float((found.cosine.abs() > 1.96 / 288**0.5)[upper].float().mean()) > 0.15


def test_related_patterns_leave_the_band() -> None:
    first = patterns(1, seed=4)
    both = torch.cat([first, first + 0.8 * patterns(1, seed=5)])
    found = correlate(as_perturbations(both))
    assert float(found.cosine[0, 1]) > float(found.band[0, 1])
    plain = found.to_dict()
    assert plain["names"] == ["p0", "p1"]
    assert plain["cosine"][0][0] == pytest.approx(1.0)


def test_shapes_must_agree() -> None:
    items = {
        "a": Perturbation(torch.zeros(1, 4, 4), Ball("l2", 1.0)),
        "b": Perturbation(torch.zeros(1, 5, 5), Ball("l2", 1.0)),
    }
    with pytest.raises(DataError, match="one shape"):
        correlate(items)
