"""The one pass over the count matrix: against sums that pandas takes, wherever the matrix is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from napari_cpnn.errors import CellsError
from napari_cpnn.prototypes import read_cells, statistics
from napari_cpnn.prototypes.statistics import GroupStatistics, count_statistics
from napari_cpnn.settings import PrototypeSettings

LOOSE = PrototypeSettings(min_genes=1, min_cells=1, max_mito=1.0)
N, G = 70, 12
GENES = [f"G{i}" for i in range(G)]


def counts(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.negative_binomial(0.3, 0.05, (N, G))
    values[3, 2], values[4, 2], values[5, 2] = 31, 32, 100_000  # about where small counts end
    return values


def labels(seed: int = 1) -> tuple[pd.Series, pd.Series]:
    rng = np.random.default_rng(seed)
    return (
        pd.Series(rng.choice(["T", "B", "CAF"], N, p=[0.5, 0.4, 0.1])).astype("category"),
        pd.Series(rng.choice(["P1", "P2"], N)),
    )


def check(found: GroupStatistics, values: np.ndarray, kind: pd.Series, batch: pd.Series) -> None:
    """Against pandas, group by group and gene by gene."""
    expected = pd.DataFrame(values).groupby([kind.astype(str).to_numpy(), batch.to_numpy()]).agg(["sum", "size"])
    assert len(found.n_cells) == len(expected)
    for k, (c, d) in enumerate(zip(found.type_of, found.batch_of, strict=True)):
        row = expected.loc[(found.cell_types[c], found.batches[d])]
        np.testing.assert_array_equal(found.sums[k], row[:, "sum"])
        assert (row[:, "size"] == found.n_cells[k]).all()
    h = found.histogram
    for g in range(values.shape[1]):
        value, cells = np.unique(values[:, g][values[:, g] > 0], return_counts=True)
        np.testing.assert_array_equal(h.value[h.gene == g], value)
        np.testing.assert_array_equal(h.cells[h.gene == g], cells)
    np.testing.assert_array_equal(h.detected_in(values.shape[1]), (values > 0).sum(axis=0))
    np.testing.assert_allclose(h.squares(values.shape[1]), (values.astype(float) ** 2).sum(axis=0))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda x: x.astype(float)])
@pytest.mark.parametrize("rows", [4096, 7])
def test_sums_and_histogram(form: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_ROWS", rows)
    values, (kind, batch) = counts(), labels()
    (found,) = count_statistics(form(values), GENES, [kind], batch, LOOSE)
    kept = values.sum(axis=1) > 0
    check(found, values[kept], kind[kept], batch[kept])
    assert found.left_out == {"no_label": 0, "no_batch": 0, "few_genes": int((~kept).sum()), "mitochondrial": 0}


@pytest.mark.parametrize("place", ["X", "layers", "dense"])
def test_from_disk(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_ROWS", 16)
    values, (kind, batch) = counts(), labels()
    matrix = values.astype(np.float32) if place == "dense" else sp.csr_matrix(values)
    table = ad.AnnData(matrix, layers={"counts": matrix} if place == "layers" else {})
    table.write_h5ad(tmp_path / "cells.h5ad")
    if place == "layers":
        on_disk = read_cells(tmp_path / "cells.h5ad", backed=True).layers["counts"]
    else:
        on_disk = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r").X
    assert not isinstance(on_disk, np.ndarray) and not sp.issparse(on_disk)  # noqa: PT018
    (found,) = count_statistics(on_disk, GENES, [kind], batch, LOOSE.replace(min_genes=0))
    kept = values.sum(axis=1) > 0
    check(found, values[kept], kind[kept], batch[kept])


def test_several_annotations_in_one_pass() -> None:
    values, (kind, batch) = counts(), labels()
    partly = pd.Series(np.where(np.arange(N) % 3, "x", None))
    both = count_statistics(values, GENES, [kind, partly], batch, LOOSE)
    for column, found in zip((kind, partly), both, strict=True):
        (alone,) = count_statistics(values, GENES, [column], batch, LOOSE)
        kept = (values.sum(axis=1) > 0) & column.notna().to_numpy()
        check(found, values[kept], column[kept], batch[kept])
        np.testing.assert_array_equal(found.sums, alone.sums)
    assert both[1].left_out["no_label"] == 24


def test_missing_labels_and_batches_and_filters() -> None:
    values = np.tile(np.arange(1, G + 1), (N, 1))
    values[0] = 0
    values[1, 2:] = 0
    kind, batch = pd.Series(["a"] * N, dtype=object), pd.Series(["x"] * N, dtype=object)
    kind[2:5] = [None, float("nan"), "  "]
    batch[4:7] = np.nan
    names = [*GENES[:-1], "MT-CO1"]
    values[7, -1] = 100
    (found,) = count_statistics(values, names, [kind], batch, LOOSE.replace(min_genes=3, max_mito=0.5))
    assert found.left_out == {"no_label": 3, "no_batch": 2, "few_genes": 2, "mitochondrial": 1}
    assert found.n_cells.tolist() == [N - 8]
    assert found.per_batch() == {"x": N - 8}


def test_groups_that_lose_all_cells_are_gone() -> None:
    values = np.ones((4, 2), dtype=int)
    values[2] = 0
    (found,) = count_statistics(
        values, ["a", "b"], [pd.Series(["t", "t", "u", "v"])], pd.Series(["x", "x", "y", "x"]), LOOSE
    )
    assert (found.cell_types, found.batches) == (("t", "v"), ("x",))
    fewer = found.select_types(np.array([1])).select_genes(np.array([1]))
    assert fewer.cell_types == ("v",)
    assert fewer.sums.tolist() == [[1]]
    assert fewer.histogram.cells.tolist() == [3]


def test_numbers_as_labels() -> None:
    (found,) = count_statistics(np.ones((3, 2)), ["a", "b"], [pd.Series([2, 10, 2])], None, LOOSE)
    assert found.cell_types == ("10", "2")
    assert found.batches == ("all",)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (0.5, r"fractional values, such as 0.5, up to 1e\+05, so it is normalised"),
        (np.nan, "there are missing or infinite values"),
        (-1, "the smallest value is -1"),
    ],
)
def test_what_is_no_count_is_said_wherever_it_is(wrong: float, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_ROWS", 16)
    values = counts().astype(float)
    values[N - 1, 3] = wrong
    values[N - 1, 4] = 1e5
    with pytest.raises(CellsError, match=why):
        count_statistics(sp.csr_matrix(values), GENES, [labels()[0]], None, LOOSE)


def test_logarithms_are_recognised() -> None:
    values = counts().astype(float)
    values *= 1e4 / np.maximum(values.sum(axis=1, keepdims=True), 1)
    with pytest.raises(CellsError, match=r"does not hold raw counts \(.* so it is log-transformed\)"):
        count_statistics(np.log1p(values), GENES, [labels()[0]], None, LOOSE)


def test_a_file_that_is_stored_by_genes(tmp_path: Path) -> None:
    ad.AnnData(sp.csc_matrix(counts())).write_h5ad(tmp_path / "cells.h5ad")
    matrix = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r").X
    with pytest.raises(CellsError, match=r"stored by genes \(CSC\) on disk, .* save it as CSR"):
        count_statistics(matrix, GENES, [labels()[0]], None, LOOSE)
