"""Who is next to whom: against a count of all pairs, the expected number in closed form, and squidpy."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from napari_cpnn.cells import neighbours_of
from napari_cpnn.errors import CellMapError

NAMES = ("a", "b", "c")


def scattered(n: int = 400, seed: int = 0):
    """Type a in one half, b in the other, c everywhere, and some without type."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 300, (n, 2))
    codes = np.where(rng.random(n) < 0.3, 2, (centers[:, 0] > 150).astype(int))
    codes[rng.random(n) < 0.1] = -1
    return centers, codes


def counted_by_hand(centers, codes, within):
    counts = np.zeros((3, 3), int)
    for i in range(len(centers)):
        for j in range(len(centers)):
            near = np.hypot(*(centers[i] - centers[j])) <= within
            if i != j and near and codes[i] >= 0 and codes[j] >= 0:
                counts[codes[i], codes[j]] += 1
    return counts


def test_counts_are_those_of_all_pairs():
    centers, codes = scattered()
    found = neighbours_of(centers, codes, NAMES, 30.0, permutations=20)
    np.testing.assert_array_equal(found.observed, counted_by_hand(centers, codes, 30.0))
    assert found.n_cells.tolist() == [int((codes == k).sum()) for k in range(3)]
    np.testing.assert_allclose(found.per_cell, found.observed / found.n_cells[:, None])


def test_the_expected_number_is_that_of_random_labels():
    centers, codes = scattered()
    found = neighbours_of(centers, codes, NAMES, permutations=400)
    n, n_pairs = found.n_cells.astype(float), found.observed.sum()
    total = n.sum()
    exact = n_pairs * (np.outer(n, n) - np.diag(n)) / (total * (total - 1))
    np.testing.assert_allclose(found.expected, exact, atol=5 * found.sd.max() / np.sqrt(400))
    # a and b keep to their halves, c is everywhere
    assert found.z[0, 0] > 5
    assert found.z[1, 1] > 5
    assert found.z[0, 1] < -5
    assert abs(found.z[2, 2]) < 4
    assert found.p[0, 1] == pytest.approx(2 / 401)
    assert found.ratio[0, 0] > 1 > found.ratio[0, 1]


def test_random_labels_are_not_enriched():
    rng = np.random.default_rng(3)
    centers = rng.uniform(0, 300, (500, 2))
    p = [neighbours_of(centers, rng.integers(0, 3, 500), NAMES, permutations=60, seed=s).p for s in range(12)]
    assert np.mean(np.array(p) < 0.1) < 0.25
    assert np.mean(np.array(p) > 0.5) > 0.25


def test_z_is_that_of_squidpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        squidpy = pytest.importorskip("squidpy")
        from anndata import AnnData

        centers, codes = scattered()
        centers, codes = centers[codes >= 0], codes[codes >= 0]
        obs = pd.DataFrame({"type": pd.Categorical.from_codes(codes, NAMES)}, index=list(map(str, range(len(codes)))))
        table = AnnData(np.zeros((len(codes), 1)), obs=obs, obsm={"spatial": centers})
        squidpy.gr.spatial_neighbors(table, coord_type="generic", radius=30.0)
        squidpy.gr.nhood_enrichment(table, "type", n_perms=300, show_progress_bar=False, seed=0)
    theirs = table.uns["type_nhood_enrichment"]
    found = neighbours_of(centers, codes, NAMES, 30.0, permutations=300)
    np.testing.assert_array_equal(found.observed, theirs["count"])
    np.testing.assert_allclose(found.z, theirs["zscore"], rtol=0.25, atol=0.6)


def test_table_of_pairs():
    table = neighbours_of([[0, 0], [0, 10], [0, 100], [0, 110]], [0, 0, 1, 1], NAMES[:2]).to_frame()
    assert table[["type", "neighbour"]].to_numpy().tolist() == [["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"]]
    assert table["observed"].tolist() == [2, 0, 0, 2]


def test_what_has_no_neighbours():
    with pytest.raises(CellMapError, match="No two cells lie within 5 um"):
        neighbours_of([[0, 0], [0, 10]], [0, 1], NAMES, 5.0)
    with pytest.raises(CellMapError, match="at least two cells"):
        neighbours_of([[0, 0], [0, 10]], [0, -1], NAMES)
    with pytest.raises(CellMapError, match="a distance above 0"):
        neighbours_of([[0, 0], [0, 10]], [0, 0], NAMES, 0)


def test_a_count_can_be_stopped():
    def stop(_text: str, _done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        neighbours_of([[0, 0], [0, 10]], [0, 0], NAMES, progress=stop)
