"""Whether spots and slide fit together, and what would make them fit.

Positions in pixels of another image (the small "hires" picture, another pyramid level), mirrored or with swapped axes
are common. Each such mistake is an affine map that can be undone; the right one puts the spots on the tissue.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.spots.affine import inverted
from napari_cpnn.spots.libraries import libraries_of_uns
from napari_cpnn.spots.positions import with_positions
from napari_cpnn.spots.quality import array_coordinates, implied_mpp

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide, TissueMask

#: Spots of a section lie on tissue, but for a rim and for holes. A fix is worth offering when it puts this share of
#: them there, and so many more than lie there now.
_GOOD, _GAIN = 0.8, 0.1

#: Diameter around a spot that is looked at, in um, and the share of it that must be tissue.
_SPOT_UM, _COVERED = 100.0, 0.3

#: Pitch and slide agree when the scales differ by less; when they differ by more than the second, that alone is said.
_SAME_SCALE, _OTHER_SCALE = 0.1, 0.5
#: Where no pitch tells the scale: spots that are spread over this share of the tissue as they should be, and so much
#: less as they are, are in another scale.
_SPREAD, _LESS = 0.6, 0.5
#: With fewer spots than this on tissue, something is wrong even if nothing is known that would help.
_FEW = 0.5
#: An array of which so many spots are in the table is there whole, spots beside the tissue and all.
_WHOLE_ARRAY = 0.9
_WHOLE_VISIUM = (4992, 14_336)
#: Shares are of a sample of the spots when there are more.
_MOST_SPOTS = 50_000
#: Masks of slides that were looked at last.
_KEPT = 4

#: A map that changes less than this has been taken back: a millionth of a pixel, where slides have 1e5 of them.
_SAME_PLACE = 1e-6


@dataclass(frozen=True, eq=False)
class SpotFix:
    """An affine map of positions that may make spots fit a slide.

    Attributes
    ----------
    name
        What it does, in words; empty for the positions as they are.
    matrix
        ``(2, 3)``: new ``(x, y) = matrix @ (x, y, 1)``, level-0 pixels.
    on_tissue
        Share of the spots that then lie on tissue.
    """

    name: str
    matrix: FloatArray
    on_tissue: float

    def apply(self, spots: AnnData) -> AnnData:
        """A copy of the spots at their new positions; diameters scale along, and :func:`move_of` tells the move."""
        spots = with_positions(spots, "The table of spots")
        moved = spots.copy()
        _note_move(moved, self)
        moved.obsm["spatial"] = _mapped(np.asarray(spots.obsm["spatial"], dtype=np.float64), self.matrix)
        scale = math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))
        for library in dict(moved.uns.get("spatial", {})).values():
            factors = library.get("scalefactors", {})
            if "spot_diameter_fullres" in factors:
                factors["spot_diameter_fullres"] = float(factors["spot_diameter_fullres"]) * scale
            for name in ("tissue_hires_scalef", "tissue_lowres_scalef", "microns_per_pixel"):
                if name in factors:
                    factors[name] = float(factors[name]) / scale
        return moved


@dataclass(frozen=True, eq=False)
class SpotFit:
    """How spots lie on a slide.

    Attributes
    ----------
    on_tissue, inside
        Shares of the spots that lie on tissue, and on the slide at all.
    problem
        One sentence; empty when they fit.
    fixes
        What would help, the best first; empty when they fit.
    others
        Every simple move and what it would do, for eyes that see better than the share of spots on tissue does: a
        mirrored section of even tissue looks as good by that number.
    """

    on_tissue: float
    inside: float
    problem: str
    fixes: tuple[SpotFix, ...]
    others: tuple[SpotFix, ...] = ()


def move_of(spots: AnnData) -> SpotFix | None:
    """How spots were moved by fixes since they were read, all in one; ``None``: they are where their file says."""
    noted = dict(spots.uns.get("napari_cpnn", {})).get("moved")
    return None if noted is None else SpotFix(str(noted["name"]), np.asarray(noted["matrix"]), math.nan)


def move_back(spots: AnnData) -> SpotFix | None:
    """What puts moved spots back to where their file says."""
    move = move_of(spots)
    return None if move is None else SpotFix("the positions in the file", inverted(move.matrix), math.nan)


def _note_move(spots: AnnData, fix: SpotFix) -> None:
    """Keep in a table of spots how it was moved in all."""
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
    """Look whether the spots lie on the tissue of the slide, and if not, which simple mistake explains it.

    Parameters
    ----------
    slide
        With a pixel size.
    spots
        With ``obsm["spatial"]``, level-0 pixels ``(x, y)``.
    tissue
        The slide's tissue, when it is known.

    Raises
    ------
    SpotsError
        The spots have no positions.
    PixelSizeError, NoTissueError, SlideError
        The slide cannot be measured.
    """
    mpp = slide.require_mappable()
    if "spatial" not in spots.obsm or not spots.n_obs:
        raise SpotsError('There are no spots with positions in obsm["spatial"].')
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
        problem = f"The pitch of the spots implies {implied:.3g} um per pixel, and {slide.name} has {mpp[0]:.3g}"
        fixes = fixes or [fix for fix in moves if fix.on_tissue >= _GOOD and _PITCH in fix.name]
    elif fixes:
        problem = f"Only {now:.0%} of the spots lie on the tissue of {slide.name}"
    elif wider := _wider(positions, moves, mask, mpp):
        problem, fixes = f"The spots lie on a small part of the tissue of {slide.name}", [wider]
    elif now < _FEW and not _is_whole_array(spots):
        problem = f"Only {now:.0%} of the spots lie on the tissue of {slide.name}"
    if problem:
        question = "is that its pixel size?" if problem.startswith("The pitch") else "is it their slide?"
        problem += f"; {fixes[0].name} would put {fixes[0].on_tissue:.0%} on it." if fixes else f"; {question}"
    return SpotFit(now, inside, problem, tuple(fixes) if problem else (), moves)


def is_other_scale(spots: AnnData, mpp: tuple[float, float]) -> bool:
    """Whether the pitch of an array shows that positions are in pixels of another size than those of the slide."""
    return abs(math.log(_scale_of_pitch(spots, mpp))) > math.log1p(_OTHER_SCALE)


def tissue_of(slide: Slide) -> TissueMask:
    """The tissue of a slide; those of the last few slides are kept.

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
    """A fix from an affine map that the user gives; turned back when that puts clearly more spots on the tissue.

    Parameters
    ----------
    slide, spots
        As for :func:`check_fit`.
    matrix
        ``(2, 3)``, from spots to slide or from slide to spots, as :func:`~napari_cpnn.spots.affine.read_affine` gives.
    name
        Where it comes from, in words.
    """
    mpp, mask = slide.require_mappable(), tissue_of(slide)
    spots = with_positions(spots, "The table of spots")
    positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    there, back = (
        SpotFix(label, one, _on_tissue(positions, one, mask, mpp))
        for label, one in ((name, matrix), (f"{name}, turned back", inverted(matrix)))
    )
    return back if back.on_tissue >= there.on_tissue + _GAIN else there


def _on_tissue(positions: FloatArray, matrix: FloatArray, mask: TissueMask, mpp: tuple[float, float]) -> float:
    """Share of spots on tissue when they are moved."""
    if not len(positions):
        return 0.0
    return float((mask.coverage_at(spatial_to_um(_mapped(positions, matrix), mpp), _SPOT_UM) >= _COVERED).mean())


def _scale_of_pitch(spots: AnnData, mpp: tuple[float, float]) -> float:
    """By what positions would have to be scaled for the pitch of their array to be true; 1 when it is not known."""
    implied = implied_mpp(spots)
    return 1.0 if implied is None else math.sqrt(implied[0] * implied[1] / (mpp[0] * mpp[1]))


def _wider(
    positions: FloatArray, moves: tuple[SpotFix, ...], mask: TissueMask, mpp: tuple[float, float]
) -> SpotFix | None:
    """A scale that spreads spots over most of the tissue, which they lie on a small part of."""
    now = _spread(positions, mask, mpp)
    for fix in moves:
        # Scaled and nothing else: what mirrors or turns them as well is a guess upon a guess.
        is_scale = fix.matrix[0, 0] == fix.matrix[1, 1] != 0 and not fix.matrix[:, 2].any() and not fix.matrix[0, 1]
        if is_scale and fix.on_tissue >= _GOOD:
            spread = _spread(_mapped(positions, fix.matrix), mask, mpp)
            if spread >= _SPREAD and now <= _LESS * spread:
                return fix
    return None


def _spread(positions: FloatArray, mask: TissueMask, mpp: tuple[float, float]) -> float:
    """Share of the tissue that lies within the rectangle around the spots."""
    if not len(positions):
        return 0.0
    low, high = np.quantile(spatial_to_um(positions, mpp), [0.01, 0.99], axis=0) / np.asarray(mask.um_per_px)
    top, left, bottom, right = np.clip(np.concatenate([low, high]), 0, mask.mask.shape * 2).astype(int).tolist()
    return float(mask.mask[top : bottom + 1, left : right + 1].sum()) / max(int(mask.mask.sum()), 1)


def _is_whole_array(spots: AnnData) -> bool:
    """Whether nearly all spots of an array are in a table, which then has those beside the tissue, too."""
    array = array_coordinates(spots.obs)
    if array is None:
        return spots.n_obs in _WHOLE_VISIUM
    rows, columns = np.ptp(np.rint(array), axis=0) + 1
    is_hexagonal = (np.rint(array).sum(axis=1) % 2 == np.rint(array[0]).sum() % 2).all()
    return bool(spots.n_obs >= _WHOLE_ARRAY * rows * columns / (2 if is_hexagonal else 1))


_PITCH = "(from the pitch of the array)"


def _candidates(spots: AnnData, slide: Slide, mpp: tuple[float, float]) -> Iterator[tuple[str, FloatArray]]:
    """Simple mistakes and their undoing: other scales, mirrored, swapped axes, and one of each."""
    height, width = slide.shape[:2]
    scales = [("", 1.0)]
    implied, ratio = implied_mpp(spots), _scale_of_pitch(spots, mpp)
    if implied is not None:
        scales.append((f"scaling positions by {ratio:.3g} {_PITCH}", ratio))
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
        ("turning by 180 degrees", np.array([[-1.0, 0, width], [0, -1, height]])),
        ("swapping x and y", np.array([[0.0, 1, 0], [1, 0, 0]])),
        ("turning by 90 degrees to the right", np.array([[0.0, -1, width], [1, 0, 0]])),
        ("turning by 90 degrees to the left", np.array([[0.0, 1, 0], [-1, 0, height]])),
    ]
    pairs = [*itertools.product(_different(scales), turns), *((scale, turns[0]) for scale in plain)]
    for (scale_name, scale), (turn_name, turn) in pairs:
        name = " and ".join(part for part in (scale_name, turn_name) if part)
        if name and not (scale_name and abs(scale - 1) <= _SAME_SCALE):
            yield name, np.column_stack([turn[:, :2] * scale, turn[:, 2]])


def _different(scales: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Those that are not another's with another name; the first counts."""
    return [scale for i, scale in enumerate(scales) if all(abs(scale[1] / o[1] - 1) > _SAME_SCALE for o in scales[:i])]


def _mapped(positions: FloatArray, matrix: FloatArray) -> FloatArray:
    moved: FloatArray = positions @ matrix[:, :2].T + matrix[:, 2]
    return moved
