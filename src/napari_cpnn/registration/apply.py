"""Move spots and regions by a registration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_cpnn.errors import RegistrationError
from napari_cpnn.regions import Region
from napari_cpnn.registration.files import registration_in, registration_text
from napari_cpnn.registration.registration import Registration
from napari_cpnn.spots import WARPED, SpotFix, is_warped, rescale, with_positions

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

#: Relative difference of the pixel sizes of a registration and of the slide that it is applied on.
_SAME = 0.005
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


def require_fixed(registration: Registration, slide: Slide | None) -> None:
    """Raise an error if a slide has another pixel size than the one that was registered."""
    if slide is None or slide.mpp is None:
        return
    if any(abs(a / b - 1) > _SAME for a, b in zip(slide.mpp, registration.fixed_mpp, strict=True)):
        raise RegistrationError(
            f"The registration is of a slide with {registration.fixed_mpp[0]:.4g} um per pixel, but {slide.name} has "
            f"{slide.mpp[0]:.4g}; is it the right slide?"
        )


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
