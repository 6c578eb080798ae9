"""Genes of one species as their orthologues of another, from tables as they are published."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from napari_cpnn.counts import Orthologues, fetch_orthologues, read_orthologues, translate_genes
from napari_cpnn.errors import DownloadError, GenesError

MGI = """DB Class Key\tCommon Organism Name\tNCBI Taxon ID\tSymbol\tEntrezGene ID
1\tmouse, laboratory\t10090\tErbb2\t13866
1\thuman\t9606\tERBB2\t2064
2\tmouse, laboratory\t10090\tH2-K1\t14972
2\tmouse, laboratory\t10090\tH2-D1\t14964
2\thuman\t9606\tHLA-A\t3105
3\tmouse, laboratory\t10090\tGm1\t1
4\thuman\t9606\tKRT14\t3861
4\tmouse, laboratory\t10090\tKrt14\t16664
"""
BIOMART = """Gene stable ID,Gene name,Mouse gene stable ID,Mouse gene name,Mouse homology type
ENSG00000141736,ERBB2,ENSMUSG00000062312,Erbb2,ortholog_one2one
ENSG00000206503,HLA-A,ENSMUSG00000061232,H2-K1,ortholog_one2many
ENSG00000206503,HLA-A,ENSMUSG00000073411,H2-D1,ortholog_one2many
ENSG00000000001,NOVEL,,,
ENSG00000186847,KRT14,ENSMUSG00000045545,Krt14,ortholog_one2one
"""


@pytest.mark.parametrize(
    "text", [MGI, BIOMART, "human;mouse\nERBB2;Erbb2\nHLA-A;H2-K1\nHLA-A;H2-D1\nKRT14;Krt14\nKRT14;Krt14\n"]
)
def test_only_genes_with_one_partner_each_way_are_pairs(tmp_path, text):
    (tmp_path / "table.txt").write_text(text)
    found = read_orthologues(tmp_path / "table.txt")
    assert found.pairs == {"Erbb2": "ERBB2", "Krt14": "KRT14"}
    assert found.n_ambiguous == 3
    assert found.partners("mouse") == {"ERBB2": "Erbb2", "KRT14": "Krt14"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("human,rat\nERBB2,Erbb2\n", "has no column of mouse symbols"),
        ("human,mouse symbol,mouse gene name\nA,b,c\n", "has 2 columns of mouse symbols"),
        ("human,mouse\nA,b\nA,c\n", "no gene with one partner each way"),
        ("", "cannot be read|empty"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, sentence):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(GenesError, match=sentence):
        read_orthologues(tmp_path / "table.csv")


def test_counts_go_with_their_genes(tmp_path):
    counts = sparse.random(5, 4, 0.7, "csr", random_state=0)
    var = pd.DataFrame({"gene_ids": list("abcd")}, index=["Gm1", "Krt14", "H2-K1", "Erbb2"])
    cells = anndata.AnnData(counts, var=var, layers={"counts": counts.copy()})
    found = translate_genes(cells, Orthologues({"Erbb2": "ERBB2", "Krt14": "KRT14"}, 0, "pairs.csv"))
    assert list(found.var_names) == ["KRT14", "ERBB2"]
    assert list(found.var["orthologue_of"]) == ["Krt14", "Erbb2"]
    assert "gene_ids" not in found.var
    for matrix in (found.X, found.layers["counts"]):
        np.testing.assert_array_equal(matrix.toarray(), counts.toarray()[:, [1, 3]])
    assert found.uns["orthologues"] == {"to": "human", "source": "pairs.csv", "genes": 2, "left_out": 2}
    back = translate_genes(found, Orthologues({"Erbb2": "ERBB2", "Krt14": "KRT14"}, 0, "pairs.csv"), to="mouse")
    assert list(back.var_names) == ["Krt14", "Erbb2"]
    assert cells.shape == (5, 4)
    found.write_h5ad(tmp_path / "a.h5ad")


def test_genes_of_the_wrong_species_are_refused():
    pairs = Orthologues({"Erbb2": "ERBB2"}, 0, "pairs.csv")
    human = anndata.AnnData(np.ones((1, 1)), var=pd.DataFrame(index=["ERBB2"]))
    with pytest.raises(GenesError, match=r"0 of 1 genes are mouse symbols .* such as Erbb2\."):
        translate_genes(human, pairs)
    with pytest.raises(GenesError, match="to human or mouse, not to 'rat'"):
        translate_genes(human, pairs, to="rat")


def test_the_table_that_is_kept(tmp_path, monkeypatch):
    """A table is kept only if it is one; the former one stays."""
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(GenesError, match="comes from napari-cpnn fetch orthologues"):
        read_orthologues()
    with pytest.raises(GenesError, match=r"is not there; .* comes from https://www\.informatics"):
        fetch_orthologues(tmp_path / "nothing.rpt")
    (tmp_path / "mgi.rpt").write_text(MGI)
    fetch_orthologues(tmp_path / "mgi.rpt")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(GenesError, match="no column of mouse symbols"):
        fetch_orthologues(tmp_path / "other.csv")
    with pytest.raises(DownloadError, match="its SHA-256 is"):
        fetch_orthologues(tmp_path / "mgi.rpt", sha256="0" * 64)
    assert read_orthologues().pairs == {"Erbb2": "ERBB2", "Krt14": "KRT14"}


def test_offline(tmp_path, monkeypatch):
    def nobody(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("napari_cpnn.storage.downloads.download", nobody)
    with pytest.raises(DownloadError, match=r"could not be downloaded \(ConnectionError\); .* \(--from FILE\)"):
        fetch_orthologues()
    assert not list((tmp_path / "cache").rglob("*.rpt"))
