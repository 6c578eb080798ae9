"""Texts in place of a label that say there is none are no cell types."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.prototypes import estimate_prototypes
from napari_cpnn.prototypes.labels import is_no_label
from napari_cpnn.settings import PrototypeSettings

NONE = [
    "nan", "NaN", "NA", "N/A", "n.a.", "<NA>", "None", "null", "", "  ", "-", "_", "?", "Unassigned", "UNKNOWN",
    "unk", "NotAssigned", "un-assigned", "unassigned cells", "(unknown)", "[Unknown]", "unknown?", "no annotation",
    "No cell type", "not applicable", "not known", "nolabel", "n.d.", "nil", "#REF!", "#VALUE!", "#N/A", "#NAME?",
    "#DIV/0!", "unspecified", "unresolved", "ambiguous", "low quality", "Low-Quality cells", "lowquality", "doublet",
    "Doublets", "Doublet_3", "T/B doublets", "doublets: B, T", "Cell type unknown", "UnknownCells", "<unassigned>",
    "\uff1f", "unassigned\xa0cells",
    "unknown_cell", "Not_Assigned", "not assigned", "undetermined", "Unclassified", "unlabeled", "Unlabelled",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_texts_that_say_none(text: str) -> None:
    assert is_no_label(text)


@pytest.mark.parametrize(
    "text",
    [
        "Natural killer",
        "NA+ T cells",
        "Nonexhausted",
        "B",
        "0",
        "Other",
        "Nan's cells",
        "Unknown epithelial",
        "Unassigned B",
        "Unassigned B cells",
        "Unknown 1",
        "Na+",
        "Value",
        "ND",
        "Cell",
        "cells",
        "Low quality T cells",
        "non-doublet",
        "Ambiguous T",
        "Type 2",
        "Type II cells",
        "Name",
        "x" * 1000,
    ],
)
def test_types_that_look_alike_stay(text: str) -> None:
    assert not is_no_label(text)


def cells(labels: list[object]) -> ad.AnnData:
    rng = np.random.default_rng(3)
    X = rng.poisson(4, (len(labels), 6)).astype(np.int32) + 1
    names = [f"c{i}" for i in range(len(labels))]
    return ad.AnnData(
        X.astype(np.float32),
        obs=pd.DataFrame({"celltype": pd.Categorical(labels)}, index=names),
        var=pd.DataFrame(index=[f"G{i}" for i in range(6)]),
    )


def test_they_are_left_out_and_counted() -> None:
    table = cells(["T"] * 20 + ["B"] * 20 + ["Unassigned"] * 5 + ["nan"] * 3 + [None] * 2)
    settings = PrototypeSettings(min_genes=1, min_cells=1, min_cells_per_type=1, method="mean")
    with pytest.warns(CpnnWarning, match=r"8 cells without a label .* are left out: Unassigned \(5\), nan \(3\)"):
        found = estimate_prototypes(table, settings=settings)
    assert found.cell_types == ("B", "T")
    assert found.provenance["cells_left_out"]["no_label"] == 10


def test_white_space_makes_no_other_type() -> None:
    table = cells(["T-cells"] * 20 + ["T-cells "] * 20 + ["B  cells", " B cells", "B\xa0cells"] * 5)
    settings = PrototypeSettings(min_genes=1, min_cells=1, min_cells_per_type=1, method="mean")
    assert estimate_prototypes(table, settings=settings).cell_types == ("B cells", "T-cells")


def test_a_batch_may_be_unknown_but_not_nan() -> None:
    table = cells(["T", "B"] * 20)
    table.obs["patient"] = ["unknown"] * 20 + ["nan"] * 4 + ["P2"] * 16
    settings = PrototypeSettings(min_genes=1, min_cells=1, min_cells_per_type=1, method="mean")
    found = estimate_prototypes(table, batch="patient", settings=settings)
    assert found.provenance["cells_left_out"]["no_batch"] == 4
    assert sum(found.provenance["batches"].values()) == 36
