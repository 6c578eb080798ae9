"""Single cells from files."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from napari_cpnn.errors import CellsError
from napari_cpnn.prototypes import read_cells
from napari_cpnn.prototypes.cells import open_cells

COUNTS = np.array([[1, 0, 2], [0, 3, 0]], dtype=np.int32)
CELLS, GENES = ["AAA-1", "CCC-1"], ["ERBB2", "ACTB", "CD3E"]


def geo_folder(folder: Path) -> Path:
    """As GSE176078 (Wu et al. 2021) lays its files: prefixes, gene names only, annotations beside."""
    folder.mkdir()
    scipy.io.mmwrite(folder / "count_matrix_sparse.mtx", sp.coo_matrix(COUNTS.T), field="integer")
    (folder / "count_matrix_barcodes.tsv").write_text("\n".join(CELLS) + "\n")
    (folder / "count_matrix_genes.tsv").write_text("\n".join(GENES) + "\n")
    (folder / "metadata.csv").write_text(',"celltype","patient"\n"CCC-1","CAFs","P1"\n"AAA-1","T-cells","P2"\n')
    return folder


def test_matrix_folder_with_annotations_beside(tmp_path: Path) -> None:
    cells = read_cells(geo_folder(tmp_path / "geo"))
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), COUNTS)
    assert cells.layers["counts"].format == "csr"
    assert list(cells.var_names) == GENES
    assert list(cells.obs["celltype"]) == ["T-cells", "CAFs"]


def test_annotations_that_are_given(tmp_path: Path) -> None:
    folder = geo_folder(tmp_path / "geo")
    table = tmp_path / "labels.tsv.gz"
    table.write_bytes(gzip.compress(b"barcode\tkind\nAAA-1\tT\nZZZ-1\tB\n"))
    cells = read_cells(folder, annotations=table)
    assert cells.obs["kind"].iloc[0] == "T"
    assert cells.obs["kind"].isna().tolist() == [False, True]
    assert "celltype" not in cells.obs
    with pytest.raises(CellsError, match="There is no table of annotations"):
        read_cells(folder, annotations=tmp_path / "none.csv")
    table.write_bytes(gzip.compress(b"barcode\tkind\nZZZ-1\tB\n"))
    with pytest.raises(CellsError, match=r"contains none of the cells: for instance ZZZ-1 versus AAA-1"):
        read_cells(folder, annotations=table)
    table.write_bytes(gzip.compress(b"barcode\tkind\nAAA-1\tB\nAAA-1\tT\n"))
    with pytest.raises(CellsError, match="has duplicate cells"):
        read_cells(folder, annotations=table)


def test_h5ad(tmp_path: Path) -> None:
    table = ad.AnnData(
        X=COUNTS.astype(np.float64),
        obs=pd.DataFrame({"celltype": ["T", "B"]}, index=CELLS),
        var=pd.DataFrame(index=GENES),
    )
    table.write_h5ad(tmp_path / "cells.h5ad")
    cells = read_cells(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), COUNTS)
    assert list(cells.obs["celltype"]) == ["T", "B"]
    table.X = np.log1p(COUNTS)
    table.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(CellsError, match=r"cells.h5ad holds no raw counts"):
        read_cells(tmp_path / "cells.h5ad")


def test_sentences(tmp_path: Path) -> None:
    with pytest.raises(CellsError, match="There is no file or folder"):
        read_cells(tmp_path / "none.h5ad")
    with pytest.raises(CellsError, match="count matrix is missing"):
        read_cells(tmp_path)
    (tmp_path / "cells.xlsx").write_text("x")
    with pytest.raises(CellsError, match="unknown format"):
        read_cells(tmp_path / "cells.xlsx")
    (tmp_path / "cells.RData").write_text("not R")
    with pytest.raises(CellsError, match=r"cells.RData cannot be read"):
        read_cells(tmp_path / "cells.RData")
    folder = geo_folder(tmp_path / "geo")
    (folder / "count_matrix_genes.tsv").unlink()
    with pytest.raises(CellsError, match=r"no features.tsv or genes.tsv next to it"):
        read_cells(folder)


def test_without_rdata_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdata", None)
    (tmp_path / "cells.RData").write_bytes(b"")
    with pytest.raises(CellsError, match="pip install rdata"):
        read_cells(tmp_path / "cells.RData")


def test_10x_h5(shared_data: Path) -> None:
    cells = read_cells(shared_data / "visium-human-breast-10x-subset" / "filtered_feature_bc_matrix.h5")
    assert cells.shape == (338, 36601)
    assert cells.var.loc["ERBB2", "gene_ids"] == "ENSG00000141736"


def test_rdata_is_what_the_derived_table_holds(shared_data: Path) -> None:
    folder = shared_data / "scref-human-breast-wu2021" / "spacedeconv"
    cells = read_cells(folder / "single_cell_data_2.RData")
    derived = ad.read_h5ad(shared_data / "derived" / "wu2021_CID4465_counts.h5ad")
    assert cells.shape == (1564, 29733)
    assert (cells.layers["counts"] != derived.X).nnz == 0
    assert list(cells.obs_names) == list(derived.obs_names)
    assert list(cells.var_names) == list(derived.var_names)
    assert list(cells.obs["celltype_minor"]) == list(derived.obs["celltype_minor"])
    with pytest.raises(CellsError, match=r"signature_dwls.rds has an unknown format"):
        read_cells(folder / "signature_dwls.rds")


def test_truncated_rdata(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "scref-human-breast-wu2021/spacedeconv/single_cell_data_2.RData").read_bytes()
    (tmp_path / "half.RData").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CellsError, match=r"half.RData cannot be read"):
        read_cells(tmp_path / "half.RData")


def on_disk(folder: Path, **layers: sp.csr_matrix) -> Path:
    table = ad.AnnData(
        X=sp.csr_matrix(np.log1p(COUNTS)),
        obs=pd.DataFrame({"celltype": ["T", "B"]}, index=CELLS),
        var=pd.DataFrame({"feature_name": GENES}, index=[f"ENSG{i:011d}" for i in range(3)]),
        layers=layers,
    )
    table.write_h5ad(folder / "big.h5ad")
    return folder / "big.h5ad"


def test_counts_of_an_h5ad_can_stay_on_disk(tmp_path: Path) -> None:
    cells = read_cells(on_disk(tmp_path, counts=sp.csr_matrix(COUNTS)), backed=True)
    assert not sp.issparse(cells.layers["counts"])
    assert cells.X is None
    np.testing.assert_array_equal(cells.layers["counts"][:].toarray(), COUNTS)
    assert list(cells.var_names) == GENES
    assert cells.var.loc["CD3E", "gene_ids"] == "ENSG00000000002"
    assert list(cells.obs["celltype"]) == ["T", "B"]


def test_annotations_of_cells_on_disk(tmp_path: Path) -> None:
    path = on_disk(tmp_path, counts=sp.csr_matrix(COUNTS))
    (tmp_path / "more.csv").write_text("barcode,kind\nCCC-1,x\n")
    assert read_cells(path, tmp_path / "more.csv", backed=True).obs["kind"].isna().tolist() == [True, False]


def test_raw_counts_on_disk_beside_normalised_ones(tmp_path: Path) -> None:
    table = ad.AnnData(sp.csr_matrix(COUNTS), var=pd.DataFrame(index=GENES))
    table.raw = table.copy()
    table.X = sp.csr_matrix(np.log1p(COUNTS))
    table.write_h5ad(tmp_path / "cells.h5ad")
    cells = read_cells(tmp_path / "cells.h5ad", backed=True)
    np.testing.assert_array_equal(cells.layers["counts"][:].toarray(), COUNTS)


def test_sentences_about_cells_on_disk(tmp_path: Path) -> None:
    with pytest.raises(CellsError, match=r"big.h5ad holds no raw counts \(X: it has fractional .* log-transformed\)"):
        read_cells(on_disk(tmp_path), backed=True)
    with pytest.raises(CellsError, match=r"layers/counts: it is stored by genes \(CSC\)"):
        read_cells(on_disk(tmp_path, counts=sp.csc_matrix(COUNTS)), backed=True)
    np.testing.assert_array_equal(open_cells(tmp_path / "big.h5ad").layers["counts"].toarray(), COUNTS)
    (tmp_path / "cells.h5").write_bytes(b"")
    with pytest.raises(CellsError, match=r"only the counts of an \.h5ad"):
        read_cells(tmp_path / "cells.h5", backed=True)
    whole = (tmp_path / "big.h5ad").read_bytes()
    (tmp_path / "half.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CellsError, match=r"half.h5ad cannot be read"):
        read_cells(tmp_path / "half.h5ad", backed=True)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, lambda data: gzip.compress(data, 9)])
def test_rdata_bombs(tmp_path, pack, monkeypatch):
    monkeypatch.setattr("napari_cpnn.prototypes.rdata_cells._SMALL_UNZIPPED", 8 * 2**20)
    path = tmp_path / "bomb.RData"
    path.write_bytes(pack(b"RDX3\nX\n" + bytes(12 * 2**20)))
    with pytest.raises(CellsError, match=r"bomb\.RData decompresses to more than 8 MB"):
        read_cells(path)


def test_a_sequence_that_r_data_only_declare(tmp_path):
    def integer(value: int) -> bytes:
        return value.to_bytes(4, "big", signed=True)

    def symbol(name: bytes) -> bytes:
        return integer(1) + integer(9 | 64 << 12) + integer(len(name)) + name

    # A pairlist "x" whose value is ALTREP compact_intseq of 2e9 numbers.
    info = integer(2) + symbol(b"compact_intseq") + integer(2) + symbol(b"base") + integer(2)
    info += integer(13) + integer(1) + integer(13) + integer(254)
    state = integer(14) + integer(3) + np.array([2e9, 1, 1], dtype=">f8").tobytes()
    altrep = integer(238) + info + state + integer(254)
    content = b"RDX3\nX\n" + integer(3) + integer(262144) + integer(197888) + integer(5) + b"UTF-8"
    content += integer(2 | 1 << 10) + symbol(b"x") + altrep + integer(254)
    (tmp_path / "a.RData").write_bytes(content)
    with pytest.raises(CellsError, match=r"a\.RData cannot be read \(it declares a sequence of 2,000,000,000"):
        read_cells(tmp_path / "a.RData")
