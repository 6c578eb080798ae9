"""Words for yes and no."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.truths import truths


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["T", "F"], [True, False]),
        (["WAHR", "FALSCH", "VRAI", "FAUX"], [True, False, True, False]),
        (["1,0", "0,0", "1.0", "0", "1"], [True, False, True, False, True]),
        (["yes", "No", "", None], [True, False, False, False]),
        ([1, 0, 1], [True, False, True]),
        ([1.0, 0.0, np.nan], [True, False, False]),
        ([True, False], [True, False]),
        ([b"1", b"0"], [True, False]),
        (pd.Categorical(["True", "False"]), [True, False]),
    ],
)
def test_usual_ones(values: Any, found: list[bool]) -> None:
    assert truths(values, "The column").tolist() == found


@pytest.mark.parametrize("values", [["in", "out"], [1, 2], ["tissue", "1"]])
def test_others_are_shown(values: list[Any]) -> None:
    with pytest.raises(SpotsError, match=r"The column has values that mean neither yes nor no \(.*(in|2|tissue)'"):
        truths(values, "The column")
