"""Move spots and regions by a registration."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, RegistrationError
from napari_cpnn.geometry import Mpp
from napari_cpnn.regions import Region
from napari_cpnn.registration.files import registration_in, registration_text
from napari_cpnn.registration.landmarks import fit_landmarks
from napari_cpnn.registration.registration import Registration
from napari_cpnn.spots import WARPED, SpotFix, is_warped, rescale, with_positions

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Relative difference of the pixel sizes of a registration and of the slide that it is applied on.
_SAME = 0.005
#: Landmarks lie on the slide, or beside it by at most this part of its size.
_OUTSIDE = 0.1
#: Outlines get points at least this close (um), so that straight edges bend with a spline.
_EDGE_UM = 50.0


def apply_registration(spots: AnnData, registration: Registration, slide: Slide | None = None) -> AnnData:
    """Return a copy of the spots at their places on the fixed slide.

    Positions and the scale factors in ``uns["spatial"]`` are those of the fixed slide afterwards. The move is noted in
    the table, so that it can be taken back: :func:`~napari_cpnn.spots.move_of`, or :func:`warp_of` for a thin plate.

    Parameters
    ----------
    spots
        Table with ``obsm["spatial"]``, level-0 pixels ``(x, y)`` of the moving picture.
    slide
        The fixed slide, to check that its pixel size is the one of the registration; None: not checked.

    Raises
    ------
    RegistrationError
        If the slide has another pixel size than the registered one, or the spots were moved by a thin plate before.
    SpotsError
        If the spots have no positions.

    Examples
    --------
    >>> from napari_cpnn.registration import apply_registration, fit_landmarks
    >>> shift = fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 120)], mpp=(slide.mpp, slide.mpp))
    >>> moved = apply_registration(spots, shift, slide)
    >>> (moved.obsm["spatial"] - spots.obsm["spatial"])[0].round(6).tolist()
    [40.0, 20.0]
    """
    if slide is not None:
        require_fixed(registration, slide)
    if is_warped(spots):
        raise RegistrationError(
            "These spots were moved by a thin-plate registration; take that back before you register them again."
        )
    name = f"a registration ({registration.kind})"
    if registration.kind != "thin-plate":
        return SpotFix(name, registration.pixel_matrix, math.nan).apply(spots)
    moved = with_positions(spots, "The table of spots").copy()
    if "spatial" not in moved.obsm:
        raise RegistrationError('The table of spots has no positions in obsm["spatial"].')
    moved.obsm["spatial"] = registration.map_px(np.asarray(moved.obsm["spatial"], dtype=np.float64))
    rescale(moved, math.sqrt(abs(float(np.linalg.det(registration.pixel_matrix[:, :2])))))
    moved.uns["napari_cpnn"] = {**dict(moved.uns.get("napari_cpnn", {})), WARPED: registration_text(registration)}
    return moved


def warp_of(spots: AnnData) -> Registration | None:
    """Return the thin-plate registration by which spots were moved; ``None`` if there was none."""
    text = dict(spots.uns.get("napari_cpnn", {})).get(WARPED)
    return None if text is None else registration_in(json.loads(str(text)), "The note of the spots")


def require_fixed(registration: Registration, slide: Slide) -> None:
    """Raise an error if a slide cannot be the registered one: by its pixel size, or landmarks that lie outside it.

    With another name it may have been renamed, or be another slide of the same scanner, which is a warning.
    """
    if slide.mpp is None:
        return
    if any(abs(a / b - 1) > _SAME for a, b in zip(slide.mpp, registration.fixed_mpp, strict=True)):
        raise RegistrationError(
            f"The registration is of a slide with {registration.fixed_mpp[0]:.4g} um per pixel, but {slide.name} has "
            f"{slide.mpp[0]:.4g}; is it the right slide?"
        )

    require_inside(registration.fixed, slide)
    if registration.fixed_name and registration.fixed_name != slide.name:
        warnings.warn(
            f"The registration was made on {registration.fixed_name}, and is used on {slide.name}; is it the right "
            "slide?",
            CpnnWarning,
            stacklevel=3,
        )


def require_inside(points_um: FloatArray, slide: Slide) -> None:
    """Raise an error if landmarks ``(N, 2)``, um ``(y, x)``, lie far outside a slide whose pixel size is known."""
    if slide.mpp is None:
        return
    size_px = np.array(slide.shape[:2], dtype=np.float64)
    places_px = points_um / np.array(slide.mpp)
    outside = ((places_px < -_OUTSIDE * size_px) | (places_px > (1 + _OUTSIDE) * size_px)).any(axis=1)
    if outside.any():
        first = int(outside.argmax())
        y, x = places_px[first]
        raise RegistrationError(
            f"Landmark {first + 1} is at x = {x:,.0f}, y = {y:,.0f} px, outside {slide.name} ({size_px[1]:,.0f} x "
            f"{size_px[0]:,.0f} px); are landmarks in pixels of the full slide, x before y, and is it the right slide?"
        )


def with_moving_mpp(registration: Registration, mpp: Mpp) -> Registration:
    """Return the same map of pixels where the moving picture has another pixel size ``(y, x)``, perhaps known since.

    Examples
    --------
    >>> from napari_cpnn.registration import fit_landmarks, with_moving_mpp
    >>> shift = fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 120)])
    >>> with_moving_mpp(shift, (0.5, 0.5)).map_px([(3, 4)]).round(6).tolist(), shift.map_px([(3, 4)]).tolist()
    ([[23.0, 14.0]], [[23.0, 14.0]])
    """
    one, factor = registration, np.asarray(mpp) / np.asarray(registration.moving_mpp)
    if np.allclose(factor, 1, rtol=1e-9):
        return one
    mpps, names = (mpp, one.fixed_mpp), (one.moving_name, one.fixed_name)
    if len(one.moving):
        mirror = one.mirrored if one.kind == "similarity" else None
        moved = fit_landmarks(one.moving * factor, one.fixed, one.kind, mirror, mpp=mpps, names=names)
        return dataclasses.replace(moved, trusted=one.trusted, why=one.why, evidence=one.evidence)
    matrix = np.column_stack([one.matrix[:, :2] / factor, one.matrix[:, 2]])
    return dataclasses.replace(one, matrix=matrix, moving_mpp=mpp)


def register_regions(regions: Sequence[Region], registration: Registration) -> list[Region]:
    """Return regions of the moving slide as they lie on the fixed one, both in slide um.

    Examples
    --------
    >>> from napari_cpnn.regions import Region
    >>> from napari_cpnn.registration import fit_landmarks, register_regions
    >>> region = Region.from_vertices("margin", [(0, 0), (0, 400), (400, 400), (400, 0)])
    >>> moved = register_regions([region], fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 120)]))
    >>> [round(value) for value in moved[0].outline.bounds]
    [20, 10, 420, 410]
    """
    bends = registration.kind == "thin-plate"
    outlines = [shapely.segmentize(one.outline, _EDGE_UM) if bends else one.outline for one in regions]
    mapped = [
        shapely.transform(outline, lambda xy: registration.map(xy[:, ::-1])[:, ::-1], interleaved=True)
        for outline in outlines
    ]
    valid = [outline if shapely.is_valid(outline) else shapely.make_valid(outline) for outline in mapped]
    return [Region(one.name, outline) for one, outline in zip(regions, valid, strict=True)]
