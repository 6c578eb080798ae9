"""Spots whose genes take the names of prototypes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from napari_cpnn.counts.renaming import name_genes_as

IDS = ["ENSG00000141736", "ENSG00000075624.17", "ENSG00000198851"]


def table(names: list[str], ids: list[str] | None = None) -> ad.AnnData:
    counts = sp.csr_matrix(np.arange(6).reshape(2, 3))
    var = pd.DataFrame(index=names) if ids is None else pd.DataFrame({"gene_ids": ids}, index=names)
    obs = pd.DataFrame(index=["s0", "s1"])
    spots = ad.AnnData(counts, obs=obs, var=var, layers={"counts": counts}, uns={"spatial": {}})
    spots.obsm["spatial"] = np.ones((2, 2))
    return spots


def test_spots_named_by_ids_take_the_symbols_of_prototypes() -> None:
    spots = table(IDS)
    named = name_genes_as(spots, ["ACTB", "ERBB2"], ["ENSG00000075624", "ENSG00000141736"])
    assert list(named.var_names) == ["ERBB2", "ACTB", IDS[2]]
    assert list(spots.var_names) == IDS
    np.testing.assert_array_equal(named[:, "ACTB"].layers["counts"].toarray().ravel(), [1, 4])
    np.testing.assert_array_equal(named.obsm["spatial"], spots.obsm["spatial"])
    assert "spatial" in named.uns


def test_spots_with_symbols_and_ids_take_the_ids_of_prototypes() -> None:
    named = name_genes_as(table(["ERBB2", "ACTB", "CD3E"], IDS), ["ENSG00000198851"])
    assert list(named.var_names) == ["ERBB2", "ACTB", "ENSG00000198851"]


def test_nothing_to_do() -> None:
    spots = table(["ERBB2", "ACTB", "CD3E"], IDS)
    assert name_genes_as(spots, ["ACTB", "X"]) is spots


def test_versions_of_ids_and_upper_and_lower_case() -> None:
    ids = [f"ENSG{i:011d}" for i in range(3)]
    spots = table([f"{gene}.{i}" for i, gene in enumerate(ids)])
    assert list(name_genes_as(spots, ids).var_names) == ids
    spots.var_names = ["ERBB2", "CD3E", "X"]
    assert name_genes_as(spots, ["Erbb2", "Cd3e"]) is spots
    assert list(name_genes_as(spots, ["Erbb2", "Cd3e"], ignore_case=True).var_names) == ["Erbb2", "Cd3e", "X"]
