"""Tables of minor and major cell types, and how they go from the reference to the model."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_cpnn.errors import PrototypesError
from napari_cpnn.palette import checked_hierarchy, read_hierarchy
from napari_cpnn.prototypes import Prototypes, estimate_prototypes
from napari_cpnn.settings import PrototypeSettings

WANTED = {"CD4": "T-cells", "CD8": "T-cells", "Naive B": "B-cells"}


@pytest.mark.parametrize(
    "text",
    [
        "CD4,T-cells\nCD8,T-cells\nNaive B,B-cells\n",
        "minor;major\nCD4;T-cells\n\nCD8;T-cells\nNaive B;B-cells",
        "celltype_major\tn\tcelltype_minor\nT-cells\t3\tCD4\nT-cells\t4\tCD8\nB-cells\t5\tNaive B\n",
        "\ufeffminor,major\r\n CD4 , T-cells\r\nCD8,T-cells\r\nNaive B,B-cells\r\n",
    ],
)
def test_tables_in_any_order_of_columns(tmp_path, text):
    path = tmp_path / "types.csv"
    path.write_bytes(text.encode())
    assert read_hierarchy(path) == WANTED


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"CD4,T-cells\nCD8\n", "row without a minor and a major type"),
        (b"CD4,T-cells\nCD4,B-cells\n", "has CD4 under T-cells and under B-cells"),
        (b"\xff\xfe\x00\x00,\x00", "must be a table of minor and major types"),
    ],
)
def test_bad_tables_are_one_sentence(tmp_path, content, said):
    path = tmp_path / "types.csv"
    path.write_bytes(content)
    with pytest.raises(PrototypesError, match=said):
        read_hierarchy(path)
    with pytest.raises(PrototypesError, match="missing"):
        read_hierarchy(tmp_path / "missing.csv")


def test_each_type_needs_a_major_type():
    with pytest.raises(PrototypesError, match="names no major type of X; give one for each cell type"):
        checked_hierarchy(["CD4", "X"], WANTED)


def cells(**columns):
    n = len(next(iter(columns.values())))
    counts = np.random.default_rng(0).poisson(3.0, (n, 12)).astype(np.float32)
    obs = pd.DataFrame(columns, index=[f"c{i}" for i in range(n)])
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(12)]))


SETTINGS = PrototypeSettings(method="mean", min_genes=1, min_cells=1, min_cells_per_type=1, max_mito=1.0)
MINOR = ["CD4", "CD8", "Naive B", "CD4", "CD8", "Naive B"] * 10
MAJOR = [WANTED[name] for name in MINOR]


def test_the_hierarchy_comes_from_the_columns_of_the_reference():
    table = cells(celltype_minor=MINOR, celltype_major=MAJOR, other=["x"] * 60)
    assert estimate_prototypes(table, "celltype_minor", settings=SETTINGS).hierarchy == WANTED
    assert estimate_prototypes(table, "celltype_major", settings=SETTINGS).hierarchy == {}
    both = estimate_prototypes(table, ["celltype_minor", "celltype_major"], settings=SETTINGS)
    assert both["celltype_minor"].hierarchy == WANTED
    assert both["celltype_major"].hierarchy == {}


def test_columns_across_each_other_are_no_hierarchy():
    crossed = ["a", "b", "a", "b", "b", "a"] * 10
    table = cells(celltype_minor=MINOR, celltype_major=crossed)
    assert estimate_prototypes(table, "celltype_minor", settings=SETTINGS).hierarchy == {}


def test_prototypes_keep_it_in_their_file_and_older_files_have_none(tmp_path):
    table = cells(celltype_minor=MINOR)
    flat = estimate_prototypes(table, "celltype_minor", settings=SETTINGS)
    flat.save(tmp_path / "flat.h5ad")
    assert Prototypes.load(tmp_path / "flat.h5ad").hierarchy == {}
    assert "major_type" not in anndata.read_h5ad(tmp_path / "flat.h5ad").obs
    given = flat.with_hierarchy(WANTED)
    given.save(tmp_path / "given.h5ad")
    assert Prototypes.load(tmp_path / "given.h5ad").hierarchy == WANTED
    assert given.select(["G1", "G3"]).hierarchy == WANTED
    with pytest.raises(PrototypesError, match="names no major type of"):
        flat.with_hierarchy({"CD4": "T-cells"})
