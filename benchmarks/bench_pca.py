"""UPI-PCA: rows and solver apart, and the solvers beside what SciPy, NumPy and scikit-learn offer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

import upi
from benchmarks.common import BETA, Scale, images, network, peak, timed
from upi.attacks.support.objective import MapChange
from upi.attacks.support.rows import ExplainedImages, GradientRows, RowPlan
from upi.linalg import EigenResult, gram, power, sketch
from upi.linalg.operator import MatrixRows

#: Networks whose rows are drawn: images, draws of Z per image.
JOBS = {"small-cnn, 28 x 28": ("small-cnn", 1, 28, 750, 8), "vgg16 x0.25, 32 x 32": ("vgg16", 3, 32, 500, 8)}


class Counted:
    """A loader that counts the images it hands out."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches, self.images = batches, 0

    def __iter__(self) -> Any:
        for batch in self.batches:
            self.images += len(batch)
            yield batch


@pytest.mark.parametrize("solver", ["gram", "sketch"])
@pytest.mark.parametrize("job", JOBS)
def test_rows_and_solver(benchmark: BenchmarkFixture, job: str, solver: str, scale: Scale) -> None:
    arch, channels, size, count, draws = JOBS[job]
    count, draws = scale(count, 8), scale(draws, 2)
    model = upi.Classifier(network(arch, 0.25 if arch == "vgg16" else 1.0, size, channels))
    objective = MapChange(upi.saliency.Gradient(), upi.dissimilarity.relative_l2)
    loader = Counted(list(torch.split(images(count, size, channels=channels), 50)))
    plan = RowPlan(0.02, draws, 0)
    spent = {"rows": 0.0}

    class Clocked(GradientRows):
        def blocks(self) -> Any:
            found = super().blocks()
            while True:
                start = time.perf_counter()
                block = next(found, None)
                spent["rows"] += time.perf_counter() - start
                if block is None:
                    return
                yield block

    def run() -> EigenResult:
        spent["rows"], loader.images = 0.0, 0
        with model.frozen():
            explained = ExplainedImages(model.surrogate(BETA), objective, loader)
            rows = Clocked(explained, rows="gradient", plan=plan)
            loader.images = 0
            found = gram(rows, components=5) if solver == "gram" else sketch(rows, components=5)
        spent["whole"] = time.perf_counter()
        return found

    start = time.perf_counter()
    run()
    whole = spent["whole"] - start
    facts: dict[str, Any] = {"table": "pca job", "job": job, "solver": solver, "rows": count * draws}
    facts |= {"passes": loader.images / count, "solver share": 1 - spent["rows"] / whole}
    timed(benchmark, run, rounds=1, warm=False, **facts)


def planted(rows: int, dim: int, ratio: float) -> tuple[Tensor, Tensor]:
    """A matrix with singular values 1, ratio, ratio ** 1.3, ... and its top right vector."""
    rng = torch.Generator().manual_seed(0)
    rank = min(rows, dim, 200)
    left, _ = torch.linalg.qr(torch.randn(rows, rank, generator=rng, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(dim, rank, generator=rng, dtype=torch.float64))
    values = torch.cat([torch.ones(1), ratio * torch.arange(1, rank).double() ** -0.5])
    return ((left * values) @ right.T).float(), right[:, 0]


def _numpy(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)[2][0]
    return found


def _scipy(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = svds(matrix.astype(np.float64), k=1, random_state=0)[2][0]
    return found


def _sklearn(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = randomized_svd(matrix, n_components=1, random_state=0)[2][0]
    return found


def _power_to(accuracy: float, matrix: Tensor, truth: Tensor, most: int) -> tuple[Tensor, int]:
    """The power method with updates doubled until its vector is accurate: (vector, updates)."""
    steps = 16
    while True:
        vector = power(MatrixRows(matrix, batch_size=32), steps=steps).vectors[0]
        if abs(float(vector @ truth)) >= accuracy or steps >= most:
            return vector, steps
        steps *= 2


SOLVERS: dict[str, Callable[[Tensor], Any]] = {
    "gram": lambda matrix: gram(MatrixRows(matrix)).vectors[0],
    "sketch": lambda matrix: sketch(MatrixRows(matrix)).vectors[0],
    "NumPy, full SVD": lambda matrix: _numpy(matrix.numpy()),
    "SciPy, svds": lambda matrix: _scipy(matrix.numpy()),
    "scikit-learn, randomised SVD": lambda matrix: _sklearn(matrix.numpy()),
}


@pytest.mark.parametrize("ratio", [0.5, 0.85, 0.96])
@pytest.mark.parametrize("solver", [*SOLVERS, "power"])
def test_solvers(benchmark: BenchmarkFixture, solver: str, ratio: float, scale: Scale) -> None:
    """Time to the first vector of a stored 2,000 x 3,072 matrix, and how close it is."""
    matrix, truth = planted(scale(2000, 40), scale(3072, 30), ratio)
    facts: dict[str, Any] = {"table": "solvers", "solver": solver, "ratio": ratio}
    if solver == "power":
        _, steps = _power_to(0.995, matrix, truth, scale(4096, 32))
        facts["updates"] = steps

        def run() -> Any:
            return power(MatrixRows(matrix, batch_size=32), steps=steps).vectors[0]
    else:

        def run() -> Any:
            return SOLVERS[solver](matrix)

    vector = torch.as_tensor(timed(benchmark, run, rounds=1, warm=False, **facts))
    benchmark.extra_info["cosine"] = abs(float(vector.double() @ truth))
    benchmark.extra_info["peak"] = peak(run)
    if solver == "sketch":
        benchmark.extra_info["certificate"] = sketch(MatrixRows(matrix)).cosine_bound
