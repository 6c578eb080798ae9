"""Moran's I against the dense formula, on arrays with their gaps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.spatial_agreement import morans_i


def lattice(kind: str, rows: int = 9, cols: int = 11) -> np.ndarray:
    y, x = (a.ravel().astype(float) for a in np.mgrid[:rows, :cols])
    if kind == "hexagonal":
        x, y = x + 0.5 * (y % 2), y * np.sqrt(3) / 2
    return 100.0 * np.column_stack([y, x])


def by_the_formula(values: np.ndarray, centers: np.ndarray, reach: float) -> np.ndarray:
    """Neighbours are all within `reach`; rows of the weights sum to 1."""
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    weights = ((distance > 0) & (distance < reach)).astype(float)
    degree = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, degree, out=np.zeros_like(weights), where=degree > 0)
    z = values - values.mean(axis=0)
    return len(z) / weights.sum() * np.einsum("ig,ij,jg->g", z, weights, z) / (z**2).sum(axis=0)


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_equals_the_dense_formula_on_an_array_with_gaps(kind):
    rng = np.random.default_rng(0)
    centers = lattice(kind)
    centers = centers[rng.permutation(len(centers))[:80]]
    values = np.sin(centers[:, :1] / 200 + np.arange(5)) + rng.normal(0, 0.5, (80, 5))
    wanted = by_the_formula(values, centers, reach=125.0)
    np.testing.assert_allclose(morans_i(values, centers, kind), wanted, atol=1e-5)


def test_nearest_neighbours_where_there_is_no_array():
    rng = np.random.default_rng(1)
    centers = rng.uniform(0, 1000, (60, 2))
    values = np.column_stack([centers[:, 0], rng.normal(size=60)])
    smooth, noise = morans_i(values, centers)
    assert smooth > 0.6
    assert abs(noise) < 0.25


def test_constant_genes_and_too_few_spots_have_none():
    centers = lattice("square", 4, 4)
    values = np.column_stack([np.ones(16), np.arange(16.0), np.r_[np.nan, np.arange(15.0)]])
    result = morans_i(values, centers, "square")
    assert np.isnan(result[[0, 2]]).all()
    assert result[1] > 0.5
    assert np.isnan(morans_i(values[:, :1], centers, "square")).all()
    assert np.isnan(morans_i(values[:5], centers[:5], "square")).all()


COUNT_THREADS = """
import numpy as np, torch
from napari_cpnn.evaluation.spatial_agreement import morans_i
torch.set_num_threads(1)
places = np.stack(np.mgrid[:6, :6], axis=-1).reshape(-1, 2) * 100.0
morans_i(np.random.default_rng(0).normal(size=(36, 3)), places, "square")
print(torch.get_num_threads())
"""


def test_the_number_of_threads_is_what_it_was():
    """numba takes all processors when it is first used; a model that is trained afterwards would have other bits."""
    command = [sys.executable, "-W", "ignore", "-c", COUNT_THREADS]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1"]


def test_without_squidpy_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "squidpy", None)
    with pytest.raises(TrainingError, match=r"pip install 'napari-cpnn\[squidpy\]'"):
        morans_i(np.random.default_rng(0).normal(size=(16, 2)), lattice("square", 4, 4), "square")
