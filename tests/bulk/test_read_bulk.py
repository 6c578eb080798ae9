"""Bulk samples of every form come out as the same counts."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from napari_cpnn import cell_shares, filter_bulk, read_bulk, rna_content
from napari_cpnn.errors import CpnnWarning, PrototypesError, SpotsError
from napari_cpnn.settings import BulkSettings

GENES = ["ACTB", "GAPDH", "CD3E", "TP53", "MT-CO1", "RPL3", "HBB"]
SAMPLES = ["s1", "s2", "s3"]
COUNTS = np.random.default_rng(0).poisson(100, (3, 7))
IDS = [f"ENSG{i:011d}" for i in range(7)]


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(COUNTS, index=SAMPLES, columns=GENES)


def counts_of(table: ad.AnnData) -> np.ndarray:
    return table.layers["counts"].toarray()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("turned", [False, True])
def test_tables_either_way_round(frame, tmp_path, name, turned):
    path = tmp_path / name
    (frame.T if turned else frame).to_csv(path, sep="\t" if "tsv" in name else ",")
    table = read_bulk(path)
    assert table.obs_names.tolist() == SAMPLES
    assert table.var_names.tolist() == GENES
    np.testing.assert_array_equal(counts_of(table), COUNTS)


def test_star_counts_of_the_gdc(tmp_path: Path):
    for k, sample in enumerate(SAMPLES):
        lines = ["# gene-model: GENCODE v36", "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first"]
        lines += ["N_unmapped\t\t\t999\t1", "N_ambiguous\t\t\t5\t1"]
        lines += [f"{i}.7\t{g}\tprotein_coding\t{n}\t0" for i, g, n in zip(IDS, GENES, COUNTS[k], strict=True)]
        (tmp_path / f"{sample}.rna_seq.augmented_star_gene_counts.tsv").write_text("\n".join(lines) + "\n")
    table = read_bulk(tmp_path)
    assert table.obs_names.tolist() == SAMPLES
    assert table.var_names.tolist() == GENES
    assert table.var["gene_ids"].tolist() == IDS  # without version
    np.testing.assert_array_equal(counts_of(table), COUNTS)
    other = tmp_path / "s4.rna_seq.augmented_star_gene_counts.tsv"
    other.write_text("# x\ngene_id\tgene_name\tunstranded\nENSG00000000009.1\tX\t3\n")
    with pytest.raises(SpotsError, match="has other genes than"):
        read_bulk(tmp_path)


def test_reads_per_gene_of_star(tmp_path: Path):
    path = tmp_path / "s1ReadsPerGene.out.tab.gz"
    lines = ["N_unmapped\t1\t1\t1", *(f"{i}\t{n}\t0\t0" for i, n in zip(IDS, COUNTS[0], strict=True))]
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    table = read_bulk(path)
    assert table.obs_names.tolist() == ["s1"]
    assert table.var_names.tolist() == IDS
    np.testing.assert_array_equal(counts_of(table)[0], COUNTS[0])


def test_h5ad_and_genes_of_one_name_are_summed(tmp_path: Path):
    path = tmp_path / "a.h5ad"
    ad.AnnData(
        COUNTS[:, :3].astype(np.int32),
        obs=pd.DataFrame(index=SAMPLES),
        var=pd.DataFrame({"x": 0}, index=["A1", "A2", "A3"]),
    ).write_h5ad(path)
    assert counts_of(read_bulk(path)).tolist() == COUNTS[:, :3].tolist()
    frame = pd.DataFrame(COUNTS[:, :3].T, index=["ACTB", "GAPDH", "ACTB"], columns=SAMPLES)
    for name, one in (("b.csv", frame), ("c.csv", frame.T)):
        one.to_csv(tmp_path / name)
        table = read_bulk(tmp_path / name)
        assert table.var_names.tolist() == ["ACTB", "GAPDH"]
        np.testing.assert_array_equal(counts_of(table)[:, 0], COUNTS[:, 0] + COUNTS[:, 2])


def test_what_are_no_counts_is_refused_and_tpm_is_said(frame, tmp_path: Path):
    path = tmp_path / "tpm.csv"
    (frame * 1.37).T.to_csv(path)
    with pytest.raises(SpotsError, match=r"does not hold raw counts .*values='tpm'"):
        read_bulk(path)
    with pytest.warns(CpnnWarning, match="rounded to counts of a million"):
        table = read_bulk(path, values="tpm")
    np.testing.assert_allclose(counts_of(table).sum(axis=1), 1e6, atol=4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x,a,b\np,1,2\nq,3,4\n", "cannot be told whether"),
        ("x,s1,s2\nACTB,1,2\nGAPDH,-3,4\n", "does not hold raw counts"),
        ("x,s1,s2\nACTB,1,two\nGAPDH,3,4\n", "must be numbers"),
    ],
)
def test_bad_tables_are_refused_in_a_sentence(tmp_path: Path, content, words):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(SpotsError, match=words):
        read_bulk(path)
    with pytest.raises(SpotsError, match="There is no"):
        read_bulk(tmp_path / "missing.csv")


def test_two_samples_of_one_name_are_refused(tmp_path: Path):
    path = tmp_path / "twice.csv"
    pd.DataFrame(COUNTS, index=["a", "a", "b"], columns=GENES).to_csv(path)
    with pytest.raises(SpotsError, match="two samples of the name a"):
        read_bulk(path)


def test_filters_are_those_of_the_paper(frame, tmp_path: Path):
    frame.loc["s2", "MT-CO1"] = 100_000
    frame["TP53"] = [5, 0, 0]
    frame.to_csv(tmp_path / "a.csv")
    kept = filter_bulk(read_bulk(tmp_path / "a.csv"), BulkSettings(min_genes=2, min_samples=2))
    assert kept.obs_names.tolist() == ["s1", "s3"]
    assert kept.var_names.tolist() == ["ACTB", "GAPDH", "CD3E"]
    assert kept.uns["left_out"]["samples"] == ["s2"]
    whole = filter_bulk(read_bulk(tmp_path / "a.csv"), BulkSettings(min_genes=2, drop_families=False, max_mito=1.0))
    assert whole.shape == (3, 7)
    with pytest.raises(SpotsError, match="more than 5000 genes"):
        filter_bulk(read_bulk(tmp_path / "a.csv"))


def test_shares_of_cells_follow_from_the_rna_of_each_type():
    cells = ad.AnnData(
        np.zeros((4, 2)), obs=pd.DataFrame({"celltype": ["big", "big", "small", None]}, index=list("abcd")),
        layers={"counts": np.array([[30, 10], [10, 10], [5, 5], [900, 0]])},
    )  # fmt: skip
    content = rna_content(cells)
    assert content["big"] / content["small"] == pytest.approx(3)
    # 60 % of the RNA in cells with three times as much of it: 1 / 3 of the cells
    shares = cell_shares(pd.DataFrame({"big": [0.6], "small": [0.4]}), content)
    assert shares.iloc[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    with pytest.raises(PrototypesError, match="RNA content of other is not known"):
        cell_shares(pd.DataFrame({"other": [1.0]}), content)


def test_measured_bulk_of_blood(shared_data: Path):
    pytest.importorskip("rdata")
    with pytest.warns(CpnnWarning):
        table = read_bulk(shared_data / "bulk" / "omnideconv" / "data" / "bulk.RData", values="tpm")
    assert table.shape == (8, 19373)
    assert table.obs_names[0] == "HD30_PBMC_0"
    with pytest.raises(SpotsError, match="raw counts"):
        read_bulk(shared_data / "bulk" / "omnideconv" / "data" / "bulk.RData")
