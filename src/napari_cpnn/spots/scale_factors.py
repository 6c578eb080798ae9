"""Scale factors of Space Ranger, from its JSON file or from scanpy's tables."""

from __future__ import annotations

import json
import math
import re
import warnings
from typing import Any

import numpy as np

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import CpnnWarning

#: Factors required for correct positions and sizes; if present, they must be numbers.
_NEEDED = (
    "tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "microns_per_pixel", "bin_size_um",
)  # fmt: skip
#: Names of factors that may be stored as text; other texts, such as a version, are not factors.
_FACTOR = re.compile(r"scale_?f|fullres|pixel|_um$", re.IGNORECASE)
#: Keys of one library's entry, which occur directly in ``uns["spatial"]`` if the library's name was omitted.
_PARTS = {"images", "scalefactors", "metadata"}
#: Maximum nesting depth searched for factors.
_DEEPEST = 3


def factors_of(given: Any, what: str | None = None) -> dict[str, float]:
    """Return the scale factors that are positive numbers, or texts of such numbers.

    Parameters
    ----------
    given
        Mapping of names to numbers, possibly nested under ``scalefactors`` or the only library, or the same as JSON;
        anything else yields no scale factors.
    what
        Location of the factors for the warning about an invalid required one; None for no warning.
    """
    given = _with_factors(given)
    found, wrong = {}, []
    for key, value in given.items():
        name = str(key).lower() if str(key).lower() in _NEEDED else str(key)
        number = None if isinstance(value, str | bytes) and not _FACTOR.search(name) else _number(value)
        if number is not None and math.isfinite(number) and number > 0:
            found[name] = number
        elif name in _NEEDED and not _is_missing(value, number):
            wrong.append(f"{name} = {str(value)[:40]!r}")
    if (
        what is not None
        and not _has_any(given)
        and sum(_has_any(_with_factors(part, 1)) for part in given.values()) > 1
    ):
        warnings.warn(
            f"{what} has several sets of scale factors and does not tell which apply; they are ignored.",
            CpnnWarning,
            stacklevel=6,
        )
    if wrong and what is not None:
        warnings.warn(
            f"{what} has scale factors that are not positive numbers ({', '.join(wrong)}); they are ignored.",
            CpnnWarning,
            stacklevel=6,
        )
    return found


def _with_factors(given: Any, depth: int = 0) -> dict[Any, Any]:
    """Return the mapping that holds the scale factors: ``given``, or its only part that has any."""
    if isinstance(given, str) and given.lstrip().startswith("{") and not depth:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(given, dict):
        return {}
    if _has_any(given) or depth == _DEEPEST:
        return given
    inner = [part for part in (_with_factors(value, depth + 1) for value in given.values()) if _has_any(part)]
    return inner[0] if len(inner) == 1 else given


def _has_any(given: dict[Any, Any]) -> bool:
    return any(str(name).lower() in _NEEDED for name in given)


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
    """Return whether a value marks a missing factor, such as the diameter of a single spot."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (number is not None and math.isnan(number))


def libraries_of_uns(spatial: Any) -> dict[str, dict[str, Any]]:
    """Return the libraries in ``uns["spatial"]``; a library without a name gets the key ``""``."""
    if not isinstance(spatial, dict):
        return {}
    if any(isinstance(spatial.get(part), dict) for part in ("images", "scalefactors")) and not any(
        isinstance(content, dict) and _PARTS & set(content) for name, content in spatial.items() if name not in _PARTS
    ):
        return {"": spatial}
    return {str(name): content for name, content in spatial.items() if isinstance(content, dict)}
