"""Read and write registrations and landmarks."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn._version import __version__
from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import READ_ERRORS, open_text
from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import RegistrationError
from napari_cpnn.geometry import Mpp
from napari_cpnn.registration.landmarks import fit_landmarks
from napari_cpnn.registration.registration import KINDS, Evidence, Registration
from napari_cpnn.storage import whole_file
from napari_cpnn.untrusted import read_json, reading, reason_of, to_path

#: Version of the file format, and the key that tells such a file.
FORMAT, KEY = 1, "napari-cpnn registration"
_COLUMNS = ("moving_x", "moving_y", "fixed_x", "fixed_y")
#: Pixel sizes, and factors of areas, beyond this or its inverse are no possible ones.
_MOST = 1e9
#: A similarity may be sheared or stretched by this part, from the rounding of a file.
_SHEARED = 1e-3
_FALSE = {"false", "0", "no"}


def save_registration(registration: Registration, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a registration as JSON: its landmarks or matrix, how well it fits, and what it leads from and to.

    Of a similarity and an affine map, ``"matrix"`` is that of level-0 pixels ``(x, y)``, as Fiji and
    :func:`~napari_cpnn.spots.read_affine` use it.

    Raises
    ------
    RegistrationError
        If the file exists and ``overwrite`` is not set, or cannot be written.

    Examples
    --------
    >>> from napari_cpnn.registration import fit_landmarks, load_registration, save_registration
    >>> found = fit_landmarks([(0, 0), (0, 100)], [(10, 20), (110, 20)])
    >>> path = save_registration(found, "spots.registration.json")
    >>> round(load_registration(path).turn_deg)
    -90
    """
    path = to_path(path, RegistrationError)
    if path.exists() and not overwrite:
        raise RegistrationError(f"{path} exists already; choose another name, or say that it may be replaced.")
    with whole_file(path, RegistrationError) as unfinished:
        unfinished.write_text(registration_text(registration) + "\n", encoding="utf-8")
    return path


def registration_text(registration: Registration) -> str:
    """Return a registration as the text of its file."""
    one = registration
    content: dict[str, Any] = {
        KEY: FORMAT,
        "version": __version__,
        "kind": one.kind,
        "moving": {"name": one.moving_name, "mpp_yx": list(one.moving_mpp)},
        "fixed": {"name": one.fixed_name, "mpp_yx": list(one.fixed_mpp)},
        "trusted": one.trusted,
        "why": one.why,
    }
    if one.kind != "thin-plate":
        content["matrix"] = one.pixel_matrix.tolist()
    if len(one.moving):
        away = [None if math.isnan(value) else value for value in one.left_out_um.tolist()]
        content["landmarks_um_yx"] = {"moving": one.moving.tolist(), "fixed": one.fixed.tolist()}
        content["mirrored"] = one.mirrored
        content["residuals_um"], content["left_out_um"] = one.residuals_um.tolist(), away
    if one.evidence is not None:
        found = dataclasses.asdict(one.evidence)
        content["evidence"] = {k: None if math.isnan(v) else v for k, v in found.items()}
    return json.dumps(content, indent=1, allow_nan=False)


def load_registration(path: str | Path) -> Registration:
    """Read a registration that :func:`save_registration` wrote.

    Landmarks are fitted again, so that landmarks and map cannot disagree.

    Raises
    ------
    RegistrationError
        If the file is missing, damaged, or something else.
    """
    path = to_path(path, RegistrationError)
    if not path.is_file():
        raise RegistrationError(f"There is no registration {path}.")
    return registration_in(read_json(path, RegistrationError), path)


def registration_in(content: Any, what: object) -> Registration:
    """Return the registration in what ``json.loads`` returned of ``what``."""
    if not isinstance(content, dict) or KEY not in content:
        raise RegistrationError(
            f"{what} is not a registration of napari-cpnn; an affine map of another program is applied by Move in "
            "Compare."
        )
    with reading(f"The registration {what}", RegistrationError, "is it complete?"):
        if not isinstance(content[KEY], int) or isinstance(content[KEY], bool) or content[KEY] < 1:
            raise ValueError("it has no version")
        if content[KEY] > FORMAT:
            raise RegistrationError(f"{what} was written by a newer version of napari-cpnn; update napari-cpnn.")
        kind = content["kind"]
        if kind not in KINDS:
            raise RegistrationError(f"{what} has an unknown kind of registration, {kind!r}.")
        mpps = _mpp(content["moving"]["mpp_yx"]), _mpp(content["fixed"]["mpp_yx"])
        names = str(content["moving"]["name"]), str(content["fixed"]["name"])
        evidence, landmarks = content.get("evidence"), content.get("landmarks_um_yx")
        if landmarks is not None:
            mirror = _yes_or_no(content, "mirrored")
            fitted = fit_landmarks(landmarks["moving"], landmarks["fixed"], kind, mirror, mpp=mpps, names=names)
        else:
            if kind == "thin-plate":
                raise RegistrationError(f"{what} is a thin-plate registration without landmarks.")
            none = np.empty((0, 2))
            matrix = _um_matrix(np.array(content["matrix"], dtype=np.float64), *mpps)
            if kind == "similarity" and not _is_similarity(matrix):
                raise ValueError("its matrix is not a similarity")
            fitted = Registration(kind, matrix, none, none, np.empty(0), *mpps, *names)
        return dataclasses.replace(
            fitted,
            trusted=_yes_or_no({"trusted": True, **content}, "trusted"),
            why=str(content.get("why", "")),
            evidence=None if evidence is None else _evidence(evidence),
        )


def _mpp(given: Any) -> Mpp:
    y, x = (float(value) for value in given)
    if not all(1 / _MOST < size < _MOST for size in (y, x)):
        raise ValueError("a pixel size is not a positive number, or no possible one")
    return y, x


def _um_matrix(matrix: FloatArray, moving_mpp: Mpp, fixed_mpp: Mpp) -> FloatArray:
    """Return the map of um ``(y, x)`` from that of pixels ``(x, y)``."""
    if matrix.shape != (2, 3) or not (np.abs(matrix) < _MOST**2).all():
        raise ValueError("its matrix is not an affine map")
    if not 1 / _MOST < abs(np.linalg.det(matrix[:, :2])) < _MOST:
        raise ValueError("its matrix is not an affine map of pictures")
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    to_um = swap * np.asarray(fixed_mpp)[:, None]
    to_px = swap / np.asarray(moving_mpp)
    return np.column_stack([to_um @ matrix[:, :2] @ to_px, to_um @ matrix[:, 2]])


def _is_similarity(matrix: FloatArray) -> bool:
    squares = matrix[:, :2] @ matrix[:, :2].T
    return bool(np.abs(squares - np.eye(2) * squares[0, 0]).max() < _SHEARED * squares[0, 0])


def _yes_or_no(content: dict[str, Any], name: str) -> bool:
    value = content[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")  # noqa: TRY004 -- a fault of the file
    return value


def _evidence(given: dict[str, Any]) -> Evidence:
    def number(name: str) -> float:
        value = given.get(name)
        value = math.nan if value is None else float(value)
        if abs(value) > _MOST:
            raise ValueError(f"its evidence has no possible {name}")
        return value

    def count(name: str) -> int:
        value = int(given.get(name, 0))
        if not 0 <= value <= _MOST:
            raise ValueError(f"its evidence has no possible {name}")
        return value

    return Evidence(
        dice=number("dice"),
        rival=number("rival"),
        correlation=number("correlation"),
        rival_correlation=number("rival_correlation"),
        inliers=count("inliers"),
        matches=count("matches"),
    )


def to_ngff(registration: Registration, *, approximate: bool = False) -> dict[str, Any]:
    """Return a registration as a transformation of OME-NGFF, in the form that SpatialData writes and reads.

    It leads from level-0 pixels of the moving picture to those of the fixed slide.

    Parameters
    ----------
    approximate
        Take the closest affine map of a thin-plate spline, which NGFF has no transformation for;
        ``registration.affine_residuals_um`` says how far off it is at the landmarks.

    Raises
    ------
    RegistrationError
        Of a thin-plate spline, unless ``approximate`` is set.

    Examples
    --------
    >>> from napari_cpnn.registration import fit_landmarks, to_ngff
    >>> to_ngff(fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 120)]))["affine"]
    [[1.0, 0.0, 10.0], [0.0, 1.0, 20.0]]
    """
    if registration.kind == "thin-plate" and not approximate:
        off = float(registration.affine_residuals_um.max())
        raise RegistrationError(
            f"NGFF has no thin-plate splines; the closest affine map is up to {off:.0f} um off at the landmarks, and "
            "is written only if you ask for it."
        )
    matrix = registration.pixel_matrix[::-1][:, [1, 0, 2]]  # of (y, x), the order of the axes below

    def system(name: str) -> dict[str, Any]:
        return {"name": name, "axes": [{"name": axis, "type": "space", "unit": "pixel"} for axis in "yx"]}

    return {
        "type": "affine",
        "affine": (matrix + 0.0).tolist(),
        "input": system(registration.moving_name or "yx"),
        "output": system(registration.fixed_name or "global"),
    }


def read_landmarks(path: str | Path) -> tuple[FloatArray, FloatArray]:
    """Read pairs of landmarks from a table, in level-0 pixels ``(x, y)``.

    The table has the columns ``moving_x, moving_y, fixed_x, fixed_y``; or it is that of BigWarp in Fiji, without a
    header: name, active, moving x and y, fixed x and y. Pairs that are switched off there are left out.

    Returns
    -------
    (moving, fixed)
        ``(N, 2)`` each.

    Raises
    ------
    RegistrationError
        If the file cannot be read, or is not such a table.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_cpnn.registration import read_landmarks
    >>> size = Path("pairs.csv").write_text("moving_x,moving_y,fixed_x,fixed_y" + chr(10) + "10,20,30,40")
    >>> [points.tolist() for points in read_landmarks("pairs.csv")]
    [[[10.0, 20.0]], [[30.0, 40.0]]]
    """
    path = to_path(path, RegistrationError)
    if not path.is_file():
        raise RegistrationError(f"There is no table of landmarks {path}.")
    try:
        with open_text(path) as file:
            text = file.read(10_000_000)
    except READ_ERRORS as exc:
        raise RegistrationError(f"{path} cannot be read ({reason_of(exc)}).") from exc
    first = text.lstrip().split("\n", 1)[0]
    mark = next((mark for mark in ("\t", ";", ",") if mark in first), ",")
    with reading(f"The table of landmarks {path}", RegistrationError, "it must be a table of coordinates."):
        rows = [row for row in csv.reader(text.splitlines(), delimiter=mark) if any(cell.strip() for cell in row)]
    if not rows:
        raise RegistrationError(f"{path} is empty.")
    header = [cell.strip().lower() for cell in rows[0]]
    if set(_COLUMNS) <= set(header):
        columns, rows, start = [header.index(name) for name in _COLUMNS], rows[1:], 2
    elif len(header) == 6 and _is_number(header[2]):
        columns, start = [2, 3, 4, 5], 1
    else:
        raise RegistrationError(
            f"{path} has no columns {', '.join(_COLUMNS)}, and is not a table of BigWarp's landmarks either."
        )
    pairs = []
    for number, row in enumerate(rows, start):
        if start == 1 and len(row) > 1 and row[1].strip().lower() in _FALSE:
            continue
        try:
            pairs.append([parse_decimal(row[column]) for column in columns])
        except (ValueError, IndexError):
            raise RegistrationError(f"Line {number} of {path} has no four numbers of a pair of landmarks.") from None
    found = np.array(pairs, dtype=np.float64).reshape(-1, 4)
    return found[:, :2], found[:, 2:]


def _is_number(text: str) -> bool:
    try:
        parse_decimal(text)
    except ValueError:
        return False
    return True
