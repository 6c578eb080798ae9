"""Rows of a stored calibration, and the ranges of its values; without torch, since maps are read without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

#: Groups of spots by predicted level, each with its own interval (Mondrian conformal prediction).
N_LEVELS = 3

#: Values of :attr:`Trust.scale_um` where no scale passes, and where it was not tested.
NO_SCALE, NOT_TESTED = -1.0, -2.0

#: Value of :attr:`Trust.most` where the interval is not calibrated, and of :attr:`Trust.slope` where it is not known.
OPEN = 1e4

#: Largest scale in um, and the rounding of half precision.
_FARTHEST, _ROUNDING = 1e6, 1e-3

#: Values of each quantity in a table, and how many rows they take; earlier versions have no slope.
TABLE_ROWS = {
    "centers": N_LEVELS, "spread": 2, "floor": 1, "lower": N_LEVELS, "upper": N_LEVELS, "most": 1, "scale_um": 1,
    "pcc": 1, "n_spots": 1, "slope": 1,
}  # fmt: skip


def _scales(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    scales = (values >= 0) & (values <= _FARTHEST)
    return np.asarray(scales | (values == NO_SCALE) | (values == NOT_TESTED))


_CHECKS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]] = {
    "scale_um": _scales,
    "pcc": lambda v: np.abs(v) <= 1 + _ROUNDING,
    "most": lambda v: (v >= 0) & (v <= OPEN),
    "centers": lambda v: np.diff(v, axis=0) >= 0,
    "floor": lambda v: v >= 0,
    "lower": lambda v: (v <= 0) & (v >= -OPEN),
    "upper": lambda v: (v >= 0) & (v <= OPEN),
    "n_spots": lambda v: v >= 0,
    "slope": lambda v: np.abs(v) <= OPEN,
    "marked_um": lambda v: np.append(v >= 0, np.diff(v) >= 0),
    "false_share": lambda v: (v >= 0) & (v <= 1),
}


def implausible(values: Mapping[str, npt.NDArray[Any]]) -> str:
    """Name the first of some values of a :class:`Trust` that no calibration gives; empty if there is none.

    Parameters
    ----------
    values
        By name of the buffer; those that are missing are not checked.
    """
    return next((name for name, check in _CHECKS.items() if name in values and not check(values[name]).all()), "")


def table_values(table: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the rows of a table of :meth:`Trust.to_table` by name, ``(rows, Q)`` each."""
    found, row = {}, 0
    for name, n in TABLE_ROWS.items():
        if row < len(table):
            found[name] = table[row : row + n]
        row += n
    return found
