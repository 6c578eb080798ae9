"""The map from one picture to another: similarity, affine or thin-plate spline, in slide micrometres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import RegistrationError
from napari_cpnn.geometry import Mpp, spatial_to_um, um_to_spatial

Kind = Literal["similarity", "affine", "thin-plate"]

KINDS: tuple[Kind, ...] = get_args(Kind)

#: Newton steps for the inverse of a spline, and the accuracy that is required, in parts of the landmarks' spread.
_STEPS, _CLOSE = 50, 1e-7
#: Step of the numerical derivative of a spline, in parts of the landmarks' spread.
_DELTA = 1e-5


@dataclass(frozen=True)
class Evidence:
    """What an automatic registration rests on.

    Attributes
    ----------
    dice
        Overlap of the two tissues, ``2 |A and B| / (|A| + |B|)``.
    rival
        The same of the best placement that is turned by more than 45 degrees, or mirrored, against this one.
    correlation
        Pearson correlation of the darkness of both pictures where both show tissue; NaN without a second picture.
    rival_correlation
        The best correlation of a placement that is turned by more than 45 degrees, or mirrored, against this one.
    inliers, matches
        Image features that agree with the registration, of those that were matched.
    """

    dice: float
    rival: float = math.nan
    correlation: float = math.nan
    rival_correlation: float = math.nan
    inliers: int = 0
    matches: int = 0


@dataclass(frozen=True, eq=False)
class Registration:
    """A map of points from a moving picture, or from a table of spots, to a fixed slide.

    Attributes
    ----------
    kind
        ``"similarity"`` (turn, shift, one scale, perhaps mirrored), ``"affine"`` or ``"thin-plate"``.
    matrix
        ``(2, 3)``: fixed ``(y, x)`` = matrix @ ``(y, x, 1)``, slide um. Of a thin-plate spline the affine map that is
        closest to it at the landmarks.
    moving, fixed
        Landmarks ``(N, 2)``, slide um ``(y, x)``; empty for an automatic registration.
    left_out_um
        ``(N,)``: distance in um between a fixed landmark and where the registration that was fitted without it puts it;
        NaN where the others are too few.
    moving_mpp, fixed_mpp
        Pixel sizes ``(y, x)``. Where that of the moving picture is unknown it is 1, so that its um are its pixels.
    moving_name, fixed_name
        What the pictures are called.
    trusted
        False if an automatic registration is not to be believed without a look; ``why`` says why.
    evidence
        What an automatic registration rests on; None with landmarks.

    Examples
    --------
    >>> from napari_cpnn.registration import fit_landmarks
    >>> turned = fit_landmarks([(0, 0), (0, 100), (50, 0)], [(10, 20), (110, 20), (10, -30)])
    >>> turned.map([(0, 50)]).round(6).tolist(), round(turned.turn_deg, 6), turned.mirrored
    ([[60.0, 20.0]], -90.0, False)
    """

    kind: Kind
    matrix: FloatArray
    moving: FloatArray
    fixed: FloatArray
    left_out_um: FloatArray
    moving_mpp: Mpp = (1.0, 1.0)
    fixed_mpp: Mpp = (1.0, 1.0)
    moving_name: str = ""
    fixed_name: str = ""
    trusted: bool = True
    why: str = ""
    evidence: Evidence | None = None

    # -- points --------------------------------------------------------------------------------------------

    def map(self, points_um: npt.ArrayLike) -> FloatArray:
        """Map points ``(N, 2)`` of the moving picture, um ``(y, x)``, to the fixed slide; NaN stays NaN."""
        points = _points(points_um)
        if self.kind != "thin-plate":
            return _affine(self.matrix, points)
        return self._at_known(points, self._spline)

    def inverse(self, points_um: npt.ArrayLike) -> FloatArray:
        """Map points ``(N, 2)`` of the fixed slide, um ``(y, x)``, back to the moving picture.

        Raises
        ------
        RegistrationError
            If a thin-plate spline reaches no point of them, far away from its landmarks.
        """
        points = _points(points_um)
        if self.kind != "thin-plate":
            return _affine(self.inverse_matrix, points)
        return self._at_known(points, self._undone)

    def map_px(self, spatial_px: npt.ArrayLike) -> FloatArray:
        """Map level-0 pixels ``(N, 2)``, ``(x, y)``, of the moving picture to those of the fixed slide."""
        return um_to_spatial(self.map(spatial_to_um(spatial_px, self.moving_mpp)), self.fixed_mpp)

    @staticmethod
    def _at_known(points: FloatArray, function: Any) -> FloatArray:
        found = np.full(points.shape, np.nan)
        known = np.isfinite(points).all(axis=1)
        if known.any():
            found[known] = function(points[known])
        return found

    # -- what it does --------------------------------------------------------------------------------------

    @property
    def inverse_matrix(self) -> FloatArray:
        """``(2, 3)``: the inverse of ``matrix``."""
        return np.asarray(np.linalg.inv(np.vstack([self.matrix, (0.0, 0.0, 1.0)]))[:2])

    @property
    def pixel_matrix(self) -> FloatArray:
        """``(2, 3)``: fixed level-0 pixels ``(x, y)`` = matrix @ ``(x, y, 1)`` of moving level-0 pixels.

        Of a thin-plate spline the affine map that is closest to it.
        """
        swap = np.array([[0.0, 1.0], [1.0, 0.0]])
        to_um, to_px = swap * np.asarray(self.moving_mpp)[:, None], swap / np.asarray(self.fixed_mpp)
        return np.column_stack([to_px @ self.matrix[:, :2] @ to_um, to_px @ self.matrix[:, 2]])

    @property
    def mirrored(self) -> bool:
        """Whether it mirrors the picture."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    @property
    def scale(self) -> float:
        """Factor of lengths, from the area; with both pixel sizes right it is near 1."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    @property
    def turn_deg(self) -> float:
        """Angle in degrees by which it turns the picture counter-clockwise as seen, after mirroring left to right."""
        linear = self.matrix[:, :2] @ np.diag([1.0, -1.0 if self.mirrored else 1.0])
        # Of the rotation that is closest to it; y points down on screen.
        return math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))

    @property
    def residuals_um(self) -> FloatArray:
        """``(N,)``: distance in um between fixed landmarks and mapped moving ones; 0 for a thin-plate spline."""
        if not len(self.moving):
            return np.empty(0)
        return np.asarray(np.linalg.norm(self.map(self.moving) - self.fixed, axis=1))

    @property
    def affine_residuals_um(self) -> FloatArray:
        """``(N,)``: the same for the affine map in ``matrix`` alone."""
        return np.asarray(np.linalg.norm(_affine(self.matrix, self.moving) - self.fixed, axis=1))

    @property
    def rms_um(self) -> float:
        """Root mean square of ``residuals_um``; NaN without landmarks."""
        return _rms(self.residuals_um)

    @property
    def left_out_rms_um(self) -> float:
        """Root mean square of ``left_out_um``, an honest estimate of the error between landmarks; NaN if unknown."""
        return _rms(self.left_out_um[np.isfinite(self.left_out_um)])

    @property
    def summary(self) -> str:
        """One line: what it does, and how well."""
        parts = [
            self.kind,
            f"scale {self.scale:.3f}",
            f"turned {self.turn_deg:+z.1f}°",
            *(["mirrored"] if self.mirrored else []),
        ]
        if len(self.moving):
            parts.append(f"{len(self.moving)} landmarks, residual {self.rms_um:.1f} um")
            if math.isfinite(self.left_out_rms_um):
                parts.append(f"left out {self.left_out_rms_um:.1f} um")
        if self.evidence is not None:
            parts.append(f"overlap {self.evidence.dice:.2f}")
            if math.isfinite(self.evidence.correlation):
                parts.append(f"correlation {self.evidence.correlation:.2f}")
            if self.evidence.matches:
                parts.append(f"{self.evidence.inliers} of {self.evidence.matches} features agree")
        return ", ".join(parts) + (f"; {self.how_far}" if self.how_far else "")

    @property
    def how_far(self) -> str:
        """How far a guess by outlines alone may be off, which its overlap does not tell; empty for others."""
        if self.evidence is None or math.isfinite(self.evidence.correlation) or self.evidence.matches:
            return ""
        return "found by the outline alone: up to half the distance of two spots off, so check it by landmarks"

    # -- the spline ----------------------------------------------------------------------------------------

    @cached_property
    def _spread(self) -> float:
        return float(np.linalg.norm(self.moving - self.moving.mean(axis=0), axis=1).max())

    @cached_property
    def _interpolator(self) -> Any:
        from scipy.interpolate import RBFInterpolator

        # Lengths in parts of the spread: the spline is the same, the equations are better conditioned.
        return RBFInterpolator(self._scaled(self.moving), self.fixed, kernel="thin_plate_spline", degree=1)

    def _scaled(self, points: FloatArray) -> FloatArray:
        return np.asarray((points - self.moving.mean(axis=0)) / self._spread)

    def _spline(self, points: FloatArray) -> FloatArray:
        return np.asarray(self._interpolator(self._scaled(points)))

    def _jacobian(self, points: FloatArray) -> FloatArray:
        """Return ``(N, 2, 2)``: derivative of the spline's (y, x) by the moving (y, x)."""
        step = _DELTA * self._spread
        columns = [
            (self._spline(points + step * axis) - self._spline(points - step * axis)) / (2 * step) for axis in np.eye(2)
        ]
        return np.stack(columns, axis=2)

    def _undone(self, points: FloatArray) -> FloatArray:
        """Newton's method, from where the affine map came from."""
        found = _affine(self.inverse_matrix, points)
        for _ in range(_STEPS):
            off = self._spline(found) - points
            if np.abs(off).max() <= _CLOSE * self._spread * max(self.scale, 1e-12):
                return found
            found = found - np.einsum("nij,nj->ni", np.linalg.pinv(self._jacobian(found)), off)
        raise RegistrationError(
            "The thin-plate registration cannot be inverted so far away from its landmarks; add landmarks there, or "
            "use an affine one."
        )


def folds_at(registration: Registration) -> FloatArray | None:
    """Return a moving point (y, x) near which a thin-plate spline folds the tissue over; None if it does not.

    It is looked for on a grid over the landmarks: where the determinant of the derivative changes its sign.
    """
    low, high = registration.moving.min(axis=0), registration.moving.max(axis=0)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 41).T, indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.concatenate([registration.moving, grid])
    determinant = np.linalg.det(registration._jacobian(points))  # noqa: SLF001 -- the spline's own test
    wrong = determinant * np.linalg.det(registration.matrix[:, :2]) <= 0
    return points[int(np.argmax(wrong))] if wrong.any() else None


def _points(points: npt.ArrayLike) -> FloatArray:
    found = np.asarray(points, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 2:
        raise RegistrationError(f"Points must have the shape (N, 2), not {found.shape}.")
    return found


def _affine(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else math.nan
