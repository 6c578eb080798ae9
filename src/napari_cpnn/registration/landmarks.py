"""Registrations from pairs of landmarks, by least squares or as a thin-plate spline."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import RegistrationError
from napari_cpnn.geometry import Mpp
from napari_cpnn.registration.registration import KINDS, Kind, Registration, folds_at

#: Pairs that each kind needs.
LEAST: dict[Kind, int] = {"similarity": 2, "affine": 3, "thin-plate": 3}
#: Points whose second principal spread is a smaller part of the first lie on a line.
_LINE = 0.01
#: Points closer than this part of the spread are one point.
_ONE_POINT = 1e-6
#: Mirroring must reduce the residual to this part before it is believed of points that are nearly on a line.
_CLEARLY = 0.5
#: Landmarks that are off by a larger part of their spread say that a given hand is wrong.
_FAR_OFF = 0.1
#: Coordinates beyond this are on no picture.
_FARTHEST = 1e12
#: More pairs are no landmarks that somebody set, and the equations of a spline grow with their square.
MOST = 1000


def fit_landmarks(
    moving: npt.ArrayLike,
    fixed: npt.ArrayLike,
    kind: Kind = "similarity",
    mirror: bool | None = None,
    *,
    mpp: tuple[Mpp, Mpp] = ((1.0, 1.0), (1.0, 1.0)),
    names: tuple[str, str] = ("", ""),
) -> Registration:
    """Fit the registration that maps landmarks of a moving picture to those of a fixed slide.

    A similarity is the least-squares solution in closed form (Umeyama, IEEE TPAMI 13, 376-380, 1991, equations 40 to
    43), an affine map that of the linear equations, and a thin-plate spline interpolates the landmarks with the least
    bending (Bookstein, IEEE TPAMI 11, 567-585, 1989).

    Parameters
    ----------
    moving, fixed
        ``(N, 2)`` slide um, ``(y, x)``; row ``i`` of both is the same place of the tissue. Two pairs at least for a
        similarity, three for the others.
    mirror
        Whether the picture is mirrored; None: what fits better, which takes three pairs that are not on a line.
    mpp
        Pixel sizes of the moving and the fixed picture, which are noted with the result.
    names
        What both are called.

    Raises
    ------
    RegistrationError
        If there are too few landmarks, some are not numbers, coincide or lie on a line, they are mirrored although
        ``mirror`` says otherwise, or a spline through them would fold the tissue over.

    Examples
    --------
    >>> from napari_cpnn.registration import fit_landmarks
    >>> found = fit_landmarks([(0, 0), (0, 100), (100, 0), (90, 90)], [(0, 0), (0, 102), (101, 0), (91, 92)])
    >>> round(found.scale, 2), round(found.rms_um, 1), round(found.left_out_rms_um, 1)
    (1.02, 0.4, 0.7)
    """
    if kind not in KINDS:
        raise RegistrationError(f"A registration is of the kind {', '.join(KINDS)}, not {kind!r}.")
    there, here = _checked(moving, fixed, kind)
    if mirror is None and kind == "similarity":
        mirror = _is_mirrored(there, here)
    matrix = similarity_matrix(there, here, bool(mirror)) if kind == "similarity" else affine_matrix(there, here)
    mirrored = bool(np.linalg.det(matrix[:, :2]) < 0)
    if kind == "similarity" and _is_clearly_wrong(there, here, mirrored):
        mirrored = not mirrored
    if mirror is not None and mirrored != mirror:
        said = "mirrored" if mirrored else "not mirrored"
        raise RegistrationError(f"The landmarks say that the picture is {said}; allow that, or check the pairs.")
    result = Registration(
        kind, matrix, there, here, np.full(len(there), np.nan), *mpp, moving_name=names[0], fixed_name=names[1]
    )
    if kind == "thin-plate" and (place := folds_at(result)) is not None:
        nearest = int(np.linalg.norm(there - place, axis=1).argmin()) + 1
        raise RegistrationError(
            f"A thin plate through these landmarks folds the tissue over near landmark {nearest}; check that pair, or "
            "use an affine registration."
        )
    return dataclasses.replace(result, left_out_um=_left_out(there, here, kind, mirrored))


def similarity_matrix(moving: FloatArray, fixed: FloatArray, mirror: bool) -> FloatArray:
    """Return the least-squares similarity ``(2, 3)`` of Umeyama, mirrored or not as asked."""
    centre, target = moving.mean(axis=0), fixed.mean(axis=0)
    a, b = moving - centre, fixed - target
    left, sizes, right = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) * (-1.0 if mirror else 1.0)])
    scale = float((sizes * sign).sum() / (a**2).sum())
    linear = scale * (left * sign) @ right
    return np.column_stack([linear, target - linear @ centre])


def affine_matrix(moving: FloatArray, fixed: FloatArray) -> FloatArray:
    """Return the least-squares affine map ``(2, 3)``."""
    centre = moving.mean(axis=0)
    design = np.column_stack([moving - centre, np.ones(len(moving))])
    solution = np.linalg.lstsq(design, fixed, rcond=None)[0].T
    return np.column_stack([solution[:, :2], solution[:, 2] - solution[:, :2] @ centre])


def _is_mirrored(moving: FloatArray, fixed: FloatArray) -> bool:
    """Return whether a mirrored similarity fits better; of landmarks near a line only if it does so clearly."""
    if len(moving) < 3:
        return False
    plain, mirrored = (_rms(moving, fixed, similarity_matrix(moving, fixed, sign)) for sign in (False, True))
    return mirrored < _CLEARLY * plain


def _is_clearly_wrong(moving: FloatArray, fixed: FloatArray, mirrored: bool) -> bool:
    """Return whether a similarity of this hand leaves the landmarks far off, and one of the other hand does not."""
    if len(moving) < 3:
        return False
    asked, other = (_rms(moving, fixed, similarity_matrix(moving, fixed, sign)) for sign in (mirrored, not mirrored))
    spread = float(np.sqrt(((fixed - fixed.mean(axis=0)) ** 2).sum(axis=1).mean()))
    return asked > _FAR_OFF * spread and other < _CLEARLY * asked


def _rms(moving: FloatArray, fixed: FloatArray, matrix: FloatArray) -> float:
    return float(np.sqrt(((moving @ matrix[:, :2].T + matrix[:, 2] - fixed) ** 2).sum(axis=1).mean()))


def _left_out(moving: FloatArray, fixed: FloatArray, kind: Kind, mirror: bool) -> FloatArray:
    """Return how far from its fixed landmark each moving one comes to lie by a fit to all the others."""
    away = np.full(len(moving), np.nan)
    bent = _left_out_of_spline(moving, fixed) if kind == "thin-plate" else None
    for i in range(len(moving)):
        rest = np.arange(len(moving)) != i
        try:
            # Of a spline only a line matters here: that no two points coincide was seen before.
            there, here = _checked(moving[rest], fixed[rest], kind if bent is None else "affine")
        except RegistrationError:
            continue
        if bent is not None:
            away[i] = bent[i]
            continue
        matrix = similarity_matrix(there, here, mirror) if kind == "similarity" else affine_matrix(there, here)
        found = Registration(kind, matrix, there, here, np.empty(0))
        away[i] = np.linalg.norm(found.map(moving[i : i + 1])[0] - fixed[i])
    return away


def _left_out_of_spline(moving: FloatArray, fixed: FloatArray) -> FloatArray:
    """Return how far off each landmark is by a spline through all the others, without fitting it anew.

    Where the spline's equations ``A (c, d) = (fixed, 0)`` have the solution ``c``, it is ``c_i / (inverse of A)_ii``
    (Rippa, Advances in Computational Mathematics 11, 193-210, 1999, equation 10).
    """
    from scipy.spatial.distance import cdist
    from scipy.special import xlogy

    n, points = len(moving), moving - moving.mean(axis=0)
    points = points / np.abs(points).max()
    apart, plane = cdist(points, points), np.column_stack([np.ones(n), points])
    inverse = np.linalg.pinv(np.block([[xlogy(apart**2, apart), plane], [plane.T, np.zeros((3, 3))]]))
    with np.errstate(divide="ignore", invalid="ignore"):  # where the others lie on a line, which is not asked
        off = inverse[:n, :n] @ fixed / np.diag(inverse)[:n, None]
    return np.asarray(np.linalg.norm(off, axis=1))


def _checked(moving: npt.ArrayLike, fixed: npt.ArrayLike, kind: Kind) -> tuple[FloatArray, FloatArray]:
    try:
        there, here = np.array(moving, dtype=np.float64), np.array(fixed, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise RegistrationError(f"The landmarks are not numbers ({exc}).") from exc
    there, here = (points.reshape(0, 2) if not points.size else points for points in (there, here))
    if there.shape != here.shape or there.ndim != 2 or there.shape[1] != 2:
        raise RegistrationError(
            f"Landmarks are pairs of points, (N, 2) in both pictures, not {there.shape} and {here.shape}."
        )
    unknown = ~((np.abs(there) < _FARTHEST) & (np.abs(here) < _FARTHEST)).all(axis=1)
    if unknown.any():
        raise RegistrationError(
            f"Landmark {int(unknown.argmax()) + 1} has a coordinate that is not a number, or too large."
        )
    if len(there) < LEAST[kind]:
        needed = {2: "two pairs of landmarks", 3: "three pairs of landmarks that are not on a line"}[LEAST[kind]]
        raise RegistrationError(f"{_a(kind)} registration takes {needed}, but has {len(there)}.")
    if len(there) > MOST:
        raise RegistrationError(f"There are {len(there):,} landmarks; a registration takes {MOST:,} at most.")
    for points, which in ((there, "moving"), (here, "fixed")):
        _require_spread(points, which, kind)
    return there, here


def _require_spread(points: FloatArray, which: str, kind: Kind) -> None:
    sizes = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    size = float(np.abs(points).max())
    if sizes[0] <= 1e-9 * max(size, 1.0):
        raise RegistrationError(f"All landmarks lie at one place of the {which} picture.")
    if kind == "similarity":
        return
    if sizes[1] < _LINE * sizes[0]:
        raise RegistrationError(
            f"The landmarks of the {which} picture lie on a line, which says nothing across it; add one beside it."
        )
    if kind == "thin-plate" and (pair := _coincident(points, float(sizes[0]) / math.sqrt(len(points)))) is not None:
        raise RegistrationError(
            f"Landmarks {pair[0] + 1} and {pair[1] + 1} lie at one place of the {which} picture; remove one of them."
        )


def _coincident(points: FloatArray, spread: float) -> tuple[int, int] | None:
    from scipy.spatial import cKDTree

    pairs = sorted(cKDTree(points).query_pairs(_ONE_POINT * spread))
    return pairs[0] if pairs else None


def _a(kind: Kind) -> str:
    return f"An {kind}" if kind == "affine" else f"A {kind}"
