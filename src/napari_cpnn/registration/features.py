"""Similarity from image features that two pictures share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.feature import SIFT, match_descriptors
from skimage.transform import resize

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.registration.landmarks import similarity_matrix
from napari_cpnn.registration.views import View

#: Longer side in pixels at which features are looked for.
_SIDE_PX = 600
#: Matches are kept whose descriptor is this much closer than the second best (Lowe, IJCV 60, 91-110, 2004).
_RATIO = 0.8
#: Features agree within so many pixels.
_WITHIN_PX = 3.0
#: Pairs of matches that are tried, and how far apart (in parts of the picture) both must be.
_TRIALS, _APART = 4000, 0.1
#: Factors of lengths that are possible between two pictures of known, and of unknown pixel size.
_SCALES, _ANY_SCALES = (0.8, 1.25), (0.2, 5.0)


@dataclass(frozen=True)
class Agreement:
    """Features that agree with one similarity.

    Attributes
    ----------
    matrix
        ``(2, 3)`` from moving to fixed um ``(y, x)``; None if there is none.
    inliers, matches
        How many agree, of how many.
    spread_um
        Root mean square distance of those that agree from their centre, on the fixed slide.
    """

    matrix: FloatArray | None
    inliers: int
    matches: int
    spread_um: float


def agreements(fixed: View, moving: View) -> list[Agreement]:
    """Return the similarities on which most features agree: not mirrored, and mirrored; nothing without two pictures.

    Features of SIFT do not survive mirroring, so the moving picture is looked at twice. Of the two results the wrong
    one says how many features agree by chance.
    """
    if fixed.dark is None or moving.dark is None:
        return []
    scales = _SCALES if fixed.is_scaled and moving.is_scaled else _ANY_SCALES
    within = _WITHIN_PX * max(n * um for n, um in zip(fixed.dark.shape, fixed.dark_um, strict=True)) / _SIDE_PX
    known = _features(fixed, fixed.dark, mirror=False)
    return [
        _agreement(known, _features(moving, moving.dark, mirror=mirror), scales, within, mirror)
        for mirror in (False, True)
    ]


def _features(view: View, dark: Float32Array, *, mirror: bool) -> tuple[FloatArray, Float32Array]:
    """Return places ``(N, 2)`` in um ``(y, x)`` and descriptors ``(N, 128)`` of the features on the tissue."""
    shape = [max(1, round(n * min(1.0, _SIDE_PX / max(dark.shape)))) for n in dark.shape]
    small = resize(dark, shape, anti_aliasing=True)  # type: ignore[no-untyped-call]
    small = small / max(float(np.quantile(small, 0.999)), 1e-6)
    size = np.array([n * um / m for n, um, m in zip(dark.shape, view.dark_um, shape, strict=True)])
    sift: Any = SIFT(upsampling=1)  # type: ignore[no-untyped-call]
    try:
        sift.detect_and_extract(small[:, ::-1] if mirror else small)
    except RuntimeError:  # it found none
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    pixels = sift.positions.astype(np.float64)
    if mirror:
        pixels[:, 1] = shape[1] - 1 - pixels[:, 1]
    places = (pixels + 0.5) * size + np.asarray(view.origin_um)
    on = _is_on(view, places)
    return places[on], sift.descriptors[on].astype(np.float32)


def _is_on(view: View, places: FloatArray) -> BoolArray:
    at = ((places - np.asarray(view.origin_um)) / np.asarray(view.mask_um)).astype(int)
    at = at.clip(0, np.array(view.mask.shape) - 1)
    return np.asarray(view.mask[at[:, 0], at[:, 1]])


def _agreement(
    fixed: tuple[FloatArray, Float32Array],
    moving: tuple[FloatArray, Float32Array],
    scales: tuple[float, float],
    within: float,
    mirror: bool,
) -> Agreement:
    if min(len(fixed[0]), len(moving[0])) < 3:
        return Agreement(None, 0, 0, 0.0)
    pairs = match_descriptors(moving[1], fixed[1], cross_check=True, max_ratio=_RATIO)  # type: ignore[no-untyped-call]
    there, here = moving[0][pairs[:, 0]], fixed[0][pairs[:, 1]]
    inside = _consensus(there, here, scales, within, mirror)
    if inside.sum() < 3:
        return Agreement(None, int(inside.sum()), len(pairs), 0.0)
    for _ in range(3):  # least squares over those that agree, until they are the same
        matrix = similarity_matrix(there[inside], here[inside], mirror)
        again = np.linalg.norm(there @ matrix[:, :2].T + matrix[:, 2] - here, axis=1) <= within
        if again.sum() < 3 or (again == inside).all():
            break
        inside = again
    spread = float(np.sqrt(((here[inside] - here[inside].mean(axis=0)) ** 2).sum(axis=1).mean()))
    return Agreement(matrix, int(inside.sum()), len(pairs), spread)


def _consensus(
    there: FloatArray, here: FloatArray, scales: tuple[float, float], within: float, mirror: bool
) -> BoolArray:
    """Return which matches agree with the best similarity through two of them (random sample consensus)."""
    best = np.zeros(len(there), dtype=bool)
    if len(there) < 3:
        return best
    p, q = there[:, 1] + 1j * there[:, 0], here[:, 1] + 1j * here[:, 0]
    if mirror:
        p = p.conj()
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(p), _TRIALS)
    second = (first + rng.integers(1, len(p), _TRIALS)) % len(p)
    apart = np.abs(p[first] - p[second]) > _APART * max(np.ptp(p.real), np.ptp(p.imag))
    first, second = first[apart], second[apart]
    factor = (q[first] - q[second]) / (p[first] - p[second])
    possible = (np.abs(factor) >= scales[0]) & (np.abs(factor) <= scales[1])
    factor, shift = factor[possible], (q[first] - factor * p[first])[possible]
    for start in range(0, len(factor), 500):
        part = slice(start, start + 500)
        off = np.abs(factor[part, None] * p + shift[part, None] - q)
        counts = (off <= within).sum(axis=1)
        if counts.max() > best.sum():
            best = off[counts.argmax()] <= within
    return best
