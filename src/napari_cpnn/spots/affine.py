"""Read affine transforms from files of Fiji, QuPath, BigWarp or Space Ranger, or from typed text.

All of these contain six numbers, but programs order them differently, and the files do not say whether the transform
maps spots to the slide or back. The caller therefore checks which direction puts the spots on the tissue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import READ_ERRORS, open_text
from napari_cpnn.decimals import parse_decimal, perhaps_thousands
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.tissue_positions import read_positions
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from anndata import AnnData

XENIUM_ALIGNMENT = "he_imagealignment.csv"
"""End of the name of Xenium's alignment, whose matrix leads from the H&E picture to Xenium's."""

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
#: Numbers separated only by commas.
_CHUNK = re.compile(r"[-+\d.,eE]*\d[-+\d.,eE]*")
_COLUMN_BY_COLUMN = re.compile(r"matrix\s*\(")
#: Words such as "affine" and "3d", but not the exponent of 1e-3.
_WORD = re.compile(r"(?<![\w.])(?:\d*[A-DF-Za-df-z_]|[Ee])\w*")
#: Keys under which programs store the matrix in JSON files.
_KEYS = ("matrix", "affine", "transform", "transformation", "affineTransform")
#: Matrix shapes by number of values; the larger ones are 3D transforms, of which the xy part is used.
_SHAPES = {6: (2, 3), 9: (3, 3), 12: (3, 4), 16: (4, 4)}

#: Maximum residual of an affine fit, as a share of the spread of the spots.
_RESIDUE = 0.02
_LEAST_SPOTS = 3


def parse_affine(text: str, what: str = "The text") -> FloatArray:
    """Parse the affine transform ``(2, 3)`` of positions ``(x, y)`` from a text: new ``(x, y) = matrix @ (x, y, 1)``.

    Parameters
    ----------
    text
        2 x 3 or 3 x 3 numbers, row by row, with any brackets, commas and words between them, as printed by QuPath and
        Fiji; 3 x 4 or 4 x 4 numbers of a 3D transform; ``matrix(a, b, c, d, e, f)`` in column-major order as in SVG and
        TrakEM2; or JSON containing such a matrix. Decimal commas are accepted if another separator stands between the
        numbers.
    what
        Name of the text in error messages.

    Raises
    ------
    SpotsError
        If the text is not such a matrix, the matrix is singular, or its commas are ambiguous.
    """
    try:
        found = _of_json(json.loads(text))
    except (ValueError, TypeError, OverflowError, RecursionError):  # not JSON: parsed as text below
        found = None
    if found is None:
        begins = _COLUMN_BY_COLUMN.search(text)
        end = text.find(")", begins.end()) if begins else -1
        by_columns = begins is not None and end >= 0
        inside = text[begins.end() : end] if begins is not None and end >= 0 else _WORD.sub(" ", text)
        numbers = _numbers_in(inside, what)
        if len(numbers) not in _SHAPES:
            raise SpotsError(f"{what} has {len(numbers)} numbers, but an affine map has 2 x 3 or 3 x 3.")
        order = "F" if by_columns and len(numbers) == 6 else "C"
        found = np.array(numbers).reshape(_SHAPES[len(numbers)], order=order)  # type: ignore[call-overload]
    return _checked(found, what)


def read_affine(path: str | Path, spots: AnnData | None = None) -> FloatArray:
    """Read an affine transform ``(2, 3)`` from a file.

    Parameters
    ----------
    path
        A text for :func:`parse_affine`; or ``tissue_positions`` of Space Ranger for the same spots on another image,
        from which the transform is fitted by least squares. Of ``*_he_imagealignment.csv`` of Xenium the inverse is
        returned, since the file leads from the H&E picture to the one on which the cells were measured.
    spots
        Spots to be transformed; only needed for tissue positions.

    Raises
    ------
    SpotsError
        If the file holds no affine transform or different spots, or the positions are not related by an affine
        transform.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_cpnn.spots import read_affine
    >>> size = Path("affine.txt").write_text("1 0 20 0 1 0")
    >>> read_affine("affine.txt").tolist()
    [[1.0, 0.0, 20.0], [0.0, 1.0, 0.0]]
    """
    path = Path(path)
    if spots is not None and "tissue_positions" in path.name:
        return _between(spots, path)
    try:
        with open_text(path) as file:
            text = file.read(1_000_000)
    except READ_ERRORS as exc:
        raise SpotsError(f"{path} cannot be read ({reason_of(exc)}).") from exc
    matrix = parse_affine(text, str(path))
    return inverted(matrix) if path.name.endswith(XENIUM_ALIGNMENT) else matrix


def inverted(matrix: FloatArray) -> FloatArray:
    """Return the inverse ``(2, 3)`` of an affine transform."""
    back = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    return np.asarray(back[:2])


def _numbers_in(text: str, what: str) -> list[float]:
    """Return the numbers in a text; raise an error if its commas may be separators or decimal commas."""
    chunks = [chunk.strip(",") for chunk in _CHUNK.findall(text)]
    pieces = [_NUMBER.findall(chunk) for chunk in chunks]
    apart = [float(number) for piece in pieces for number in piece]
    with_comma = [chunk for chunk in chunks if "," in chunk]
    if not with_comma:
        return apart
    ambiguous = SpotsError(
        f"{what} has commas that may separate numbers, decimals or thousands; write the decimals "
        "with a point, and spaces between the numbers."
    )
    joined = _with_decimal_commas(chunks)
    if joined is not None and len(joined) in _SHAPES:
        if perhaps_thousands(chunks):
            raise ambiguous
        if len(with_comma) == len(chunks) or not _is_affine(apart):
            return joined
        raise ambiguous
    has_points = any("." in chunk for chunk in chunks)
    pairs = all(len(piece) == 2 for piece in pieces)
    rows = has_points or all(len(piece) == 4 for piece in pieces)
    if len(apart) == 12 and (pairs or not (rows or _is_of_volume(apart))):
        raise ambiguous
    return apart


def _with_decimal_commas(chunks: list[str]) -> list[float] | None:
    """Parse each text as one number with a decimal comma; None if one is not a number or has a decimal point."""
    try:
        return None if any("." in chunk for chunk in chunks) else [parse_decimal(chunk) for chunk in chunks]
    except ValueError:
        return None


def _is_affine(numbers: list[float]) -> bool:
    if len(numbers) not in _SHAPES:
        return False
    try:
        _checked(np.array(numbers).reshape(_SHAPES[len(numbers)]), "")
    except SpotsError:
        return False
    return True


def _is_of_volume(numbers: Sequence[float]) -> bool:
    """Return whether twelve numbers are a 3D transform that keeps xy planes in place."""
    return not any(numbers[i] for i in (2, 6, 8, 9)) and numbers[10] != 0


def _of_json(content: Any) -> FloatArray | None:
    if isinstance(content, dict):
        inner = next((content[key] for key in _KEYS if key in content), None)
        return None if inner is None else _of_json(inner)
    numbers = np.array(content, dtype=np.float64)
    if numbers.shape == (12,) and not (numbers % 1).any() and not _is_of_volume(numbers.tolist()):
        return None  # indistinguishable from six numbers with decimal commas
    if numbers.ndim == 1 and numbers.size in _SHAPES:
        return numbers.reshape(_SHAPES[numbers.size])
    return numbers if numbers.shape in _SHAPES.values() else None


def _checked(matrix: FloatArray, what: str) -> FloatArray:
    """Return a matrix as ``(2, 3)``, transposing matrices for row vectors and dropping the z axis."""
    last = [0.0] * (matrix.shape[1] - 1) + [1.0]
    square = matrix.shape[0] == matrix.shape[1]
    if square and not np.allclose(matrix[-1], last) and np.allclose(matrix[:, -1], last):
        matrix = matrix.T
    if square and not np.allclose(matrix[-1], last):
        raise SpotsError(f"{what} is not an affine map: its last row is {matrix[-1].tolist()} instead of 0, 0, 1.")
    plane = matrix[:2][:, [0, 1, -1]]
    if not np.isfinite(plane).all() or abs(np.linalg.det(plane[:, :2])) < 1e-12:
        raise SpotsError(f"{what} maps all positions onto a line or a point, so it cannot be used; check its numbers.")
    return np.asarray(plane, dtype=np.float64)


def _between(spots: AnnData, path: Path) -> FloatArray:
    """Fit the transform from the current positions to those in a file, by least squares over the common spots."""
    table = read_positions(path)
    shared = spots.obs_names.intersection(table.index)
    if len(shared) < _LEAST_SPOTS:
        raise SpotsError(f"{path} has {len(shared)} of the {spots.n_obs} spots, so it belongs to another run.")
    rows = spots.obs_names.get_indexer(shared)
    here = np.asarray(spots.obsm["spatial"], dtype=np.float64)[rows]
    there = table.loc[shared, ["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    design = np.column_stack([here, np.ones(len(here))])
    solution = np.linalg.lstsq(design, there, rcond=None)[0]
    away = np.linalg.norm(there - design @ solution, axis=1)
    if np.median(away) > _RESIDUE * max(float(np.ptp(there, axis=0).max()), 1.0):
        raise SpotsError(f"The positions in {path} are not related to the current ones by an affine map.")
    return _checked(solution.T, str(path))
