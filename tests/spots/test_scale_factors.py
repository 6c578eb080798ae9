"""Scale factors as numbers and as texts, and what is said of others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots.scale_factors import factors_of

NAME = "tissue_hires_scalef"


@pytest.mark.parametrize("value", [0.17, "0,17", "0.17", b"0.17", np.array([0.17]), np.array("0.17"), " 0,17 "])
def test_numbers_and_texts(value: Any) -> None:
    assert factors_of({NAME: value, "version": "4.0"}, "a.json") == {NAME: 0.17}
    assert factors_of({"scalefactors": {NAME: value}}, "a.json") == {NAME: 0.17}
    assert factors_of({"A": {"images": {}, "scalefactors": {NAME.title(): value}}}, "a.json") == {NAME: 0.17}


def test_of_several_libraries_and_as_json() -> None:
    assert factors_of('{"tissue_hires_scalef": 0.17}') == {NAME: 0.17}
    with pytest.warns(CpnnWarning, match="a.json has several sets of scale factors and does not tell which"):
        assert factors_of({"A": {NAME: 0.1}, "B": {NAME: 0.2}}, "a.json") == {}
    assert factors_of("{" * 100_000) == factors_of("[" * 10) == {}


@pytest.mark.parametrize("value", ["x", "1,234.5", 0, -1.0, float("inf"), [1, 2], {"a": 1}, True])
def test_what_is_no_number_is_left_out_with_a_warning(value: Any) -> None:
    with pytest.warns(CpnnWarning, match=rf"a.json has scale factors that are not positive numbers \({NAME} = "):
        assert factors_of({NAME: value, "spot_diameter_fullres": "89,5"}, "a.json") == {"spot_diameter_fullres": 89.5}


@pytest.mark.parametrize("given", [None, {}, 3, {NAME: None}, {"spot_diameter_fullres": np.nan}, {"other": "x"}])
def test_what_is_not_there_is_no_fault(given: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert factors_of(given, "a.json") == {}
