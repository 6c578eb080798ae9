"""Find the x and y columns of a table by name, never by order.

Programs name the same two numbers ``x, y``, ``pxl_col_in_fullres, pxl_row_in_fullres``, ``imagecol, imagerow``,
``X_centroid, Y_centroid``, ... and write them in either order. A column index counts along x, a row index along y.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.decimals import perhaps_thousands
from napari_cpnn.errors import CpnnWarning, SpotsError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["pixel", "plain", "grid", "array", "length", "small"]

_AXES = {"x": "x", "col": "x", "cols": "x", "column": "x", "columns": "x", "y": "y", "row": "y", "rows": "y"}
_KINDS: dict[Kind, set[str]] = {
    "array": {"array", "grid", "lattice"},
    "length": {
        "um", "\u00b5m", "\u03bcm", "mm", "nm", "micron", "microns", "micrometer", "micrometers", "micrometre",
        "micrometres",
    },
    "small": {"hires", "lowres", "downscaled", "thumbnail"},
    "pixel": {"pxl", "pixel", "pixels", "px", "image", "img", "full", "fullres", "fullresolution"},
}  # fmt: skip
#: Words without information about the axis.
_OTHERS = {
    "in", "of", "the", "at", "spatial", "centroid", "centroids", "center", "centers", "centre", "coord", "coords",
    "coordinate", "coordinates", "pos", "position", "positions", "loc", "location", "locations", "dim", "sdim", "spot",
    "spots", "cell", "cells", "bin", "tissue", "slide", "global", "local", "res", "resolution", "level", "axis",
}  # fmt: skip
_WORD = re.compile(
    "|".join(sorted({*_AXES, *_OTHERS, *(word for words in _KINDS.values() for word in words)}, key=len, reverse=True))
)
_SHORT = {"px": "x", "py": "y", "cx": "x", "cy": "y"}
_NUMBERED = re.compile(r"(.*?)[ _.\-]?(\d{1,9})")
#: Stems of names that are always numbered in the order (x, y).
_KNOWN_STEMS = {"", "spatial", "xspatial", "coord", "coords", "sdim", "dim"}
#: Stems that scikit-image and napari number from 0 in the order of image axes: (row, column), or (plane, row, ...).
_AXIS_STEMS = {
    "axis", "centroid", "weightedcentroid", "localcentroid", "weightedlocalcentroid", "centroidweighted",
    "centroidlocal", "centroidweightedlocal",
}  # fmt: skip
#: Maximum length of a name that is parsed.
_LONGEST_NAME = 200
#: Kinds of columns that hold pixels of the full-resolution image, the most certain first.
_PREFERRED: tuple[Kind, ...] = ("pixel", "plain", "grid")


@dataclass(frozen=True)
class Column:
    """Meaning of a column's name.

    Attributes
    ----------
    name
        Name in the table.
    axis
        ``x`` (rightwards) or ``y`` (downwards).
    kind
        ``pixel`` of the image; ``plain`` x or y; ``grid``, an unspecified row or column; a place in the printed
        ``array``; a ``length`` such as micrometres; a pixel of a ``small`` copy of the image.
    n_words
        Number of words in the name; of two names, the one with fewer words is preferred.
    """

    name: Any
    axis: str
    kind: Kind
    n_words: int


def column_of(name: Any) -> Column | None:
    """Parse the name of a column; return None if it names no axis, or has another meaning.

    >>> column_of("pxl_row_in_fullres").axis, column_of("X_centroid").axis, column_of("imagecol").kind
    ('y', 'x', 'pixel')
    >>> column_of("max_counts") is None
    True
    """
    text = str(name)[: _LONGEST_NAME + 1].strip().strip("\"'")
    if len(text) > _LONGEST_NAME:
        return None
    if text.lower() in _SHORT:
        return Column(name, _SHORT[text.lower()], "pixel" if text.lower().startswith("p") else "plain", 1)
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower()
    words: list[str] = []
    for piece in re.split(r"[^a-z\u00b5\u03bc]+", spaced):
        found = _WORD.findall(piece)
        if "".join(found) != piece:
            return None
        words += found
    axes = {_AXES[word] for word in words if word in _AXES}
    if len(axes) != 1:
        return None
    kind: Kind = "plain" if {"x", "y"} & set(words) else "grid"
    for known, of_kind in _KINDS.items():
        if of_kind & set(words):
            kind = known
            break
    return Column(name, axes.pop(), kind, len(words))


def pixel_columns(names: Sequence[Any]) -> tuple[Any, Any] | None:
    """Return the x and y columns in pixels of the full-resolution image; None if the names do not tell.

    A row and a column alone are taken as pixels; next to more specific columns they are places in the array.
    """
    columns = [column for column in map(column_of, names) if column is not None]
    for kind in _PREFERRED:
        pair = [_plainest([c for c in columns if c.kind == kind and c.axis == axis]) for axis in "xy"]
        if None not in pair:
            return pair[0].name, pair[1].name  # type: ignore[union-attr]
        if any(sum(c.kind == kind and c.axis == axis for c in columns) > 1 for axis in "xy"):
            return None
    usable = {axis: [c for c in columns if c.kind in _PREFERRED and c.axis == axis] for axis in "xy"}
    if all(len(found) == 1 for found in usable.values()):
        return usable["x"][0].name, usable["y"][0].name
    return None


def xy_of_table(table: pd.DataFrame, what: str) -> FloatArray:
    """Return positions ``(N, 2)`` as (x, y) from a table that holds only named position columns.

    Parameters
    ----------
    what
        Name of the table in messages.

    Raises
    ------
    SpotsError
        If the names do not identify x and y, or the columns do not hold pixels of the full-resolution image.
    """
    names = list(table.columns)
    pair = pixel_columns(names) or _numbered(names, what)
    if pair is None:
        raise SpotsError(f"{what} has the columns {shown(names)}, {_why_not(names)}; name them x and y.")
    return np.column_stack([numbers(table[name], f"Column {name} of {what}") for name in pair])


def numbers(values: Any, what: str) -> FloatArray:
    """Convert a column to numbers, accepting decimal points and commas; empty values become NaN.

    Raises
    ------
    SpotsError
        If a value is not a number, or all commas in the column may be thousands separators.
    """
    import pandas as pd

    series = pd.Series(np.asarray(values).ravel())
    if series.dtype.kind in "biuf":
        return series.to_numpy(dtype=np.float64)
    text = series.astype(object).where(series.notna(), "").map(lambda v: str(v).strip())
    text = text.where(~text.str.lower().isin(["", "na", "nan", "none", "null", "<na>"]), "nan")
    grouped = perhaps_thousands(text[text != "nan"])
    if grouped is not None:
        raise SpotsError(
            f"{what} has values such as {grouped}, whose {'comma' if ',' in grouped else 'point'} may separate "
            "decimals or thousands; write them without thousands separators."
        )
    found = pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce")
    wrong = found.isna() & (text != "nan")
    if wrong.any():
        raise SpotsError(f"{what} has a value that is not a number ({str(text[wrong].iloc[0])[:40]!r}).")
    return found.to_numpy(dtype=np.float64)


def shown(names: Sequence[Any]) -> str:
    """List the first column names for a message."""
    texts = [str(name)[:40] or "''" for name in names[:8]]
    return ", ".join(texts) + (", ..." if len(names) > len(texts) else "")


def _plainest(columns: list[Column]) -> Column | None:
    """Return the column whose name has the fewest words, if unique."""
    if not columns:
        return None
    least = min(column.n_words for column in columns)
    plain = [column for column in columns if column.n_words == least]
    return plain[0] if len(plain) == 1 else None


def _numbered(names: Sequence[Any], what: str) -> tuple[Any, Any] | None:
    """Return numbered columns in array order: x, y and optionally z."""
    if not 2 <= len(names) <= 3:
        return None
    found = [_NUMBERED.fullmatch(str(name)[: _LONGEST_NAME + 1].strip()) for name in names]
    if max(len(str(name)) for name in names) > _LONGEST_NAME or any(one is None for one in found):
        return None
    stems = {one[1].lower().replace("_", "").replace(".", "").replace("-", "") for one in found if one is not None}
    order = [int(one[2]) for one in found if one is not None]
    if len(stems) != 1 or order != list(range(order[0], order[0] + len(order))) or order[0] > 1:
        return None
    if order[0] == 0 and stems <= _AXIS_STEMS:
        return names[-1], names[-2]
    if not stems <= _KNOWN_STEMS:
        warnings.warn(
            f"{what} has the columns {shown(names)}, which do not tell which is x; {names[0]} is used as x (to the "
            f"right) and {names[1]} for y (down).",
            CpnnWarning,
            stacklevel=5,
        )
    return names[0], names[1]


def _why_not(names: Sequence[Any]) -> str:
    columns = [column for column in map(column_of, names) if column is not None]
    kinds = {column.kind for column in columns}
    if "array" in kinds:
        return "which are array coordinates, not pixels of the full-resolution image"
    if "length" in kinds:
        return "which are lengths, not pixels of the full-resolution image"
    if "small" in kinds:
        return "which are pixels of a downscaled image, not of the full-resolution image"
    return "which do not tell which is x and which is y"
