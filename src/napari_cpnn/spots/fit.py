"""Check whether spots fit a slide, and find corrections if they do not.

Positions in pixels of another image (the "hires" image, another pyramid level), mirrored positions and swapped axes are
common. Each such error is an invertible affine transform; the right correction puts the spots on the tissue.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.spots.affine import XENIUM_ALIGNMENT, inverted
from napari_cpnn.spots.array import array_coordinates
from napari_cpnn.spots.positions import with_positions
from napari_cpnn.spots.quality import implied_mpp, is_of_cells
from napari_cpnn.spots.scale_factors import libraries_of_uns

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide, TissueMask

#: Most spots of a section lie on tissue, except for a rim and holes. A fix is suggested if it puts this share of them
#: on tissue, and improves the share by at least the second value.
_GOOD, _GAIN = 0.8, 0.1

#: Diameter in um of the area examined around a spot, and the share of it that must be tissue.
_SPOT_UM, _COVERED = 100.0, 0.3

#: Relative difference in scale up to which pitch and slide agree, and above which only the scale is reported.
_SAME_SCALE, _OTHER_SCALE = 0.1, 0.5
#: Without a known pitch: spots that cover this share of the tissue when rescaled, and less than the second share of
#: that as they are, have a wrong scale.
_SPREAD, _LESS = 0.6, 0.5
#: Below this share of spots on tissue a problem is reported even if no fix is known.
_FEW = 0.5
#: Share of an array's spots above which a table is considered unfiltered, including spots beside the tissue.
_WHOLE_ARRAY = 0.9
_WHOLE_VISIUM = (4992, 14_336)
#: Maximum number of spots examined; larger tables are sampled.
_MOST_SPOTS = 50_000
#: Number of tissue masks that are cached.
_KEPT = 4

#: Key in ``uns["napari_cpnn"]`` of the thin-plate registration by which spots were moved.
WARPED = "warped"

#: Transforms closer to the identity than this count as undone: 1e-6 px on slides of 1e5 px.
_SAME_PLACE = 1e-6


@dataclass(frozen=True, eq=False)
class SpotFix:
    """An affine transform of positions that may make spots fit a slide.

    Attributes
    ----------
    name
        Description; empty for the identity.
    matrix
        ``(2, 3)``: new ``(x, y) = matrix @ (x, y, 1)``, level-0 pixels.
    on_tissue
        Share of the spots that lie on tissue after the transform.
    """

    name: str
    matrix: FloatArray
    on_tissue: float

    def apply(self, spots: AnnData) -> AnnData:
        """Return a copy of the spots with transformed positions and diameters; :func:`move_of` gives the move.

        Raises
        ------
        SpotsError
            If the spots were moved by a thin-plate registration, after which no affine move could be taken back.
        """
        if is_warped(spots):
            raise SpotsError(
                "These spots were moved by a thin-plate registration; take that back before you move them otherwise."
            )
        spots = with_positions(spots, "The table of spots")
        moved = spots.copy()
        _note_move(moved, self)
        moved.obsm["spatial"] = _mapped(np.asarray(spots.obsm["spatial"], dtype=np.float64), self.matrix)
        rescale(moved, math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2])))))
        return moved


@dataclass(frozen=True, eq=False)
class SpotFit:
    """How well spots fit a slide.

    Attributes
    ----------
    on_tissue, inside
        Shares of the spots on tissue, and within the slide.
    problem
        One-sentence description; empty if the spots fit.
    fixes
        Suggested fixes, the best first; empty if the spots fit.
    others
        All simple transforms with their effect, for manual selection: the share of spots on tissue cannot detect that a
        homogeneous section is mirrored.
    """

    on_tissue: float
    inside: float
    problem: str
    fixes: tuple[SpotFix, ...]
    others: tuple[SpotFix, ...] = ()


def move_of(spots: AnnData) -> SpotFix | None:
    """Return the combined transform applied to spots since they were read; ``None`` if they were not moved."""
    noted = dict(spots.uns.get("napari_cpnn", {})).get("moved")
    return None if noted is None else SpotFix(str(noted["name"]), np.asarray(noted["matrix"]), math.nan)


def move_back(spots: AnnData) -> SpotFix | None:
    """Return the transform that restores the positions read from the file; ``None`` if the spots were not moved."""
    move = move_of(spots)
    return None if move is None else SpotFix("the positions in the file", inverted(move.matrix), math.nan)


def is_warped(spots: AnnData) -> bool:
    """Return whether spots were moved by a thin-plate registration."""
    return WARPED in dict(spots.uns.get("napari_cpnn", {}))


def rescale(spots: AnnData, scale: float) -> None:
    """Change the scale factors of spots, in place, whose positions were enlarged by ``scale``."""
    for library in dict(spots.uns.get("spatial", {})).values():
        factors = library.get("scalefactors", {})
        if "spot_diameter_fullres" in factors:
            factors["spot_diameter_fullres"] = float(factors["spot_diameter_fullres"]) * scale
        for name in ("tissue_hires_scalef", "tissue_lowres_scalef", "microns_per_pixel"):
            if name in factors:
                factors[name] = float(factors[name]) / scale


def _note_move(spots: AnnData, fix: SpotFix) -> None:
    """Record the combined transform in the table of spots."""
    before = move_of(spots)
    name, matrix = fix.name, fix.matrix
    if before is not None:
        name = f"{before.name}, then {fix.name}"
        matrix = (np.vstack([fix.matrix, [0, 0, 1]]) @ np.vstack([before.matrix, [0, 0, 1]]))[:2]
    noted = {key: value for key, value in dict(spots.uns.get("napari_cpnn", {})).items() if key != "moved"}
    if not np.allclose(matrix, np.eye(2, 3), atol=_SAME_PLACE):
        noted["moved"] = {"name": name, "matrix": matrix}
    spots.uns["napari_cpnn"] = noted


def check_fit(slide: Slide, spots: AnnData, tissue: TissueMask | None = None) -> SpotFit:
    """Check whether the spots lie on the tissue of a slide; if not, suggest which simple error explains it.

    Parameters
    ----------
    slide
        Slide with a pixel size.
    spots
        Table with ``obsm["spatial"]``, level-0 pixels ``(x, y)``.
    tissue
        Tissue mask of the slide, if already computed.

    Raises
    ------
    SpotsError
        If the spots have no positions.
    PixelSizeError, NoTissueError, SlideError
        If the slide cannot be read or has no tissue or pixel size.

    Examples
    --------
    >>> from napari_cpnn.spots import check_fit
    >>> check_fit(slide, spots).problem
    ''
    """
    mpp = slide.require_mappable()
    if "spatial" not in spots.obsm or not spots.n_obs:
        raise SpotsError('No spots with positions in obsm["spatial"].')
    spots = with_positions(spots, "The table of spots")
    mask = tissue or tissue_of(slide)
    positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    positions = positions[np.isfinite(positions).all(axis=1)]
    positions = positions[:: math.ceil(len(positions) / _MOST_SPOTS) or 1]

    identity = np.eye(2, 3)
    height, width = slide.shape[:2]
    inside = float(((positions >= 0) & (positions < (width, height))).all(axis=1).mean()) if len(positions) else 0.0
    now = _on_tissue(positions, identity, mask, mpp)
    moves = tuple(
        SpotFix(name, matrix, _on_tissue(positions, matrix, mask, mpp))
        for name, matrix in _candidates(spots, slide, mpp)
    )
    least = max(_GOOD, now + _GAIN)
    fixes = sorted((fix for fix in moves if fix.on_tissue >= least), key=lambda fix: -fix.on_tissue)
    problem = ""
    if inside < 0.5:
        problem = f"{1 - inside:.0%} of the spots lie outside the slide {slide.name}"
    elif is_other_scale(spots, mpp):
        implied = _scale_of_pitch(spots, mpp) * math.sqrt(mpp[0] * mpp[1])
        problem = _other_scale_text(spots, implied, mpp[0], slide.name)
        fixes = fixes or [fix for fix in moves if fix.on_tissue >= _GOOD and _SCALED.search(fix.name)]
    elif fixes:
        problem = f"Only {now:.0%} of the spots lie on the tissue of {slide.name}"
    elif wider := _wider(positions, moves, mask, mpp):
        problem, fixes = f"The spots lie on a small part of the tissue of {slide.name}", [wider]
    elif now < _FEW and not _is_whole_array(spots):
        problem = f"Only {now:.0%} of the spots lie on the tissue of {slide.name}"
    if problem:
        question = "is the pixel size right?" if problem.startswith(_SCALES) else "is it the right slide?"
        problem += f"; {fixes[0].name} would put {fixes[0].on_tissue:.0%} on it." if fixes else f"; {question}"
    return SpotFit(now, inside, problem, tuple(fixes) if problem else (), moves)


def is_other_scale(spots: AnnData, mpp: tuple[float, float]) -> bool:
    """Return whether the pitch of the array, or what is stated of cells, is of another pixel size than the slide's."""
    allowed = _SAME_SCALE if is_of_cells(spots) else _OTHER_SCALE
    return abs(math.log(_scale_of_pitch(spots, mpp))) > math.log1p(allowed)


def _other_scale_text(spots: AnnData, implied: float, mpp: float, slide: str) -> str:
    if not is_of_cells(spots):
        return f"The pitch of the spots implies {implied:.3g} um per pixel, but {slide} has {mpp:.3g}"
    problem = f"The cells lie in pixels of {implied:.4g} um, but {slide} has {mpp:.4g}"
    if spots.uns["napari_cpnn"].get("alignment") == "":  # the instrument's own picture
        problem += (
            f" and no {XENIUM_ALIGNMENT} came with them: they are at their places on the instrument's own picture; "
            "open the file of their alignment by Move"
        )
    return problem


def tissue_of(slide: Slide) -> TissueMask:
    """Return the tissue mask of a slide, cached for the last few slides.

    Raises
    ------
    NoTissueError, SlideError, PixelSizeError
        As :func:`~napari_cpnn.slides.find_tissue`.
    """
    from napari_cpnn.slides import find_tissue

    key = slide.identity, slide.require_mappable()
    with _lock:
        mask = _masks.pop(key, None)
    mask = mask or find_tissue(slide)
    with _lock:
        _masks[key] = mask
        while len(_masks) > _KEPT:
            _masks.popitem(last=False)
    return mask


_masks: OrderedDict[tuple[str, tuple[float, float]], TissueMask] = OrderedDict()
_lock = threading.Lock()


def given_fix(slide: Slide, spots: AnnData, matrix: FloatArray, name: str) -> SpotFix:
    """Return a fix from a user-supplied transform, inverted if that puts clearly more spots on the tissue.

    Parameters
    ----------
    slide, spots
        As for :func:`check_fit`.
    matrix
        ``(2, 3)``, from spots to slide or from slide to spots, as :func:`~napari_cpnn.spots.affine.read_affine` gives.
    name
        Origin of the transform, as a description.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.spots import given_fix
    >>> fix = given_fix(slide, spots, np.array([[1.0, 0.0, 20.0], [0.0, 1.0, 0.0]]), "moved to the right")
    >>> moved = fix.apply(spots)
    """
    mpp, mask = slide.require_mappable(), tissue_of(slide)
    spots = with_positions(spots, "The table of spots")
    positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    there, back = (
        SpotFix(label, one, _on_tissue(positions, one, mask, mpp))
        for label, one in ((name, matrix), (f"{name}, inverted", inverted(matrix)))
    )
    return back if back.on_tissue >= there.on_tissue + _GAIN else there


def _on_tissue(positions: FloatArray, matrix: FloatArray, mask: TissueMask, mpp: tuple[float, float]) -> float:
    """Return the share of spots on tissue after a transform."""
    if not len(positions):
        return 0.0
    return float((mask.coverage_at(spatial_to_um(_mapped(positions, matrix), mpp), _SPOT_UM) >= _COVERED).mean())


def _scale_of_pitch(spots: AnnData, mpp: tuple[float, float]) -> float:
    """Return the factor by which positions must be scaled to match the array's pitch; 1 if the pitch is unknown."""
    implied = implied_mpp(spots)
    return 1.0 if implied is None else math.sqrt(implied[0] * implied[1] / (mpp[0] * mpp[1]))


def _wider(
    positions: FloatArray, moves: tuple[SpotFix, ...], mask: TissueMask, mpp: tuple[float, float]
) -> SpotFix | None:
    """Return a scaling that spreads spots from a small part of the tissue over most of it."""
    now = _spread(positions, mask, mpp)
    for fix in moves:
        # Scaling only: combining it with reflections or rotations would be too speculative.
        is_scale = fix.matrix[0, 0] == fix.matrix[1, 1] != 0 and not fix.matrix[:, 2].any() and not fix.matrix[0, 1]
        if is_scale and fix.on_tissue >= _GOOD:
            spread = _spread(_mapped(positions, fix.matrix), mask, mpp)
            if spread >= _SPREAD and now <= _LESS * spread:
                return fix
    return None


def _spread(positions: FloatArray, mask: TissueMask, mpp: tuple[float, float]) -> float:
    """Return the share of the tissue inside the bounding box of the spots."""
    if not len(positions):
        return 0.0
    low, high = np.quantile(spatial_to_um(positions, mpp), [0.01, 0.99], axis=0) / np.asarray(mask.um_per_px)
    top, left, bottom, right = np.clip(np.concatenate([low, high]), 0, mask.mask.shape * 2).astype(int).tolist()
    return float(mask.mask[top : bottom + 1, left : right + 1].sum()) / max(int(mask.mask.sum()), 1)


def _is_whole_array(spots: AnnData) -> bool:
    """Return whether the table holds nearly all spots of an array, including those beside the tissue."""
    array = array_coordinates(spots.obs)
    if array is None:
        return spots.n_obs in _WHOLE_VISIUM
    rows, columns = np.ptp(np.rint(array), axis=0) + 1
    is_hexagonal = (np.rint(array).sum(axis=1) % 2 == np.rint(array[0]).sum() % 2).all()
    return bool(spots.n_obs >= _WHOLE_ARRAY * rows * columns / (2 if is_hexagonal else 1))


_PITCH, _STATED = "(from the pitch of the array)", "(from the pixel size that came with the cells)"
_SCALED = re.compile("|".join(map(re.escape, (_PITCH, _STATED))))
_SCALES = ("The pitch", "The cells lie in pixels")


def _candidates(spots: AnnData, slide: Slide, mpp: tuple[float, float]) -> Iterator[tuple[str, FloatArray]]:
    """Yield corrections of simple errors: other scales, mirrored or swapped axes, and combinations of two."""
    height, width = slide.shape[:2]
    scales = [("", 1.0)]
    implied, ratio = implied_mpp(spots), _scale_of_pitch(spots, mpp)
    if implied is not None:
        scales.append((f"scaling positions by {ratio:.3g} {_STATED if is_of_cells(spots) else _PITCH}", ratio))
    for library in libraries_of_uns(spots.uns.get("spatial")).values():
        factors = library.get("scalefactors")
        for name in ("hires", "lowres"):
            factor = factors.get(f"tissue_{name}_scalef") if isinstance(factors, dict) else None
            if factor:
                scales.append((f"scaling positions from the {name} image", 1 / float(factor)))
    plain = [] if implied is not None else [("scaling positions from um", 1 / math.sqrt(mpp[0] * mpp[1]))]
    plain += (
        []
        if implied is not None
        else [
            (f"scaling positions from level {level} of the slide", math.sqrt(down[0] * down[1]))
            for level, down in enumerate(slide.downsamples)
        ]
    )
    turns: list[tuple[str, FloatArray]] = [
        ("", np.eye(2, 3)),
        ("mirroring left and right", np.array([[-1.0, 0, width], [0, 1, 0]])),
        ("mirroring top and bottom", np.array([[1.0, 0, 0], [0, -1, height]])),
        ("rotating by 180 degrees", np.array([[-1.0, 0, width], [0, -1, height]])),
        ("swapping x and y", np.array([[0.0, 1, 0], [1, 0, 0]])),
        ("rotating by 90 degrees to the right", np.array([[0.0, -1, width], [1, 0, 0]])),
        ("rotating by 90 degrees to the left", np.array([[0.0, 1, 0], [-1, 0, height]])),
    ]
    pairs = [*itertools.product(_different(scales), turns), *((scale, turns[0]) for scale in plain)]
    for (scale_name, scale), (turn_name, turn) in pairs:
        name = " and ".join(part for part in (scale_name, turn_name) if part)
        if name and not (scale_name and abs(scale - 1) <= _SAME_SCALE):
            yield name, np.column_stack([turn[:, :2] * scale, turn[:, 2]])


def _different(scales: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return scales without duplicate values, keeping the first name."""
    return [scale for i, scale in enumerate(scales) if all(abs(scale[1] / o[1] - 1) > _SAME_SCALE for o in scales[:i])]


def _mapped(positions: FloatArray, matrix: FloatArray) -> FloatArray:
    moved: FloatArray = positions @ matrix[:, :2].T + matrix[:, 2]
    return moved
