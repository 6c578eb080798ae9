"""Scale factors of a run of Space Ranger, as its JSON file and the tables of scanpy keep them."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import CpnnWarning

#: Without these, places and sizes would be wrong; one that is there has to be a number.
_NEEDED = (
    "tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "microns_per_pixel", "bin_size_um",
)  # fmt: skip
#: What may be text; others, such as a version, are none.
_FACTOR = re.compile(r"scale_?f|fullres|pixel|_um$", re.IGNORECASE)


def factors_of(given: Any, what: str | None = None) -> dict[str, float]:
    """The scale factors that are positive numbers, or texts of such.

    Parameters
    ----------
    given
        Numbers by name, perhaps within another ``scalefactors``; anything else is no scale factors.
    what
        Where they are, for the warning about one that is needed and is none; None: there is no warning.
    """
    if not isinstance(given, dict):
        return {}
    for inner in (value for name, value in given.items() if str(name).lower() == "scalefactors"):
        if isinstance(inner, dict):
            given = {**inner, **{name: value for name, value in given.items() if value is not inner}}
            break
    found, wrong = {}, []
    for name, value in given.items():
        number = None if isinstance(value, str | bytes) and not _FACTOR.search(str(name)) else _number(value)
        if number is not None and math.isfinite(number) and number > 0:
            found[str(name)] = number
        elif name in _NEEDED and not _is_missing(value, number):
            wrong.append(f"{name} = {str(value)[:40]!r}")
    if wrong and what is not None:
        warnings.warn(
            f"{what} has scale factors that are not positive numbers ({', '.join(wrong)}); they are left out.",
            CpnnWarning,
            stacklevel=6,
        )
    return found


def _number(value: Any) -> float | None:
    try:
        item = np.asarray(value).item()
        item = item.decode() if isinstance(item, bytes) else item
        if isinstance(item, bool):
            return None
        return parse_decimal(item) if isinstance(item, str) else float(item)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _is_missing(value: Any, number: float | None) -> bool:
    """Whether it is written that there is none, as for the diameter of a lone spot."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (number is not None and math.isnan(number))
