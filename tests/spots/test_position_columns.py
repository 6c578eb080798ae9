"""Names decide which column of ``obsm["spatial"]`` is x and which is y."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.spots.test_readers import table, write

from cases import case
from napari_cpnn import read_spots
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.position_columns import column_of, numbers


def positions(columns: list[str], x_first: bool, tmp_path: Path, extra: dict[str, Any] | None = None) -> np.ndarray:
    """What is read of the usual table with its positions in named columns."""
    adata = table()
    x, y = adata.obsm["spatial"].T
    frame = pd.DataFrame(dict(zip(columns, (x, y) if x_first else (y, x), strict=True)), index=adata.obs_names)
    adata.obsm["spatial"] = frame.assign(**(extra or {}))
    return np.asarray(read_spots(write(adata, tmp_path)).obsm["spatial"])


@pytest.mark.parametrize(
    "columns",
    [
        ["pxl_col_in_fullres", "pxl_row_in_fullres"], ["x", "y"], ["X", "Y"], ["imagecol", "imagerow"], ["col", "row"],
        ["X_centroid", "Y_centroid"], ["pixel_x", "pixel_y"], ["spatial_x", "spatial_y"], ["x_coord", "y_coord"],
        ["imageCol", "imageRow"], ["x.position", "y.position"], ["px", "py"], ["cell_centroid_x", "cell_centroid_y"],
        ["column", "row"], ["pxl_col", "pxl_row"], ["sdimx", "sdimy"],
    ],
)  # fmt: skip
def test_names_and_not_the_order_decide(columns: list[str], tmp_path: Path) -> None:
    expected = table().obsm["spatial"]
    np.testing.assert_array_equal(positions(columns, True, tmp_path), expected)
    np.testing.assert_array_equal(positions(columns[::-1], False, tmp_path), expected)


def test_pixels_come_before_places_in_the_array(tmp_path: Path) -> None:
    extra = {"array_row": np.arange(12), "array_col": np.arange(12), "barcode": "a"}
    found = positions(["pxl_row_in_fullres", "pxl_col_in_fullres"], False, tmp_path, extra)
    np.testing.assert_array_equal(found, table().obsm["spatial"])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["a", "b"], "do not tell which is x"),
        (["array_row", "array_col"], "array coordinates"),
        (["x_um", "y_um"], "lengths, not pixels"),
        (["x_hires", "y_hires"], "pixels of a downscaled image"),
        (["umap_x2d", "umap_y2d"], "do not tell which"),
    ],
)
def test_names_that_say_nothing_or_something_else_are_refused(columns: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match=rf'obsm\["spatial"\] of .*spots.h5ad has the columns {columns[0]}.*{says}'):
        positions(columns, True, tmp_path)


def test_numbers_are_the_order_of_an_array(tmp_path: Path) -> None:
    for columns in (["0", "1"], ["spatial1", "spatial2"]):
        np.testing.assert_array_equal(positions(columns, True, tmp_path), table().obsm["spatial"])
    with pytest.warns(CpnnWarning, match="do not tell which is x; V1 is used as x"):
        positions(["V1", "V2"], True, tmp_path)


@pytest.mark.parametrize("stem", ["centroid-", "centroid_weighted-", "weighted_centroid-", "axis-"])
def test_scikit_image_and_napari_number_rows_before_columns(stem: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(positions([f"{stem}0", f"{stem}1"], False, tmp_path), table().obsm["spatial"])
    with pytest.warns(CpnnWarning, match="do not tell which is x"):  # as of MATLAB, which writes x first
        positions([f"{stem}1", f"{stem}2"], True, tmp_path)


def test_very_long_names_say_nothing_and_take_no_time(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(SpotsError, match="do not tell which is x"):
        positions(["1" * 30_000 + "x", "1" * 30_000 + "z"], True, tmp_path)
    assert column_of("x" * 100_000) is None
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["300", "1,1", "1,125"], [300, 1.1, 1.125]),
        (["300,000", "1100,000", "1,125"], [300, 1100, 1.125]),
        (["0,125", "1,125"], [0.125, 1.125]),
        (["1.125", "3.250", ""], [1.125, 3.25, np.nan]),
        (["300", "1.125", "1.5"], [300, 1.125, 1.5]),
    ],
)
def test_marks_before_decimals(texts: list[str], found: list[float]) -> None:
    np.testing.assert_array_equal(numbers(np.array(texts, dtype=object), "The column"), found)


@pytest.mark.parametrize(
    "texts", [["300", "1,100", "1,300"], ["1,100", "12,300", ""], ["900", "1.100"], ["-1,100", "0"]]
)
def test_marks_that_may_be_between_thousands_are_refused(texts: list[str]) -> None:
    with pytest.raises(SpotsError, match=r"The column has values such as -?1[.,]100, whose .* or thousands"):
        numbers(np.array(texts, dtype=object), "The column")


def test_a_sparse_array_and_more_axes(tmp_path: Path) -> None:
    adata = table()
    expected = adata.obsm["spatial"]
    adata.obsm["spatial"] = sp.csr_matrix(np.column_stack([expected, np.zeros(12)]))
    np.testing.assert_array_equal(read_spots(write(adata, tmp_path)).obsm["spatial"], expected)


def test_texts_are_numbers_with_either_separator(tmp_path: Path) -> None:
    adata = table()
    x, y = adata.obsm["spatial"].T
    frame = pd.DataFrame({"y": [f"{v:.1f}".replace(".", ",") for v in y], "x": x.astype(str)}, index=adata.obs_names)
    adata.obsm["spatial"] = frame
    np.testing.assert_array_equal(read_spots(write(adata, tmp_path)).obsm["spatial"], np.column_stack([x, y]))
    adata.obsm["spatial"] = frame.assign(x="left")
    with pytest.raises(SpotsError, match=r"Column x of obsm.* has a value that is not a number \('left'\)"):
        read_spots(write(adata, tmp_path))


def test_words_that_are_no_axis() -> None:
    for name in ("max", "index", "umap_1", "barcode", "counts", "x_and_y", "", "axis"):
        assert column_of(name) is None


def test_the_case_of_a_table_with_named_columns() -> None:
    spots = read_spots(case("04-obsm-spatial-table-with-named-columns") / "row_col.h5ad")
    np.testing.assert_array_equal(spots.obsm["spatial"][:2], [[300, 300], [500, 300]])
