"""Whether spots and slide fit together, and what would make them fit.

Positions in pixels of another image (the small "hires" picture, another pyramid level), mirrored or with swapped axes
are common. Each such mistake is an affine map that can be undone; the right one puts the spots on the tissue.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import FloatArray, spatial_to_um
from napari_cpnn.spots.affine import inverted
from napari_cpnn.spots.quality import estimate_mpp

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide, TissueMask

#: Spots of a section lie on tissue, but for a rim and for holes. A fix is worth offering when it puts this share of
#: them there, and so many more than lie there now.
_GOOD, _GAIN = 0.8, 0.1

#: Diameter around a spot that is looked at, in um, and the share of it that must be tissue.
_SPOT_UM, _COVERED = 100.0, 0.3

#: Pitch and slide agree when the scales differ by less.
_SAME_SCALE = 0.1

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
    from napari_cpnn.slides import find_tissue

    mpp = slide.require_mappable()
    if "spatial" not in spots.obsm or not spots.n_obs:
        raise SpotsError('There are no spots with positions in obsm["spatial"].')
    mask = tissue or find_tissue(slide)
    positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    positions = positions[np.isfinite(positions).all(axis=1)]

    identity = np.eye(2, 3)
    height, width = slide.shape[:2]
    inside = float(((positions >= 0) & (positions < (width, height))).all(axis=1).mean()) if len(positions) else 0.0
    now = _on_tissue(positions, identity, mask, mpp)
    moves = tuple(
        SpotFix(name, matrix, _on_tissue(positions, matrix, mask, mpp))
        for name, matrix in _candidates(spots, mpp, (width, height))
    )
    least = max(_GOOD, now + _GAIN)
    fixes = sorted((fix for fix in moves if fix.on_tissue >= least), key=lambda fix: -fix.on_tissue)
    problem = ""
    if inside < 0.5:
        problem = f"{1 - inside:.0%} of the spots lie outside the slide {slide.name}"
    elif fixes:
        problem = f"Only {now:.0%} of the spots lie on the tissue of {slide.name}"
    if problem:
        problem += f"; {fixes[0].name} would put {fixes[0].on_tissue:.0%} on it." if fixes else "; is it their slide?"
    return SpotFit(now, inside, problem, tuple(fixes) if problem else (), moves)


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
    from napari_cpnn.slides import find_tissue

    mpp, mask = slide.require_mappable(), find_tissue(slide)
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


def _candidates(spots: AnnData, mpp: tuple[float, float], size: tuple[int, int]) -> Iterator[tuple[str, FloatArray]]:
    """Simple mistakes and their undoing: other scales, mirrored, swapped axes, and one of each."""
    width, height = size
    scales: list[tuple[str, float]] = [("", 1.0)]
    implied = estimate_mpp(spots)
    if implied is not None:
        ratio = math.sqrt(implied[0] * implied[1] / (mpp[0] * mpp[1]))
        if abs(ratio - 1) > _SAME_SCALE:
            scales.append((f"scaling positions by {ratio:.3g} (from the pitch of the array)", ratio))
    for library in dict(spots.uns.get("spatial", {})).values():
        for name in ("hires", "lowres"):
            factor = dict(library.get("scalefactors", {})).get(f"tissue_{name}_scalef")
            if factor and abs(float(factor) - 1) > _SAME_SCALE:
                scales.append((f"scaling positions from the {name} image", 1 / float(factor)))
    turns: list[tuple[str, FloatArray]] = [
        ("", np.eye(2, 3)),
        ("mirroring left and right", np.array([[-1.0, 0, width], [0, 1, 0]])),
        ("mirroring top and bottom", np.array([[1.0, 0, 0], [0, -1, height]])),
        ("turning by 180 degrees", np.array([[-1.0, 0, width], [0, -1, height]])),
        ("swapping x and y", np.array([[0.0, 1, 0], [1, 0, 0]])),
        ("turning by 90 degrees to the right", np.array([[0.0, -1, width], [1, 0, 0]])),
        ("turning by 90 degrees to the left", np.array([[0.0, 1, 0], [-1, 0, height]])),
    ]
    for (scale_name, scale), (turn_name, turn) in itertools.product(scales, turns):
        name = " and ".join(part for part in (scale_name, turn_name) if part)
        if name:
            yield name, np.column_stack([turn[:, :2] * scale, turn[:, 2]])


def _mapped(positions: FloatArray, matrix: FloatArray) -> FloatArray:
    moved: FloatArray = positions @ matrix[:, :2].T + matrix[:, 2]
    return moved
