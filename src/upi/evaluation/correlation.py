"""Cross-correlation of perturbations, with the band that unrelated patterns stay in.

Perturbations of image classifiers are smooth, and smooth unrelated patterns correlate more
than white noise does; a band from white noise alone would call chance a finding. The band
here comes from patterns with the same power spectrum and random phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from upi.core.errors import DataError
from upi.core.seeding import generator
from upi.perturbation.pattern import Perturbation

#: Pairs of surrogate patterns a band is made of, per pair of perturbations.
DRAWS = 50


def _unit(deltas: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(deltas.flatten(1), dim=1)
    return deltas / norm.clamp_min(torch.finfo(deltas.dtype).tiny)[:, None, None, None]


def cosines(deltas: Tensor) -> Tensor:
    """Normalised inner products (K, K) of patterns (K, C, H, W)."""
    flat = _unit(deltas).flatten(1)
    return flat @ flat.T


def peak_correlations(deltas: Tensor) -> Tensor:
    """Largest absolute normalised cross-correlation over all circular shifts, (K, K).

    Insensitive to where a pattern sits and to its sign, as UPI-PCA's is arbitrary.
    """
    spectra = torch.fft.fft2(_unit(deltas))
    cross = torch.einsum("achw,bchw->abhw", spectra, spectra.conj())
    peaks: Tensor = torch.fft.ifft2(cross).real.abs().amax((2, 3))
    return peaks


def random_phases(deltas: Tensor, rng: torch.Generator) -> Tensor:
    """Patterns (K, C, H, W) with the same power spectra and random phases.

    The same phases are added to all channels of a pattern, which keeps the relation between
    channels (Prichard and Theiler 1994).
    """
    count, _, height, width = deltas.shape
    noise = torch.randn(count, 1, height, width, generator=rng, dtype=deltas.dtype)
    turns = torch.fft.fft2(noise)
    turns = turns / turns.abs().clamp_min(torch.finfo(deltas.dtype).tiny)
    turned: Tensor = torch.fft.ifft2(torch.fft.fft2(deltas) * turns).real
    return turned


@dataclass(frozen=True)
class Correlation:
    """Correlation of every pair of perturbations, and what chance gives.

    ``band`` holds, for each pair, the 95 % quantile of the absolute cosine of patterns with
    their power spectra and random phases; ``peak_band`` likewise for the peak over shifts.
    """

    names: tuple[str, ...]
    cosine: Tensor  # (K, K)
    peak: Tensor  # (K, K)
    band: Tensor  # (K, K)
    peak_band: Tensor  # (K, K)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        matrices = {key: getattr(self, key) for key in ("cosine", "peak", "band", "peak_band")}
        plain = {key: [[round(v, 4) for v in row] for row in m.tolist()] for key, m in matrices.items()}
        return {"names": list(self.names), **plain}


def correlate(perturbations: Mapping[str, Perturbation], *, draws: int = DRAWS, seed: int = 0) -> Correlation:
    """Correlate perturbations of one shape with each other.

    Args:
        perturbations: By name, at least one.
        draws: Surrogates of each pattern for the band.
        seed: Fixes the surrogates.

    Raises:
        DataError: The shapes differ.
    """
    shapes = {name: tuple(p.delta.shape) for name, p in perturbations.items()}
    if len(set(shapes.values())) != 1:
        raise DataError(f"perturbations of one shape are needed to correlate them, got {shapes}")
    deltas = torch.stack([p.delta.double() for p in perturbations.values()])
    surrogates = [random_phases(deltas, generator(seed, "phases", draw)) for draw in range(draws)]
    band = torch.stack([cosines(s).abs() for s in surrogates]).quantile(0.95, dim=0)
    peak_band = torch.stack([peak_correlations(s) for s in surrogates]).quantile(0.95, dim=0)
    return Correlation(tuple(perturbations), cosines(deltas), peak_correlations(deltas), band, peak_band)
