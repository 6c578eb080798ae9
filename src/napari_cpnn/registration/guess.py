"""A first guess of a registration, from the shape of the tissue and from what the pictures show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.registration.features import Agreement, agreements
from napari_cpnn.registration.placing import COARSE_PX, FINE_PX, Placement, Raster, is_other, placements
from napari_cpnn.registration.registration import Evidence, Registration
from napari_cpnn.registration.views import View, view_of_slide, view_of_spots
from napari_cpnn.slides import Slide

if TYPE_CHECKING:
    from anndata import AnnData

#: Features that must agree, and how many times more than in the picture of the wrong hand; and how far they must
#: spread, in parts of the spread of the tissue.
_FEATURES, _TIMES, _SPREAD = 12, 2.5, 0.35
#: Pictures must correlate by this much, and by this much more than turned otherwise.
_ALIKE, _AHEAD = 0.42, 0.12
#: Tissues must overlap by this much: at all, where only shapes are compared, and more than turned otherwise.
_OVERLAP, _SHAPE, _SHAPE_AHEAD = 0.6, 0.85, 0.04

#: Looks that are taken to refine a placement; the best one gets twice as many again.
_LOOKS = 80


def guess_registration(fixed: Slide, moving: Slide | AnnData, name: str = "") -> Registration:
    """Guess where another slide, or spots, lie on a slide.

    The tissue of both is laid on each other at all angles, mirrored and not. Of spots this is the tissue on the picture
    that came with them (``uns["spatial"]``), or else what the spots cover. Where there are two pictures, features that
    agree (SIFT, Lowe 2004, with random sample consensus, Fischler and Bolles 1981) or else the correlation of the
    darkness decide.

    Parameters
    ----------
    fixed
        Slide with a pixel size.
    moving
        Slide with a pixel size; or spots with ``obsm["spatial"]`` in pixels of whatever picture.
    name
        What spots are called in the result.

    Returns
    -------
    Registration
        A similarity. Unless ``trusted``, look at it first: ``why`` says what speaks against it.

    Raises
    ------
    NoTissueError, PixelSizeError, SlideError
        If a slide cannot be read, or has no tissue or pixel size.
    RegistrationError, SpotsError
        If there are too few spots, or they have no positions.

    Examples
    --------
    >>> from napari_cpnn.registration import guess_registration
    >>> found = guess_registration(slide, slide)
    >>> found.trusted, round(found.scale, 2), abs(round(found.turn_deg))
    (True, 1.0, 0)
    """
    here = view_of_slide(fixed)
    there = view_of_slide(moving) if isinstance(moving, Slide) else view_of_spots(moving, name or "spots")
    has_pictures = here.dark is not None and there.dark is not None
    features = sorted(agreements(here, there), key=lambda one: -one.inliers)
    agree = len(features) == 2 and _is_sure(features[0], features[1], here)
    best, rivals = _placed(here, there, features[0].matrix if agree else None)
    evidence = Evidence(
        best.dice,
        max((one.dice for one in rivals), default=math.nan),
        best.correlation,
        max((one.correlation for one in rivals if not math.isnan(one.correlation)), default=math.nan),
        features[0].inliers if features else 0,
        features[0].matches if features else 0,
    )
    why = "" if agree and best.dice >= _OVERLAP else _doubt(evidence, has_pictures)
    none = np.empty((0, 2))
    return Registration(
        "similarity", best.matrix, none, none, np.empty(0), there.mpp, here.mpp, there.name, here.name, not why, why,
        evidence,
    )  # fmt: skip


def _placed(fixed: View, moving: View, sure: FloatArray | None) -> tuple[Placement, list[Placement]]:
    """Return the best placement, or the one that is sure, and the best ones that are turned or mirrored otherwise."""
    coarse, fine = Raster(fixed, moving, COARSE_PX), Raster(fixed, moving, FINE_PX)
    free_scale = fine.dark is not None or not (fixed.is_scaled and moving.is_scaled)
    tried = placements(fixed, moving)
    if sure is not None:
        return fine.judged(sure), [fine.judged(one) for one in tried if is_other(sure, one)]
    judged = [coarse.judged(coarse.refined(one, free_scale=free_scale, most=_LOOKS)) for one in tried]
    judged.sort(key=_worth, reverse=True)
    best = fine.judged(fine.refined(judged[0].matrix, free_scale=free_scale, most=2 * _LOOKS))
    return best, [fine.judged(one.matrix) for one in judged if is_other(best.matrix, one.matrix)]


def _worth(one: Placement) -> float:
    return one.dice + (0.0 if math.isnan(one.correlation) else one.correlation)


def _is_sure(right: Agreement, wrong: Agreement, fixed: View) -> bool:
    rows, cols = np.nonzero(fixed.mask)
    spread = math.hypot(rows.std() * fixed.mask_um[0], cols.std() * fixed.mask_um[1])
    return right.inliers >= max(_FEATURES, _TIMES * wrong.inliers) and right.spread_um >= _SPREAD * spread


def _doubt(found: Evidence, has_pictures: bool) -> str:
    """Return why a registration is not to be believed; empty if it is."""
    if found.dice < _OVERLAP:
        return f"The tissues overlap by {found.dice:.2f} only (Dice), so one may be another section or a part."
    if has_pictures and not math.isnan(found.correlation):
        rival = -1.0 if math.isnan(found.rival_correlation) else found.rival_correlation
        if found.correlation < _ALIKE:
            return f"The pictures hardly resemble each other (correlation {found.correlation:.2f})."
        if found.correlation < rival + _AHEAD:
            return (
                f"Turned or mirrored otherwise the pictures are about as alike (correlation {rival:.2f}, and "
                f"{found.correlation:.2f} as registered)."
            )
        return ""
    if found.dice < _SHAPE:
        return f"The outlines overlap by {found.dice:.2f} only (Dice), too little without a picture to compare."
    if found.dice < found.rival + _SHAPE_AHEAD:
        return (
            f"Turned or mirrored otherwise the outlines fit about as well (overlap {found.rival:.2f}, and "
            f"{found.dice:.2f} as registered)."
        )
    return ""
