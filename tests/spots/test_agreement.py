"""Positions without names against the columns of obs that name them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots.agreement import agreeing_positions

ARRAY = np.array([(2 * j + i % 2, i) for i in range(8) for j in range(9)], dtype=float)  # column, row
XY = np.column_stack([ARRAY[:, 0] * 100 + 300, ARRAY[:, 1] * 173 + 1300])


def table(xy: np.ndarray | None = XY, array: bool = False, names: str = "pxl_{}_in_fullres") -> AnnData:
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(XY))])
    if xy is not None:
        obs[names.format("row")], obs[names.format("col")] = xy[:, 1], xy[:, 0]
    if array:
        obs["array_row"], obs["array_col"] = ARRAY[:, 1].astype(int), ARRAY[:, 0].astype(int)
    return AnnData(np.zeros((len(XY), 1), np.float32), obs=obs)


def read(spatial: np.ndarray, of: AnnData) -> np.ndarray:
    return agreeing_positions(spatial, of, "obsm")


@pytest.mark.parametrize("array", [False, True])
def test_rows_before_columns_are_turned_by_the_names(array: bool) -> None:
    with pytest.warns(
        CpnnWarning, match=r"obsm holds \(row, column\) instead of \(x, y\) according to the columns pxl_col_in"
    ):
        np.testing.assert_array_equal(read(XY[:, ::-1], table(array=array)), XY)


def test_names_in_the_wrong_order_are_known_by_the_array() -> None:
    """As code copied from scanpy has them, which calls the row a column and takes it for x."""
    with pytest.warns(CpnnWarning, match="the former is used, as it fits the array"):
        np.testing.assert_array_equal(read(XY, table(XY[:, ::-1], array=True)), XY)


def test_pixels_of_a_small_copy() -> None:
    with pytest.warns(CpnnWarning, match="obsm is 0.1 times the columns .* of obs"):
        np.testing.assert_array_equal(read(XY / 10, table()), XY / 10)
    described = table()
    described.uns["spatial"] = {"A": {"scalefactors": {"tissue_hires_scalef": 0.1}}}
    with pytest.warns(CpnnWarning, match="obsm holds pixels of a downscaled image according to the columns"):
        np.testing.assert_array_equal(read(XY / 10, described), XY)


def test_rows_in_another_order() -> None:
    shuffled = np.random.default_rng(0).permutation(XY)
    with pytest.warns(CpnnWarning, match="give different positions for the same spots"):
        read(shuffled, table())


def test_only_places_in_the_array_say_it() -> None:
    with pytest.warns(CpnnWarning, match="runs down along array_col and to the right along array_row"):
        read(XY[:, ::-1], table(None, array=True))


def test_what_does_not_contradict_is_read_without_a_word() -> None:
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    words = table()
    words.obs = words.obs.astype(object).assign(pxl_row_in_fullres="x")
    empty = XY.copy()
    empty[:3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spatial, of in (
            (XY, table(array=True)),
            (np.round(XY + 0.4), table()),
            (empty, table(array=True)),
            (XY - (200, 1000), table()),  # a part of the image
            (XY @ turn + 50, table(array=True)),  # aligned with another
            (XY * (-1, 1) + (5000, 0), table(None, array=True)),  # mirrored
            (np.column_stack([5000 - XY[:, 1], XY[:, 0]]), table(None, array=True)),  # turned
            (XY, table(XY / 7, names="image{}")),  # as stlearn writes pixels of the small copy
            (XY, words),
            (XY, table(None)),
        ):
            np.testing.assert_array_equal(read(spatial, of), spatial)
