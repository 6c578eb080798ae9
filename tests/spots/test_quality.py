"""Measured expression."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.errors import GenesError, SpotsError
from napari_cpnn.spots import MeasuredGenes, expression
from napari_cpnn.spots.quality import summarise_genes

COUNTS = np.array([[1, 3, 0], [0, 0, 0], [10, 0, 30]], dtype=np.int32)


def spots() -> AnnData:
    return AnnData(
        X=sp.csr_matrix(COUNTS.astype(np.float32)),
        var=pd.DataFrame(index=["A", "B", "C"]),
        obs=pd.DataFrame(index=["s", "t", "u"]),
        layers={"counts": sp.csr_matrix(COUNTS)},
    )


def test_log1p_of_counts_per_ten_thousand() -> None:
    values = expression(spots())
    assert values.dtype == np.float32
    expected = np.log([[2501, 7501, 1], [1, 1, 1], [2501, 1, 7501]])
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_total_is_over_all_genes_whichever_are_asked_for() -> None:
    np.testing.assert_array_equal(expression(spots(), ["C", "A"]), expression(spots())[:, [2, 0]])


def test_a_dense_layer_is_as_good() -> None:
    dense = spots()
    dense.layers["counts"] = COUNTS
    np.testing.assert_array_equal(expression(dense), expression(spots()))


def test_sentences() -> None:
    with pytest.raises(GenesError, match="The table of spots does not have X"):
        expression(spots(), ["A", "X"])
    bare = spots()
    del bare.layers["counts"]
    with pytest.raises(SpotsError, match="no raw counts in layers"):
        expression(bare)


@pytest.mark.parametrize("rows", [None, np.array([0, 4, 5, 29])])
def test_gene_by_gene_has_the_same_bits_as_the_table_at_once(rows) -> None:
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.8, (30, 7))
    dense[4] = 0
    counts = sp.csr_matrix(dense)
    counts.data[:3] = 0  # stored zeros are no counts
    counts.indices[: counts.indptr[1]] = counts.indices[: counts.indptr[1]][::-1].copy()  # unsorted
    spots = AnnData(counts, var=pd.DataFrame(index=list("ABCDEFG")), layers={"counts": counts})
    genes, dense = MeasuredGenes(spots, rows), counts.toarray()
    for gene in spots.var_names:
        expected = expression(spots, [gene])[:, 0]
        np.testing.assert_array_equal(genes.of(gene), expected if rows is None else expected[rows])
        assert genes.share_with(gene) == np.mean(dense[:, spots.var_names.get_loc(gene)] > 0)
    np.testing.assert_array_equal(genes.totals, dense.sum(axis=1))
    np.testing.assert_array_equal(genes.n_genes, (dense > 0).sum(axis=1))
    with pytest.raises(GenesError, match="H"):
        genes.of("H")


def test_genes_are_summarised_over_the_spots_that_have_counts() -> None:
    counts = np.random.default_rng(0).poisson(0.8, (30, 7))
    counts[4] = 0
    spots = AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=list("ABCDEFG")))
    spots.layers["counts"] = spots.X
    table = summarise_genes(spots)
    kept = np.delete(np.arange(30), 4)
    np.testing.assert_allclose(table["mean_expression"], expression(spots)[kept].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["detected"], (counts[kept] > 0).mean(axis=0))
    assert list(table.index) == list("ABCDEFG")
