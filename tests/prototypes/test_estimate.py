"""Profiles from single cells by both methods, and what is left out on the way."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from napari_cpnn.errors import CellsError, CpnnWarning, PrototypesError
from napari_cpnn.prototypes import Prototypes, estimate_prototypes, lacking_genes, read_cells
from napari_cpnn.settings import PrototypeSettings

LOOSE = PrototypeSettings(method="mean", min_genes=1, min_cells=1, min_cells_per_type=1)
NB = LOOSE.replace(method="nb", device="cpu")


def cells(n: int = 60, genes: int = 30, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    names = [f"G{i}" for i in range(genes - 1)] + ["MT-CO1"]
    counts = rng.poisson(2.0, (n, genes)).astype(np.int32)
    obs = pd.DataFrame(
        {"celltype": [f"type {'cab'[i % 3]}" for i in range(n)], "patient": [f"P{i % 2}" for i in range(n)]},
        index=[f"cell{i}" for i in range(n)],
    )
    return ad.AnnData(
        X=sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names), layers={"counts": sp.csr_matrix(counts)}
    )


def test_profiles_are_summed_counts_over_their_total() -> None:
    table = cells()
    protos = estimate_prototypes(table, batch="patient", settings=LOOSE)
    counts = pd.DataFrame(table.X.toarray(), index=table.obs["celltype"], columns=table.var_names)
    sums = counts.groupby(level=0).sum()
    expected = sums.div(sums.sum(axis=1), axis=0)
    assert protos.cell_types == ("type a", "type b", "type c")
    np.testing.assert_allclose(protos.to_frame(), expected[list(protos.genes)], rtol=1e-5)
    assert list(protos.n_cells) == [20, 20, 20]
    assert protos.provenance["batches"] == {"batch 1": 30, "batch 2": 30}
    assert protos.provenance["settings"] == LOOSE.to_dict()
    assert protos.dispersion is None


def test_order_of_cells_and_genes_does_not_matter() -> None:
    table = cells()
    rng = np.random.default_rng(1)
    shuffled = table[rng.permutation(table.n_obs), rng.permutation(table.n_vars)].copy()
    one, two = (estimate_prototypes(t, settings=LOOSE) for t in (table, shuffled))
    np.testing.assert_allclose(two.select(one.genes).profiles, one.profiles, rtol=1e-6)


def test_filters_and_what_they_left_out() -> None:
    table = cells()
    counts = table.X.toarray()
    counts[0] = 0  # without a single gene
    counts[1, :5], counts[1, 5:] = 1, 0  # five genes
    counts[2, -1] = counts[2, :-1].sum() * 2  # two thirds mitochondrial
    counts[:, 7] = 0
    counts[10:13, 7] = 4  # a gene in three cells
    table.layers["counts"] = sp.csr_matrix(counts)
    table.obs["celltype"] = table.obs["celltype"].astype("category")
    table.obs.loc[["cell3", "cell4"], "celltype"] = np.nan
    protos = estimate_prototypes(table, settings=LOOSE.replace(min_genes=6, max_mito=0.5, min_cells=4))
    assert protos.provenance["cells_left_out"] == {"no_label": 2, "few_genes": 2, "mitochondrial": 1}
    assert int(protos.n_cells.sum()) == 55
    assert set(table.var_names) - set(protos.genes) == {"G7"}
    assert "G7" in estimate_prototypes(table, settings=LOOSE.replace(min_cells=3)).genes


def test_sentences() -> None:
    with pytest.raises(CellsError, match=r"no column 'kind'; available columns: celltype, patient"):
        estimate_prototypes(cells(), "kind")
    with pytest.raises(CellsError, match="no column 'donor'"):
        estimate_prototypes(cells(), batch="donor", settings=LOOSE)
    bare = cells()
    del bare.layers["counts"]
    bare.X = None
    with pytest.raises(CellsError, match="no raw counts in layers"):
        estimate_prototypes(bare)
    with pytest.raises(PrototypesError, match="No cell is left of 60: 0 without a label, 60 with fewer than 200 genes"):
        estimate_prototypes(cells())
    with pytest.raises(PrototypesError, match=r"No gene is left: of 30 detected genes 0 are in at least 200"):
        estimate_prototypes(cells(), settings=LOOSE.replace(min_cells=200))


def test_settings_saved_before_keep_their_meaning() -> None:
    old = PrototypeSettings.from_dict({"method": "mean", "min_cells": 200, "prior_counts": 1.0})
    assert (old.method, old.least_cells(1564), old.prior_counts) == ("mean", 200, 1.0)


@pytest.mark.parametrize(("n_cells", "least"), [(1, 3), (900, 3), (1564, 5), (59_999, 199), (300_000, 200)])
def test_the_usual_number_of_cells_of_a_gene(n_cells: int, least: int) -> None:
    assert PrototypeSettings().least_cells(n_cells) == least
    assert PrototypeSettings(min_cells=40).least_cells(n_cells) == 40


def test_losing_most_genes_is_said() -> None:
    table = cells()
    counts = table.X.toarray()
    counts[2:, :16] = 0  # 16 of 30 genes are in two cells
    counts[:2, :16] = 1
    table.layers["counts"] = sp.csr_matrix(counts)
    usual = LOOSE.replace(min_cells=None)
    with pytest.warns(CpnnWarning, match=r"^Most genes .* of 30 detected genes 14 are in at least 3 of the 60 cells"):
        protos = estimate_prototypes(table, settings=usual)
    assert lacking_genes(protos.provenance).startswith("The prototypes lack most genes of their cells: of 30 detected")
    counts[2, 0] = 1
    table.layers["counts"] = sp.csr_matrix(counts)
    assert lacking_genes(estimate_prototypes(table, settings=usual).provenance) == ""
    assert lacking_genes({"notes": 3}) == lacking_genes({}) == ""


def test_thin_types_are_named() -> None:
    with pytest.warns(CpnnWarning, match=r"uncertain: type a \(20\), type b \(20\), type c \(20\)"):
        estimate_prototypes(cells(), settings=LOOSE.replace(min_cells_per_type=21))


def test_a_type_without_counts_has_no_prototype() -> None:
    table = cells()
    counts = table.X.toarray()
    rare = (table.obs["celltype"] == "type a").to_numpy()
    counts[:, 0] = rare * 5  # type a is seen in gene 0 alone, and that gene is seen in too few cells
    counts[rare, 1:] = 0
    table.layers["counts"] = sp.csr_matrix(counts)
    with pytest.warns(CpnnWarning, match=r"No prototype, since .*: type a"):
        protos = estimate_prototypes(table, settings=LOOSE.replace(min_cells=21))
    assert protos.cell_types == ("type b", "type c")


@pytest.mark.parametrize("method", ["nb", "mean"])
def test_wu2021(method: str, shared_data: Path) -> None:
    table = read_cells(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    settings = PrototypeSettings(method=method, min_cells=5, min_cells_per_type=1)
    protos = estimate_prototypes(table, "celltype_major", settings=settings)
    assert dict(zip(protos.cell_types, protos.n_cells.tolist(), strict=True))["CAFs"] == 379
    assert len(protos.genes) == 12_297  # the number that the data's README gives
    top = protos.to_frame()
    assert top["IGKC"].idxmax() == "Plasmablasts"
    assert top["COL1A1"].idxmax() == "CAFs"
    assert top["CD3E"].idxmax() == "T-cells"
    assert top["PECAM1"].idxmax() == "Endothelial"
    if method == "nb":
        fit = protos.provenance["fit"]
        assert fit["converged"]
        assert fit["mean_correlation"] > 0.96
        assert fit["variance_correlation"] > 0.99
        assert protos.dispersion is not None
    with pytest.warns(
        CpnnWarning, match=r"958 are in at least 200 of the 1,564 cells \(min_cells\); set min_cells to 5\."
    ):
        estimate_prototypes(table, "celltype_major", settings=PrototypeSettings(method=method, min_cells=200))
    usual = estimate_prototypes(table, "celltype_major", settings=PrototypeSettings(method=method))
    assert len(usual.genes) == 12_297
    assert usual.provenance["settings"]["min_cells"] == 5


def test_regression_from_cells_to_file_and_back(tmp_path: Path) -> None:
    protos = estimate_prototypes(cells(), batch="patient", settings=NB)
    np.testing.assert_allclose(protos.to_frame().sum(axis=1), 1, rtol=1e-5)
    assert (protos.profiles > 0).all()
    fit = protos.provenance["fit"]
    assert fit["converged"]
    assert fit["batch_scales"].keys() == fit["background_shares"].keys() == {"batch 1", "batch 2"}
    assert protos.provenance["counts_per_type"]["type a"] == cells().X[[1, 4, 7]].sum() + sum(
        cells().X[i].sum() for i in range(10, 60, 3)
    )
    protos.save(tmp_path / "p.h5ad")
    again = Prototypes.load(tmp_path / "p.h5ad")
    assert again.provenance == protos.provenance
    assert again.dispersion is not None
    np.testing.assert_array_equal(again.dispersion, protos.dispersion)


@pytest.mark.parametrize("settings", [LOOSE, NB])
def test_several_granularities_in_one_call(settings: PrototypeSettings) -> None:
    table = cells()
    table.obs["minor"] = [f"{t} {i // 30}" for i, t in enumerate(table.obs["celltype"])]
    both = estimate_prototypes(table, ["celltype", "minor"], "patient", settings)
    assert list(both) == ["celltype", "minor"]
    assert len(both["minor"].cell_types) == 6
    for column, protos in both.items():
        alone = estimate_prototypes(table, column, "patient", settings)
        np.testing.assert_array_equal(protos.profiles, alone.profiles)
        assert protos.provenance == alone.provenance


@pytest.mark.parametrize("where", ["layers", "X", "read_cells"])
def test_cells_on_disk_give_the_same(where: str, tmp_path: Path) -> None:
    table = cells()
    expected = estimate_prototypes(table, batch="patient", settings=NB)
    if where == "X":
        del table.layers["counts"]
    table.write_h5ad(tmp_path / "cells.h5ad")
    path = tmp_path / "cells.h5ad"
    on_disk = read_cells(path, backed=True) if where == "read_cells" else ad.read_h5ad(path, backed="r")
    protos = estimate_prototypes(on_disk, batch="patient", settings=NB)
    np.testing.assert_array_equal(protos.profiles, expected.profiles)


def test_symbols_beside_ensembl_ids_are_used_and_the_ids_kept() -> None:
    table = cells()
    symbols = list(table.var_names)
    table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
    with pytest.warns(CpnnWarning, match="mitochondrial genes are not recognised"):
        bare = estimate_prototypes(table, settings=LOOSE)
    assert bare.genes == bare.gene_ids == tuple(table.var_names)
    table.var["feature_name"] = symbols
    protos = estimate_prototypes(table, settings=LOOSE)
    assert protos.genes == tuple(symbols)
    assert protos.gene_ids == tuple(table.var_names)
    table.var = pd.DataFrame({"gene_ids": table.var_names}, index=symbols)
    assert estimate_prototypes(table, settings=LOOSE).gene_ids == protos.gene_ids


def test_bad_cells_are_said() -> None:
    twice = cells()
    twice.var_names = ["G1", "G1", *twice.var_names[2:]]
    with pytest.raises(CellsError, match=r"have 1 duplicate gene names, such as G1; call var_names_make_unique\(\)"):
        estimate_prototypes(twice, settings=LOOSE)
    logs = cells()
    logs.layers["counts"] = logs.X.astype(float).log1p()
    with pytest.raises(CellsError, match=r"does not hold raw counts \(.* log-transformed\)"):
        estimate_prototypes(logs, settings=LOOSE)
    with pytest.raises(CellsError, match="no column 'donor'"):
        estimate_prototypes(cells(), ["celltype", "donor"], settings=LOOSE)


def test_a_type_of_one_cell_is_named_and_has_a_prototype() -> None:
    table = cells()
    table.obs.loc["cell0", "celltype"] = "rare"
    with pytest.warns(CpnnWarning, match=r"uncertain: rare \(1\)"):
        protos = estimate_prototypes(table, batch="patient", settings=NB.replace(min_cells_per_type=5))
    assert protos.provenance["thin_types"] == {"rare": 1}
    assert protos.cell_types == ("rare", "type a", "type b", "type c")


def test_batches_that_cannot_be_compared_are_said() -> None:
    table = cells()
    table.obs["patient"] = [f"P{i % 3}" for i in range(table.n_obs)]  # as the types
    with pytest.warns(CpnnWarning, match=r"sets without a common cell type \(batch 1; batch 2; batch 3\)"):
        protos = estimate_prototypes(table, batch="patient", settings=NB)
    # Each batch is one type: its background is taken in proportion, so the profile is that of the type.
    np.testing.assert_allclose(protos.profiles, estimate_prototypes(table, settings=NB).profiles, rtol=0.05)


def test_a_fit_that_was_stopped_is_said() -> None:
    with pytest.warns(CpnnWarning, match=r"has not converged after 1 steps; raise max_iterations"):
        protos = estimate_prototypes(cells(), settings=NB.replace(max_iterations=1))
    assert not protos.provenance["fit"]["converged"]
